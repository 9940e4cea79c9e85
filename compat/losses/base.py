"""What a compatibility loss is, how it is found by name, and how several are summed.

A loss is called as ``loss(query, target, batch)``: ``query`` holds the query model's embeddings
(B, d) and ``target`` the gallery's embeddings of the same images (B, d), both L2-normalised
float32. Whatever else it needs it names in ``requires`` and finds in ``batch`` or takes once
from the alignment targets in ``prepare``.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast, get_args

import torch
from torch import Tensor, nn

from compat.errors import CompatError
from compat.losses.options import is_number
from compat.targets import AlignmentTargets, Batch, Requirement
from searchspaces.support.naming import suggestion
from searchspaces.support.seeding import seeded

_REMEDIES: dict[str, str] = {
    "gallery_embeddings": "build or import a gallery that holds the training images",
    "anchors": "build or import a gallery that holds the training images",
    "neighbours": "build or import a gallery that holds the training images",
    "labels": "give all training images labels (a folder per class, or a column `label`), and none "
    "as `unlabelled`",
    "prototypes": "give all training images labels, from which prototypes are averaged, and none "
    "as `unlabelled`",
}


class CompatibilityLoss(nn.Module):
    """Base of all compatibility losses; subclass it, or decorate a plain function.

    Losses are small sums of close numbers: calling one first checks that ``query`` and ``target``
    are (B, d) of one shape with B > 0 and finite values, then runs ``forward`` with both in
    float32 (float64 where ``query`` has that) and autocast off. Parameters that a loss holds are
    trained along with the query model.
    """

    requires: ClassVar[frozenset[Requirement]] = frozenset()

    def __call__(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        _check_embeddings(query, target)
        precision = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            loss: Tensor = super().__call__(query.to(precision), target.to(precision), batch)
        return loss

    def prepare(self, targets: AlignmentTargets) -> None:
        """Take from ``targets`` what the loss needs for the whole training; called once.

        Parameters and buffers are made here, on the device of ``targets``.
        """

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Return the scalar loss of one batch."""
        raise TypeError(f"{type(self).__name__} defines no forward(query, target, batch)")


@dataclass(frozen=True)
class _Entry:
    factory: Callable[..., CompatibilityLoss]
    requires: frozenset[Requirement]
    centred: bool


_LOSSES: dict[str, _Entry] = {}


def register_loss(
    name: str, *, requires: tuple[Requirement, ...] = (), centred: bool = False
) -> Callable[[Any], Any]:
    """Register a loss under the name that study files use.

    Args:
        name: The name in YAML, e.g. ``loss: {mine: 1.0}``.
        requires: What the loss needs beyond ``query`` and ``target``; checked before training.
        centred: Whether studies that do not say otherwise show it vectors from the mean of the
            gallery's, which helps losses that bring vectors together one by one.

    Returns:
        A decorator for a :class:`CompatibilityLoss` subclass, or for a function
        ``(query, target, batch, **options) -> Tensor``.
    """
    unknown = set(requires) - set(get_args(Requirement))
    if unknown:
        raise CompatError(
            f"Loss '{name}' requires {sorted(unknown)}, but only {list(get_args(Requirement))} "
            "can be provided."
        )

    def decorate(loss: Any) -> Any:
        if isinstance(loss, type) and issubclass(loss, CompatibilityLoss):
            loss.requires = frozenset(requires)
            _LOSSES[name] = _Entry(loss, frozenset(requires), centred)
        else:
            _LOSSES[name] = _Entry(
                lambda **kw: _FunctionLoss(loss, kw), frozenset(requires), centred
            )
        return loss

    return decorate


class _FunctionLoss(CompatibilityLoss):
    def __init__(self, function: Callable[..., Tensor], options: dict[str, Any]) -> None:
        super().__init__()
        inspect.signature(function).bind(None, None, None, **options)
        self._function = function
        self._options = options

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        return self._function(query, target, batch, **self._options)


@dataclass(frozen=True)
class LossTerm:
    """One named loss with its weight and options, as a study file states it."""

    name: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


class WeightedSum(CompatibilityLoss):
    """The weighted sum of several losses."""

    def __init__(self, terms: list[tuple[float, CompatibilityLoss]]) -> None:
        super().__init__()
        self.weights = [weight for weight, _ in terms]
        self.losses = nn.ModuleList(loss for _, loss in terms)

    def prepare(self, targets: AlignmentTargets) -> None:
        for loss in self._terms():
            loss.prepare(targets)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        total = query.new_zeros(())
        for weight, loss in zip(self.weights, self._terms(), strict=True):
            total = total + weight * loss(query, target, batch)
        return total

    def _terms(self) -> list[CompatibilityLoss]:
        return [cast(CompatibilityLoss, loss) for loss in self.losses]


class Centred(CompatibilityLoss):
    """A loss of vectors that it sees from the mean of the gallery's, `AlignmentTargets.centred`."""

    def __init__(self, loss: CompatibilityLoss) -> None:
        super().__init__()
        self.loss = loss

    def prepare(self, targets: AlignmentTargets) -> None:
        self.loss.prepare(targets.centred)

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        seen = batch.centred.targets.seen_from_centre
        found: Tensor = self.loss(seen(query), seen(target), batch.centred)
        return found


def list_losses() -> list[str]:
    """Return the names of all registered losses."""
    return sorted(_LOSSES)


def parse_loss(config: str | Mapping[str, Any]) -> tuple[LossTerm, ...]:
    """Read ``"ssp"``, ``{"ssp": 1.0, "regression": 0.5}`` or ``{"ssp": {"weight": 1, ...}}``.

    Raises:
        CompatError: A name is not registered, or a weight is not a number.
    """
    named = {config: 1.0} if isinstance(config, str) else config
    if not named:
        raise CompatError("The field 'loss' names no loss; name at least one, e.g. {ssp: 1.0}.")
    terms = []
    for name, value in named.items():
        if name not in _LOSSES:
            raise CompatError(
                f"Unknown loss '{name}' in the field 'loss': {suggestion(name, _LOSSES)}"
            )
        options = dict(value) if isinstance(value, Mapping) else {"weight": value}
        weight = options.pop("weight", 1.0)
        if not is_number(weight):
            raise CompatError(f"The weight of loss '{name}' is {weight!r}; give a number.")
        terms.append(LossTerm(name, float(weight), options))
    return tuple(terms)


def required_by(config: str | Mapping[str, Any]) -> frozenset[Requirement]:
    """Return what the losses that a study file names need of the targets.

    Raises:
        CompatError: A loss is unknown.
    """
    return frozenset().union(*(_LOSSES[term.name].requires for term in parse_loss(config)))


def create_loss(
    config: str | Mapping[str, Any],
    targets: AlignmentTargets | None = None,
    *,
    centred: bool | None = False,
    seed: int = 0,
) -> CompatibilityLoss:
    """Create the loss that a study file names, checked against and prepared from ``targets``.

    Args:
        config: As :func:`parse_loss` reads it.
        targets: What the loss trains towards; ``None`` leaves the loss unprepared.
        centred: Whether losses see all vectors from the mean of the gallery's; None for those that
            are registered so.
        seed: Seed of the parameters that a loss may hold; torch's own random state is left alone.

    Raises:
        CompatError: An unknown name or option, or ``targets`` lack what a loss requires.
    """
    terms = []
    for term in parse_loss(config):
        entry = _LOSSES[term.name]
        missing = entry.requires - targets.provides if targets is not None else frozenset()
        if missing:
            lack = sorted(missing)[0]
            raise CompatError(
                f"Loss '{term.name}' requires {lack}, which the training images do not have; "
                f"{_REMEDIES[lack]}."
            )
        try:
            with seeded(seed):
                loss = entry.factory(**term.options)
        except TypeError as error:
            raise CompatError(
                f"Loss '{term.name}' does not take the options {dict(term.options)}: {error}."
            ) from error
        sees_centred = entry.centred if centred is None else centred
        terms.append((term.weight, Centred(loss) if sees_centred else loss))
    loss = terms[0][1] if len(terms) == 1 and terms[0][0] == 1.0 else WeightedSum(terms)
    if targets is not None:
        with seeded(seed, targets.vectors.device):
            loss.prepare(targets)
    return loss


def _check_embeddings(query: Tensor, target: Tensor) -> None:
    if query.ndim != 2 or query.shape != target.shape:
        raise CompatError(
            f"The query embeddings have shape {tuple(query.shape)} and the gallery embeddings "
            f"{tuple(target.shape)}; both must be (batch, dimension) of the same sizes."
        )
    if not len(query):
        raise CompatError("The batch is empty; a loss needs one image or more.")
    for side, vectors in (("query", query), ("gallery", target)):
        broken = int((~torch.isfinite(vectors)).any(dim=1).sum())
        if broken:
            raise CompatError(
                f"{broken} of {len(vectors)} {side} embeddings of the batch hold NaN or infinity; "
                + (
                    "lower the learning rate, or train in float32."
                    if side == "query"
                    else "check the gallery with `querynas gallery info --verify`."
                )
            )


def log_softmax_kl(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) over the last axis, mean over all others."""
    teacher = torch.log_softmax(teacher_logits, dim=-1)
    student = torch.log_softmax(student_logits, dim=-1)
    return (teacher.exp() * (teacher - student)).sum(-1).mean()

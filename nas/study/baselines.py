"""Pretrained backbones as they are, with a fitted projection: what trained candidates must beat."""

import logging
from collections.abc import Iterator, Sequence

from optuna.distributions import CategoricalDistribution

from compat.adaptation import MapName
from nas.alignment.mapping import encode, encoder_of
from nas.candidates.proposal import Proposal, proposal_parameters
from nas.candidates.routes import Candidate
from nas.config.budget import format_macs
from nas.study.front import ADAPTED, Record
from nas.study.run import Run
from nas.study.scoring import add_trial
from searchspaces.support.errors import QuerynasError

logger = logging.getLogger("querynas")

_MAPS: tuple[MapName, ...] = ("ridge", "procrustes")  # those that are a plain projection
_MOST = 16  # backbones and resolutions of one route


def adapt_backbones(run: Run) -> None:
    """Score the pretrained backbones of all routes, uncut and without training, as trials.

    Each of the resolutions within the budget counts; the projection is fitted in closed form, and
    of ridge and Procrustes the better one on the validation part stays. It is fitted to what
    alignments see, `unlabelled` images among it. The trials have the fidelity "adapted" and
    weights of their own. A study of random projections has none.
    """
    if run.config.projection != "fitted":
        return
    known = {(r.route, r.architecture) for r in run.records() if r.adapted}
    for proposal in _backbones(run):
        if (proposal.route.name, proposal.architecture) not in known:
            try:
                record = _adapted(run, proposal)
            except QuerynasError as error:
                logger.warning("A backbone is not scored without training: %s", error)
                continue
            logger.info(
                "Trial %d, %s at %d px without training: %s MACs, mAP %.3f on the validation %s.",
                record.trial,
                record.route,
                record.resolution,
                format_macs(record.macs),
                record.accuracy,
                run.data.unseen,
            )


def better_without_training(record: Record, records: Sequence[Record]) -> Record | None:
    """Return the best adapted backbone above a candidate that has no more MACs; None without."""
    above = [
        each
        for each in records
        if each.adapted and each.macs <= record.macs and each.accuracy > record.accuracy
    ]
    return max(above, key=lambda each: each.accuracy, default=None)


def _backbones(run: Run) -> Iterator[Proposal]:
    for name, route in run.routes.items():
        found = route.backbones()
        if len(found) > _MOST:
            logger.info(
                "The space '%s' has %d pretrained backbones and resolutions, too many to score "
                "them all without training first.",
                name,
                len(found),
            )
            continue
        for architecture in found:
            proposal = run.proposal(name, architecture)
            if proposal.within(run.config.budget):
                yield proposal


def _adapted(run: Run, proposal: Proposal) -> Record:
    """Fit, score and keep one backbone."""
    route, seed = proposal.route, run.config.seed
    model = route.backbone(proposal.architecture).to(run.aligner.device).eval()
    encoded = encode(encoder_of(model), model.resolution, run.data, run.further, seed=seed)
    best = max(encoded.fit(_MAPS, seed=seed), key=lambda each: each.found.map)
    model = model.with_projection(best.projection.to(model.mean.device)).eval()
    params = proposal_parameters(proposal, several=len(run.routes) > 1)
    axes = {f"{route.name}.{k}": axis for k, axis in route.space.distributions().items()}
    axes["route"] = CategoricalDistribution(list(run.routes))
    return add_trial(
        run,
        proposal,
        Candidate(model, ADAPTED, owns_weights=True),
        params=params,
        distributions={name: axes[name] for name in params},
        constraints=proposal.excess(run.config.budget),
    )

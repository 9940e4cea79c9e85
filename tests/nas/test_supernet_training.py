"""Supernet training: the sandwich rule as it was, what is added to it, and that it resumes."""

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from compat.errors import CompatError
from compat.images import resize
from compat.losses import create_loss
from compat.targets import Batch
from compat.training import align
from nas.alignment.aligner import Aligner
from nas.alignment.subnetworks import SubnetworkDraws
from nas.alignment.supernet import sandwich_losses, train_supernet
from nas.candidates.routes import create_route
from nas.config.study import StudyConfig, SupernetConfig, SupernetTraining
from nas.study.run import Run
from searchspaces import Architecture, Supernet, create_space

SHORT: dict[str, Any] = {"epochs": 2, "batch": 32, "validate_every": 1}


@pytest.fixture(scope="module")
def aligner(tiny_config: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Aligner:
    """The alignment set-up of the tiny study, without its validation by retrieval."""

    class Quick(Aligner):
        def cross_test(self, model: nn.Module) -> float:
            return float(next(model.parameters()).detach().square().sum())

    run = Run.create(tmp_path_factory.mktemp("runs") / "tiny", tiny_config)
    return Quick(**{f.name: getattr(run.aligner, f.name) for f in dataclasses.fields(Aligner)})


@pytest.fixture
def supernet(tiny_study: dict[str, Any], aligner: Aligner) -> Supernet:
    torch.manual_seed(0)
    space: Any = create_space("mbconv", **tiny_study["spaces"]["slices"]["options"])
    return space.supernet(aligner.data.targets.dimension)


def trained(aligner: Aligner, supernet: Supernet, **options: Any) -> dict[str, Tensor]:
    config = SupernetTraining(**SHORT, **options.pop("training", {}))
    train_supernet(aligner, supernet, config, random_subnetworks=2, calibration=32, **options)
    return supernet.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def a_batch(aligner: Aligner, size: int = 16) -> tuple[Tensor, Batch]:
    return next(aligner.data.epoch(size, seed=0, device=aligner.device))


def losses_of(
    aligner: Aligner, supernet: Supernet, *, distill: float, sampling: Any = "uniform", loss: Any
) -> Any:
    draws = SubnetworkDraws(supernet.space, supernet.dimension, 0, sampling=sampling)
    return sandwich_losses(supernet, loss, draws, random_subnetworks=2, distill=distill, steps=10)


def test_without_options_it_is_the_plain_sandwich_rule(
    aligner: Aligner, supernet: Supernet
) -> None:
    """Weights equal, bit for bit, those of the rule written out."""
    start = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    weights = {k: v.clone() for k, v in trained(aligner, supernet).items()}
    supernet.load_state_dict(start)
    loss = create_loss(aligner.loss, aligner.data.targets, seed=aligner.seed)
    space = supernet.space
    ends = [space.largest(), space.smallest()]

    def losses(images: Tensor, batch: Batch, step: int) -> Iterator[Tensor]:
        rng = random.Random(f"{aligner.seed} {step}")
        for architecture in [*ends, space.sample(rng), space.sample(rng)]:
            supernet.activate(architecture)
            query = supernet(resize(images, int(architecture.params["resolution"])))
            yield loss(query, batch.vectors, batch) / 4

    def validate(module: nn.Module) -> float:
        assert isinstance(module, Supernet)
        return sum(aligner.cross_test(aligner.slice(module, end, 32)) for end in ends) / 2

    align(
        supernet,
        losses,
        aligner.data,
        SupernetTraining(**SHORT),
        loss=loss,
        seed=aligner.seed,
        device=aligner.device,
        validate=validate,
        title="test",
        quiet=True,
    )
    assert same(weights, supernet.state_dict())


@pytest.mark.parametrize("distill", [0.0, 0.3, 1.0])
def test_the_loss_is_shared_out_between_gallery_and_largest(
    aligner: Aligner, supernet: Supernet, distill: float
) -> None:
    images, batch = a_batch(aligner)
    target = batch.vectors
    loss = create_loss({"raml": 1.0}, aligner.data.targets)
    supernet.train()
    step = losses_of(aligner, supernet, distill=distill, loss=loss)(images, batch, 0)
    found, expected, teacher = [], [], None
    for value in step:
        query = supernet(resize(images, int(supernet.architecture.params["resolution"]))).detach()
        own = loss(query, target, batch)
        if teacher is None:
            teacher = query
            expected.append(own.item() / 4)
        else:
            away = sum(1 - float(q @ t) for q, t in zip(query, teacher, strict=True)) / len(query)
            expected.append(((1 - distill) * own.item() + distill * away) / 4)
        found.append(value.item())
    assert len(found) == 4
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_distillation_teaches_the_student_alone(aligner: Aligner, supernet: Supernet) -> None:
    """With the largest as the only target, its own weights outside the student stay put."""
    images, batch = a_batch(aligner)
    loss = create_loss(aligner.loss, aligner.data.targets)
    supernet.train()
    step = losses_of(aligner, supernet, distill=1.0, loss=loss)(images, batch, 0)
    next(step).backward()
    weight = supernet.projection.linear.weight
    assert weight.grad is not None
    assert weight.grad.abs().sum(0).gt(0).all()
    supernet.zero_grad()
    value = next(step)
    assert supernet.architecture == supernet.space.smallest()
    value.backward()
    width = int(supernet.architecture.params["head_width"])
    assert width < weight.shape[1]
    assert weight.grad is not None
    assert weight.grad[:, :width].abs().sum(0).gt(0).all()
    assert weight.grad[:, width:].eq(0).all()
    untouched = [p.grad is None for p in supernet.backbone.stages[0][1].parameters()]
    assert all(untouched)  # the second block of a stage that has one block in the student


def test_attentive_draws_train_the_one_with_the_lowest_loss(
    aligner: Aligner, supernet: Supernet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at the losses moves neither weights nor what a loss counts."""
    images, batch = a_batch(aligner)
    loss = create_loss("aml", aligner.data.targets)
    supernet.train()
    groups: list[dict[Architecture, float]] = []
    original = SubnetworkDraws._of_some_macs

    def noted(self: SubnetworkDraws, *args: Any) -> list[Architecture]:
        found = original(self, *args)
        few = batch.targets.batch(batch.rows[:4])
        target = few.vectors
        values = {}
        loss.eval()
        for each in found:
            supernet.activate(each)
            query = supernet(resize(images[:4], int(each.params["resolution"])))
            values[each] = loss(query, target, few).item()
        loss.train()
        groups.append(values)
        return found

    monkeypatch.setattr(SubnetworkDraws, "_of_some_macs", noted)
    step = losses_of(aligner, supernet, distill=0.0, sampling="attentive", loss=loss)
    trained = []
    for value in step(images, batch, 0):
        value.backward()
        trained.append(supernet.architecture)
    assert trained[2:] == [min(group, key=lambda each: group[each]) for group in groups]
    assert int(loss.step) == 4  # one for each that was trained


@pytest.mark.parametrize("sampling", ["fair", "attentive"])
def test_a_killed_training_ends_like_an_unbroken_one(
    aligner: Aligner, supernet: Supernet, tmp_path: Path, sampling: str
) -> None:
    options = {"sampling": sampling, "distill": 0.5, "progressive": 0.6}
    start = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    weights = {k: v.clone() for k, v in trained(aligner, supernet, training=options).items()}

    class Killed(type(aligner)):  # type: ignore[misc]
        calls = 0

        def cross_test(self, model: nn.Module) -> float:
            Killed.calls += 1
            if Killed.calls == 3:  # the second epoch's validation
                raise KeyboardInterrupt
            return super().cross_test(model)

    fields = {f.name: getattr(aligner, f.name) for f in dataclasses.fields(Aligner)}
    checkpoint = tmp_path / "checkpoint"
    supernet.load_state_dict(start)
    with pytest.raises(KeyboardInterrupt):
        trained(Killed(**fields), supernet, training=options, checkpoint=checkpoint)
    supernet.load_state_dict(start)
    continued = trained(aligner, supernet, training=options, checkpoint=checkpoint)
    assert same(weights, continued)
    for changed in ({"sampling": "macs"}, {"distill": 0.4}, {"progressive": 0.5}):
        with pytest.raises(CompatError, match=f"was begun with {next(iter(changed))} ="):
            trained(aligner, supernet, training={**options, **changed}, checkpoint=checkpoint)


def test_a_route_trains_its_supernet_as_the_study_file_says(
    aligner: Aligner, tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    told = {"epochs": 1, "batch": 32, "sampling": "macs", "distill": 0.5, "progressive": 0.5}
    config = SupernetConfig.model_validate({**tiny_study["spaces"]["slices"], "training": told})
    dimension = aligner.data.targets.dimension
    create_route("slices", config, dimension).prepare(aligner, tmp_path)
    torch.manual_seed(aligner.seed)
    space: Any = create_space("mbconv", **config.options)
    supernet = space.supernet(dimension)
    aligner.begin(supernet, pretrained=False)
    train_supernet(aligner, supernet, config.training, random_subnetworks=1, calibration=32)
    assert same(load_file(tmp_path / "slices.safetensors"), supernet.state_dict())

"""Every elastic space goes the whole way: supernet, slices, front, a finished model."""

import dataclasses
import json
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from nas.alignment.aligner import Aligner
from nas.candidates.routes import SupernetRoute, create_route
from nas.config.objectives import BudgetConfig
from nas.config.study import StudyConfig, SupernetConfig
from nas.errors import StudyError
from nas.study.run import Run
from nas.study.trials import search
from searchspaces import count_macs

TINY: dict[str, dict[str, Any]] = {
    "resnet": {
        "resolutions": [24, 32],
        "stem_widths": [8],
        "stem_strides": [2],
        "stages": [
            {"widths": [8, 16], "depths": [1, 2], "kernels": [3, 5]},
            {"widths": [16, 24], "depths": [1]},
        ],
    },
    "vit": {
        "resolutions": [32],
        "patches": [8],
        "stems": ["conv"],
        "widths": [32, 64],
        "depths": [3],
        "heads": [1, 2],
    },
    "shufflenet": {
        "resolutions": [32],
        "stem_width": 8,
        "depths": [1, 2],
        "widths": [16, 32],
        "head_width": 32,
    },
    "timm-elastic": {"backbone": "test_resnet", "resolutions": [24, 32], "pretrained": False},
}


@pytest.mark.parametrize("space", TINY)
def test_an_elastic_space_is_searched_to_a_front(
    tiny_study: dict[str, Any], tmp_path: Path, space: str
) -> None:
    slices = {**tiny_study["spaces"]["slices"], "space": space, "options": TINY[space]}
    slices["training"] = {**slices["training"], "distill": 0.5, "sampling": "fair"}
    content = {**tiny_study, "spaces": {"slices": slices}, "trials": 4, "start": 2}
    run = search(StudyConfig.model_validate(content), tmp_path / "run")
    records = run.records()
    assert len([r for r in records if r.parent is None]) == 4
    assert any(r.parent is not None for r in records)
    for record in run.front():
        model = run.model(record)
        assert count_macs(model, model.resolution) == record.macs


@pytest.fixture
def pretrained(tiny_study: dict[str, Any], tmp_path: Path) -> StudyConfig:
    """A study of a backbone whose weights lie in a file."""
    torch.manual_seed(0)
    network: Any = timm.create_model("test_resnet", num_classes=0)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    options = {**TINY["timm-elastic"], "resolutions": [32]}
    options["checkpoint"] = str(tmp_path / "weights.safetensors")
    slices = {**tiny_study["spaces"]["slices"], "space": "timm-elastic", "options": options}
    content = {**tiny_study, "spaces": {"slices": slices}, "trials": 2, "start": 2, "finish": []}
    return StudyConfig.model_validate(content)


STATISTICS = "backbone.network.layer1.0.bn1.running_mean"


def test_a_pretrained_backbone_is_searched_and_slices_the_same_when_opened_again(
    pretrained: StudyConfig, tmp_path: Path
) -> None:
    run = search(pretrained, tmp_path / "run")
    route = run.routes["slices"]
    assert isinstance(route, SupernetRoute)
    again = Run.open(tmp_path / "run")
    again.prepare()
    images = torch.rand(4, 3, 32, 32)
    architecture = route.space.smallest()
    one, other = (
        each.routes["slices"].candidate(architecture, each.aligner).model for each in (run, again)
    )
    weights = other.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in one.state_dict().items())
    torch.testing.assert_close(one(images), other(images), atol=1e-6, rtol=0)
    shared = load_file(next((tmp_path / "run").rglob("slices.safetensors")))
    assert (shared["order"].diff() < 0).any()  # the channels were put in order
    inherited = load_file(tmp_path / "weights.safetensors")
    before = inherited[STATISTICS.removeprefix("backbone.network.")]
    assert torch.equal(shared[STATISTICS].sort().values, before.sort().values)


def test_a_killed_training_of_a_pretrained_backbone_ends_like_an_unbroken_one(
    pretrained: StudyConfig, tmp_path: Path
) -> None:
    content = pretrained.model_dump()
    content["spaces"]["slices"]["training"] |= {"epochs": 2, "validate_every": 1}
    run = Run.create(tmp_path / "run", StudyConfig.model_validate(content))
    fields = {f.name: getattr(run.aligner, f.name) for f in dataclasses.fields(Aligner)}

    def scored(scores: Iterator[float]) -> Aligner:
        class Quick(Aligner):
            def cross_test(self, model: nn.Module) -> float:
                return next(scores)

        return Quick(**fields)

    route = run.routes["slices"]
    route.prepare(scored(iter(range(6))), tmp_path / "unbroken")  # two slices each time
    with pytest.raises(RuntimeError, match="StopIteration"):
        route.prepare(scored(iter(range(4))), tmp_path / "broken")
    assert (tmp_path / "broken" / "slices.checkpoint").exists()
    route.prepare(scored(iter(range(4, 6))), tmp_path / "broken")
    whole, continued = (
        load_file(tmp_path / name / "slices.safetensors") for name in ("unbroken", "broken")
    )
    assert whole.keys() == continued.keys()
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_a_slice_that_is_aligned_alone_begins_with_published_weights(
    pretrained: StudyConfig, tmp_path: Path
) -> None:
    options = pretrained.model_dump()["spaces"]["slices"]["options"]
    alone = {"route": "standalone", "space": "timm-elastic", "options": options}
    content = {**pretrained.model_dump(), "spaces": {"alone": alone}, "sampler": None}
    route = Run.create(tmp_path / "run", StudyConfig.model_validate(content)).routes["alone"]
    assert route.pretrained
    largest = route.space.largest()
    model = route.untrained(largest)
    published = load_file(tmp_path / "weights.safetensors")
    stem = next(name for name in published if name.endswith("conv1.weight"))
    assert torch.equal(model.state_dict()[f"backbone.network.{stem}"], published[stem])


def test_a_slice_that_is_trained_again_inherits_too(
    pretrained: StudyConfig, tmp_path: Path
) -> None:
    run = Run.create(tmp_path / "run", pretrained)
    route = run.routes["slices"]
    architecture = route.space.largest()  # type: ignore[attr-defined]
    model = route.retrain(
        architecture, run.aligner, checkpoint=tmp_path / "checkpoint", title="again"
    )
    inherited = load_file(tmp_path / "weights.safetensors")
    before = inherited[STATISTICS.removeprefix("backbone.network.")]
    assert torch.equal(model.state_dict()[STATISTICS].sort().values, before.sort().values)


@pytest.mark.parametrize(
    ("section", "lr"),
    [
        ({"space": "timm-elastic", "options": {"backbone": "test_resnet"}}, 1e-3),
        ({"space": "timm-elastic", "options": {"backbone": "a", "pretrained": False}}, 3e-3),
        ({"space": "timm-elastic", "options": {"pretrained": False, "checkpoint": "f"}}, 1e-3),
        ({"space": "timm-elastic", "training": {"lr": 2e-3}}, 2e-3),
        ({"space": "mbconv"}, 3e-3),
    ],
)
def test_weights_of_before_are_trained_gently(section: dict[str, Any], lr: float) -> None:
    assert SupernetConfig(route="supernet", **section).training.lr == lr


def test_kernels_are_transformed_where_it_is_asked_for(tiny_study: dict[str, Any]) -> None:
    content = {**tiny_study, "spaces": {"slices": dict(tiny_study["spaces"]["slices"])}}
    slices = content["spaces"]["slices"]
    slices["kernel_transform"] = True
    slices["options"] = {**slices["options"]}
    stage = {"widths": [8], "depths": [1], "expansions": [2], "kernels": [3, 5]}
    slices["options"]["stages"] = [stage]
    config = StudyConfig.model_validate(content).spaces["slices"]
    route = create_route("slices", config, 12)
    assert isinstance(route, SupernetRoute)
    learnt = set(route._fresh().state_dict())
    slices["kernel_transform"] = False
    plain = create_route("slices", StudyConfig.model_validate(content).spaces["slices"], 12)
    assert isinstance(plain, SupernetRoute)
    assert learnt > set(plain._fresh().state_dict())


def test_a_space_without_kernel_transforms_says_so(tiny_study: dict[str, Any]) -> None:
    slices = {**tiny_study["spaces"]["slices"], "space": "vit", "options": TINY["vit"]}
    slices["kernel_transform"] = True
    content = {**tiny_study, "spaces": {"slices": slices}}
    config = StudyConfig.model_validate(content).spaces["slices"]
    with pytest.raises(StudyError, match=r"kernel_transform: true, but supernets of 'vit'"):
        create_route("slices", config, 12)


def test_slices_of_a_network_that_nothing_was_trained_for_are_trained_at_the_end(
    pretrained: StudyConfig, tmp_path: Path
) -> None:
    content = pretrained.model_dump(mode="json", exclude_unset=True)
    content["spaces"]["slices"]["training"] = {"epochs": 0}
    content["finish"] = {"models": 1, "training": {"epochs": 1, "batch": 16}}
    run = search(StudyConfig.model_validate(content), tmp_path / "run")
    shared = load_file(next((tmp_path / "run").rglob("slices.safetensors")))
    inherited = load_file(tmp_path / "weights.safetensors")
    name = "backbone.network.layer1.0.conv1.weight"
    before = inherited[name.removeprefix("backbone.network.")]
    assert torch.equal(shared[name].flatten().sort().values, before.flatten().sort().values)
    finished = [record for record in run.records() if record.parent is not None]
    assert [record.fidelity for record in finished] == ["finished"]
    assert run.config.finish[0].training.lr == 1e-3


def test_random_weights_that_nobody_trains_are_refused(pretrained: StudyConfig) -> None:
    content = pretrained.model_dump(mode="json", exclude_unset=True)
    slices = content["spaces"]["slices"]
    slices["training"] = {"epochs": 0}
    del slices["options"]["checkpoint"]
    with pytest.raises(ValidationError, match="0 epochs leave the weights random"):
        StudyConfig.model_validate(content)


def test_a_run_from_before_there_were_levels_goes_on_without(
    pretrained: StudyConfig, tmp_path: Path
) -> None:
    content = pretrained.model_dump(mode="json", exclude_unset=True)
    options = content["spaces"]["slices"]["options"]
    options["levels"] = False
    search(StudyConfig.model_validate(content), tmp_path / "run")
    del options["levels"]
    study = tmp_path / "run" / "study.yaml"
    lines = study.read_text().splitlines(keepends=True)
    study.write_text("".join(line for line in lines if "levels: false" not in line))
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    del stored["identity"]["spaces"]["slices"]["options"]["levels"]
    (tmp_path / "run" / "run.json").write_text(json.dumps({**stored, "version": 1}))
    again = Run.open(tmp_path / "run")
    again.prepare()
    before = again.records()
    content["trials"] = 3
    after = search(StudyConfig.model_validate(content), tmp_path / "run").records()
    assert len(after) == len(before) + 1
    assert not any("levels" in record.architecture.params for record in after)


def test_a_pretrained_backbone_is_first_tried_whole_up_to_each_level(
    pretrained: StudyConfig, tmp_path: Path
) -> None:
    content = pretrained.model_dump(mode="json", exclude_unset=True)
    content["spaces"]["slices"]["options"]["resolutions"] = [24, 32]
    route = Run(tmp_path, StudyConfig.model_validate(content)).routes["slices"]
    assert isinstance(route, SupernetRoute)
    whole = route.space.largest().params
    tried = route.start(random.Random(0), 100, BudgetConfig())
    assert {(a.params["resolution"], a.params["levels"]) for a in tried} == set(
        product((24, 32), (2, 3, 4))
    )
    narrowed = [a for a in tried if any(a.params[k] != whole[k] for k in whole if "_" in k)]
    assert narrowed == []
    costs = sorted(route.space.macs(a, route.dimension) for a in tried)
    few = route.start(random.Random(0), 2, BudgetConfig(max_macs=costs[3]))
    assert [route.space.macs(a, route.dimension) for a in few] == [costs[0], costs[3]]
    least = route.space.macs(route.space.smallest(), route.dimension)
    small = route.start(random.Random(0), 4, BudgetConfig(max_macs=2 * least))
    assert small
    assert all(any(a.params[k] != whole[k] for k in whole if "_" in k) for a in small)

"""What every route keeps to."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.candidates.routes import PrunedRoute, create_route
from nas.config.objectives import BudgetConfig
from nas.config.study import StudyConfig
from nas.study.run import Run


@pytest.fixture(scope="module")
def run(tiny_study: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    slices = tiny_study["spaces"]["slices"]
    alone = {"route": "standalone", **{k: slices[k] for k in ("space", "training", "options")}}
    cuts = tiny_study["spaces"]["cuts"] | {"backbone": "test_resnet"}
    spaces = {"slices": slices, "cuts": cuts, "alone": alone}
    config = StudyConfig(**tiny_study | {"spaces": spaces})
    return Run.create(tmp_path_factory.mktemp("routes") / "run", config)


@pytest.mark.parametrize("name", ["slices", "cuts", "alone"])
def test_a_candidate_neither_depends_on_draws_of_others_nor_disturbs_them(
    name: str, run: Run, tmp_path: Path
) -> None:
    aligner = run.aligner

    def candidate(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        route = create_route(name, run.config.spaces[name], aligner.data.targets.dimension)
        route.prepare(aligner, tmp_path / str(seed))
        (architecture, *_) = route.start(random.Random(0), 2, BudgetConfig())
        model = route.candidate(architecture, aligner).model
        assert torch.equal(torch.random.get_rng_state(), before)
        return model.state_dict()

    one, other = candidate(1), candidate(2)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_backbones_are_cut_by_the_loss_except_in_runs_from_before(
    tiny_study: dict[str, Any], tmp_path: Path
) -> None:
    cuts = tiny_study["spaces"]["cuts"] | {"options": {"resolutions": [32]}}
    Run.create(tmp_path, StudyConfig(**tiny_study | {"spaces": {"cuts": cuts}})).save()

    def criteria() -> tuple[str, ...]:
        route = Run.open(tmp_path).routes["cuts"]
        assert isinstance(route, PrunedRoute)
        return route.space.criteria

    assert criteria() == ("taylor",)
    file = tmp_path / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2}))
    assert criteria() == ("magnitude",)

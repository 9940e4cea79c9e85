"""Checks for search spaces of one's own: what each space of this package keeps to."""

import json
import random
from itertools import islice

import optuna
import torch
from torch import Tensor

from searchspaces.architecture import Architecture
from searchspaces.cost import count_macs
from searchspaces.errors import SearchSpaceError
from searchspaces.query_model import QueryModel
from searchspaces.rebuilding import rebuild
from searchspaces.space import BlockwiseSpace, SearchSpace
from searchspaces.supernet import ElasticSpace
from searchspaces.support.seeding import seeded

_DIMENSION = 24
_IMAGES = 3
_NEIGHBOURS = 20
_TOLERANCE = 1e-5  # between components of unit vectors


def check_space(space: SearchSpace, *, networks: int = 5, seed: int = 0) -> None:
    """Try a registered space on architectures drawn at random.

    Optuna must be able to propose what `sample` draws, neighbours must be in the space, `macs` must
    equal what fvcore counts, and a network must embed images of the resolution that its parameter
    names as unit vectors and be made again from its `origin`. A space with a supernet must have the
    costs of all its networks between those of its smallest and its largest, and its supernet must
    compute what the network that it extracts computes. A space with blocks must name every block.

    Args:
        space: The space; its name must be registered, so that its networks can be loaded.
        networks: How many architectures are drawn and built.
        seed: Of the architectures, the images and the weights.

    Raises:
        AssertionError: The space breaks one of these rules; the message says which.
    """
    assert isinstance(space, SearchSpace), f"{space!r} lacks a method of searchspaces.SearchSpace"
    rng = random.Random(seed)
    drawn = [space.sample(rng) for _ in range(networks)]
    with seeded(seed):
        _check_proposals(space, seed)
        for architecture in drawn:
            _check_place(space, architecture)
            _check_network(space, architecture)
        _check_refusal(space)
        if isinstance(space, ElasticSpace):
            _check_ends(space, drawn)
            _check_supernet(space, drawn)
        if isinstance(space, BlockwiseSpace):
            _check_blocks(space, drawn)


def _check_proposals(space: SearchSpace, seed: int) -> None:
    """What Optuna's trials are given, the space has to have."""
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(sampler=sampler, storage=optuna.storages.InMemoryStorage())
    known = space.distributions()
    for _ in range(5):
        trial = study.ask()
        architecture = space.suggest(trial)
        for name, distribution in trial.distributions.items():
            assert known.get(name) == distribution, (
                f"suggest asks for {name!r} from {distribution}, but distributions() has "
                f"{known.get(name)}"
            )
        assert dict(architecture.params) == trial.params, (
            f"suggest was given {trial.params}, but its architecture has "
            f"{dict(architecture.params)}"
        )


def _check_place(space: SearchSpace, architecture: Architecture) -> None:
    known = space.distributions()
    _check_inside(space, architecture, "sample")
    proposed = space.suggest(optuna.trial.FixedTrial(dict(architecture.params)))
    assert proposed == architecture, f"suggest makes {proposed} of the parameters of {architecture}"
    near = list(islice(space.neighbours(architecture), _NEIGHBOURS))
    assert len({*near, architecture}) == len(near) + 1, (
        f"neighbours of {architecture} repeat, or are {architecture}"
    )
    for other in near:
        _check_inside(space, other, "neighbours")
        assert other.params.keys() <= known.keys()
    assert space.size() > len(near), f"size() is {space.size()}, but there are {len(near) + 1}"


def _check_inside(space: SearchSpace, architecture: Architecture, method: str) -> None:
    known = space.distributions()
    assert architecture.space == space.name, (
        f"{method} gives an architecture of {architecture.space!r}"
    )
    for name, value in architecture.params.items():
        assert name in known, f"{method} gives the parameter {name!r}, not in distributions()"
        inside = known[name]._contains(known[name].to_internal_repr(value))
        assert inside, f"{method} gives {name} = {value!r}, outside of {known[name]}"


def _check_network(space: SearchSpace, architecture: Architecture) -> None:
    model = space.build(architecture, _DIMENSION).eval()
    stated, counted = space.macs(architecture, _DIMENSION), count_macs(model, model.resolution)
    assert stated == counted, (
        f"macs says {stated:,} of {architecture}, but fvcore counts {counted:,}"
    )
    sides = {v for n, v in architecture.params.items() if n.rpartition(".")[2] == "resolution"}
    assert sides <= {model.resolution}, f"{architecture} is built for {model.resolution} pixels"
    found = _embedded(model)
    assert found.shape == (_IMAGES, _DIMENSION), (
        f"{architecture} gives embeddings {tuple(found.shape)}"
    )
    assert torch.allclose(found.norm(dim=1), torch.ones(_IMAGES)), (
        f"{architecture} gives no unit vectors"
    )
    assert model.origin is not None, (
        f"{architecture} is built without an origin, so it cannot be saved"
    )
    again = rebuild(json.loads(json.dumps(model.origin)))
    same = again.state_dict().keys() == model.state_dict().keys()  # a cut one has other shapes
    assert same, f"the origin of {architecture} makes another network"


def _check_refusal(space: SearchSpace) -> None:
    stranger = Architecture(f"not {space.name}", {})
    try:
        space.build(stranger, _DIMENSION)
    except SearchSpaceError:
        return
    raise AssertionError(
        f"build takes an architecture of the space {stranger.space!r}; refuse it by a "
        "SearchSpaceError, as searchspaces.parameters.check does"
    )


def _check_ends(space: ElasticSpace, drawn: list[Architecture]) -> None:
    low, high = (
        space.macs(architecture, _DIMENSION) for architecture in (space.smallest(), space.largest())
    )
    for architecture in drawn:
        macs = space.macs(architecture, _DIMENSION)
        assert low <= macs <= high, (
            f"{architecture} has {macs:,} MACs, but smallest() has {low:,} and largest() {high:,}"
        )


def _check_supernet(space: ElasticSpace, drawn: list[Architecture]) -> None:
    supernet = space.supernet(_DIMENSION)
    assert supernet.architecture == space.largest(), (
        "the supernet does not start as the largest network"
    )
    supernet.eval()
    before: Tensor | None = None
    for architecture in (*drawn, drawn[0]):
        supernet.activate(architecture)
        with seeded(0):
            images = torch.rand(_IMAGES, 3, supernet.resolution, supernet.resolution)
        with torch.no_grad():
            found, alone = supernet(images), supernet.extract(architecture)(images)
        assert torch.allclose(found, alone, atol=_TOLERANCE, rtol=0), (
            f"the supernet and the network that it extracts differ for {architecture}"
        )
        before = found if before is None else before
    assert before is not None
    assert torch.equal(found, before), f"activating others leaves a trace on {drawn[0]}"


@torch.no_grad()
def _check_blocks(space: BlockwiseSpace, drawn: list[Architecture]) -> None:
    every = {block.key for block in space.every_block(_DIMENSION)}
    for architecture in drawn:
        blocks = space.blocks(architecture, _DIMENSION)
        values = torch.rand(1, *blocks[0].shape)
        for block in blocks:
            assert block.key in every, f"every_block lacks {block.key!r} of {architecture}"
            assert values.shape[1:] == block.shape, (
                f"{block.key!r} of {architecture} takes {block.shape}, but is given "
                f"{values.shape[1:]}"
            )
            values = block.make().eval()(values)
        assert values.shape == (1, _DIMENSION), (
            f"the blocks of {architecture} end in {values.shape}"
        )


@torch.no_grad()
def _embedded(model: QueryModel) -> Tensor:
    embeddings: Tensor = model(torch.rand(_IMAGES, 3, model.resolution, model.resolution))
    return embeddings

"""Hash galleries: centres, their assignment, and what the codes find in classes never seen."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from clustered import LABELS, TRAIN, held_out_map, scattered, write
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.errors import CompatError
from compat.gallery import GallerySpace, SignCodes, hash_gallery
from compat.gallery.centres import affinities, assign_centres, draw_centres


def shares(centres: np.ndarray) -> np.ndarray:
    """Share of differing bits of every two centres."""
    differing = (centres[:, None] != centres[None]).mean(axis=2)
    return differing[np.triu_indices(len(centres), 1)]


@settings(max_examples=15)
@given(classes=st.integers(2, 40), bits=st.integers(16, 48), seed=st.integers(0, 99))
def test_centres_keep_their_distance(classes: int, bits: int, seed: int) -> None:
    centres = draw_centres(classes, bits, seed=seed)
    assert centres.shape == (classes, bits)
    assert set(np.unique(centres)) <= {-1, 1}
    assert shares(centres).min() >= 0.2
    np.testing.assert_array_equal(centres, draw_centres(classes, bits, seed=seed))


def test_few_centres_keep_the_full_distance_and_more_give_it_up_slowly() -> None:
    assert shares(draw_centres(2, 64)).min() >= 0.61
    assert shares(draw_centres(3, 64)).min() >= 0.6
    assert shares(draw_centres(100, 64)).min() >= 0.35  # drawn at random: about .28


@pytest.mark.parametrize("classes", [2, 4, 6])
def test_the_assignment_is_the_best_of_all(classes: int) -> None:
    means = np.random.default_rng(classes).normal(size=(classes, 10))
    centres = draw_centres(classes, 16)
    gains = affinities(centres, means)
    every = [gains[np.arange(classes), list(order)].sum() for order in permutations(range(classes))]
    assigned = assign_centres(centres, means)
    chosen = [int(np.flatnonzero((centres == row).all(axis=1))[0]) for row in assigned]
    assert sorted(chosen) == list(range(classes))
    assert gains[np.arange(classes), chosen].sum() == pytest.approx(max(every))


def test_similar_classes_get_similar_centres() -> None:
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(8, 32))
    means = groups[np.arange(48) % 8] + 0.3 * rng.normal(size=(48, 32))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    upper = np.triu_indices(48, 1)
    similar = (means @ means.T)[upper]

    def agreement(centres: np.ndarray) -> float:
        return float(np.corrcoef(similar, (centres @ centres.T)[upper])[0, 1])

    drawn = draw_centres(48, 32)
    by_chance = [agreement(rng.permutation(drawn)) for _ in range(50)]
    assert agreement(assign_centres(drawn, means)) > max(by_chance)


@pytest.fixture
def source(tmp_path: Path) -> GallerySpace:
    return write(tmp_path / "source", scattered(1.0, seed=0), views=1)


def test_codes_find_held_out_classes_and_gain_from_bits(
    source: GallerySpace, tmp_path: Path
) -> None:
    maps = [
        held_out_map(hash_gallery(source, tmp_path / f"{bits}", bits=bits)) for bits in (8, 24, 64)
    ]
    chance = 12 / 240
    assert maps[0] > 3 * chance
    assert maps[2] > maps[1] > maps[0]
    assert maps[2] > 0.6


def test_a_hash_gallery_is_a_gallery(source: GallerySpace, tmp_path: Path) -> None:
    space = hash_gallery(source, tmp_path / "hashed", bits=24)
    space.verify()
    assert (space.metric, space.dimension, space.bytes_per_vector) == ("hamming", 24, 3)
    assert isinstance(space.vectors, SignCodes)
    assert set(np.unique(space.vectors[:9])) == {-1, 1}
    assert space.view_vectors is not None
    assert space.view_vectors.shape == (1, len(TRAIN), 24)
    assert space.classifier is not None
    known = np.unique(LABELS[TRAIN])
    assert np.isnan(space.classifier[np.setdiff1d(np.unique(LABELS), known)]).all()
    assert set(np.unique(space.classifier[known])) == {-1, 1}
    assert shares(space.classifier[known]).min() >= 0.2
    # training images lie near their own centre
    near = (space.vectors[TRAIN] @ space.classifier[known].T).argmax(axis=1)
    assert (near == LABELS[TRAIN]).mean() > 0.7
    again = hash_gallery(source, tmp_path / "again", bits=24)
    assert again.fingerprint == space.fingerprint


def test_rows_and_labels_can_be_given(source: GallerySpace, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", np.asarray(source.vectors), labelled=False)
    space = hash_gallery(
        plain, tmp_path / "hashed", bits=24, train=TRAIN, labels=LABELS[TRAIN] * 10 + 3
    )
    assert space.classifier is None  # its classes have no names
    assert held_out_map(space) > 0.3


def test_errors(source: GallerySpace, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", scattered(1.0, seed=0))
    bare = write(tmp_path / "bare", scattered(1.0, seed=0), labelled=False)
    out = tmp_path / "out"
    with pytest.raises(CompatError, match=r"holds no views.*name the rows"):
        hash_gallery(plain, out, bits=8)
    with pytest.raises(CompatError, match="has no labels: give those"):
        hash_gallery(bare, out, bits=8, train=TRAIN)
    with pytest.raises(CompatError, match="expected 2 classes or more"):
        hash_gallery(plain, out, bits=8, train=TRAIN[:5])
    with pytest.raises(CompatError, match="not of all training images"):
        hash_gallery(source, out, bits=8, train=np.arange(len(LABELS)))
    with pytest.raises(CompatError, match=r"labels of shape \(3,\) for 480 training images"):
        hash_gallery(plain, out, bits=8, train=TRAIN, labels=[0, 1, 2])
    with pytest.raises(CompatError, match="4 bits have no room for 40 hash centres"):
        hash_gallery(source, out, bits=4)
    with pytest.raises(CompatError, match="cannot have 0 bits"):
        hash_gallery(source, out, bits=0)
    hashed = hash_gallery(source, tmp_path / "hashed", bits=24)
    with pytest.raises(CompatError, match="holds codes of 3 bytes instead of vectors"):
        hash_gallery(hashed, out, bits=8)
    with pytest.raises(CompatError, match="exists already"):
        hash_gallery(source, source.path, bits=8)
    assert not out.exists()

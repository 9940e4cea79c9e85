"""Fused galleries: better than what they are made of, and ordinary galleries."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clustered import LABELS, TRAIN, held_out_map, scattered, unit, write

from compat.errors import CompatError
from compat.gallery import GallerySpace, fuse_galleries
from compat.gallery.heads import DynamicMixer, HashHead, HeadTraining

HALVES = scattered(1.6, seed=1), scattered(1.6, seed=2, width=48)


@pytest.fixture
def halves(tmp_path: Path) -> list[GallerySpace]:
    """Two features, each of which tells half of the story; the second in another order."""
    order = np.random.default_rng(3).permutation(len(LABELS))
    return [
        write(tmp_path / "first", HALVES[0], views=1),
        write(tmp_path / "second", HALVES[1], views=1, order=order),
    ]


def test_two_halves_make_more_than_either(halves: list[GallerySpace], tmp_path: Path) -> None:
    ordered = write(tmp_path / "ordered", HALVES[1])
    alone = max(held_out_map(halves[0]), held_out_map(ordered))
    fused = fuse_galleries(halves, tmp_path / "fused")
    assert held_out_map(fused) > alone + 0.1


def test_a_fused_gallery_is_a_gallery(halves: list[GallerySpace], tmp_path: Path) -> None:
    space = fuse_galleries(halves, tmp_path / "fused", dimension=32)
    space.verify()
    assert (space.metric, space.dimension) == ("cosine", 32)
    np.testing.assert_array_equal(space.encoded_ids, halves[0].encoded_ids)
    assert space.view_vectors is not None
    assert space.view_vectors.shape == (1, len(TRAIN), 32)
    assert space.classifier is not None
    known = np.unique(LABELS[TRAIN])
    assert np.isnan(space.classifier[known[-1] + 1 :]).all()
    np.testing.assert_allclose(np.linalg.norm(space.classifier[known], axis=1), 1, atol=1e-5)
    near = (space.vectors[TRAIN] @ space.classifier[known].T).argmax(axis=1)
    assert (near == LABELS[TRAIN]).mean() > 0.9
    # an image's view lies where the image lies
    first = (np.asarray(space.view_vectors[0]) * np.asarray(space.vectors[space.view_rows])).sum(1)
    assert first.min() > 0.8
    again = fuse_galleries(halves, tmp_path / "again", dimension=32)
    assert again.fingerprint == space.fingerprint


def test_the_mixer_is_its_formula() -> None:
    torch.manual_seed(0)
    mixer = DynamicMixer([5, 9, 4], 6).double()
    torch.nn.init.normal_(mixer.attention.weight)
    features = [torch.randn(7, width, dtype=torch.float64) for width in (5, 9, 4)]
    found = mixer(*features)
    u = mixer.attention.weight[0].detach()
    for row in range(7):
        tokens = [
            projection.weight.detach() @ x[row]
            for projection, x in zip(mixer.projections, features, strict=True)
        ]
        scores = [float(torch.exp(u @ token)) for token in tokens]
        parts = [
            (1 / 3 + score / sum(scores)) * token
            for score, token in zip(scores, tokens, strict=True)
        ]
        mixed = parts[0] + parts[1] + parts[2]
        torch.testing.assert_close(found[row], mixed / mixed.norm(), atol=1e-9, rtol=0)


def test_an_untrained_mixer_keeps_similarities() -> None:
    torch.manual_seed(0)
    features = torch.from_numpy(unit(np.random.default_rng(0).normal(size=(30, 8))))
    mixed = DynamicMixer([8], 8).double()(features)
    torch.testing.assert_close(mixed @ mixed.T, features @ features.T, atol=1e-6, rtol=0)


def test_a_hash_head_balances_its_bits() -> None:
    torch.manual_seed(0)
    head = HashHead(8, 16)
    codes = head(torch.randn(400, 8) + 5)
    assert ((codes > 0).float().mean(dim=0) - 0.5).abs().max() < 0.15


def test_errors(halves: list[GallerySpace], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CompatError, match="nothing to fuse in 1 gallery"):
        fuse_galleries(halves[:1], out)
    other = write(tmp_path / "other", HALVES[1], views=1, recipe_seed=4)
    with pytest.raises(CompatError, match="hold views of other images, or other views"):
        fuse_galleries([halves[0], other], out)
    fewer = write(tmp_path / "fewer", HALVES[1], order=np.arange(99))
    plain = write(tmp_path / "plain", HALVES[0])
    with pytest.raises(CompatError, match="the gallery has no image"):
        fuse_galleries([plain, fewer], out, train=TRAIN)
    broken = HALVES[1].copy()
    broken[TRAIN[0]] = np.nan
    bad = write(tmp_path / "bad", broken)
    with pytest.raises(CompatError, match=r"row 0 is not finite"):
        fuse_galleries([plain, bad], out, train=TRAIN, training=HeadTraining(batch=999))
    assert not out.exists()

"""Training a gallery model, and the margin losses under it."""

import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses as reference
from safetensors.torch import load_file

from compat.data.cache import decode
from compat.data.splits import Retrieval, Splits
from compat.errors import CompatError
from compat.gallery import TrainingRecipe, load_gallery_model, train_gallery_model
from compat.losses.margin import ArcFace, CosFace

Begun = Callable[[str], BaseProcess]

RECIPE = TrainingRecipe(
    backbone="timm:test_resnet", dimension=8, resolution=32, epochs=2, views=1, batch=8
)


@pytest.fixture
def splits(photographs: Any) -> Any:
    train = np.flatnonzero(photographs.labels < 4)
    held_out = np.flatnonzero(photographs.labels >= 4)
    return Splits(train, Retrieval(held_out, held_out), Retrieval(held_out, held_out))


def test_training_ends_in_a_file_that_describes_itself(
    photographs: Any, splits: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.safetensors"
    paragon = train_gallery_model(photographs, splits, out, RECIPE)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert paragon.queries == 12
    assert f"validation paragon: mAP {paragon.map:.3f}" in capsys.readouterr().err
    model = load_gallery_model(str(out))
    assert (model.dimension, model.preprocessing.resolution) == (8, 32)
    vectors = model.embed(decode(photographs, 32).pixels)
    assert np.isfinite(vectors).all()
    with pytest.raises(CompatError, match="exists already"):
        train_gallery_model(photographs, splits, out, RECIPE)


def test_training_learns_the_classes_it_sees(photographs: Any, splits: Any, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    seen = replace(splits, val=Retrieval(splits.train, splits.train))
    recipe = replace(RECIPE, epochs=20, views=0)
    learnt = train_gallery_model(photographs, seen, out, recipe)
    start = train_gallery_model(
        photographs, seen, tmp_path / "start.safetensors", replace(recipe, epochs=0)
    )
    assert learnt.map > max(0.8, start.map)


PROGRAM = """
import os, signal
import numpy as np
from compat.gallery import TrainingRecipe, train_gallery_model
from compat.training import Checkpoint
from compat.data.sources import open_data
from compat.data.splits import Retrieval, Splits
save = Checkpoint.save
def save_and_die(*arguments):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = save_and_die
images = open_data({folder!r})
held_out = Retrieval(np.flatnonzero(images.labels >= 4), np.flatnonzero(images.labels >= 4))
train_gallery_model(
    images, Splits(np.flatnonzero(images.labels < 4), held_out, held_out), {out!r},
    TrainingRecipe(
        backbone="timm:test_resnet", dimension=8, resolution=32, epochs=2, views=1, batch=8
    ),
)
"""


def test_a_killed_training_is_continued_to_the_same_weights(
    photographs: Any, photograph_folder: Path, splits: Any, tmp_path: Path, begun: Begun
) -> None:
    out = tmp_path / "model.safetensors"
    process = begun(PROGRAM.format(folder=str(photograph_folder), out=str(out)))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors.partial"]
    with pytest.raises(CompatError, match="was begun with seed = 0, not 1"):
        train_gallery_model(photographs, splits, out, replace(RECIPE, seed=1))
    train_gallery_model(photographs, splits, out, RECIPE)
    train_gallery_model(photographs, splits, tmp_path / "whole.safetensors", RECIPE)
    continued, whole = load_file(out), load_file(tmp_path / "whole.safetensors")
    for name, value in whole.items():
        torch.testing.assert_close(continued[name], value, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_trained_is_explained(photographs: Any, splits: Any, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    one_class = replace(splits, train=np.flatnonzero(photographs.labels == 0))
    with pytest.raises(CompatError, match="6 labelled training images of 1 classes"):
        train_gallery_model(photographs, one_class, out, RECIPE)
    with pytest.raises(CompatError, match=r"must end in \.safetensors"):
        train_gallery_model(photographs, splits, tmp_path / "model.pt", RECIPE)
    with pytest.raises(CompatError, match="name a backbone as timm:NAME"):
        train_gallery_model(photographs, splits, out, replace(RECIPE, backbone="resnet18"))
    with pytest.raises(CompatError, match="no model 'resnet_18'"):
        train_gallery_model(photographs, splits, out, replace(RECIPE, backbone="timm:resnet_18"))
    with pytest.raises(CompatError, match=r"became nan in epoch .* lower the learning"):
        train_gallery_model(photographs, splits, out, replace(RECIPE, lr=1e30))


@pytest.mark.parametrize("scale", [8.0, 64.0])
def test_margin_losses_agree_with_pytorch_metric_learning(scale: Any) -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.randn(20, 6), torch.randint(0, 5, (20,))
    pairs = [
        (
            CosFace(6, 5, scale=scale, margin=0.3),
            reference.CosFaceLoss(5, 6, margin=0.3, scale=scale),
        ),
        (
            ArcFace(6, 5, scale=scale, margin=0.4),
            reference.ArcFaceLoss(5, 6, margin=np.degrees(0.4), scale=scale),
        ),
    ]
    for ours, theirs in pairs:
        theirs.W.data = ours.weight.data.T.clone()
        torch.testing.assert_close(ours(embeddings, labels), theirs(embeddings, labels))


def test_margin_losses_have_a_slope_at_a_perfect_embedding() -> None:
    for loss in (CosFace(4, 3), ArcFace(4, 3)):
        embeddings = loss.weight.detach().clone().requires_grad_()
        loss(embeddings, torch.arange(3)).backward()
        assert torch.isfinite(embeddings.grad).all()
        assert torch.isfinite(loss.weight.grad).all()

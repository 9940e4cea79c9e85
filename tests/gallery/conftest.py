"""A few real photographs and a tiny network for the tests of this folder."""

import shutil
from pathlib import Path

import pytest
from handmade import COUNT, WIDTH, correlated, write

from compat.data.images import ImageSet
from compat.data.sources import open_data
from compat.gallery import GallerySpace

TINY_NETWORK = '''
import os, signal
import torch
from torch import nn

class Tiny(nn.Module):
    """Means over a 2x2 grid through a linear layer; dies at the call that DIE_AT_CALL names."""

    def __init__(self, width, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(12, width)
        self.preprocessing = {"resolution": 16, "fit": "squash"}
        self.calls = 0

    def forward(self, images):
        self.calls += bool(images.any())  # not the blank ones that loading tries
        if self.calls == int(os.environ.get("DIE_AT_CALL", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.linear(nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))

def make(width="6", seed="0"):
    return Tiny(int(width), int(seed))

def zero():
    model = make()
    nn.init.zeros_(model.linear.weight)
    nn.init.zeros_(model.linear.bias)
    return model

def infinite():
    model = make()
    nn.init.constant_(model.linear.bias, float("inf"))
    return model

def maps():
    return nn.Conv2d(3, 4, 1)

def number():
    return 7
'''


@pytest.fixture(scope="session")
def network_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put on the import path: it holds the module ``tinynet``."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "tinynet.py").write_text(TINY_NETWORK)
    return folder


@pytest.fixture
def tinynet(network_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(network_folder))
    return "tinynet:make"


@pytest.fixture(scope="session")
def photograph_folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six products, six photographs each."""
    folder = tmp_path_factory.mktemp("photographs")
    for product in sorted((real_data / "grocery").iterdir())[:6]:
        (folder / product.name).mkdir()
        for file in sorted(product.iterdir())[:6]:
            shutil.copyfile(file, folder / product.name / file.name)
    return folder


@pytest.fixture(scope="session")
def photographs(photograph_folder: Path) -> ImageSet:
    return open_data(photograph_folder)


@pytest.fixture
def source(tmp_path: Path) -> GallerySpace:
    """A gallery with labels, classes, a classifier and views."""
    return write(tmp_path / "source", correlated(COUNT, WIDTH))

"""What querynas wrote before some fields were renamed still opens and goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import safe_open

from compat.gallery import GallerySpace
from nas.recipes.nest import Nest

Cli = Callable[..., tuple[int, str, str]]
Done = Callable[[str], str]

DATA = "facades:classes=12,images=6,size=24,seed=0"


def header(path: str) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return file.metadata()


def test_a_gallery_and_its_network_are_made_again_under_the_new_names(done: Done) -> None:
    done(f"gallery build --data {DATA} --model model.safetensors --views 1 --out again")
    old, new = GallerySpace.open("gallery"), GallerySpace.open("again")
    assert old.preprocessing == new.preprocessing
    np.testing.assert_allclose(new.vectors, old.vectors, atol=1e-4)
    before, after = (
        json.loads(Path(name, "gallery.json").read_text()) for name in ("gallery", "again")
    )
    assert (before["version"], before["preprocessing"]["size"]) == (1, 24)
    assert (after["version"], after["preprocessing"]["resolution"]) == (3, 24)
    assert "size" not in after["preprocessing"]


def test_a_begun_gallery_is_built_to_its_end(done: Done) -> None:
    done(f"gallery build --data {DATA} --model model.safetensors --views 1 --out begun/gallery")
    old, new = GallerySpace.open("gallery"), GallerySpace.open("begun/gallery")
    assert new.fingerprint == old.fingerprint


def test_a_begun_gallery_network_is_trained_to_its_end(cli: Cli, done: Done) -> None:
    command = f"gallery train --data {DATA} --backbone timm:tiny_net --dimension 8 --epochs 2"
    out = "begun/model.safetensors"
    code, _, complaint = cli(*f"{command} --resolution 16 --out {out}".split())
    assert code == 2
    assert "was begun with resolution = 24, not 16" in complaint
    done(f"{command} --resolution 24 --out {out}")
    assert not Path(f"{out}.partial").exists()
    before, after = header("model.safetensors"), header(out)
    assert (before["version"], before["arch"]) == ("1", "timm:tiny_net")
    assert (after["version"], after["backbone"]) == ("2", "timm:tiny_net")
    assert "arch" not in after


def test_a_nest_goes_on_under_the_new_names(done: Done) -> None:
    figures = json.loads(Path("nested/cross_tests.json").read_text())
    command = f"nest tiny_net --gallery gallery --data {DATA} --capacities 50,100 --epochs 1"
    printed = done(f"{command} --batch 16 --resolution 24 --no-pretrained --out nested")
    assert Nest.open("nested").config.resolution == 24
    assert f"{figures['maps'][1][2]:.4f}" in printed

"""Write every kind of file that querynas keeps, finished and begun, into the working folder."""

import shutil
import sqlite3
import sys
from pathlib import Path
from unittest.mock import patch

import onnx
import tiny_backbone  # noqa: F401  timm knows its network from here on
import torch

from compat.gallery import build
from nas.cli import main

DATA = "facades:classes=12,images=6,size=24,seed=0"
BLOCKS = (
    "{resolutions: [16], stem_widths: [8], stem_strides: [2], head_widths: [16], "
    "stages: [{widths: [8], depths: [1, 2], expansions: [2], kernels: [3]}]}"
)
GALLERY_NETWORK = f"gallery train --data {DATA} --arch timm:tiny_net --size 24 --dimension 8"
EMBEDDED = f"gallery build --data {DATA} --model model.safetensors --views 1"

FINISHED = f"""
{GALLERY_NETWORK} --epochs 2 --out model.safetensors
{EMBEDDED} --out gallery
gallery reduce gallery --dimension 4 --out reduced
gallery compress gallery --bytes 2 --bits 4 --out codes
gallery fuse gallery reduced --data {DATA} --dimension 6 --out fused
gallery hash gallery --data {DATA} --bits 8 --out hashed
search study.yaml --out run --trials 4
repeat run --trials 0 --seeds 2
export run --trial 0 --format safetensors --out query.safetensors
export run --trial 0 --format onnx --out query.onnx
report run
prune tiny_net --gallery gallery --data {DATA} --target 0.6x --rounds 1 --epochs 1
  --align-epochs 1 --finish-epochs 1 --resolution 24 --no-pretrained --batch 16 --round-to 4
  --out cut
nest tiny_net --gallery gallery --data {DATA} --capacities 50,100 --epochs 1 --batch 16
  --size 24 --no-pretrained --out nested
"""


def querynas(*arguments: str) -> None:
    print("$ querynas", *arguments, flush=True)
    with patch.object(sys, "argv", ["querynas", *arguments]):
        try:
            main()
        except SystemExit as stopped:
            if stopped.code:
                raise


def stopped_at(call: int, place: object, name: str, *arguments: str) -> None:
    """Run a command that Ctrl-C stops instead of the so many-th call of ``place.name``."""
    original = getattr(place, name)
    calls = iter(range(1, call))

    def step(*given: object, **named: object) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        original(*given, **named)

    with patch.object(place, name, step):
        try:
            querynas(*arguments)
        except (SystemExit, KeyboardInterrupt):
            return
    raise AssertionError(f"{name} was called fewer than {call} times")


def export_without_traces(*given: object, **named: object) -> None:
    """Export as ever, without the lines of source code that the exporter notes in every node."""
    export(*given, **named)
    file = str(given[2])
    model = onnx.load(file)
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.save(model, file)


export, torch.onnx.export = torch.onnx.export, export_without_traces
here = Path(__file__).parent / "unversioned"
for study in ("study.yaml", "begun.yaml"):
    shutil.copyfile(here / study, study)
for command in FINISHED.strip().replace("\n  ", " ").splitlines():
    querynas(*command.split())
calibration = "latency calibrate --space mbconv --dimension 8 --out latency.json --options"
querynas(*calibration.split(), BLOCKS)

begun = Path("begun")
begun.mkdir()
out = begun / "model.safetensors"
stopped_at(2, torch, "save", *f"{GALLERY_NETWORK} --epochs 2 --out {out}".split())
stopped_at(3, build, "_note", *f"{EMBEDDED} --out {begun / 'gallery'}".split())
stopped_at(2, torch, "save", "search", "begun.yaml", "--out", str(begun / "run"))

for folder in ("run", "cut"):  # what is made from the rest
    shutil.rmtree(f"{folder}/models", ignore_errors=True)
for page in Path().glob("*/*.html"):
    page.unlink()
for database in Path().rglob("study.db"):  # the same content in smaller pages
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA page_size = 512")
    connection.execute("VACUUM")

"""Gallery models: whatever network made, or will make, the gallery's vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field, Json
from pydantic_core import PydanticCustomError

from compat.data.preprocessing import Means, Preprocessing, Stds
from compat.errors import CompatError
from searchspaces.support.errors import reason
from searchspaces.support.files import write_atomically
from searchspaces.support.modules import import_module
from searchspaces.support.naming import did_you_mean
from searchspaces.support.reading import check_file, validated
from searchspaces.support.section import Resolution, Section, Versioned
from searchspaces.support.seeding import seeded

if TYPE_CHECKING:
    import torch
    from torch import nn

_FORMAT: Literal["querynas-gallery-model"] = "querynas-gallery-model"
_CLASSIFIER = "classifier"  # in the file, beside the tensors of the network
_FORMS = (
    "timm:NAME[,checkpoint=FILE][,pretrained=false][,resolution=PIXELS], FILE.safetensors, "
    "FILE.onnx or package.module:factory[,key=value...]"
)


_MOST_BYTES = 16 << 30


class _Header(Versioned):
    """What the file of a trained gallery model says of itself."""

    NEWEST: ClassVar = 2
    RENAMED: ClassVar = {"arch": "backbone"}

    format: Literal["querynas-gallery-model"]
    backbone: str
    dimension: Annotated[int, Field(ge=1, le=1 << 16)]
    preprocessing: Json[Preprocessing]
    classes: Json[tuple[str, ...]] = ()


def _named(path: Path) -> Path:
    if not path.name:
        raise PydanticCustomError("path", "input should be the path of a file")
    return path


class _TimmOptions(Section):
    """What may follow the name of a timm model."""

    RENAMED: ClassVar = {"size": "resolution"}

    checkpoint: Annotated[Path, AfterValidator(_named)] | None = None
    pretrained: bool = True
    resolution: Resolution | None = None


class _OfOthers(Preprocessing):
    """Of a network that somebody else made: it normalises inside unless it says otherwise."""

    resolution: Resolution = 224
    mean: Means = (0.0, 0.0, 0.0)
    std: Stds = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class GalleryModel:
    """A frozen network from pixels to gallery vectors.

    Attributes:
        spec: The text that `load_gallery_model` turns into this model again.
        dimension: Width of its vectors.
        preprocessing: How images become its pixels; normalisation happens inside `embed`.
        digest: SHA-256 (hex) of its weights.
        macs: Multiply-accumulates of one image (fvcore counts one per MAC); None where it cannot be
            traced (ONNX files).
        classifier: Weight vector (d,) float32 of each class that it was trained on, by the name of
            the class; empty where unknown.
    """

    spec: str
    dimension: int
    preprocessing: Preprocessing
    digest: str
    macs: int | None
    _embed: Callable[..., np.ndarray] = field(repr=False, compare=False)
    classifier: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def embed(
        self, pixels: np.ndarray, *, batch: int = 256, description: str | None = None
    ) -> np.ndarray:
        """Float32 (B, d) of uint8 ``pixels`` (B, S, S, 3) with S = ``preprocessing.resolution``.

        Args:
            pixels: Images as `compat.data.cache.decode` gives them; may be a memory map.
            batch: Images at a time.
            description: Words before a progress bar; None for no bar.

        Raises:
            CompatError: When the pixels have another resolution or a vector is not finite.
        """
        side = self.preprocessing.resolution
        if pixels.shape[1:] != (side, side, 3):
            raise CompatError(
                f"{self.spec} takes images of shape ({side}, {side}, 3), found {pixels.shape[1:]}: "
                f"decode them at {side} px."
            )
        return self._embed(pixels, batch=batch, description=description)


def load_gallery_model(spec: str) -> GalleryModel:
    """Load a gallery model by its spec.

    ``timm:NAME``: pooled features of a timm model with its pretrained weights and its own
    preprocessing (the whole crop, resized); ``checkpoint=FILE`` takes weights from a file instead,
    ``pretrained=false`` a seeded random start, ``resolution=PIXELS`` another one than its own.
    ``FILE.safetensors``: what `querynas gallery train` wrote.
    ``FILE.onnx``: takes float images (B, 3, S, S) in [0, 1] and normalises inside.
    ``package.module:factory,key=value``: ``factory(key="value")`` returns an ``nn.Module`` from
    float images (B, 3, S, S) in [0, 1] to (B, d), whose optional attribute ``preprocessing`` is a
    dict of `Preprocessing` fields (224 pixels, "crop" otherwise). Only name modules you trust:
    they are imported.

    Raises:
        CompatError: When the spec names nothing that can be loaded. Weights are never left at a
            random start unless the spec says so.
    """
    name, options = _parse(spec)
    if name.startswith("timm:"):
        return _from_timm(spec, name.removeprefix("timm:"), options)
    if name.endswith((".safetensors", ".onnx")):
        if options:
            raise CompatError(f"The gallery model file {name} takes no options, found {options}.")
        path = Path(name)
        check_file(path, at_most=_MOST_BYTES, error=CompatError, remedy="check the path")
        return _from_onnx(spec, path) if path.suffix == ".onnx" else _from_training(spec, path)
    if ":" in name:
        return _from_factory(spec, name, options)
    raise CompatError(f"{spec!r} names no gallery model, expected {_FORMS}.")


def torch_gallery_model(spec: str, model: nn.Module, preprocessing: Preprocessing) -> GalleryModel:
    """Gallery model of a network that takes float images (B, 3, S, S) in [0, 1].

    Raises:
        CompatError: When it does not map images of that resolution to one vector each.
    """
    from compat.embedding import embed

    model.requires_grad_(False)
    side = preprocessing.resolution
    blank = np.zeros((2, side, side, 3), dtype=np.uint8)

    def run(pixels: np.ndarray, *, batch: int, description: str | None) -> np.ndarray:
        return embed(model, pixels, batch=batch, description=description)

    try:
        dimension = run(blank, batch=2, description=None).shape[1]
    except CompatError as error:
        raise CompatError(f"{spec}: {error}") from error
    except Exception as error:  # any layer may refuse the resolution in its own way
        raise CompatError(
            f"{spec} cannot embed images of {side} px ({reason(error)}): choose another resolution."
        ) from error
    macs = _count_macs(model, side)
    return GalleryModel(spec, dimension, preprocessing, _weights_digest(model), macs, run)


def _count_macs(model: nn.Module, resolution: int) -> int | None:
    from searchspaces import count_macs

    try:
        return count_macs(model, resolution)
    except Exception:  # a user's network need not be traceable to be embedded with
        return None


def trained_network(backbone: str, dimension: int, preprocessing: Preprocessing) -> nn.Module:
    """The network that `querynas gallery train` trains: timm backbone, then Linear and BatchNorm.

    Args:
        backbone: ``timm:NAME``; random start.
        dimension: Width of the embedding.
        preprocessing: Its mean and std are applied inside.
    """
    from torch import nn

    if not backbone.startswith("timm:"):
        raise CompatError(f"Cannot train {backbone!r}: name a backbone as timm:NAME.")
    network = _create_timm(backbone.removeprefix("timm:"), pretrained=False)
    head = nn.Sequential(
        nn.Linear(_pooled_width(network, preprocessing.resolution), dimension, bias=False),
        nn.BatchNorm1d(dimension),
    )
    return _normalising(nn.Sequential(network, head), preprocessing)


def save_gallery_model(
    model: nn.Module,
    path: Path,
    *,
    backbone: str,
    dimension: int,
    preprocessing: Preprocessing,
    classifier: torch.Tensor,
    classes: Sequence[str],
) -> None:
    """Write a `trained_network` so that the file alone is enough to load it again.

    Args:
        classifier: Weight vectors (C, d) of ``classes``, kept for losses that use them.
    """
    from safetensors.torch import save_file

    metadata = {
        "version": str(_Header.NEWEST),
        "format": _FORMAT,
        "backbone": backbone,
        "dimension": str(dimension),
        "preprocessing": preprocessing.model_dump_json(),
        "classes": json.dumps(list(classes)),
    }
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    weights[_CLASSIFIER] = classifier.detach().cpu().contiguous()
    write_atomically(path, lambda temporary: save_file(weights, temporary, metadata=metadata))


def _from_training(spec: str, path: Path) -> GalleryModel:
    from searchspaces.checkpoint import load_tensors
    from searchspaces.support.tensors import read_safetensors

    remedy = "copy it again or train it anew"
    metadata, weights = read_safetensors(path, error=CompatError, remedy=remedy)
    if metadata.get("format") != _FORMAT:
        raise CompatError(
            f"{path} does not describe its network: give a file of `querynas gallery train`, "
            f"or name it as timm:NAME,checkpoint={path}."
        )
    header = validated(_Header, metadata, str(path), error=CompatError, remedy=remedy)
    vectors = weights.pop(_CLASSIFIER, None)
    try:
        _check_count(header.backbone, sum(value.numel() for value in weights.values()))
        model = trained_network(header.backbone, header.dimension, header.preprocessing)
    except CompatError as error:
        raise CompatError(f"{path}: {error}") from error
    load_tensors(model, weights, str(path), error=CompatError)
    loaded = torch_gallery_model(spec, model, header.preprocessing)
    if vectors is None:
        return loaded
    expected = (len(header.classes), header.dimension)
    if tuple(vectors.shape) != expected:
        raise CompatError(
            f"{path} has class weights of shape {tuple(vectors.shape)}, expected {expected}: "
            f"{remedy}."
        )
    return replace(loaded, classifier=dict(zip(header.classes, vectors.numpy(), strict=True)))


def _check_count(backbone: str, count: int) -> None:
    """Refuse weights that are too few for a backbone, before there is memory for it."""
    import torch

    with torch.device("meta"):
        network = _create_timm(backbone.removeprefix("timm:"), pretrained=False)
    expected = sum(value.numel() for value in network.parameters())
    if count < expected:
        raise CompatError(
            f"it holds {count:,} numbers, but its backbone {backbone!r} has {expected:,}; copy it "
            "again or train it anew."
        )


def _from_timm(spec: str, name: str, options: Mapping[str, str]) -> GalleryModel:
    import timm

    from searchspaces.checkpoint import load_checkpoint

    what = f"The gallery model {spec}"
    chosen = validated(_TimmOptions, options, what, error=CompatError)
    model = _create_timm(name, pretrained=chosen.pretrained and chosen.checkpoint is None)
    if chosen.checkpoint is not None:
        load_checkpoint(model, chosen.checkpoint, error=CompatError)
    config = timm.data.resolve_model_data_config(model)
    preprocessing = Preprocessing(
        resolution=chosen.resolution or config["input_size"][-1],
        fit="squash" if config.get("crop_mode") == "squash" else "crop",
        mean=config["mean"],
        std=config["std"],
    )
    return torch_gallery_model(spec, _normalising(model, preprocessing), preprocessing)


def _create_timm(name: str, *, pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise CompatError(
            f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}; list_models() of "
            "timm names them all."
        )
    try:
        with seeded(0):  # a random start is the same one in every run
            model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # hub, network and tag errors have no common type
        if not pretrained:
            raise CompatError(f"timm cannot create {name} ({reason(error)}).") from error
        raise CompatError(
            f"The pretrained weights of timm:{name} cannot be had ({reason(error)}): give them as "
            "checkpoint=FILE, or say pretrained=false for a random start."
        ) from error
    return model


def _from_factory(spec: str, name: str, options: Mapping[str, str]) -> GalleryModel:
    model, preprocessing = _made_by(spec, name, options)
    return torch_gallery_model(spec, model, preprocessing)


def made_by_factory(spec: str) -> tuple[nn.Module, Preprocessing]:
    """Return the network of ``package.module:factory,key=value``, and what it expects of its input.

    Raises:
        CompatError: As `load_gallery_model`.
    """
    return _made_by(spec, *_parse(spec))


def _made_by(spec: str, name: str, options: Mapping[str, str]) -> tuple[nn.Module, Preprocessing]:
    from torch import nn

    module_name, _, attribute = name.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise CompatError(
            f"Cannot import {module_name!r} for {spec} ({reason(error)}): run "
            "in the folder that holds it, or install it."
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise CompatError(
            f"The module {module_name} has no function {attribute!r}"
            f"{did_you_mean(attribute, dir(module))}."
        )
    try:
        model = factory(**options)
    except TypeError as error:
        raise CompatError(
            f"{name} does not take the options {dict(options)} ({reason(error)})."
        ) from error
    if not isinstance(model, nn.Module):
        raise CompatError(
            f"{name} returned a {type(model).__name__}, expected a torch.nn.Module that maps "
            "images (B, 3, S, S) in [0, 1] to (B, d)."
        )
    described = _OfOthers(**dict(getattr(model, "preprocessing", {})))
    return model, Preprocessing(**dict(described))


def _from_onnx(spec: str, path: Path) -> GalleryModel:
    import onnxruntime

    from searchspaces.support.onnx_files import open_onnx, read_onnx_input

    remedy = "export it with a fixed resolution"
    given = read_onnx_input(path, error=CompatError, remedy=remedy)
    fixed, side = given.batch, given.side
    if side is None:
        raise CompatError(f"{path} takes images of any size, expected (batch, 3, S, S); {remedy}.")
    providers = onnxruntime.get_available_providers()
    session = open_onnx(path, side, error=CompatError, remedy=remedy, providers=providers)
    preprocessing = Preprocessing(**dict(_OfOthers(resolution=side)))

    def run(pixels: np.ndarray, *, batch: int, description: str | None) -> np.ndarray:
        from tqdm import tqdm

        from compat.images import as_images, to_float

        step, parts = fixed or batch, []
        starts = range(0, len(pixels), step)
        for start in tqdm(starts, desc=description, unit="batches", disable=description is None):
            images = to_float(as_images(pixels[start : start + step])).numpy()
            missing = step - len(images) if fixed else 0
            padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
            try:
                found = np.asarray(session.run(None, {given.name: padded})[0], np.float32)
            except Exception as error:  # onnxruntime's errors share no public type
                raise CompatError(
                    f"{path} cannot embed images of {side} px ({reason(error)}): export it again."
                ) from error
            if found.ndim != 2 or len(found) != len(padded) or not np.isfinite(found).all():
                raise CompatError(
                    f"{path} gives shape {found.shape} with finite values "
                    f"{bool(np.isfinite(found).all())}, expected finite vectors (batch, d)."
                )
            parts.append(found[: len(images)])
        return np.concatenate(parts)

    dimension = run(np.zeros((2, side, side, 3), np.uint8), batch=2, description=None).shape[1]
    weights = hashlib.sha256()
    for file in (path, path.with_name(f"{path.name}.data")):
        if file.exists():
            with file.open("rb") as content:
                for block in iter(lambda: content.read(1 << 20), b""):
                    weights.update(block)
    return GalleryModel(spec, dimension, preprocessing, weights.hexdigest(), None, run)


def _normalising(model: nn.Module, preprocessing: Preprocessing) -> nn.Module:
    """``model`` behind (x - mean) / std."""
    from torch import nn
    from torchvision.transforms.v2 import Normalize

    mean, std = list(preprocessing.mean), list(preprocessing.std)
    return nn.Sequential(Normalize(mean, std), model)


def _pooled_width(backbone: nn.Module, resolution: int) -> int:
    import torch

    backbone.eval()
    with torch.inference_mode():
        width = int(backbone(torch.zeros(1, 3, resolution, resolution)).shape[-1])
    backbone.train()
    return width


def _weights_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _parse(spec: str) -> tuple[str, dict[str, str]]:
    name, *rest = spec.split(",")
    options = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals:
            raise CompatError(f"{spec!r}: {part!r} is no key=value, expected {_FORMS}.")
        options[key.strip()] = value.strip()
    return name, options

"""The query model: backbone, pooling, projection into the gallery space, unit length."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

from searchspaces.backbone import TimmBackbone
from searchspaces.checkpoint import load_checkpoint
from searchspaces.errors import SearchSpaceError
from searchspaces.levels import level_features, level_names, until
from searchspaces.projection import Projection
from searchspaces.support.errors import reason
from searchspaces.support.naming import near_matches, suggestion
from searchspaces.support.section import MOST_SIDE

POOLINGS = ("avg", "gem")

# of features, by name, resolution, pooling and levels: a pass of an outline takes longer than
# making the network, and saving and opening a model need one each
_widths: dict[tuple[str, int, str, tuple[str, ...]], int] = {}


class QueryModel(nn.Module):
    """A network that embeds query images in the gallery space.

    Args:
        backbone: Maps normalised images (B, 3, r, r) to pooled features (B, c).
        projection: Maps pooled features (B, c) to (B, dimension).
        resolution: Side r of the square images in pixels.
        mean: Per-channel mean that is subtracted from images in [0, 1].
        std: Per-channel standard deviation that they are divided by.
        origin: JSON-able description from which `searchspaces.rebuild` makes the same network with
            fresh weights; None where there is no such description.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projection: Projection,
        *,
        resolution: int,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = projection
        self.resolution = resolution
        self.origin = origin
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    @property
    def dimension(self) -> int:
        """Number of dimensions of the gallery space."""
        return self.projection.linear.out_features

    def pooled(self, images: Tensor) -> Tensor:
        """Map float images (B, 3, r, r) in [0, 1] to features (B, c) before the projection."""
        return self.backbone((images - self.mean) / self.std)

    def forward(self, images: Tensor) -> Tensor:
        """Map float images (B, 3, r, r) in [0, 1] to unit vectors (B, dimension)."""
        return F.normalize(self.projection(self.pooled(images)), dim=-1)

    def with_projection(self, projection: Projection) -> "QueryModel":
        """Return the same backbone with another projection, without a norm; weights are shared."""
        origin = self.origin
        other = QueryModel(
            self.backbone,
            projection,
            resolution=self.resolution,
            origin=None if origin is None else {**origin, "projection": projection.description},
        )
        other.mean, other.std = self.mean, self.std
        return other


class PooledFeatures(nn.Module):
    """The part of a query model before its projection, as a network of its own; weights are shared.

    Maps float images (B, 3, r, r) in [0, 1] to features (B, c).
    """

    def __init__(self, model: QueryModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.pooled(images)


class GeneralizedMean(nn.Module):
    """GeM pooling with a learnt exponent.

    Radenović et al., "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2018, eq. 3:
    (mean over positions of max(x, eps)^p)^(1/p).

    Args:
        flatten: Whether the pooled positions are dropped: (B, c) instead of (B, c, 1, 1).
        positions: The two spatial dimensions of the maps.
    """

    def __init__(self, *, flatten: bool = True, positions: tuple[int, int] = (2, 3)) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(3.0))
        self.eps = 1e-6
        self.keep = not flatten
        self.positions = positions

    def forward(self, maps: Tensor) -> Tensor:
        powers = maps.clamp(min=self.eps).pow(self.exponent)
        return powers.mean(self.positions, keepdim=self.keep).pow(1.0 / self.exponent)


def timm_query_model(
    name: str,
    dimension: int,
    *,
    resolution: int,
    pooling: str = "avg",
    projection_norm: bool = False,
    levels: Sequence[str] = (),
    pretrained: bool = True,
    checkpoint: str | Path | None = None,
) -> QueryModel:
    """Make a query model around a timm backbone.

    Args:
        name: A timm model name, "mobilenetv3_small_050" or "resnet18.a1_in1k".
        dimension: Number of dimensions of the gallery space.
        resolution: Side of the square query images in pixels.
        pooling: "avg" for what the family does by default, "gem" for generalised-mean pooling.
        projection_norm: Whether a BatchNorm comes before the projection.
        levels: Some of `backbone_levels`, the first of them or others: features are the pooled maps
            of all of these, and the network ends at the last. When empty features are those that
            the family's classifier sees.
        pretrained: Whether to fetch timm's published weights; ignored with a checkpoint.
        checkpoint: Weights of the backbone that `searchspaces.checkpoint.load_checkpoint` takes.

    Returns:
        The model; its projection starts at random.

    Raises:
        SearchSpaceError: If the name, the pooling or the resolution does not fit, or the weights
            cannot be had.
    """
    if pooling not in POOLINGS:
        raise SearchSpaceError(f"pooling is '{pooling}': {suggestion(pooling, list(POOLINGS))}")
    if not 1 <= resolution <= MOST_SIDE:
        raise SearchSpaceError(
            f"the resolution of '{name}' is {resolution}: give 1 to {MOST_SIDE} pixels"
        )
    network, config = _timm_network(
        name, resolution, pretrained=pretrained and checkpoint is None, checkpoint=checkpoint
    )
    if levels and pooling != "avg":
        raise SearchSpaceError(f"pooling is '{pooling}', but levels are pooled by 'avg' alone")
    if pooling == "gem":
        _pool_by_generalised_mean(network, name)
    backbone = TimmBackbone(network)
    if levels:
        backbone = level_features(network, levels, name)
    known = (name, resolution, pooling, tuple(levels))
    if known not in _widths:
        _widths[known] = _width(backbone, name, resolution)
    return QueryModel(
        backbone,
        Projection(_widths[known], dimension, norm=projection_norm),
        resolution=resolution,
        mean=config["mean"],
        std=config["std"],
        origin={
            "timm": {
                "name": name,
                "dimension": dimension,
                "resolution": resolution,
                "pooling": pooling,
                "projection_norm": projection_norm,
                **({"levels": list(levels)} if levels else {}),
            }
        },
    )


def backbone_levels(name: str) -> tuple[str, ...]:
    """Return all levels of a timm backbone, the modules after whose maps it can end.

    Raises:
        SearchSpaceError: timm has no such model or lists no stages of it, or its forward pass
            depends on the images so that it cannot be made to end at one.
    """
    _config(name)
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False, num_classes=0)
    found = level_names(network)
    if not found:
        raise SearchSpaceError(f"timm lists no stages of '{name}': use its pooled features")
    until(network, found, name)
    return tuple(found)


def first_levels(name: str, count: int | None) -> tuple[str, ...]:
    """Return so many of the first levels of a timm backbone, none for None.

    Raises:
        SearchSpaceError: As `backbone_levels`, or it has fewer, or less than one is asked for.
    """
    if count is None:
        return ()
    levels = backbone_levels(name)
    if not 1 <= count <= len(levels):
        raise SearchSpaceError(
            f"'{name}' has {len(levels)} levels, not {count}: give 1 to {len(levels)}"
        )
    return levels[:count]


def own_resolution(name: str) -> int:
    """Return the side in pixels of the square images that a timm model was made for.

    Raises:
        SearchSpaceError: If timm has no such model.
    """
    return int(_config(name).input_size[-1])


def near_models(name: str) -> str:
    """Return "did you mean ...?" with names of timm's models, which are too many to list."""
    matches = near_matches(name, timm.list_models())
    return suggestion(name, matches) if matches else "timm.list_models() lists what there is"


def _config(name: str) -> Any:
    base = name.partition(".")[0]
    if not timm.is_model(base):
        raise SearchSpaceError(f"timm has no model '{name}': {near_models(base)}")
    config = timm.get_pretrained_cfg(base)
    if config is None:
        raise SearchSpaceError(f"timm gives no resolution, mean and standard deviation for {name}")
    return config


def _timm_network(
    name: str, resolution: int, *, pretrained: bool, checkpoint: str | Path | None
) -> tuple[Any, Mapping[str, Any]]:
    config = _config(name)
    options: dict[str, Any] = {"num_classes": 0}
    if config.fixed_input_size and config.input_size[-1] != resolution:
        options["img_size"] = resolution
    try:
        network: Any = timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # families raise what they like for a size they do not take
        raise SearchSpaceError(
            f"timm cannot make '{name}' for images of {resolution} x {resolution} pixels "
            f"({reason(error)}): its own resolution is {config.input_size[-1]}"
        ) from error
    if checkpoint is not None:
        load_checkpoint(network, Path(checkpoint), error=SearchSpaceError)
    elif pretrained:
        network = _download(name, options)
    return network, network.pretrained_cfg


def _download(name: str, options: Mapping[str, Any]) -> nn.Module:
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its retries repeat the failure that is reported below
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # whatever network, cache or hub says, the remedy is the same
        raise SearchSpaceError(
            f"the pretrained weights of '{name}' could not be had ({reason(error)}): "
            "give checkpoint=FILE, or pretrained=False for a random start"
        ) from error
    finally:
        logger.setLevel(level)


def _pool_by_generalised_mean(network: nn.Module, name: str) -> None:
    pools = [m for m in network.modules() if isinstance(m, SelectAdaptivePool2d)]
    pools = [pool for pool in pools if not pool.is_identity()]
    if not pools:
        raise SearchSpaceError(
            f"'{name}' has no pooled feature map for pooling='gem': use pooling='avg', "
            "which pools the way its family does"
        )
    pool: Any
    for pool in pools:
        flatten = pool(torch.zeros(1, 1, 1, 1)).ndim == 2
        positions = getattr(pool.pool, "dim", (2, 3))  # (1, 2) where channels come last
        pool.pool = GeneralizedMean(flatten=flatten, positions=positions)
        pool.flatten = nn.Identity()


@torch.no_grad()
def _width(backbone: TimmBackbone, name: str, resolution: int) -> int:
    training = backbone.training
    try:
        features = backbone.eval()(torch.zeros(1, 3, resolution, resolution))
    except Exception as error:  # families raise what they like for a size they do not take
        raise SearchSpaceError(
            f"'{name}' does not take images of {resolution} x {resolution} pixels: {reason(error)}"
        ) from error
    finally:
        backbone.train(training)
    if features.ndim != 2:
        raise SearchSpaceError(
            f"'{name}' gives features of shape {tuple(features.shape)} instead of one vector "
            "per image: choose another backbone"
        )
    return features.shape[1]

"""Training a nested model: which capacities a step shows its batch to, and how they are merged."""

import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from compat.images import resize
from compat.targets import Batch
from compat.training import align
from nas.alignment.aligner import Aligner
from nas.recipes.nest_settings import NestConfig
from pruning.nested import Method, NestedModel, UncertaintyWeights
from pruning.nested.merging import Gradients, Merge
from searchspaces import QueryModel

_RULE: Mapping[Method, Gradients] = {
    "structured": "integrated",
    "masks": "integrated",
    "switchable": "pcgrad",
}


def train_nested(
    nested: NestedModel,
    aligner: Aligner,
    config: NestConfig,
    *,
    checkpoint: Path | None = None,
    quiet: bool = False,
) -> None:
    """Train a nested model in place; a step shows its batch to several capacities, or to all.

    The best epoch is the one with the highest mean validation cross-test of all capacities, the
    start among them. For it, and at the end, the BatchNorm statistics of every capacity are
    estimated again (adaptive BN), unless the config keeps those of a pretrained network.
    """
    keep = config.keeps_statistics
    loss = aligner.new_loss()
    weights = UncertaintyWeights(len(nested.capacities)) if config.method == "switchable" else None
    heads = nn.ModuleList([loss] if weights is None else [loss, weights])
    merge = Merge(nested, loss, config.gradients or _RULE[config.method], config.seed)
    resolution = nested.dense.resolution

    def losses(images: Tensor, batch: Batch, step: int) -> Iterator[Tensor]:
        images = resize(images, resolution)
        larger: list[Tensor] = []
        gradients = []
        for capacity in _shown(config, f"{config.seed} {step}"):
            query = nested(images, capacity)
            value = loss(query, batch.vectors, batch)
            if config.pairwise and larger:
                cosines = torch.stack([(query * other).sum(dim=1).mean() for other in larger])
                value = value + config.pairwise * (1 - cosines).mean()
            larger.append(query.detach())
            if weights is not None:
                value = weights(value, nested.capacities.index(capacity))
            yield value
            gradients.append(merge.collect())  # `align` has sent the loss backward
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            merge.apply(gradients, step)

    def adapted(module: NestedModel, capacity: float) -> QueryModel:
        model = module.extract(capacity)
        if not keep:
            aligner.calibrate(model, config.calibration_images)
        return model

    def validate(module: nn.Module) -> float:
        assert isinstance(module, NestedModel)
        scores = [aligner.cross_test(adapted(module, c)) for c in module.capacities]
        return sum(scores) / len(scores)

    align(
        nested,
        losses,
        aligner.data,
        config.training,
        loss=heads,
        seed=config.seed,
        device=aligner.device,
        validate=validate,
        checkpoint=checkpoint,
        keep_statistics=keep,
        title=f"train {len(nested.capacities)} capacities",
        quiet=quiet,
    )
    for capacity in () if keep else nested.capacities:
        nested.keep_statistics(capacity, adapted(nested, capacity))


def _shown(config: NestConfig, seed: str) -> list[float]:
    """The capacities that a step trains, falling, 100% and the smallest among them."""
    listed = sorted(config.capacities, reverse=True)
    if config.per_step is None:
        return listed
    between = listed[1:-1]
    if config.method != "switchable":
        between = [percent / 100 for percent in range(99, math.floor(100 * listed[-1]), -1)]
    drawn = random.Random(seed).sample(between, min(config.per_step - 2, len(between)))
    return [listed[0], *sorted(drawn, reverse=True), listed[-1]]

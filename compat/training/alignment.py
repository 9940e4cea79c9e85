"""Training towards gallery vectors, as a `TrainingConfig` says it: one-cycle AdamW, EMA."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compat.device import has_fast_bfloat16
from compat.targets import Batch
from compat.tasks.training_set import TrainingSet
from compat.training.average import MovingAverage
from compat.training.best import Best, Fitted
from compat.training.checkpoint import Checkpoint
from compat.training.config import TrainingConfig
from compat.training.descent import Descent
from compat.training.loop import Course, fit

Losses = Callable[[Tensor, Batch, int], Iterator[Tensor]]


def align(
    model: nn.Module,
    losses: Losses,
    data: TrainingSet,
    config: TrainingConfig,
    *,
    loss: nn.Module,
    seed: int,
    device: torch.device,
    validate: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
    from_start: bool = True,
    keep_statistics: bool = False,
    title: str,
    quiet: bool = False,
) -> Fitted:
    """Train ``model`` in place and leave the best weights in it.

    Args:
        model: Network to train; it is moved to ``device``.
        losses: ``losses(images, batch, step)`` yields scalar losses, each sent backward at once, so
            that only one graph lives in memory.
        data: Training pictures and their gallery vectors, the latter on ``device``.
        config: Epochs, batch, learning rate, schedule, EMA.
        loss: What ``losses`` computes with; the parameters it holds are trained along, in place.
        seed: Order of the images, choice of views, and what is drawn inside the network; a resumed
            training sees and draws the same.
        device: Where to train.
        validate: Score of a model, higher is better; called with the EMA weights every
            ``config.validate_every`` epochs and at the end. Without it the last weights are kept.
        checkpoint: File that keeps the state after every validation, so that a killed training
            continues; removed by the caller when its result is stored.
        from_start: Whether the network as it comes may be the best one.
        keep_statistics: Whether BatchNorm in ``model`` normalises by the statistics that it has,
            and keeps them, rather than by those of each batch.
        title: Words for the progress bar.
        quiet: Whether to show no bar, for trainings of a few steps inside another bar.

    Raises:
        CompatError: The loss became NaN or infinite, or the checkpoint cannot be continued.
    """
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = nn.ModuleDict({"model": model, "loss": loss.to(device)})
    steps = max(1, data.shown // config.batch)
    optimizer = torch.optim.AdamW(_groups(trained, config.weight_decay), lr=config.lr, fused=True)
    average = MovingAverage(model, config.ema)
    best = Best(average.model, validate)
    settings = {**config.model_dump(mode="json"), "seed": seed, "images": data.shown}
    fit(
        trained,
        lambda item, step: losses(*item, step),
        Course(
            config.epochs,
            steps,
            lambda epoch: data.epoch(config.batch, seed=seed + epoch, device=device),
            seed,
            rest=config.validate_every,
            from_start=from_start,
        ),
        Descent(
            optimizer,
            _schedule(optimizer, config, config.epochs * steps),
            device=device,
            half=_halved(config, device),
        ),
        title=title,
        remedy=f"lower `lr` (now {config.lr}) or check the gallery with `querynas gallery info "
        "--verify`",
        average=average,
        best=best,
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint, settings),
        to_training=lambda trained: _train(trained, model, keep_statistics),
        quiet=quiet,
    )
    found = best.give(model)
    model.eval()
    return found


def _train(trained: nn.Module, model: nn.Module, keep_statistics: bool) -> None:
    trained.train()
    if keep_statistics:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def _groups(trained: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices and kernels, not biases and normalisation."""
    parameters = [p for p in trained.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _schedule(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.lr,
        total_steps=total + 1,
        pct_start=config.warmup,
        cycle_momentum=False,
    )


def _halved(config: TrainingConfig, device: torch.device) -> bool:
    if config.precision == "bf16":
        return has_fast_bfloat16(device)
    return config.precision == "auto" and device.type == "cuda"

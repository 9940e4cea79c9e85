"""The training loop that every alignment shares: one-cycle AdamW, EMA, best epoch, resume."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from compat.device import has_fast_bfloat16
from compat.errors import CompatError
from compat.targets import Batch
from compat.tasks.training_set import TrainingSet
from compat.training.config import TrainingConfig
from searchspaces.support.files import write_atomically

Losses = Callable[[Tensor, Batch, int], Iterator[Tensor]]


@dataclass(frozen=True)
class Fitted:
    """What a training came to.

    Attributes:
        best: Highest validation score seen, or nan without validation.
        epoch: The epoch (1-based) that reached it and whose weights were kept.
        history: Validation score by epoch.
    """

    best: float
    epoch: int
    history: dict[int, float]


def fit(
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
    title: str,
    quiet: bool,
) -> Fitted:
    """Train ``model`` in place and leave the best weights in it.

    Args:
        model: Network to train; its parameters are moved to ``device``.
        losses: ``losses(images, batch, step)`` yields scalar losses, each sent backward at once, so
            that only one graph lives in memory.
        data: Training pictures and their gallery vectors.
        config: Epochs, batch, learning rate, schedule, EMA.
        loss: What ``losses`` computes with; the parameters it holds are trained along, in place.
        seed: Order of the images and choice of views; a resumed training sees the same order.
        device: Where to train.
        validate: Score of a model, higher is better; called with the EMA weights every
            ``config.validate_every`` epochs and at the end. Without it the last weights are kept.
        checkpoint: File that keeps the state after every validation, so that a killed training
            continues; removed by the caller when its result is stored.
        title: Words for the progress bar.
        quiet: Whether to show no bar, for trainings of a few steps inside another bar.

    Raises:
        CompatError: The loss became NaN or infinite, or a checkpoint belongs to another training.
    """
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = max(1, len(data) // config.batch)
    loss.to(device).train()
    groups = _groups(nn.ModuleList([model, loss]), config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.lr)
    scheduler = _schedule(optimizer, config, config.epochs * steps)
    average = AveragedModel(model, multi_avg_fn=_ema(config.ema), use_buffers=True)
    identity = {"config": config.model_dump(mode="json"), "seed": seed, "images": len(data)}
    state = _State()
    if checkpoint is not None and checkpoint.exists():
        state = _resume(checkpoint, identity, model, loss, average, optimizer, scheduler, device)

    total = config.epochs * steps
    progress = tqdm(
        total=total, initial=state.epoch * steps, desc=title, unit="step", disable=quiet
    )
    for epoch in range(state.epoch + 1, config.epochs + 1):
        model.train()
        pictures = data.epoch(config.batch, seed=seed + epoch, device=device)
        for step, (images, batch) in enumerate(pictures, start=(epoch - 1) * steps):
            value = _step(losses(images, batch, step), device, optimizer, config)
            if not math.isfinite(value):
                raise CompatError(
                    f"The loss of '{title}' became {value} in epoch {epoch}; lower `lr` "
                    f"(now {config.lr}) or check the gallery with `querynas gallery info --verify`."
                )
            scheduler.step()
            average.update_parameters(model)
            progress.update()
            progress.set_postfix(loss=f"{value:.4f}", refresh=False)
        state.epoch = epoch
        if epoch % config.validate_every == 0 or epoch == config.epochs:
            score = validate(average.module) if validate is not None else math.nan
            state.record(epoch, score, average.module)
            progress.set_postfix_str(f"loss={value:.4f} val={score:.4f}")
            if checkpoint is not None:
                _save(checkpoint, identity, state, model, loss, average, optimizer, scheduler)
    progress.close()
    model.load_state_dict(state.weights)
    model.eval()
    return Fitted(state.best, state.best_epoch, state.history)


class _State:
    """What the loop remembers between epochs."""

    def __init__(self) -> None:
        self.epoch = 0
        self.best = math.nan
        self.best_epoch = 0
        self.history: dict[int, float] = {}
        self.weights: dict[str, Tensor] = {}

    def record(self, epoch: int, score: float, model: nn.Module) -> None:
        self.history[epoch] = score
        if not self.weights or math.isnan(score) or score > self.best:
            self.best, self.best_epoch = score, epoch
            self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}


def _step(
    losses: Iterator[Tensor],
    device: torch.device,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
) -> float:
    optimizer.zero_grad(set_to_none=True)
    value = 0.0
    with torch.autocast(device.type, torch.bfloat16, enabled=_halved(config, device)):
        for part in losses:
            part.backward()
            value += part.item()
    if math.isfinite(value):
        optimizer.step()
    return value


def _halved(config: TrainingConfig, device: torch.device) -> bool:
    if config.precision == "bf16":
        return has_fast_bfloat16(device)
    return config.precision == "auto" and device.type == "cuda"


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices and kernels, not biases and normalisation."""
    parameters = [p for p in model.parameters() if p.requires_grad]
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


_Tensors = tuple[Tensor, ...] | list[Tensor]


def _ema(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Exponential moving average whose memory grows with the steps taken, up to ``decay``."""

    @torch.no_grad()
    def update(averaged: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        if averaged[0].is_floating_point():  # torch hands over one dtype at a time
            torch._foreach_lerp_(list(averaged), list(current), weight)
        else:
            torch._foreach_copy_(list(averaged), list(current))

    return update


def _save(
    path: Path,
    identity: dict[str, object],
    state: _State,
    model: nn.Module,
    loss: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    content = {
        "identity": identity,
        "epoch": state.epoch,
        "best": state.best,
        "best_epoch": state.best_epoch,
        "history": state.history,
        "weights": state.weights,
        "model": model.state_dict(),
        "loss": loss.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def _resume(
    path: Path,
    identity: dict[str, object],
    model: nn.Module,
    loss: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    device: torch.device,
) -> _State:
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CompatError(
            f"The checkpoint '{path}' cannot be read ({type(error).__name__}); delete it to train "
            "from the start."
        ) from error
    if content["identity"] != identity:
        raise CompatError(
            f"The checkpoint '{path}' was written under other settings; delete it to train from "
            "the start, or restore the settings."
        )
    model.load_state_dict(content["model"])
    loss.load_state_dict(content["loss"])
    average.load_state_dict(content["average"])
    optimizer.load_state_dict(content["optimizer"])
    scheduler.load_state_dict(content["scheduler"])
    state = _State()
    state.epoch, state.history = content["epoch"], content["history"]
    state.best, state.best_epoch = content["best"], content["best_epoch"]
    state.weights = content["weights"]
    return state

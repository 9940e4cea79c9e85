"""How many processes a search has room for, how it begins them, and what each may use."""

import contextlib
import logging
import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import joblib
import optuna
import psutil
import torch
from threadpoolctl import threadpool_limits

from compat.device import pick_device

_MEMORY = 3 << 29  # bytes that a further process may need
_LOOK = 0.5  # seconds


def room() -> int:
    """Return how many processes of one thread the machine has room for now, at least one.

    Each needs a core that idles, as far as a short look tells, and memory. A limit on this
    process's cores or on PyTorch's threads counts too. Where a GPU computes, one process does.
    """
    if pick_device().type != "cpu":
        return 1
    idle = psutil.cpu_count() * (1 - psutil.cpu_percent(_LOOK) / 100)
    spare = psutil.virtual_memory().available // _MEMORY
    return max(1, min(round(idle), torch.get_num_threads(), joblib.cpu_count(), 1 + spare))


def process(
    target: Callable[..., None], *arguments: object, threads: int, daemon: bool = False
) -> BaseProcess:
    """Return a process that calls a function of a module; it is not started.

    Where the system can fork it is a fork of one process that has imported the search, once for
    all of them; that process has no threads that a fork could leave behind.

    Args:
        target: The function.
        *arguments: What it is called with.
        threads: How many it may compute with.
        daemon: Whether it ends with this process.
    """
    context: Any = multiprocessing.get_context("spawn")
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["nas.study.trials"])
    begun: BaseProcess = context.Process(
        target=_call, args=(target, threads, arguments), daemon=daemon
    )
    return begun


def _call(target: Callable[..., None], threads: int, arguments: tuple[object, ...]) -> None:
    """Be the process: only the first one says what all of them do, and that it was stopped."""
    logging.basicConfig(format="querynas: %(message)s")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")
    with contextlib.suppress(KeyboardInterrupt), limited(threads):
        target(*arguments)


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Compute with so many threads, in PyTorch and in the linear algebra of NumPy and SciPy.

    The latter has threads of its own, as many as there are cores: each of several processes would
    wait for those of the others.
    """
    before = torch.get_num_threads()
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

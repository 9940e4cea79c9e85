"""How many processes a search has room for, how it begins them, and what each may use."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import joblib
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


def process(target: Callable[..., None], *arguments: object, daemon: bool = False) -> BaseProcess:
    """Return a process that calls a function of a module; it is not started.

    Where the system can fork it is a fork of one process that has imported the search, once for
    all of them; that process has no threads that a fork could leave behind.
    """
    context: Any = multiprocessing.get_context("spawn")
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["nas.study.trials"])
    begun: BaseProcess = context.Process(target=target, args=arguments, daemon=daemon)
    return begun


@contextmanager
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

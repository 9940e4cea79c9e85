"""How a search begins further processes."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any


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

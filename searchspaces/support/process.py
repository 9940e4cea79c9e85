"""Importing this module settles how a process of ours waits for its threads and keeps memory.

Threads sleep while they wait. In GNU OpenMP, which PyTorch, faiss and scikit-learn bring along, a
thread that waits for others spins for some hundred thousand rounds. Where anything else runs, it
spins on the core that the awaited thread needs, and a step of a training takes many times as long.
The library reads its environment when it is loaded, so this comes before all of them; processes
that are started later inherit it.

Memory that was freed is kept for what comes next. The C library of most Linux systems gives large
blocks back at once, and an activation map is one: every layer of every batch then asks for fresh
pages, which the system has to fill with zeros first. That takes up to half of the time of a
network. Blocks above a gibibyte still go back, and so does free memory beyond one.

What a user has set in the environment stays.
"""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT = 2**30  # bytes

os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _keep_freed_memory() -> None:
    own = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if own or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT)
        mallopt(_TRIM_THRESHOLD, _KEPT)


_keep_freed_memory()

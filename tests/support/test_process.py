"""How OpenMP's threads wait, as the libraries say when they are loaded, and what memory is kept."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import multiprocessing, nas
if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=exec, args=("import torch",))
    worker.start()
    worker.join()
"""
FAULTS = """
import os, resource, sys, {package}
print(os.environ["OMP_WAIT_POLICY"], *{{"torch", "faiss", "sklearn"}} & set(sys.modules))
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [b"1" * (size * 2**20) for size in range(1, 33)]
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = platform.libc_ver()[0] == "glibc"


def run(*command: str, **own: str) -> subprocess.CompletedProcess[str]:
    settled = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GLIBC_TUNABLES")
    kept = {k: v for k, v in os.environ.items() if k not in settled and "MALLOC" not in k}
    environment = {**kept, "OMP_DISPLAY_ENV": "verbose", **own}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def policies(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
    """What every OpenMP that a process loaded showed: wait policy and rounds of spinning."""
    return re.findall(r"OMP_WAIT_POLICY = '(\w+)'.*?GOMP_SPINCOUNT = '(\w+)'", done.stderr, re.S)


@pytest.mark.parametrize("package", ["nas", "compat", "searchspaces"])
def test_a_package_settles_the_process_before_any_library_is_loaded(package: str) -> None:
    done = run(sys.executable, "-c", FAULTS.format(package=package))
    settled, faults = done.stdout.splitlines()
    assert settled == "passive"
    if GLIBC:
        assert int(faults) < 1_000


def test_the_library_waits_as_it_is_told() -> None:
    assert policies(run(sys.executable, "-c", "import pruning")) == [("PASSIVE", "0")]


def test_so_does_the_command_for_every_library() -> None:
    command = str(Path(sys.executable).with_name("querynas"))
    found = policies(run(command, "search", "missing.yaml", "--out", "missing"))
    assert found
    assert set(found) == {("PASSIVE", "0")}


def test_so_do_worker_processes(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    done = run(sys.executable, str(tmp_path / "worker.py"))
    assert policies(done) == [("PASSIVE", "0")]


def test_what_a_user_has_set_stays() -> None:
    own = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "1234"}
    assert policies(run(sys.executable, "-c", "import nas, torch", **own)) == [("ACTIVE", "1234")]


@pytest.mark.skipif(not GLIBC, reason="settings of glibc's malloc")
def test_memory_that_a_user_gives_back_is_given_back() -> None:
    done = run(sys.executable, "-c", FAULTS.format(package="nas"), MALLOC_MMAP_THRESHOLD_="131072")
    assert int(done.stdout.splitlines()[1]) > 100_000  # pages of 4 KiB, asked for anew

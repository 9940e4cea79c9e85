"""How OpenMP's threads wait, as the libraries say themselves when they are loaded."""

import os
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


def shown(*command: str, **own: str) -> list[tuple[str, str]]:
    """What every OpenMP that a process loads shows: its wait policy and its rounds of spinning."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = {**kept, "OMP_DISPLAY_ENV": "verbose", **own}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return re.findall(r"OMP_WAIT_POLICY = '(\w+)'.*?GOMP_SPINCOUNT = '(\w+)'", done.stderr, re.S)


@pytest.mark.parametrize("package", ["nas", "pruning", "compat", "searchspaces"])
def test_every_package_has_openmp_wait_passively(package: str) -> None:
    code = f"import {package}, torch, faiss, sklearn.cluster"
    found = shown(sys.executable, "-c", code)
    assert found
    assert set(found) == {("PASSIVE", "0")}


def test_so_does_the_command() -> None:
    command = str(Path(sys.executable).with_name("querynas"))
    found = shown(command, "search", "missing.yaml", "--out", "missing")
    assert found
    assert set(found) == {("PASSIVE", "0")}


def test_so_do_worker_processes(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    assert shown(sys.executable, str(tmp_path / "worker.py")) == [("PASSIVE", "0")]


def test_what_a_user_has_set_stays() -> None:
    command = (sys.executable, "-c", "import nas, torch")
    ((policy, _),) = shown(*command, OMP_WAIT_POLICY="active")
    assert policy == "ACTIVE"
    ((_, rounds),) = shown(*command, GOMP_SPINCOUNT="1234")
    assert rounds == "1234"

"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, or a skip that says how to have it."""
    root = Path(os.environ.get("QUERYNAS_DATA", "../shared/data"))
    if not root.is_dir():
        pytest.skip(f"no real images at {root}: set QUERYNAS_DATA to the folder that holds them")
    return root.resolve()


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' image cache out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUERYNAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield

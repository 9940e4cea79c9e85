"""Where things are kept that can be made again."""

import os
from pathlib import Path


def default_cache() -> Path:
    """Return the folder in the environment variable QUERYNAS_CACHE, or ~/.cache/querynas."""
    return Path(os.environ.get("QUERYNAS_CACHE") or Path.home() / ".cache" / "querynas")

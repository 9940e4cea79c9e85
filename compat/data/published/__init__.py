"""Readers of published data sets, each from its official archive or its unpacked folder."""

from compat.data.published.cifar10 import open_cifar10
from compat.data.published.cub200 import open_cub200
from compat.data.published.inshop import open_inshop
from compat.data.published.omniglot import open_omniglot
from compat.data.published.sop import open_sop

__all__ = ["open_cifar10", "open_cub200", "open_inshop", "open_omniglot", "open_sop"]

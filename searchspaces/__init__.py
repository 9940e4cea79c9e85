"""What a query network may look like, and what it costs."""

import lazy_loader

import searchspaces.support.process  # noqa: F401  before torch is loaded

# torch and timm wait until they are used: the ground helpers below need neither
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

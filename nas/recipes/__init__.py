"""Whole jobs beside a search: prune one model, nest capacities, train a gallery side along."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

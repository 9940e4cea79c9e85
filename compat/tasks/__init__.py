"""What a study trains on, selects on and reports: pictures with their gallery vectors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

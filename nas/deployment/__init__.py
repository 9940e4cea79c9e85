"""Query models as files: written with a card, opened, measured, compared, profiled."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

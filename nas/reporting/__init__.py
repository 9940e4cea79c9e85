"""What people look at: the report, its figures and pictures, and matrices of cross-tests."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

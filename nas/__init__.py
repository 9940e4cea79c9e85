"""Search studies: propose, align, score, keep the front, export, profile, report."""

import lazy_loader

import searchspaces.support.process  # noqa: F401  before torch is loaded

# the command line imports this package; torch and Optuna wait until they are used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

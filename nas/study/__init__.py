"""One Optuna study in a run folder: propose, score, climb the ladder, keep the front, export."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

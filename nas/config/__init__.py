"""What a study, a pruning or a nest is told, validated before anything long begins."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

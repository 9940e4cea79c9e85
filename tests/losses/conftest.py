"""Training images that most tests of losses share."""

import pytest
import torch
import torch.nn.functional as F
from references import CLASSES, unit

from compat.targets import AlignmentTargets


@pytest.fixture
def targets() -> AlignmentTargets:
    """Eighty images of classes that overlap; the first forty are the gallery."""
    labels = torch.arange(80) % CLASSES
    vectors = F.normalize(unit(CLASSES, 0)[labels] + 0.8 * unit(80, 1), dim=1).float()
    return AlignmentTargets(vectors=vectors, gallery=vectors[:40], labels=labels)

"""Distillation of class logits alone, each side with its own classifier."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from compat.losses.base import CompatibilityLoss, log_softmax_kl, register_loss
from compat.losses.options import number
from compat.targets import AlignmentTargets, Batch


@register_loss("logit_kd", requires=("gallery_embeddings", "labels", "prototypes"))
class LogitKD(CompatibilityLoss):
    """T² · KL(softmax(s·g·W_gᵀ/T) ‖ softmax(s·q·W_qᵀ/T)), mean over the batch.

    W_g is the gallery's classifier (the class prototypes where it has none), frozen; W_q is a
    learnable classifier of the query model's own, trained along and dropped after training. Rows
    of both have length one, so that logits are cosines times s. Hinton, Vinyals, Dean,
    "Distilling the knowledge in a neural network", 2015, section 2.

    A negative control: q may turn in its space as long as W_q turns along, so the classes are
    told apart (self-test) and the gallery is not found (cross-test near chance). The labels serve
    to make W_g only; images do not interact, so a batch of one or of one class is no special case.

    Args:
        scale: s.
        temperature: T.
    """

    classifier: Tensor
    weight: nn.Parameter

    def __init__(self, scale: float = 64.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.scale = number("scale", scale, above=0)
        self.temperature = number("temperature", temperature, above=0)

    def prepare(self, targets: AlignmentTargets) -> None:
        classifier = targets.gallery_classifier()
        self.register_buffer("classifier", classifier, persistent=False)
        self.weight = nn.Parameter(torch.randn_like(classifier))

    def forward(self, query: Tensor, target: Tensor, batch: Batch) -> Tensor:
        sharpness = self.scale / self.temperature
        teacher = target @ self.classifier.T.to(query.dtype)
        student = query @ normalize(self.weight).T
        return self.temperature**2 * log_softmax_kl(sharpness * teacher, sharpness * student)

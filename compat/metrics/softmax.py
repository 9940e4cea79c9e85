"""Divergence between what two embeddings make of the same reference vectors."""

import numpy as np

from compat.errors import CompatError


def softmax_kl(target: np.ndarray, query: np.ndarray, temperature: float) -> np.ndarray:
    """KL(softmax(target/τ) ‖ softmax(query/τ)) in nats over the last axis, float64.

    Raises:
        CompatError: The temperature is not positive.
    """
    if not temperature > 0:
        raise CompatError(f"The temperature is {temperature}; give a positive number, e.g. 0.1.")
    p, q = _log_softmax(target / temperature), _log_softmax(query / temperature)
    return np.sum(np.exp(p) * (p - q), axis=-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

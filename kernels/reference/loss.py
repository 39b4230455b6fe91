"""Softmax with cross-entropy."""

import numpy as np

from ..types import Array


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Per-event loss -log p[label] with p = softmax(logits): returns (losses (N,), p (N, classes));
    labels int (N,).
    """
    shifted = logits - logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(1))
    losses = log_sum - shifted[np.arange(len(labels)), labels]
    return losses, np.exp(shifted - log_sum[:, None])


def softmax_cross_entropy_backward(p: Array, labels: Array) -> Array:
    """Gradient of the *sum* of the losses with respect to the logits: p - one_hot(labels)."""
    dlogits = p.copy()
    dlogits[np.arange(len(labels)), labels] -= 1
    return dlogits

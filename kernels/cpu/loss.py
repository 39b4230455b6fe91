"""Softmax with cross-entropy: a few numbers per event, so plain NumPy."""

import numpy as np

from ..types import Array
from .checks import check_float32


def _labels(op, labels, p):
    labels = np.asarray(labels)
    if p.ndim != 2 or labels.shape != p.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{op} needs (N, classes) and N integer labels, got {p.shape} and {labels.dtype} "
            f"{labels.shape}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < p.shape[1]:
        raise ValueError(
            f"{op} needs labels from 0 to {p.shape[1] - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Per-event loss -log p[label] with p = softmax(logits): returns (losses (N,), p (N, classes))
    float32; labels int (N,).
    """
    logits = check_float32("softmax_cross_entropy", logits=logits)
    labels = _labels("softmax_cross_entropy", labels, logits)
    shifted = logits - logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(1))
    return log_sum - shifted[np.arange(len(labels)), labels], np.exp(shifted - log_sum[:, None])


def softmax_cross_entropy_backward(p: Array, labels: Array) -> Array:
    """Gradient of the *sum* of the losses with respect to the logits: p - one_hot(labels), (N,
    classes) float32.
    """
    dlogits = check_float32("softmax_cross_entropy_backward", p=p).copy()
    dlogits[np.arange(len(p)), _labels("softmax_cross_entropy_backward", labels, p)] -= 1
    return dlogits

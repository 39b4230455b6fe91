"""Softmax with cross-entropy."""

import numpy as np

from ..types import Array, Kernels
from .checks import check_float32, integers


def _labels(kernels, op, labels, p):
    if p.ndim != 2 or tuple(labels.shape) != tuple(p.shape[:1]) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{op} needs (N, classes) and N integer labels, got {p.shape} and {labels.dtype} "
            f"{labels.shape}"
        )
    return integers(kernels, labels, np.int64)


def softmax_cross_entropy(kernels: Kernels, logits: Array, labels: Array) -> tuple[Array, Array]:
    """Per-event loss -log p[label] with p = softmax(logits): returns (losses (N,), p (N, classes))
    float32; labels int (N,), each from 0 to classes - 1, which is not checked again here.
    """
    logits = check_float32(kernels, "softmax_cross_entropy", logits=logits)
    labels = _labels(kernels, "softmax_cross_entropy", labels, logits)
    losses, p = kernels.empty(logits.shape[:1]), kernels.empty(logits.shape)
    kernels.launch(
        "loss.cu",
        "softmax_cross_entropy",
        (-(-len(logits) // 32), 32),
        (logits, labels, *logits.shape, losses, p),
    )
    return losses, p


def softmax_cross_entropy_backward(kernels: Kernels, p: Array, labels: Array) -> Array:
    """Gradient of the *sum* of the losses with respect to the logits: p - one_hot(labels), (N,
    classes) float32.
    """
    p = check_float32(kernels, "softmax_cross_entropy_backward", p=p)
    labels = _labels(kernels, "softmax_cross_entropy_backward", labels, p)
    dlogits = kernels.empty(p.shape)
    kernels.launch(
        "loss.cu",
        "softmax_cross_entropy_backward",
        (-(-p.size // 32), 32),
        (p, labels, *p.shape, dlogits),
    )
    return dlogits

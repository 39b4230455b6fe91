"""Softmax with cross-entropy."""

import numpy as np

from .checks import floats, integers


def _labels(k, op, labels, p):
    if p.ndim != 2 or tuple(labels.shape) != tuple(p.shape[:1]) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{op} needs (N, classes) and N integer labels, got {p.shape} and {labels.dtype} {labels.shape}"
        )
    return integers(k, labels, np.int64)


def softmax_cross_entropy(k, logits, labels):
    """Per-event loss -log p[label] with p = softmax(logits): returns (losses (N,), p (N, classes))
    float32; labels int (N,), each from 0 to classes - 1, which is not checked again here.
    """
    logits = floats(k, "softmax_cross_entropy", logits=logits)
    labels = _labels(k, "softmax_cross_entropy", labels, logits)
    losses, p = k.empty(logits.shape[:1]), k.empty(logits.shape)
    k.launch(
        "loss.cu",
        "softmax_cross_entropy",
        -(-len(logits) // 32),
        32,
        (logits, labels, *logits.shape, losses, p),
    )
    return losses, p


def softmax_cross_entropy_backward(k, p, labels):
    """Gradient of the *sum* of the losses with respect to the logits: p - one_hot(labels), (N,
    classes) float32.
    """
    p = floats(k, "softmax_cross_entropy_backward", p=p)
    labels = _labels(k, "softmax_cross_entropy_backward", labels, p)
    dlogits = k.empty(p.shape)
    k.launch(
        "loss.cu",
        "softmax_cross_entropy_backward",
        -(-p.size // 32),
        32,
        (p, labels, *p.shape, dlogits),
    )
    return dlogits

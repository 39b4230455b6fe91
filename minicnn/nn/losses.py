"""Softmax cross-entropy, summed over events: averages are taken after the reduction over ranks, so
that unequal batches stay exact.
"""

import numpy as np


def softmax_cross_entropy(k, logits, labels):
    """Return (losses (N,), scores (N, classes), dlogits): -log p[label], softmax p, gradient of the
    *sum* of the losses.
    """
    losses, scores = k.softmax_cross_entropy(logits, labels)
    return losses, scores, k.softmax_cross_entropy_backward(scores, labels)


def softmax(k, logits):
    """Return the softmax scores (N, classes) of the logits."""
    return k.softmax_cross_entropy(logits, k.zeros((len(logits),), np.int64))[1]


def check_labels(labels, count, classes):
    """Return labels as int64 (count,); raises ValueError naming the first one out of 0 .. classes -
    1.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be {count} integers, got shape {labels.shape} of {labels.dtype}"
        )
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(
            f"event {i} of the batch has the label {labels[i]}; the network has the classes 0 to {classes - 1}"
        )
    return labels.astype(np.int64)

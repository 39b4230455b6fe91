"""Softmax over the last axis."""

import numpy as np

from ..types import Array


def softmax(x: Array) -> Array:
    """y = exp(x) / sum of exp(x) over the last axis, with the largest x subtracted first, so that
    nothing overflows. x (..., C) -> y (..., C).
    """
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_backward(dy: Array, y: Array) -> Array:
    """dx = y * (dy - sum of dy * y over the last axis), for dy and y (..., C)."""
    return y * (dy - (dy * y).sum(-1, keepdims=True))

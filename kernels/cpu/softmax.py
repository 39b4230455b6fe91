"""Softmax over the last axis: a task has some rows, each of them one pass of exponentials."""

import numpy as np
from numba import prange

from ..types import Array
from .checks import check_float32, check_last_axis, check_shape
from .elementary import exp
from .jit import VECTOR_CHUNK, threaded


@threaded
def _softmax(x, rows, y):
    n, c = x.shape
    for task in prange((n + rows - 1) // rows):
        for r in range(task * rows, min(n, (task + 1) * rows)):
            before, after = x[r], y[r]
            top = before[0]
            for k in range(1, c):
                top = before[k] if before[k] > top else top
            total = 0.0
            for k in range(c):
                after[k] = exp(before[k] - top)
                total += after[k]
            scale = np.float32(1 / total)
            for k in range(c):
                after[k] *= scale


@threaded
def _softmax_backward(dy, y, rows, dx):
    n, c = y.shape
    for task in prange((n + rows - 1) // rows):
        for r in range(task * rows, min(n, (task + 1) * rows)):
            g, after, to = dy[r], y[r], dx[r]
            dot = 0.0
            for k in range(c):
                dot += g[k] * after[k]
            mean = np.float32(dot)
            for k in range(c):
                to[k] = after[k] * (g[k] - mean)


def softmax(x: Array) -> Array:
    """y = exp(x) / sum of exp(x) over the last axis, with the largest x subtracted first, so that
    nothing overflows. x (..., C) float32 -> y (..., C).
    """
    x = check_float32("softmax", x=x)
    flat, rows = _rows("softmax", x)
    y = np.empty_like(x)
    _softmax(-(-len(flat) // rows), flat, rows, y.reshape(flat.shape))
    return y


def softmax_backward(dy: Array, y: Array) -> Array:
    """dx = y * (dy - sum of dy * y over the last axis), for dy and y (..., C) float32."""
    dy, y = check_float32("softmax_backward", dy=dy, y=y)
    check_shape("softmax_backward", "dy", dy, y.shape)
    flat, rows = _rows("softmax_backward", y)
    dx = np.empty_like(y)
    _softmax_backward(
        -(-len(flat) // rows), dy.reshape(flat.shape), flat, rows, dx.reshape(flat.shape)
    )
    return dx


def _rows(op, x):
    """Return x as (rows, C), and the rows of a task."""
    flat = check_last_axis(op, "x", x, least=1)
    return flat, max(1, VECTOR_CHUNK // flat.shape[1])

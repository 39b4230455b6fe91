"""Enlarging an image by repeating its pixels: bound by memory."""

import numpy as np
from numba import prange

from ..shapes import pair, upsampled
from ..types import Array, Pair
from .checks import check_float32
from .jit import tasks, threaded
from .pool2d import window_sums


@threaded
def _upsample2d(x, sh, sw, y):
    n, oh, _, _ = y.shape
    _, _, w, c = x.shape
    for task in prange(n * oh):
        e, i = task // oh, task % oh
        for j in range(w):
            pixel = x[e, i // sh, j]
            for b in range(sw):
                to = y[e, i, j * sw + b]
                for k in range(c):
                    to[k] = pixel[k]


def upsample2d(x: Array, size: Pair) -> Array:
    """y[n, i, j, c] = x[n, i // SH, j // SW, c]: nearest neighbour. x (N, H, W, C) float32 -> y (N,
    H * SH, W * SW, C).
    """
    x = check_float32("upsample2d", x=x)
    size = pair(size, "size")
    y = np.empty(upsampled(x.shape, size), np.float32)
    _upsample2d(tasks(y.size), x, *size, y)
    return y


def upsample2d_backward(dy: Array, size: Pair) -> Array:
    """dx[n, i, j, c] = sum of dy over the SH x SW copies of pixel (i, j). dy (N, H * SH, W * SW, C)
    float32 -> dx (N, H, W, C).
    """
    dy = check_float32("upsample2d_backward", dy=dy)
    size = pair(size, "size")
    dx = np.empty(upsampled(dy.shape, size, back=True), np.float32)
    window_sums(tasks(dy.size), dy, size, size, 1.0, dx)
    return dx

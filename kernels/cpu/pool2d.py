"""Max-pooling on its own: bound by memory. Inside a network conv2d_block does it without storing
what it pools.
"""

import numpy as np
from numba import prange

from ..shapes import argmax_dtype, pair, pool_output
from .checks import floats, plain, shaped
from .jit import parallel


@parallel
def _maxpool2d(x, ph, pw, sh, sw, y, argmax):
    n, oh, ow, c = y.shape
    for task in prange(n * oh):
        e, i = task // oh, task % oh
        for j in range(ow):
            for k in range(c):  # channels innermost: contiguous, and vectorized
                y[e, i, j, k] = x[e, i * sh, j * sw, k]
                argmax[e, i, j, k] = 0
            for p in range(1, ph * pw):
                a, b = p // pw, p % pw
                for k in range(c):
                    v, top, at = x[e, i * sh + a, j * sw + b, k], y[e, i, j, k], argmax[e, i, j, k]
                    larger = v > top  # strict: the first of equals wins
                    y[e, i, j, k] = v if larger else top
                    argmax[e, i, j, k] = p if larger else at


@parallel
def _maxpool2d_backward(dy, argmax, ph, pw, sh, sw, rows_per_task, dx):
    n, oh, ow, c = dy.shape
    h = dx.shape[1]
    bands = (h + rows_per_task - 1) // rows_per_task
    down, right = (
        np.arange(ph * pw) // pw,
        np.arange(ph * pw) % pw,
    )  # looked up: a division takes long
    for task in prange(n * bands):  # a task owns these rows of dx
        e, first = task // bands, task % bands * rows_per_task
        last = min(h, first + rows_per_task)
        dx[e, first:last] = 0
        for i in range(
            max(0, (first - ph) // sh + 1), min(oh, (last - 1) // sh + 1)
        ):  # windows that reach into them
            for j in range(ow):
                for k in range(c):
                    a = argmax[e, i, j, k]
                    row = i * sh + down[a]
                    if first <= row < last:
                        dx[e, row, j * sw + right[a], k] += dy[e, i, j, k]


def maxpool2d(x, size, stride=None):
    """y[n, i, j, c] = max of x[n, i*s + a, j*s + b, c] over 0 <= a < PH, 0 <= b < PW; windows that
    do not fit are dropped.

    x (N, H, W, C) float32. Returns (y, argmax): argmax = a * PW + b of the first maximum in
    row-major order, uint8 (int32 above 256 positions).
    """
    x = floats("maxpool2d", x=x)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    shape = pool_output(x.shape, size, stride)
    y, argmax = np.empty(shape, np.float32), np.empty(shape, argmax_dtype(size))
    _maxpool2d(x, *size, *stride, y, argmax)
    return y, argmax


def maxpool2d_backward(dy, argmax, x_shape, size, stride=None):
    """dx (x_shape): each dy (N, OH, OW, C) float32 is added at the position that was its window's
    maximum.
    """
    dy = floats("maxpool2d_backward", dy=dy)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    shaped("maxpool2d_backward", "dy", dy, pool_output(x_shape, size, stride))
    shaped("maxpool2d_backward", "argmax", argmax, dy.shape)
    dx = np.empty(x_shape, np.float32)
    argmax = plain(np.asarray(argmax, argmax_dtype(size)))
    _maxpool2d_backward(dy, argmax, *size, *stride, stride[0], dx)
    return dx

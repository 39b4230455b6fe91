"""Max-pooling on its own: bound by memory. Inside a network conv2d_block does it without storing
what it pools.
"""

import numpy as np
from numba import prange

from ..shapes import argmax_dtype, global_pool_check, pair, pool_output
from ..types import Array, Pair, Shape
from .checks import as_contiguous, check_float32, check_shape
from .jit import tasks, threaded

CHUNK = 256  # positions summed in float32 before the sum goes to float64
SPAN = 4096  # positions of an image that a task of global_max_pool looks at


@threaded
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
                    v, top, position = (
                        x[e, i * sh + a, j * sw + b, k],
                        y[e, i, j, k],
                        argmax[e, i, j, k],
                    )
                    larger = v > top  # strict: the first of equals wins
                    y[e, i, j, k] = v if larger else top
                    argmax[e, i, j, k] = p if larger else position


@threaded
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


@threaded
def window_sums(x, size, stride, scale, y):
    """y = scale * the sum over each window."""
    (n, oh, ow, c), (ph, pw), (sh, sw) = y.shape, size, stride
    for task in prange(n * oh):
        e, i = task // oh, task % oh
        total = np.empty(c)
        for j in range(ow):
            total[:] = 0
            for a in range(ph):
                for b in range(pw):
                    pixel = x[e, i * sh + a, j * sw + b]
                    for k in range(c):
                        total[k] += pixel[k]
            to = y[e, i, j]
            for k in range(c):
                to[k] = total[k] * scale


@threaded
def _avgpool2d_backward(dy, ph, pw, sh, sw, scale, dx):
    n, oh, ow, c = dy.shape
    h = dx.shape[1]
    for task in prange(n * h):  # a task owns this row of dx, and adds the windows in raster order
        e, row = task // h, task % h
        dx[e, row] = 0
        for i in range(max(0, (row - ph) // sh + 1), min(oh, row // sh + 1)):
            for j in range(ow):
                g = dy[e, i, j]
                for b in range(pw):
                    to = dx[e, row, j * sw + b]
                    for k in range(c):
                        to[k] += g[k] * scale


@threaded
def _image_sums(x, sums):
    n, positions, c = x.shape
    chunks = sums.shape[1]
    for task in prange(n * chunks):
        e, t = task // chunks, task % chunks
        part = np.zeros(c, np.float32)
        for p in range(t * CHUNK, min(positions, (t + 1) * CHUNK)):
            pixel = x[e, p]
            for k in range(c):
                part[k] += pixel[k]
        for k in range(c):
            sums[e, t, k] = part[k]


@threaded
def _image_maxima(x, best, where):
    n, positions, c = x.shape
    spans = best.shape[1]
    for task in prange(n * spans):
        e, t = task // spans, task % spans
        top, top_at = best[e, t], where[e, t]
        for k in range(c):
            top[k], top_at[k] = x[e, t * SPAN, k], t * SPAN
        for p in range(t * SPAN + 1, min(positions, (t + 1) * SPAN)):
            pixel = x[e, p]
            for k in range(c):
                larger = pixel[k] > top[k]  # strict: the first of equals wins
                top[k] = pixel[k] if larger else top[k]
                top_at[k] = p if larger else top_at[k]


def maxpool2d(x: Array, size: Pair, stride: Pair | None = None) -> tuple[Array, Array]:
    """y[n, i, j, c] = max of x[n, i*s + a, j*s + b, c] over 0 <= a < PH, 0 <= b < PW; windows that
    do not fit are dropped.

    x (N, H, W, C) float32. Returns (y, argmax): argmax = a * PW + b of the first maximum in
    row-major order, uint8 (int32 above 256 positions).
    """
    x = check_float32("maxpool2d", x=x)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    shape = pool_output(x.shape, size, stride)
    y = np.empty(shape, np.float32)
    argmax: Array = np.empty(shape, argmax_dtype(size))
    _maxpool2d(tasks(x.size), x, *size, *stride, y, argmax)
    return y, argmax


def maxpool2d_backward(
    dy: Array, argmax: Array, x_shape: Shape, size: Pair, stride: Pair | None = None
) -> Array:
    """dx (x_shape): each dy (N, OH, OW, C) float32 is added at the position that was its window's
    maximum.
    """
    dy = check_float32("maxpool2d_backward", dy=dy)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    check_shape("maxpool2d_backward", "dy", dy, pool_output(x_shape, size, stride))
    check_shape("maxpool2d_backward", "argmax", argmax, dy.shape)
    dx = np.empty(x_shape, np.float32)
    argmax = as_contiguous(np.asarray(argmax, argmax_dtype(size)))
    _maxpool2d_backward(tasks(dx.size), dy, argmax, *size, *stride, stride[0], dx)
    return dx


def avgpool2d(x: Array, size: Pair, stride: Pair | None = None) -> Array:
    """y[n, i, j, c] = mean of x[n, i*s + a, j*s + b, c] over 0 <= a < PH, 0 <= b < PW; windows that
    do not fit are dropped. x (N, H, W, C) float32 -> y (N, OH, OW, C).
    """
    x = check_float32("avgpool2d", x=x)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    y = np.empty(pool_output(x.shape, size, stride), np.float32)
    window_sums(tasks(x.size), x, size, stride, 1 / (size[0] * size[1]), y)
    return y


def avgpool2d_backward(dy: Array, x_shape: Shape, size: Pair, stride: Pair | None = None) -> Array:
    """dx (x_shape): each dy (N, OH, OW, C) float32 / (PH * PW) is added at all positions of its
    window.
    """
    dy = check_float32("avgpool2d_backward", dy=dy)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    check_shape("avgpool2d_backward", "dy", dy, pool_output(tuple(x_shape), size, stride))
    dx = np.empty(x_shape, np.float32)
    scale = np.float32(1 / (size[0] * size[1]))
    _avgpool2d_backward(tasks(dx.size), dy, *size, *stride, scale, dx)
    return dx


def global_average_pool(x: Array) -> Array:
    """y[n, c] = mean of x[n, i, j, c] over all positions. x (N, H, W, C) float32 -> y (N, C) (Lin
    et al. 2014, arXiv:1312.4400).
    """
    x = check_float32("global_average_pool", x=x)
    global_pool_check("global_average_pool", x.shape)
    n, h, w, c = x.shape
    sums = np.empty((n, -(-h * w // CHUNK), c))
    _image_sums(tasks(x.size), x.reshape(n, h * w, c), sums)
    return (np.add.reduce(sums, 1) / (h * w)).astype(np.float32)


def global_average_pool_backward(dy: Array, x_shape: Shape) -> Array:
    """dx[n, i, j, c] = dy[n, c] / (H * W), of x_shape (N, H, W, C), float32."""
    dy = check_float32("global_average_pool_backward", dy=dy)
    global_pool_check("global_average_pool_backward", tuple(x_shape))
    n, h, w, c = x_shape
    check_shape("global_average_pool_backward", "dy", dy, (n, c))
    dx = np.empty(x_shape, np.float32)
    dx[...] = (dy / np.float32(h * w))[:, None, None]
    return dx


def global_max_pool(x: Array) -> tuple[Array, Array]:
    """y[n, c] = max of x[n, i, j, c] over all positions. x (N, H, W, C) float32 -> (y (N, C),
    argmax (N, C) int32): argmax = i * W + j of the first maximum in row-major order.
    """
    x = check_float32("global_max_pool", x=x)
    global_pool_check("global_max_pool", x.shape)
    n, h, w, c = x.shape
    shape = n, -(-h * w // SPAN), c
    best, where = np.empty(shape, np.float32), np.empty(shape, np.int32)
    _image_maxima(tasks(x.size), x.reshape(n, h * w, c), best, where)
    first = best.argmax(1)[:, None]  # of the spans: the first of equals, too
    return np.take_along_axis(best, first, 1)[:, 0], np.take_along_axis(where, first, 1)[:, 0]


def global_max_pool_backward(dy: Array, argmax: Array, x_shape: Shape) -> Array:
    """dx (x_shape): dy[n, c] (float32) at the position of the maximum, 0 elsewhere."""
    dy = check_float32("global_max_pool_backward", dy=dy)
    global_pool_check("global_max_pool_backward", tuple(x_shape))
    n, h, w, c = x_shape
    check_shape("global_max_pool_backward", "dy", dy, (n, c))
    check_shape("global_max_pool_backward", "argmax", argmax, (n, c))
    dx = np.zeros((n, h * w, c), np.float32)
    np.put_along_axis(dx, np.asarray(argmax)[:, None], dy[:, None], 1)
    return dx.reshape(x_shape)

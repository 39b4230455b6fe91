"""Pooling."""

import numpy as np

from ..shapes import argmax_dtype, pair, pool_output
from ..types import Array, Pair, Shape


def maxpool2d(x: Array, size: Pair, stride: Pair | None = None) -> tuple[Array, Array]:
    """y[n, i, j, c] = max of x[n, i*s + a, j*s + b, c] over 0 <= a < PH, 0 <= b < PW; windows that
    do not fit are dropped.

    Returns (y, argmax): argmax = a * PW + b of the first maximum in row-major order, uint8 (int32
    above 256 positions).
    """
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    pool_output(x.shape, size, stride)
    windows = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))[
        :, :: stride[0], :: stride[1]
    ]
    flat = windows.reshape(*windows.shape[:4], size[0] * size[1])
    argmax = flat.argmax(-1)
    return np.take_along_axis(flat, argmax[..., None], -1)[..., 0], argmax.astype(
        argmax_dtype(size)
    )


def maxpool2d_backward(
    dy: Array, argmax: Array, x_shape: Shape, size: Pair, stride: Pair | None = None
) -> Array:
    """dx (x_shape): each dy is added at the position that was its window's maximum."""
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    n, i, j, c = np.indices(dy.shape, sparse=True)
    dx = np.zeros(x_shape, dy.dtype)
    np.add.at(dx, (n, i * stride[0] + argmax // size[1], j * stride[1] + argmax % size[1], c), dy)
    return dx


def avgpool2d(x: Array, size: Pair, stride: Pair | None = None) -> Array:
    """y[n, i, j, c] = mean of x[n, i*s + a, j*s + b, c] over 0 <= a < PH, 0 <= b < PW; windows that
    do not fit are dropped. x (N, H, W, C) -> y (N, OH, OW, C).
    """
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    pool_output(x.shape, size, stride)
    windows = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))
    return windows[:, :: stride[0], :: stride[1]].mean((-1, -2))


def avgpool2d_backward(dy: Array, x_shape: Shape, size: Pair, stride: Pair | None = None) -> Array:
    """dx (x_shape): each dy (N, OH, OW, C) / (PH * PW) is added at all positions of its window."""
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    dx = np.zeros(x_shape, dy.dtype)
    oh, ow = dy.shape[1:3]
    for a in range(size[0]):
        for b in range(size[1]):
            rows = slice(a, a + (oh - 1) * stride[0] + 1, stride[0])
            columns = slice(b, b + (ow - 1) * stride[1] + 1, stride[1])
            dx[:, rows, columns] += dy / (size[0] * size[1])
    return dx


def global_average_pool(x: Array) -> Array:
    """y[n, c] = mean of x[n, i, j, c] over all positions. x (N, H, W, C) -> y (N, C) (Lin et al.
    2014, arXiv:1312.4400).
    """
    return x.mean((1, 2))


def global_average_pool_backward(dy: Array, x_shape: Shape) -> Array:
    """dx[n, i, j, c] = dy[n, c] / (H * W), of x_shape (N, H, W, C)."""
    _, h, w, _ = x_shape
    return np.broadcast_to(dy[:, None, None] / (h * w), x_shape).astype(dy.dtype)


def global_max_pool(x: Array) -> tuple[Array, Array]:
    """y[n, c] = max of x[n, i, j, c] over all positions. x (N, H, W, C) -> (y (N, C), argmax (N, C)
    int32): argmax = i * W + j of the first maximum in row-major order.
    """
    n, h, w, c = x.shape
    flat = x.reshape(n, h * w, c)
    argmax = flat.argmax(1)
    return np.take_along_axis(flat, argmax[:, None], 1)[:, 0], argmax.astype(np.int32)


def global_max_pool_backward(dy: Array, argmax: Array, x_shape: Shape) -> Array:
    """dx (x_shape): dy[n, c] at the position of the maximum, 0 elsewhere."""
    n, h, w, c = x_shape
    dx = np.zeros((n, h * w, c), dy.dtype)
    np.put_along_axis(dx, argmax[:, None], dy[:, None], 1)
    return dx.reshape(x_shape)

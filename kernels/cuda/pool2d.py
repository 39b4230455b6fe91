"""Pooling. Inside a network conv2d_block does max-pooling without storing what it pools."""

import numpy as np

from ..shapes import argmax_dtype, global_pool_check, pair, pool_output
from ..types import Array, Kernels, Pair, Shape
from .checks import check_float32, check_shape, contiguous, integers
from .sums import image_sums, spans_of


def _position(size):
    return {"POSITION": "unsigned char" if argmax_dtype(size) == np.uint8 else "int"}


def maxpool2d(
    kernels: Kernels, x: Array, size: Pair, stride: Pair | None = None
) -> tuple[Array, Array]:
    """y[n, i, j, c] = max of x[n, i*s + a, j*s + b, c] over 0 <= a < PH, 0 <= b < PW; windows that
    do not fit are dropped.

    x (N, H, W, C) float32. Returns (y, argmax): argmax = a * PW + b of the first maximum in
    row-major order, uint8 (int32 above 256 positions).
    """
    x = check_float32(kernels, "maxpool2d", x=x)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    shape = pool_output(x.shape, size, stride)
    y, argmax = kernels.empty(shape), kernels.empty(shape, argmax_dtype(size))
    kernels.each(
        "pool2d.cu",
        "maxpool2d",
        y.size,
        x,
        *x.shape[1:],
        *shape[1:3],
        *size,
        *stride,
        y,
        argmax,
        **_position(size),
    )
    return y, argmax


def maxpool2d_backward(
    kernels: Kernels,
    dy: Array,
    argmax: Array,
    x_shape: Shape,
    size: Pair,
    stride: Pair | None = None,
) -> Array:
    """dx (x_shape): each dy (N, OH, OW, C) float32 is added at the position that was its window's
    maximum.
    """
    dy = check_float32(kernels, "maxpool2d_backward", dy=dy)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    shape = pool_output(tuple(x_shape), size, stride)
    check_shape("maxpool2d_backward", "dy", dy, shape)
    check_shape("maxpool2d_backward", "argmax", argmax, dy.shape)
    dx = kernels.empty(x_shape)
    argmax = contiguous(kernels.asarray(argmax, argmax_dtype(size)))
    kernels.each(
        "pool2d.cu",
        "maxpool2d_backward",
        dx.size,
        dy,
        argmax,
        *x_shape[1:],
        *shape[1:3],
        *size,
        *stride,
        dx,
        **_position(size),
    )
    return dx


def window_sums(
    kernels: Kernels,
    x: Array,
    size: tuple[int, int],
    stride: tuple[int, int],
    scale: float,
    shape: Shape,
) -> Array:
    """Return scale * the sum over each window of x, an array of ``shape``."""
    y = kernels.empty(shape)
    geometry = *x.shape[1:], *shape[1:3], *size, *stride
    kernels.each("average_pool.cu", "window_sums", y.size, x, *geometry, float(scale), y)
    return y


def avgpool2d(kernels: Kernels, x: Array, size: Pair, stride: Pair | None = None) -> Array:
    """y[n, i, j, c] = mean of x[n, i*s + a, j*s + b, c] over 0 <= a < PH, 0 <= b < PW; windows that
    do not fit are dropped. x (N, H, W, C) float32 -> y (N, OH, OW, C).
    """
    x = check_float32(kernels, "avgpool2d", x=x)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    shape = pool_output(x.shape, size, stride)
    return window_sums(kernels, x, size, stride, 1 / (size[0] * size[1]), shape)


def avgpool2d_backward(
    kernels: Kernels, dy: Array, x_shape: Shape, size: Pair, stride: Pair | None = None
) -> Array:
    """dx (x_shape): each dy (N, OH, OW, C) float32 / (PH * PW) is added at all positions of its
    window.
    """
    dy = check_float32(kernels, "avgpool2d_backward", dy=dy)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    shape = pool_output(tuple(x_shape), size, stride)
    check_shape("avgpool2d_backward", "dy", dy, shape)
    dx, scale = kernels.empty(x_shape), 1 / (size[0] * size[1])
    geometry = *x_shape[1:], *shape[1:3], *size, *stride
    kernels.each("average_pool.cu", "avgpool2d_backward", dx.size, dy, *geometry, scale, dx)
    return dx


def global_average_pool(kernels: Kernels, x: Array) -> Array:
    """y[n, c] = mean of x[n, i, j, c] over all positions. x (N, H, W, C) float32 -> y (N, C) (Lin
    et al. 2014, arXiv:1312.4400).
    """
    x = check_float32(kernels, "global_average_pool", x=x)
    global_pool_check("global_average_pool", x.shape)
    n, h, w, c = x.shape
    return (image_sums(kernels, x.reshape(n, h * w, c)) / (h * w)).astype(np.float32)


def global_average_pool_backward(kernels: Kernels, dy: Array, x_shape: Shape) -> Array:
    """dx[n, i, j, c] = dy[n, c] / (H * W), of x_shape (N, H, W, C), float32."""
    dy = check_float32(kernels, "global_average_pool_backward", dy=dy)
    global_pool_check("global_average_pool_backward", tuple(x_shape))
    n, h, w, c = x_shape
    check_shape("global_average_pool_backward", "dy", dy, (n, c))
    dx = kernels.empty(x_shape)
    kernels.each("global_pool.cu", "spread", dx.size, dy, np.int64(h * w), c, 1 / (h * w), dx)
    return dx


def global_max_pool(kernels: Kernels, x: Array) -> tuple[Array, Array]:
    """y[n, c] = max of x[n, i, j, c] over all positions. x (N, H, W, C) float32 -> (y (N, C),
    argmax (N, C) int32): argmax = i * W + j of the first maximum in row-major order.
    """
    x = check_float32(kernels, "global_max_pool", x=x)
    global_pool_check("global_max_pool", x.shape)
    n, h, w, c = x.shape
    spans, span = spans_of(h * w)
    best, where = kernels.empty((n, spans, c)), kernels.empty((n, spans, c), np.int32)
    kernels.each(
        "global_pool.cu",
        "span_maxima",
        best.size,
        x,
        np.int64(h * w),
        c,
        spans,
        span,
        best,
        where,
    )
    y, argmax = kernels.empty((n, c)), kernels.empty((n, c), np.int32)
    kernels.each("global_pool.cu", "largest_span", y.size, best, where, c, spans, y, argmax)
    return y, argmax


def global_max_pool_backward(kernels: Kernels, dy: Array, argmax: Array, x_shape: Shape) -> Array:
    """dx (x_shape): dy[n, c] (float32) at the position of the maximum, 0 elsewhere."""
    dy = check_float32(kernels, "global_max_pool_backward", dy=dy)
    global_pool_check("global_max_pool_backward", tuple(x_shape))
    n, h, w, c = x_shape
    check_shape("global_max_pool_backward", "dy", dy, (n, c))
    check_shape("global_max_pool_backward", "argmax", argmax, (n, c))
    dx = kernels.empty(x_shape)
    kernels.each(
        "global_pool.cu", "put_at", dx.size, dy, integers(kernels, argmax), np.int64(h * w), c, dx
    )
    return dx

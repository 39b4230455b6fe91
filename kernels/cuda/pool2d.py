"""Max-pooling on its own. Inside a network conv2d_block does it without storing what it pools."""

import numpy as np

from ..shapes import argmax_dtype, pair, pool_output
from .checks import contiguous, floats, shaped


def _position(size):
    return {"POSITION": "unsigned char" if argmax_dtype(size) == np.uint8 else "int"}


def maxpool2d(k, x, size, stride=None):
    """y[n, i, j, c] = max of x[n, i*s + a, j*s + b, c] over 0 <= a < PH, 0 <= b < PW; windows that
    do not fit are dropped.

    x (N, H, W, C) float32. Returns (y, argmax): argmax = a * PW + b of the first maximum in
    row-major order, uint8 (int32 above 256 positions).
    """
    x = floats(k, "maxpool2d", x=x)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    shape = pool_output(x.shape, size, stride)
    y, argmax = k.empty(shape), k.empty(shape, argmax_dtype(size))
    k.each(
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


def maxpool2d_backward(k, dy, argmax, x_shape, size, stride=None):
    """dx (x_shape): each dy (N, OH, OW, C) float32 is added at the position that was its window's
    maximum.
    """
    dy = floats(k, "maxpool2d_backward", dy=dy)
    size = pair(size, "pool size")
    stride = size if stride is None else pair(stride, "stride")
    shape = pool_output(tuple(x_shape), size, stride)
    shaped("maxpool2d_backward", "dy", dy, shape)
    shaped("maxpool2d_backward", "argmax", argmax, dy.shape)
    dx = k.empty(x_shape)
    argmax = contiguous(k.asarray(argmax, argmax_dtype(size)))
    k.each(
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

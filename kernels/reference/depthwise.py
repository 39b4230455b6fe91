"""Convolution channel by channel."""

import numpy as np

from ..shapes import conv_padding, depthwise_output, pair
from ..types import Array, Pair
from ..workspace import Workspace
from .conv2d import inside, taps, zero_padded


def depthwise_conv2d(
    x: Array,
    w: Array,
    b: Array,
    stride: Pair = 1,
    padding: str = "same",
    dilation: Pair = 1,
    work: Workspace | None = None,
) -> Array:
    """y[n, i, j, c*M + m] = b[c*M + m] + sum over (ky, kx) of x[n, i*s + ky*d - top, j*s + kx*d -
    left, c] * w[ky, kx, c, m]: every channel is convolved by itself, with M kernels.

    x (N, H, W, C), w (KH, KW, C, M), b (C * M,) -> y (N, OH, OW, C * M). Outside the image x is 0
    (Chollet 2017, arXiv:1610.02357; the order of channels is Keras').
    """
    stride, dilation = pair(stride, "stride"), pair(dilation, "dilation")
    shape = depthwise_output(x.shape, w.shape, stride, padding, dilation)
    xp = zero_padded(x, conv_padding(x.shape, w.shape, stride, padding, dilation))
    y = np.zeros((*shape[:3], *w.shape[2:]), np.result_type(x, w))
    for ky, kx, rows, columns in taps(w.shape, stride, dilation, shape):
        y += xp[:, rows, columns, :, None] * w[ky, kx]
    return y.reshape(shape) + b


def depthwise_conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    stride: Pair = 1,
    padding: str = "same",
    dilation: Pair = 1,
    need_dx: bool = True,
    dw: Array | None = None,
    db: Array | None = None,
    work: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of depthwise_conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy
    (N, OH, OW, C * M).
    """
    stride, dilation = pair(stride, "stride"), pair(dilation, "dilation")
    shape = depthwise_output(x.shape, w.shape, stride, padding, dilation)
    pads = conv_padding(x.shape, w.shape, stride, padding, dilation)
    xp = zero_padded(x, pads)
    dxp: Array = np.zeros_like(xp) if need_dx else None
    dw = np.zeros_like(w) if dw is None else dw
    db = np.zeros(shape[3], w.dtype) if db is None else db
    g = dy.reshape(*shape[:3], *w.shape[2:])
    for ky, kx, rows, columns in taps(w.shape, stride, dilation, shape):
        dw[ky, kx] += (xp[:, rows, columns, :, None] * g).sum((0, 1, 2))
        if need_dx:
            dxp[:, rows, columns] += (g * w[ky, kx]).sum(-1)
    db += dy.sum((0, 1, 2))
    return inside(dxp, x.shape, pads) if need_dx else None, dw, db

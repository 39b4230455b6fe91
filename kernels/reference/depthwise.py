"""Convolution channel by channel."""

import numpy as np

from ..arguments import Wanted
from ..shapes import Geometry
from ..types import Array
from ..workspace import Workspace
from .arrays import gradient_targets
from .conv2d import inside, taps, zero_padded


def depthwise_conv2d(
    x: Array,
    w: Array,
    b: Array,
    geometry: Geometry = Geometry(),
    workspace: Workspace | None = None,
) -> Array:
    """y[n, i, j, c*M + m] = b[c*M + m] + sum over (ky, kx) of x[n, i*s + ky*d - top, j*s + kx*d -
    left, c] * w[ky, kx, c, m]: every channel is convolved by itself, with M kernels.

    x (N, H, W, C), w (KH, KW, C, M), b (C * M,) -> y (N, OH, OW, C * M). Outside the image x is 0
    (Chollet 2017, arXiv:1610.02357; the order of channels is Keras').
    """
    shape = geometry.depthwise_output(x.shape, w.shape)
    xp = zero_padded(x, geometry.pads(x.shape, w.shape))
    y = np.zeros((*shape[:3], *w.shape[2:]), np.result_type(x, w))
    for ky, kx, rows, columns in taps(w.shape, geometry, shape):
        y += xp[:, rows, columns, :, None] * w[ky, kx]
    return y.reshape(shape) + b


def depthwise_conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    geometry: Geometry = Geometry(),
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of depthwise_conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy
    (N, OH, OW, C * M).
    """
    shape = geometry.depthwise_output(x.shape, w.shape)
    pads = geometry.pads(x.shape, w.shape)
    xp = zero_padded(x, pads)
    dxp: Array = np.zeros_like(xp) if wanted.dx else None
    dw, db = gradient_targets("depthwise_conv2d_backward", wanted, w.dtype, w.shape, shape[3:])
    g = dy.reshape(*shape[:3], *w.shape[2:])
    for ky, kx, rows, columns in taps(w.shape, geometry, shape):
        dw[ky, kx] += (xp[:, rows, columns, :, None] * g).sum((0, 1, 2))
        if wanted.dx:
            dxp[:, rows, columns] += (g * w[ky, kx]).sum(-1)
    db += dy.sum((0, 1, 2))
    return inside(dxp, x.shape, pads) if wanted.dx else None, dw, db

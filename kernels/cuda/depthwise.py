"""Convolution channel by channel: a thread per element."""

import numpy as np

from ..arguments import Wanted
from ..shapes import Geometry
from ..types import Array, Kernels
from ..workspace import Workspace
from .checks import check_float32, check_shape, gradient_targets
from .conv2d import CHUNK, PARTS, add_parts, as_integers


def depthwise_conv2d(
    kernels: Kernels,
    x: Array,
    w: Array,
    b: Array,
    geometry: Geometry = Geometry(),
    workspace: Workspace | None = None,
) -> Array:
    """y[n, i, j, c*M + m] = b[c*M + m] + sum over (ky, kx) of x[n, i*s + ky*d - top, j*s + kx*d -
    left, c] * w[ky, kx, c, m]: every channel is convolved by itself, with M kernels.

    x (N, H, W, C), w (KH, KW, C, M), b (C * M,) float32 -> y (N, OH, OW, C * M). Outside the image
    x is 0 (Chollet 2017, arXiv:1610.02357; the order of channels is Keras').
    """
    x, w, b = check_float32(kernels, "depthwise_conv2d", x=x, w=w, b=b)
    shape = geometry.depthwise_output(x.shape, w.shape)
    check_shape("depthwise_conv2d", "b", b, shape[3:])
    y, where = kernels.empty(shape), as_integers(geometry, x.shape, shape, w.shape)
    kernels.each("depthwise.cu", "depthwise", y.size, x, w, b, *where, y)
    return y


def depthwise_conv2d_backward(
    kernels: Kernels,
    dy: Array,
    x: Array,
    w: Array,
    geometry: Geometry = Geometry(),
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of depthwise_conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy
    (N, OH, OW, C * M). dw and db are added to.
    """
    op = "depthwise_conv2d_backward"
    dy, x, w = check_float32(kernels, op, dy=dy, x=x, w=w)
    shape = n, oh, ow, channels = geometry.depthwise_output(x.shape, w.shape)
    check_shape(op, "dy", dy, shape)
    where = as_integers(geometry, x.shape, shape, w.shape)
    dw, db = gradient_targets(kernels, op, wanted, dw=w.shape, db=(channels,))
    pixels, taps = n * oh * ow, w.shape[0] * w.shape[1]
    if pixels:
        span = -(-pixels // (CHUNK * PARTS)) * CHUNK
        parts = kernels.empty((-(-pixels // span), channels, taps + 1), np.float64)
        kernels.launch(
            "depthwise.cu",
            "depthwise_dw",
            ((-(-(taps + 1) // 8), -(-channels // 32), len(parts)), (32, 8)),
            (dy, x, *where, np.int64(pixels), span, parts),
        )
        add_parts(kernels, parts, dw, db)
    if not wanted.dx:
        return None, dw, db
    dx = kernels.empty(x.shape)
    kernels.each("depthwise.cu", "depthwise_dx", dx.size, dy, w, *where, dx)
    return dx, dw, db

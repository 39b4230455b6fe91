"""Convolution on its own, and the sum over parts that all weight gradients end with."""

import numpy as np

from ..arguments import Wanted
from ..shapes import Geometry
from ..types import Array, Kernels, Shape
from ..workspace import Workspace
from .checks import check_float32, check_shape, gradient_targets
from .sums import channel_sums

#: Pixels summed in float32 before the sum goes to float64; at most so many parts.
CHUNK, PARTS = 256, 64


def conv2d(
    kernels: Kernels,
    x: Array,
    w: Array,
    b: Array,
    geometry: Geometry = Geometry(),
    workspace: Workspace | None = None,
) -> Array:
    """y[n, i, j, o] = b[o] + sum over (ky, kx, c) of x[n, i*s + ky*d - top, j*s + kx*d - left, c] *
    w[ky, kx, c, o].

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) float32 -> y (N, OH, OW, C_out). Outside
    the image x is 0. s and d are the stride and the dilation of the ``geometry``: the kernel
    reaches over (K - 1) * d + 1 pixels (Yu, Koltun 2016, arXiv:1511.07122).
    """
    x, w, b = check_float32(kernels, "conv2d", x=x, w=w, b=b)
    shape = geometry.output(x.shape, w.shape)
    check_shape("conv2d", "b", b, shape[3:])
    return _convolve(kernels, x, w, b, geometry, shape)


def as_integers(geometry: Geometry, image: Shape, output: Shape, w_shape: Shape) -> tuple[int, ...]:
    """Return what all kernels of conv2d.cu and depthwise.cu take, for the shapes of a convolution's
    image and output.
    """
    (top, _), (left, _) = geometry.pads(image, w_shape)
    return *image[1:], *output[1:], *w_shape[:2], *geometry.stride, *geometry.dilation, top, left


def _convolve(kernels, x, w, b, geometry, shape):
    y = kernels.empty(shape)
    n, oh, ow, co = shape
    where = as_integers(geometry, x.shape, shape, w.shape)
    grid = -(-n * oh * -(-ow // 4) // 8), -(-co // 32)
    kernels.launch("conv2d.cu", "conv2d", (grid, (32, 8)), (x, w, b, *where, n * oh, y))
    return y


def _input_gradient(kernels, dy, w, geometry, shape):
    dx = kernels.empty(shape)
    where = as_integers(geometry, shape, dy.shape, w.shape)
    transposed = w.transpose(0, 1, 3, 2).copy()
    kernels.each("conv2d.cu", "conv2d_dx", dx.size, dy, transposed, *where, dx)
    return dx


def _add_weight_gradient(kernels, dy, x, geometry, dw, db):
    """dw += the gradient of the weights, db += the sum of dy over all positions."""
    n, oh, ow, co = dy.shape
    pixels, taps = n * oh * ow, dw.size // co
    if not pixels:
        return
    span = -(-pixels // (CHUNK * PARTS)) * CHUNK
    parts = kernels.empty((-(-pixels // span), co, taps + 1), np.float64)
    where = as_integers(geometry, x.shape, dy.shape, dw.shape)
    kernels.launch(
        "conv2d.cu",
        "conv2d_dw",
        ((-(-(taps + 1) // 32), -(-co // 32), len(parts)), (32, 8)),
        (dy, x, *where, np.int64(pixels), span, parts),
    )
    add_parts(kernels, parts, dw, db)


def conv2d_backward(
    kernels: Kernels,
    dy: Array,
    x: Array,
    w: Array,
    geometry: Geometry = Geometry(),
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy (N, OH,
    OW, C_out); dw, db are added to.
    """
    op = "conv2d_backward"
    dy, x, w = check_float32(kernels, op, dy=dy, x=x, w=w)
    shape = geometry.output(x.shape, w.shape)
    check_shape(op, "dy", dy, shape)
    dw, db = gradient_targets(kernels, op, wanted, dw=w.shape, db=shape[3:])
    _add_weight_gradient(kernels, dy, x, geometry, dw, db)
    dx = _input_gradient(kernels, dy, w, geometry, x.shape) if wanted.dx else None
    return dx, dw, db


def conv2d_transpose(
    kernels: Kernels,
    x: Array,
    w: Array,
    b: Array,
    geometry: Geometry = Geometry(),
    workspace: Workspace | None = None,
) -> Array:
    """y[n, i*s + ky - top, j*s + kx - left, o] += x[n, i, j, c] * w[ky, kx, o, c] for all (i, j, c)
    and taps, and + b[o]: the input gradient of conv2d as a layer of its own, which enlarges.

    x (N, H, W, C_in), w (KH, KW, C_out, C_in), b (C_out,) float32 -> y (N, OH, OW, C_out), where OH
    = H * s for "same" and H * s + max(KH - s, 0) for "valid", as in Keras (Dumoulin, Visin 2016,
    arXiv:1603.07285, section 4). The ``geometry`` has no dilation.
    """
    x, w, b = check_float32(kernels, "conv2d_transpose", x=x, w=w, b=b)
    shape = geometry.transposed_output(x.shape, w.shape)
    check_shape("conv2d_transpose", "b", b, shape[3:])
    y = _input_gradient(kernels, x, w, geometry, shape)
    y += b
    return y


def conv2d_transpose_backward(
    kernels: Kernels,
    dy: Array,
    x: Array,
    w: Array,
    geometry: Geometry = Geometry(),
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d_transpose: returns (dx or None, dw, db) with the shapes of x, w, b for dy
    (N, OH, OW, C_out). dx is conv2d of dy. dw and db are added to.
    """
    op = "conv2d_transpose_backward"
    dy, x, w = check_float32(kernels, op, dy=dy, x=x, w=w)
    shape = geometry.transposed_output(x.shape, w.shape)
    check_shape(op, "dy", dy, shape)
    dw, db = gradient_targets(kernels, op, wanted, dw=w.shape, db=shape[3:])
    # x is the output of that convolution; what its bias would get, the sum of x, is nobody's.
    _add_weight_gradient(kernels, x, dy, geometry, dw, kernels.zeros(x.shape[3:]))
    db += channel_sums(kernels, dy.reshape(-1, shape[3])).astype(np.float32)
    zero = kernels.zeros(x.shape[3:])
    dx = _convolve(kernels, dy, w, zero, geometry, x.shape) if wanted.dx else None
    return dx, dw, db


def add_parts(kernels: Kernels, parts: Array, dw: Array, db: Array) -> None:
    """dw += and db += the sums over parts (count, C_out, taps + 1), the last tap being the bias."""
    count, co, taps = parts.shape
    kind = "double" if parts.dtype == np.float64 else "float"
    kernels.launch(
        "add_parts.cu",
        "add_parts",
        ((-(-co // 32), -(-taps // 32)), (32, 8)),
        (parts, count, taps - 1, co, dw, db),
        {"PART": kind},
    )

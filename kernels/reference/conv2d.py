"""Convolution, also with taps apart (dilation), and transposed."""

from collections.abc import Iterator

import numpy as np

from ..arguments import Wanted
from ..shapes import Geometry
from ..types import Array, Pads, Shape
from ..workspace import Workspace
from .arrays import gradient_targets


def taps(
    w_shape: Shape, geometry: Geometry, output: Shape
) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield (ky, kx, rows, columns): the slices of the image within its zeros that tap (ky, kx)
    reads for all outputs.
    """
    for ky in range(w_shape[0]):
        for kx in range(w_shape[1]):
            rows, columns = (
                slice(tap * d, tap * d + (size - 1) * s + 1, s)
                for tap, d, size, s in zip(
                    (ky, kx), geometry.dilation, output[1:3], geometry.stride
                )
            )
            yield ky, kx, rows, columns


def zero_padded(x: Array, pads: Pads) -> Array:
    """Return x (N, H, W, C) within zeros, ((top, bottom), (left, right)) of them."""
    return np.pad(x, ((0, 0), *pads, (0, 0)))


def inside(xp: Array, x_shape: Shape, pads: Pads) -> Array:
    """Return the image without the zeros around it."""
    (top, _), (left, _) = pads
    return xp[:, top : top + x_shape[1], left : left + x_shape[2]]


def conv2d(
    x: Array,
    w: Array,
    b: Array,
    geometry: Geometry = Geometry(),
    workspace: Workspace | None = None,
) -> Array:
    """y[n, i, j, o] = b[o] + sum over (ky, kx, c) of x[n, i*s + ky*d - top, j*s + kx*d - left, c] *
    w[ky, kx, c, o].

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) -> y (N, OH, OW, C_out). Outside the
    image x is 0. s and d are the stride and the dilation of the ``geometry``: the kernel reaches
    over (K - 1) * d + 1 pixels (Yu, Koltun 2016, arXiv:1511.07122).
    """
    shape = geometry.output(x.shape, w.shape)
    xp = zero_padded(x, geometry.pads(x.shape, w.shape))
    y = np.zeros(shape, np.result_type(x, w))
    for ky, kx, rows, columns in taps(w.shape, geometry, shape):
        y += xp[:, rows, columns] @ w[ky, kx]
    return y + b


def conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    geometry: Geometry = Geometry(),
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy (N, OH,
    OW, C_out).
    """
    shape = geometry.output(x.shape, w.shape)
    pads = geometry.pads(x.shape, w.shape)
    xp = zero_padded(x, pads)
    dxp: Array = np.zeros_like(xp) if wanted.dx else None
    dw, db = gradient_targets("conv2d_backward", wanted, w.dtype, w.shape, w.shape[3:])
    for ky, kx, rows, columns in taps(w.shape, geometry, shape):
        dw[ky, kx] += np.tensordot(xp[:, rows, columns], dy, axes=((0, 1, 2), (0, 1, 2)))
        if wanted.dx:
            dxp[:, rows, columns] += dy @ w[ky, kx].T
    db += dy.sum((0, 1, 2))
    return inside(dxp, x.shape, pads) if wanted.dx else None, dw, db


def conv2d_transpose(
    x: Array,
    w: Array,
    b: Array,
    geometry: Geometry = Geometry(),
    workspace: Workspace | None = None,
) -> Array:
    """y[n, i*s + ky - top, j*s + kx - left, o] += x[n, i, j, c] * w[ky, kx, o, c] for all (i, j, c)
    and taps, and + b[o]: the input gradient of conv2d as a layer of its own, which enlarges.

    x (N, H, W, C_in), w (KH, KW, C_out, C_in), b (C_out,) -> y (N, OH, OW, C_out), where OH = H * s
    for "same" and H * s + max(KH - s, 0) for "valid", as in Keras (Dumoulin, Visin 2016,
    arXiv:1603.07285, section 4). The ``geometry`` has no dilation.
    """
    shape = geometry.transposed_output(x.shape, w.shape)
    pads = geometry.pads(shape, w.shape)
    y = np.zeros(
        (shape[0], *(size + sum(p) for size, p in zip(shape[1:3], pads)), shape[3]),
        np.result_type(x, w),
    )
    for ky, kx, rows, columns in taps(w.shape, geometry, x.shape):
        y[:, rows, columns] += x @ w[ky, kx].T
    return inside(y, shape, pads) + b


def conv2d_transpose_backward(
    dy: Array,
    x: Array,
    w: Array,
    geometry: Geometry = Geometry(),
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d_transpose: returns (dx or None, dw, db) with the shapes of x, w, b for dy
    (N, OH, OW, C_out). dx is conv2d of dy.
    """
    shape = geometry.transposed_output(x.shape, w.shape)
    padded = zero_padded(dy, geometry.pads(shape, w.shape))
    dx = np.zeros_like(x) if wanted.dx else None
    dw, db = gradient_targets("conv2d_transpose_backward", wanted, w.dtype, w.shape, w.shape[2:3])
    for ky, kx, rows, columns in taps(w.shape, geometry, x.shape):
        dw[ky, kx] += np.tensordot(padded[:, rows, columns], x, axes=((0, 1, 2), (0, 1, 2)))
        if wanted.dx:
            dx += padded[:, rows, columns] @ w[ky, kx]
    db += dy.sum((0, 1, 2))
    return dx, dw, db

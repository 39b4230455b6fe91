"""Convolution, also with taps apart (dilation), and transposed."""

from collections.abc import Iterator

import numpy as np

from ..shapes import (
    conv_output,
    conv_padding,
    conv_transpose_output,
    pair,
)
from ..types import Array, Pads, Pair, Shape
from ..workspace import Workspace


def taps(
    w_shape: Shape, stride: tuple[int, int], dilation: tuple[int, int], output: Shape
) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield (ky, kx, rows, columns): the slices of the image within its zeros that tap (ky, kx)
    reads for all outputs.
    """
    for ky in range(w_shape[0]):
        for kx in range(w_shape[1]):
            rows, columns = (
                slice(tap * d, tap * d + (size - 1) * s + 1, s)
                for tap, d, size, s in zip((ky, kx), dilation, output[1:3], stride)
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
    stride: Pair = 1,
    padding: str = "same",
    dilation: Pair = 1,
    work: Workspace | None = None,
) -> Array:
    """y[n, i, j, o] = b[o] + sum over (ky, kx, c) of x[n, i*s + ky*d - top, j*s + kx*d - left, c] *
    w[ky, kx, c, o].

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) -> y (N, OH, OW, C_out). Outside the
    image x is 0. ``dilation`` d is the distance of taps: the kernel reaches over (K - 1) * d + 1
    pixels (Yu, Koltun 2016, arXiv:1511.07122).
    """
    stride, dilation = pair(stride, "stride"), pair(dilation, "dilation")
    shape = conv_output(x.shape, w.shape, stride, padding, dilation)
    xp = zero_padded(x, conv_padding(x.shape, w.shape, stride, padding, dilation))
    y = np.zeros(shape, np.result_type(x, w))
    for ky, kx, rows, columns in taps(w.shape, stride, dilation, shape):
        y += xp[:, rows, columns] @ w[ky, kx]
    return y + b


def conv2d_backward(
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
    """Gradients of conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy (N, OH,
    OW, C_out).
    """
    stride, dilation = pair(stride, "stride"), pair(dilation, "dilation")
    shape = conv_output(x.shape, w.shape, stride, padding, dilation)
    pads = conv_padding(x.shape, w.shape, stride, padding, dilation)
    xp = zero_padded(x, pads)
    dxp: Array = np.zeros_like(xp) if need_dx else None
    dw = np.zeros_like(w) if dw is None else dw
    db = np.zeros(w.shape[3], w.dtype) if db is None else db
    for ky, kx, rows, columns in taps(w.shape, stride, dilation, shape):
        dw[ky, kx] += np.tensordot(xp[:, rows, columns], dy, axes=((0, 1, 2), (0, 1, 2)))
        if need_dx:
            dxp[:, rows, columns] += dy @ w[ky, kx].T
    db += dy.sum((0, 1, 2))
    return inside(dxp, x.shape, pads) if need_dx else None, dw, db


def conv2d_transpose(
    x: Array,
    w: Array,
    b: Array,
    stride: Pair = 1,
    padding: str = "same",
    work: Workspace | None = None,
) -> Array:
    """y[n, i*s + ky - top, j*s + kx - left, o] += x[n, i, j, c] * w[ky, kx, o, c] for all (i, j, c)
    and taps, and + b[o]: the input gradient of conv2d as a layer of its own, which enlarges.

    x (N, H, W, C_in), w (KH, KW, C_out, C_in), b (C_out,) -> y (N, OH, OW, C_out), where OH = H * s
    for "same" and H * s + max(KH - s, 0) for "valid", as in Keras (Dumoulin, Visin 2016,
    arXiv:1603.07285, section 4).
    """
    stride = pair(stride, "stride")
    shape = conv_transpose_output(x.shape, w.shape, stride, padding)
    pads = conv_padding(shape, w.shape, stride, padding)
    y = np.zeros(
        (shape[0], *(size + sum(p) for size, p in zip(shape[1:3], pads)), shape[3]),
        np.result_type(x, w),
    )
    for ky, kx, rows, columns in taps(w.shape, stride, (1, 1), x.shape):
        y[:, rows, columns] += x @ w[ky, kx].T
    return inside(y, shape, pads) + b


def conv2d_transpose_backward(
    dy: Array,
    x: Array,
    w: Array,
    stride: Pair = 1,
    padding: str = "same",
    need_dx: bool = True,
    dw: Array | None = None,
    db: Array | None = None,
    work: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d_transpose: returns (dx or None, dw, db) with the shapes of x, w, b for dy
    (N, OH, OW, C_out). dx is conv2d of dy.
    """
    stride = pair(stride, "stride")
    shape = conv_transpose_output(x.shape, w.shape, stride, padding)
    padded = zero_padded(dy, conv_padding(shape, w.shape, stride, padding))
    dx = np.zeros_like(x) if need_dx else None
    dw = np.zeros_like(w) if dw is None else dw
    db = np.zeros(w.shape[2], w.dtype) if db is None else db
    for ky, kx, rows, columns in taps(w.shape, stride, (1, 1), x.shape):
        dw[ky, kx] += np.tensordot(padded[:, rows, columns], x, axes=((0, 1, 2), (0, 1, 2)))
        if need_dx:
            dx += padded[:, rows, columns] @ w[ky, kx]
    db += dy.sum((0, 1, 2))
    return dx, dw, db

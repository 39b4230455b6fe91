"""Convolution on its own: bound by the multiply-add units, so everything goes through the tile."""

import numpy as np
from numba import prange

from ..arguments import Wanted
from ..shapes import Geometry
from ..types import Array, Pads
from ..workspace import Workspace
from .checks import aligned, buffer, check_float32, check_shape, gradient_targets
from .emit import LANES
from .jit import parallel, tasks, threaded
from .pack import packed, split
from .tile import MAX_PIXELS, MAX_VECTORS, VECTORS, Filter, Pixels, Sums, store_tile

CHUNK = 256  # positions summed in float32 before the sum goes to float64


@threaded
def _copy_strided(x, out, top, left, sh, sw):
    """Copy x into the zero-filled ``out`` at (top, left), its pixels (sh, sw) apart."""
    n, h, w, c = x.shape
    for task in prange(n * h):
        e, i = task // h, task % h
        for j in range(w):
            for k in range(c):
                out[e, top + i * sh, left + j * sw, k] = x[e, i, j, k]


def padded(
    x: Array, pads: Pads, workspace: Workspace | None, name: str, spread: tuple[int, int] = (1, 1)
) -> Array:
    """Return x with a border of zeros; with ``spread`` (sh, sw) also sh - 1 zero rows and sw - 1
    zero columns between its pixels (transposed convolution). The buffer is kept in ``workspace``:
    its zeros are made once and never written.
    """
    (top, bottom), (left, right) = pads
    if spread == (1, 1) and not any((top, bottom, left, right)):
        return x
    n, h, w, c = x.shape
    shape = (n, top + (h - 1) * spread[0] + 1 + bottom, left + (w - 1) * spread[1] + 1 + right, c)
    out = buffer(workspace, f"{name} {pads} {spread}", shape, fill=0)
    _copy_strided(tasks(x.size), x, out, top, left, *spread)
    return out


# The loops below take what is in a tuple as scalars: numba hands no tuple within a tuple to the
# threads of a prange. The public functions are where values that belong together come apart.


@parallel
def _conv2d(x, kh, kw, w, start, width, b, sh, sw, group, y):
    n, oh, _ow, co = y.shape
    ci, row = x.shape[3], x.shape[2] * x.shape[3]
    kc = kw * ci
    columns = group.size
    for task in prange(start.size * n * oh):
        g, e, i = (
            task // (n * oh),
            task // oh % n,
            task % oh,
        )  # rows inside, so that a group's weights stay in the cache
        first, channels = start[g], width[g]
        valid, bias = min(channels, co - first), b[first:]
        sums = np.empty((MAX_PIXELS, channels), np.float32)
        j = 0
        for q in range(columns):
            store_tile(
                (group[q], channels // LANES),
                Pixels(x[e, i * sh, j * sw :].ctypes.data, row, np.int64(1), sw * ci),
                Filter(w[kh * kc * first :].ctypes.data, kc * channels, channels, kh, kc),
                Sums(sums.ctypes.data, channels),
            )
            for p in range(group[q]):
                to = y[e, i, j + p, first:]
                for c in range(valid):
                    to[c] = sums[p, c] + bias[c]
            j += group[q]


@parallel
def _weight_gradient(x, dy, kh, kw, co, sh, sw, rows, columns, group, sums):
    """sums (tasks, KH, KW * C_in, C_out) float64: the positions are cut into pieces, and task t
    takes every piece of a fixed range.
    """
    n, oh, ow, channels = dy.shape
    ci, row = x.shape[3], x.shape[2] * x.shape[3]
    down, across = (oh + rows - 1) // rows, (ow + columns - 1) // columns
    pieces = n * down * across
    tasks, vectors = sums.shape[0], channels // LANES
    for task in prange(tasks * kh):
        t, ky = task // kh, task % kh
        part = np.empty((MAX_PIXELS, MAX_VECTORS * LANES), np.float32)
        for piece in range(pieces * t // tasks, pieces * (t + 1) // tasks):
            e, i, j = (
                piece // (down * across),
                piece // across % down * rows,
                piece % across * columns,
            )
            v = 0
            while v < vectors:
                now = MAX_VECTORS if vectors - v >= MAX_VECTORS else min(2, vectors - v)
                k = 0
                for q in range(group.size):
                    # The tile's "pixels" are here neighbouring inputs (kx, c_in), its steps the
                    # positions that are summed over.
                    here = x[e, i * sh + ky, j * sw :].ctypes.data + 4 * k
                    slopes = dy[e, i, j, v * LANES :].ctypes.data
                    summed = min(rows, oh - i), min(columns, ow - j)
                    store_tile(
                        (group[q], np.int64(now)),
                        Pixels(here, sh * row, sw * ci, np.int64(1)),
                        Filter(slopes, ow * channels, channels, summed[0], summed[1]),
                        Sums(part.ctypes.data, np.int64(MAX_VECTORS * LANES)),
                    )
                    for p in range(group[q]):
                        to = sums[t, ky, k + p, v * LANES :]
                        for c in range(min(now * LANES, co - v * LANES)):
                            to[c] += part[p, c]
                    k += group[q]
                v += now


def _whole_vectors(dy, workspace):
    """Return dy with channels padded to whole vectors."""
    co = dy.shape[3]
    if co % LANES == 0:
        return dy
    out = buffer(workspace, "dy lanes", (*dy.shape[:3], -(-co // LANES) * LANES), fill=0)
    out[..., :co] = dy
    return out


def spread_taps(w: Array, dilation: tuple[int, int]) -> Array:
    """Return w with its taps ``dilation`` apart and zeros between them: the tile runs over
    neighbouring pixels, and a product with 0 changes no sum. It multiplies the arithmetic by the
    product of both dilations.
    """
    if dilation == (1, 1):
        return w
    (kh, kw, ci, co), (down, right) = w.shape, dilation
    out = np.zeros(((kh - 1) * down + 1, (kw - 1) * right + 1, ci, co), np.float32)
    out[::down, ::right] = w
    return out


def conv2d(
    x: Array,
    w: Array,
    b: Array,
    geometry: Geometry = Geometry(),
    workspace: Workspace | None = None,
) -> Array:
    """y[n, i, j, o] = b[o] + sum over (ky, kx, c) of x[n, i*s + ky*d - top, j*s + kx*d - left, c] *
    w[ky, kx, c, o].

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) -> y (N, OH, OW, C_out), all float32.
    Outside the image x is 0. s and d are the stride and the dilation of the ``geometry``: the
    kernel reaches over (K - 1) * d + 1 pixels (Yu, Koltun 2016, arXiv:1511.07122). ``workspace``
    keeps the padded input and the packed weights (call workspace.expire() after a change of w).
    """
    x, w, b = check_float32("conv2d", x=x, w=w, b=b)
    shape, pads = geometry.output(x.shape, w.shape), geometry.pads(x.shape, w.shape)
    check_shape("conv2d", "b", b, shape[3:])
    w = spread_taps(w, geometry.dilation)
    return _convolve(x, w, b, geometry.stride, pads, shape, workspace)


def _convolve(x, w, b, stride, pads, shape, workspace):
    """Return conv2d of undilated w as an array of ``shape``."""
    y = np.empty(shape, np.float32)
    _conv2d(
        padded(x, pads, workspace, "x"),
        *w.shape[:2],
        *packed(workspace, "conv2d", w, LANES, VECTORS),
        b,
        *stride,
        split(shape[2], MAX_PIXELS),
        y,
    )
    return y


def conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    geometry: Geometry = Geometry(),
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy (N, OH,
    OW, C_out), all float32.

    dx is the convolution of dy (its pixels ``stride`` apart) with the weights turned by 180
    degrees. dw and db are added to.
    """
    op = "conv2d_backward"
    dy, x, w = check_float32(op, dy=dy, x=x, w=w)
    shape, pads = geometry.output(x.shape, w.shape), geometry.pads(x.shape, w.shape)
    check_shape(op, "dy", dy, shape)
    dw, db = gradient_targets(op, wanted, dw=w.shape, db=w.shape[3:])
    stride, dilation = geometry.stride, geometry.dilation
    w = spread_taps(w, dilation)
    sums = _weight_sums(dy, x, w.shape, stride, pads, workspace)
    dw += sums[:: dilation[0], :: dilation[1]]
    db += channel_sums(dy.reshape(-1, shape[3]))
    zero = np.zeros(w.shape[2], np.float32)
    dx = _input_gradient(dy, x.shape, w, zero, stride, pads, workspace) if wanted.dx else None
    return dx, dw, db


def _weight_sums(dy, x, w_shape, stride, pads, workspace):
    """Return the gradient (KH, KW, C_in, C_out), float64, of undilated weights."""
    (kh, kw, ci, co), (n, oh, ow, _) = w_shape, dy.shape
    xp = padded(x, pads, workspace, "x")
    wide = _whole_vectors(dy, workspace)
    columns = min(ow, CHUNK)
    rows = max(1, min(oh, CHUNK // columns))
    # Their number follows from the shapes alone: bits must not follow the threads.
    sums = np.zeros((min(8, n * -(-oh // rows)), kh, kw * ci, co))
    _weight_gradient(xp, wide, kh, kw, co, *stride, rows, columns, split(kw * ci, MAX_PIXELS), sums)
    return sums.sum(0).reshape(w_shape)


def _input_gradient(dy, x_shape, w, b, stride, pads, workspace):
    """Return the input gradient (x_shape) of a convolution with undilated w, plus b (C_in,)."""
    (kh, kw, _ci, _co), (_n, oh, ow, _) = w.shape, dy.shape
    (top, _), (left, _) = pads
    h, width = x_shape[1:3]
    used = [(oh - 1) * stride[0] + 1, (ow - 1) * stride[1] + 1]
    turned = ((kh - 1 - top, h + top - used[0]), (kw - 1 - left, width + left - used[1]))
    turned = tuple((max(a, 0), max(b, 0)) for a, b in turned)
    spread = padded(dy, turned, workspace, "dy", stride)
    spread = spread[:, max(0, top - kh + 1) :, max(0, left - kw + 1) :][
        :, : h + kh - 1, : width + kw - 1
    ]
    dx = np.empty(x_shape, np.float32)
    back = packed(workspace, "conv2d turned", w[::-1, ::-1].transpose(0, 1, 3, 2), LANES, VECTORS)
    _conv2d(np.ascontiguousarray(spread), kh, kw, *back, b, 1, 1, split(width, MAX_PIXELS), dx)
    return dx


def conv2d_transpose(
    x: Array,
    w: Array,
    b: Array,
    geometry: Geometry = Geometry(),
    workspace: Workspace | None = None,
) -> Array:
    """y[n, i*s + ky - top, j*s + kx - left, o] += x[n, i, j, c] * w[ky, kx, o, c] for all (i, j, c)
    and taps, and + b[o]: the input gradient of conv2d as a layer of its own, which enlarges.

    x (N, H, W, C_in), w (KH, KW, C_out, C_in), b (C_out,) -> y (N, OH, OW, C_out), all float32,
    where OH = H * s for "same" and H * s + max(KH - s, 0) for "valid", as in Keras (Dumoulin, Visin
    2016, arXiv:1603.07285, section 4). The ``geometry`` has no dilation.
    """
    x, w, b = check_float32("conv2d_transpose", x=x, w=w, b=b)
    shape = geometry.transposed_output(x.shape, w.shape)
    check_shape("conv2d_transpose", "b", b, shape[3:])
    pads = geometry.pads(shape, w.shape)
    return _input_gradient(x, shape, w, b, geometry.stride, pads, workspace)


def conv2d_transpose_backward(
    dy: Array,
    x: Array,
    w: Array,
    geometry: Geometry = Geometry(),
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d_transpose: returns (dx or None, dw, db) with the shapes of x, w, b for dy
    (N, OH, OW, C_out), all float32. dx is conv2d of dy. dw and db are added to.
    """
    op = "conv2d_transpose_backward"
    dy, x, w = check_float32(op, dy=dy, x=x, w=w)
    shape, stride = geometry.transposed_output(x.shape, w.shape), geometry.stride
    check_shape(op, "dy", dy, shape)
    dw, db = gradient_targets(op, wanted, dw=w.shape, db=w.shape[2:3])
    pads = geometry.pads(shape, w.shape)
    dw += _weight_sums(
        x, dy, w.shape, stride, pads, workspace
    )  # x is the output of that convolution
    db += channel_sums(dy.reshape(-1, shape[3]))
    zero = np.zeros(w.shape[3], np.float32)
    dx = _convolve(dy, w, zero, stride, pads, x.shape, workspace) if wanted.dx else None
    return dx, dw, db


@threaded
def _chunk_sums(array, sums):
    for task in prange(sums.shape[0]):
        part = np.zeros(array.shape[1], np.float32)
        for i in range(task * CHUNK, min(array.shape[0], (task + 1) * CHUNK)):
            for c in range(array.shape[1]):
                part[c] += array[i, c]
        for c in range(array.shape[1]):
            sums[task, c] = part[c]


def channel_sums(array: Array) -> Array:
    """Return the sums of a (positions, C) over positions, float64: chunks of 256 in float32, added
    in order.
    """
    sums = aligned((-(-array.shape[0] // CHUNK), array.shape[1]), np.float64)
    _chunk_sums(tasks(array.size), array, sums)
    return np.add.reduce(sums, 0)

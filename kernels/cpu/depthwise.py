"""Convolution channel by channel: a multiply-add per number read, so bound by memory. Channels are
innermost, and vectorized.
"""

import numpy as np
from numba import prange

from ..arguments import Wanted
from ..shapes import Geometry
from ..types import Array
from ..workspace import Workspace
from .checks import check_float32, check_shape, gradient_targets
from .conv2d import CHUNK, channel_sums
from .jit import jit, tasks, threaded


@jit
def _add_products(pixel, other, each, out):
    """out[o] += pixel[o // each] * other[o], ``each`` outputs for one channel."""
    if each == 1:
        for c in range(pixel.size):
            out[c] += pixel[c] * other[c]
    else:
        for c in range(pixel.size):
            value, line, to = pixel[c], other[c * each :], out[c * each :]
            for m in range(each):
                to[m] += value * line[m]


@jit
def _add_dot_products(g, tap, each, out):
    """out[c] += the sum of g[o] * tap[o] over the ``each`` outputs o of channel c."""
    if each == 1:
        for c in range(out.size):
            out[c] += g[c] * tap[c]
    else:
        for c in range(out.size):
            line, weights, total = g[c * each :], tap[c * each :], np.float32(0)
            for m in range(each):
                total += line[m] * weights[m]
            out[c] += total


@threaded
def _depthwise(x, w, b, each, sh, sw, dh, dw, top, left, y):
    n, oh, ow, _ = y.shape
    _, h, width, _ = x.shape
    for task in prange(n * oh):
        e, i = task // oh, task % oh
        for j in range(ow):
            to = y[e, i, j]
            to[:] = 0
            for ky in range(w.shape[0]):
                row = i * sh + ky * dh - top
                if 0 <= row < h:
                    for kx in range(w.shape[1]):
                        column = j * sw + kx * dw - left
                        if 0 <= column < width:
                            _add_products(x[e, row, column], w[ky, kx], each, to)
            for o in range(to.size):
                to[o] += b[o]


@threaded
def _depthwise_weights(x, dy, each, sh, sw, dh, dw, top, left, sums):
    """sums (tasks, KH, KW, C * M) float64: task t has a fixed range of output rows, and adds up
    chunks of 256 positions in float32.
    """
    n, oh, ow, channels = dy.shape
    _, h, width, _ = x.shape
    count, kh, kw = sums.shape[:3]
    for task in prange(count):
        part = np.zeros((kh, kw, channels), np.float32)
        positions = 0
        for line in range(n * oh * task // count, n * oh * (task + 1) // count):
            e, i = line // oh, line % oh
            for j in range(ow):
                for ky in range(kh):
                    row = i * sh + ky * dh - top
                    if 0 <= row < h:
                        for kx in range(kw):
                            column = j * sw + kx * dw - left
                            if 0 <= column < width:
                                _add_products(x[e, row, column], dy[e, i, j], each, part[ky, kx])
                positions += 1
                if positions == CHUNK:
                    sums[task] += part
                    part[:] = 0
                    positions = 0
        sums[task] += part


@threaded
def _depthwise_inputs(dy, w, each, sh, sw, dh, dw, top, left, dx):
    """A task has a row of dx, and adds what reaches into it in the order of (ky, column of dy)."""
    _, oh, ow, _ = dy.shape
    n, h, width, _ = dx.shape
    for task in prange(n * h):
        e, row = task // h, task % h
        dx[e, row] = 0
        for ky in range(w.shape[0]):
            down = row + top - ky * dh
            i = down // sh
            if down >= 0 and down % sh == 0 and i < oh:
                for j in range(ow):
                    for kx in range(w.shape[1]):
                        column = j * sw + kx * dw - left
                        if 0 <= column < width:
                            _add_dot_products(dy[e, i, j], w[ky, kx], each, dx[e, row, column])


def depthwise_conv2d(
    x: Array,
    w: Array,
    b: Array,
    geometry: Geometry = Geometry(),
    workspace: Workspace | None = None,
) -> Array:
    """y[n, i, j, c*M + m] = b[c*M + m] + sum over (ky, kx) of x[n, i*s + ky*d - top, j*s + kx*d -
    left, c] * w[ky, kx, c, m]: every channel is convolved by itself, with M kernels.

    x (N, H, W, C), w (KH, KW, C, M), b (C * M,) -> y (N, OH, OW, C * M), all float32. Outside the
    image x is 0 (Chollet 2017, arXiv:1610.02357; the order of channels is Keras').
    """
    x, w, b = check_float32("depthwise_conv2d", x=x, w=w, b=b)
    shape, flat, where = _as_compiled(geometry, x, w)
    check_shape("depthwise_conv2d", "b", b, shape[3:])
    y = np.empty(shape, np.float32)
    _depthwise(tasks(y.size * w.shape[0] * w.shape[1]), x, flat, b, *where, y)
    return y


def _as_compiled(geometry, x, w):
    """Return (shape of the output, w (KH, KW, C * M), and what compiled loops take: M, stride,
    dilation, top, left).
    """
    shape = geometry.depthwise_output(x.shape, w.shape)
    (top, _), (left, _) = geometry.pads(x.shape, w.shape)
    where = w.shape[3], *geometry.stride, *geometry.dilation, top, left
    return shape, w.reshape(*w.shape[:2], shape[3]), where


def depthwise_conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    geometry: Geometry = Geometry(),
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of depthwise_conv2d: returns (dx or None, dw, db) with the shapes of x, w, b for dy
    (N, OH, OW, C * M), all float32. dw and db are added to.
    """
    op = "depthwise_conv2d_backward"
    dy, x, w = check_float32(op, dy=dy, x=x, w=w)
    shape, flat, where = _as_compiled(geometry, x, w)
    check_shape(op, "dy", dy, shape)
    (n, oh, _, channels), (kh, kw, _) = shape, flat.shape
    dw, db = gradient_targets(op, wanted, dw=w.shape, db=(channels,))
    count = tasks(dy.size * kh * kw)
    # Their number follows from the shapes alone: bits must not follow the threads.
    sums = np.zeros((min(8, n * oh), kh, kw, channels))
    _depthwise_weights(count, x, dy, *where, sums)
    dw += sums.sum(0).reshape(w.shape)
    db += channel_sums(dy.reshape(-1, channels))
    if not wanted.dx:
        return None, dw, db
    dx = np.empty(x.shape, np.float32)
    _depthwise_inputs(count, dy, flat, *where, dx)
    return dx, dw, db

"""Conv2D -> ELU -> MaxPooling2D as one op, which never stores the convolution's output.

A task takes a few cells and one group of channels: it computes the pool x pool outputs of a cell in registers and keeps the
largest and its position. Both kernels run over a list of windows (windows.py) and know nothing of images.
"""
import numpy as np
from numba import prange

from ..shapes import conv_output, conv_padding, pair, pool_output
from .activations import activate
from .block_backward import conv2d_block_backward
from .checks import buffer, floats, shaped
from .jit import jit, lines, parallel
from .pack import packed, split
from .tile import CHANNELS, LANES, MAX_PIXELS, NEIGHBOURS, STRIDES, VECTORS, announce, cells_tile, deinterleave, max_tile, transpose
from .windows import address, windows

__all__ = ["conv2d_block", "conv2d_block_backward"]
LOWEST = np.float32(-np.inf)
EVERY = np.empty((0, 2), np.int64)          # no list of distinct positions


@parallel
def _channels(windows, kh, kw, ci, w, start, width, b, alpha, ph, group, distinct, cells, y, argmax):
    """Lanes are channels: one cell at a time."""
    n, co, kc, pw = windows.table.shape[0], y.shape[1], kw * ci, group.sum()
    blocks = (n + cells - 1) // cells
    for task in prange(start.size * blocks):                          # a group's weights stay in the cache over all cells
        g, block = task // blocks, task % blocks
        first, many = start[g], width[g]
        best, where = np.empty(many, np.float32), np.empty(many, np.int32)
        weights = w[kh * kc * first:].ctypes.data
        for t in range(block * cells, min(n, (block + 1) * cells)):
            best[:] = LOWEST
            where[:] = 0
            start_of, row, rows, columns = address(windows, t), windows.table[t, 1], ph, pw
            if distinct.size:
                rows, columns = distinct[t, 0], distinct[t, 1]
            for r in range(rows):
                here, position = start_of + 4 * r * row, r * pw
                for pixels in group:
                    max_tile(min(pixels, r * pw + columns - position), many // LANES, here, row, 1, ci, weights, kc * many, many, kh, kc,
                             best.ctypes.data, where.ctypes.data, position)
                    position += pixels
                    here += 4 * ci * pixels
                    if position >= r * pw + columns:
                        break
            for c in range(min(many, co - first)):
                y[t, first + c] = activate(best[c] + b[first + c], alpha)
                argmax[t, first + c] = where[c]


@jit
def _lanes_of_windows(windows, first, wh, wc, apart, place, row, x):
    """x[r, k, lane] = element (r, k) of window first + lane; beyond the last window, the last again."""
    table = windows.table
    neighbours = apart in STRIDES and apart <= wc <= apart + NEIGHBOURS and first + LANES <= table.shape[0]
    for lane in range(LANES):
        t = min(first + lane, table.shape[0] - 1)
        place[lane], row[lane] = address(windows, t), table[t, 1]
        neighbours &= table[t, 0] >= 0 and place[lane] == place[0] + 4 * lane * apart
    for r in range(wh):
        if neighbours:
            deinterleave(apart, place[0] + 4 * r * row[0], wc, x.ctypes.data + 4 * LANES * r * wc)
        else:
            for k in range(0, wc, LANES):
                transpose(place.ctypes.data, row.ctypes.data, r, k, min(LANES, wc - k), x.ctypes.data + 4 * LANES * (r * wc + k))


@parallel
def _cells(windows, kh, kw, ci, w, start, width, b, alpha, ph, pw, group, tasks, y, argmax):
    """Lanes are cells, LANES windows at a time: for few channels, where lanes of channels would stay empty."""
    n, co, kc, wh, wc = y.shape[0], y.shape[1], kw * ci, ph + kh - 1, (pw + kw - 1) * ci
    blocks, channels = (n + LANES - 1) // LANES, start[-1] + width[-1]
    for task in prange(tasks):
        x = lines((wh, wc, LANES))
        best, where = lines((channels, LANES)), np.empty((channels, LANES), np.int32)
        flat, bias = best.reshape(-1), b.repeat(LANES)
        place, row = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
        for block in range(blocks * task // tasks, blocks * (task + 1) // tasks):
            t = block * LANES
            many = min(LANES, n - t)
            announce(y[t:].ctypes.data, 4 * many * co)                # else every block waits for the memory that it writes to
            announce(argmax[t:].ctypes.data, many * co)
            _lanes_of_windows(windows, t, wh, wc, pw * ci, place, row, x)
            best[:] = LOWEST
            where[:] = 0
            for g in range(start.size):
                weights = w[kh * kc * start[g]:].ctypes.data
                for r in range(ph):
                    k, position = 0, r * pw
                    for pixels in group:
                        here = x.ctypes.data + 4 * LANES * (r * wc + k)
                        cells_tile(pixels, width[g], here, wc, 1, ci, weights, kc * width[g], width[g], kh, kc,
                                   best[start[g]:].ctypes.data, where[start[g]:].ctypes.data, position)
                        position += pixels
                        k += pixels * ci
            for i in range(co * LANES):                               # here, not below: contiguous, so it is vectorized
                flat[i] = activate(flat[i] + bias[i], alpha)
            for lane in range(many):
                for c in range(co):
                    y[t + lane, c] = best[c, lane]
                    argmax[t + lane, c] = where[c, lane]


def few_channels(co):
    """Whether lanes of channels would leave more than a quarter of them empty."""
    return 4 * co < 3 * LANES * -(-co // LANES)


def conv2d_block(x, w, b, pool, alpha=1.0, padding="same", distinct=None, work=None):
    """Conv2D (stride 1) -> ELU -> MaxPooling2D (stride = pool): y = elu(max over the window of conv2d(x, w, 0) + b).

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) float32 -> (y float32, argmax uint8), both (N, OH // PH, OW // PW,
    C_out); argmax is the first maximum's position in the window, row by row. alpha 0 makes it a ReLU block. Windows have at
    most 256 positions. ``distinct`` (cells, 2): the first so many rows and columns of a cell's pooling window hold all of its different
    sums, later positions repeat earlier ones and are not computed. With ``work``, y and argmax are its buffers: valid until the next
    call with the same work.
    """
    x, w, b = floats("conv2d_block", x=x, w=w, b=b)
    pool = pair(pool, "pool size")
    z_shape = conv_output(x.shape, w.shape, (1, 1), padding)
    shape = pool_output(z_shape, pool, pool)
    shaped("conv2d_block", "b", b, shape[3:])
    if pool[0] * pool[1] > 256:
        raise ValueError(f"conv2d_block keeps positions in 8 bits: at most 256 per window, got {pool[0]} x {pool[1]}; "
                         "use the three ops")
    if alpha < 0:
        raise ValueError(f"conv2d_block needs an increasing activation, alpha >= 0, got {alpha!r}: use the three ops")
    co = w.shape[3]
    pads = conv_padding(x.shape, w.shape, (1, 1), padding)
    y, argmax = buffer(work, "y", shape), buffer(work, "argmax", shape, np.uint8)
    run_block(windows(x, None, shape, pool, w.shape[:2], pads, work), w, b, pool, alpha, y.reshape(-1, co), argmax.reshape(-1, co), work,
              distinct)
    return y, argmax


def run_block(listed, w, b, pool, alpha, y, argmax, work, distinct=None):
    """Run the block over the Windows ``listed`` into the rows of y and argmax (windows, C_out)."""
    kh, kw, ci, co = w.shape
    alpha = np.float32(alpha)
    if few_channels(co):
        weights = packed(work, "cells", w, 1, CHANNELS)
        _cells(listed, kh, kw, ci, *weights, b, alpha, *pool, split(pool[1], MAX_PIXELS - 1), 256, y, argmax)
    else:
        weights = packed(work, "channels", w, LANES, VECTORS)
        distinct = np.ascontiguousarray(EVERY if distinct is None else distinct, np.int64)
        _channels(listed, kh, kw, ci, *weights, b, alpha, pool[0], split(pool[1], MAX_PIXELS), distinct, 1 + len(y) // 1000, y, argmax)

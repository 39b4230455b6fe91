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
from .tile import CHANNELS, LANES, MAX_CHANNELS, MAX_PIXELS, VECTORS, cells_tile, max_tile, transpose
from .windows import all_cells, windows

__all__ = ["conv2d_block", "conv2d_block_backward"]
POSITIVE = 2**62 - 1                        # masking an index tells the compiler that it does not count from the end
LOWEST = np.float32(-np.inf)


@parallel
def _channels(table, kh, kw, ci, w, start, width, b, alpha, ph, group, cells, y, argmax):
    """Lanes are channels: one cell at a time."""
    n, co, kc, pw = table.shape[0], y.shape[1], kw * ci, group.sum()
    blocks = (n + cells - 1) // cells
    for task in prange(start.size * blocks):                          # a group's weights stay in the cache over all cells
        g, block = task // blocks, task % blocks
        first, many = start[g], width[g]
        best, where = np.empty(many, np.float32), np.empty(many, np.int32)
        weights = w[kh * kc * first:].ctypes.data
        for t in range(block * cells, min(n, (block + 1) * cells)):
            best[:] = LOWEST
            where[:] = 0
            for r in range(ph):
                address, position = table[t, 0] + 4 * r * table[t, 1], r * pw
                for pixels in group:
                    max_tile(pixels, many // LANES, address, table[t, 1], 1, ci, weights, kc * many, many, kh, kc,
                             best.ctypes.data, where.ctypes.data, position)
                    position += pixels
                    address += 4 * ci * pixels
            cell = table[t, 2]
            for c in range(min(many, co - first)):
                y[cell, first + c] = activate(best[c] + b[first + c], alpha)
                argmax[cell, first + c] = where[c]


@jit
def _lanes_of_windows(table, first, wh, wc, address, row, x):
    """x[r, k, lane] = element (r, k) of window first + lane; beyond the last window, the last again."""
    for lane in range(LANES):
        t = min(first + lane, table.shape[0] - 1)
        address[lane], row[lane] = table[t, 0], table[t, 1]
    for r in range(wh):
        for k in range(0, wc, LANES):
            transpose(address.ctypes.data, row.ctypes.data, r, k, min(LANES, wc - k), x.ctypes.data + 4 * LANES * (r * wc + k))


@parallel
def _cells(table, kh, kw, ci, w, start, width, b, alpha, ph, pw, group, tasks, y, argmax):
    """Lanes are cells, LANES windows at a time: for few channels, where lanes of channels would stay empty."""
    n, kc, wh, wc = table.shape[0], kw * ci, ph + kh - 1, (pw + kw - 1) * ci
    blocks = (n + LANES - 1) // LANES
    for task in prange(tasks):
        x = lines((wh, wc, LANES))
        best, where = np.empty(MAX_CHANNELS * LANES, np.float32), np.empty(MAX_CHANNELS * LANES, np.int32)
        bias = b.repeat(LANES)
        address, row = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
        for block in range(blocks * task // tasks, blocks * (task + 1) // tasks):
            t = block * LANES
            _lanes_of_windows(table, t, wh, wc, address, row, x)
            for g in range(start.size):
                first, many = start[g], width[g]
                weights = w[kh * kc * first:].ctypes.data
                best[:] = LOWEST
                where[:] = 0
                for r in range(ph):
                    k, position = 0, r * pw
                    for pixels in group:
                        here = x.ctypes.data + 4 * LANES * (r * wc + k)
                        cells_tile(pixels, many, here, wc, 1, ci, weights, kc * many, many, kh, kc,
                                   best.ctypes.data, where.ctypes.data, position)
                        position += pixels
                        k += pixels * ci
                for i in range(many * LANES):                         # here, not below: contiguous, so it is vectorized
                    best[i] = activate(best[i] + bias[first * LANES + i], alpha)
                for lane in range(min(LANES, n - t)):
                    cell = table[t + lane, 2] & POSITIVE
                    for c in range(many):
                        y[cell, first + c] = best[c * LANES + lane]
                        argmax[cell, first + c] = where[c * LANES + lane]


def few_channels(co):
    """Whether lanes of channels would leave more than a quarter of them empty."""
    return 4 * co < 3 * LANES * -(-co // LANES)


def conv2d_block(x, w, b, pool, alpha=1.0, padding="same", work=None):
    """Conv2D (stride 1) -> ELU -> MaxPooling2D (stride = pool): y = elu(max over the window of conv2d(x, w, 0) + b).

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) float32 -> (y float32, argmax uint8), both (N, OH // PH, OW // PW,
    C_out); argmax is the first maximum's position in the window, row by row. alpha 0 makes it a ReLU block. Windows have at
    most 256 positions. With ``work``, y and argmax are its buffers: valid until the next call with the same work.
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
    table, _keep = windows(x, all_cells(shape, work), shape, pool, w.shape[:2], pads, work)
    y, argmax = buffer(work, "y", shape), buffer(work, "argmax", shape, np.uint8)
    run_block(table, w, b, pool, alpha, y.reshape(-1, co), argmax.reshape(-1, co), work)
    return y, argmax


def run_block(table, w, b, pool, alpha, y, argmax, work):
    """Run the block over the windows of ``table`` into rows of y and argmax (cells, C_out)."""
    kh, kw, ci, co = w.shape
    alpha = np.float32(alpha)
    if few_channels(co):
        weights = packed(work, "cells", w, 1, CHANNELS)
        _cells(table, kh, kw, ci, *weights, b, alpha, *pool, split(pool[1], MAX_PIXELS - 1), 256, y, argmax)
    else:
        weights = packed(work, "channels", w, LANES, VECTORS)
        _channels(table, kh, kw, ci, *weights, b, alpha, pool[0], split(pool[1], MAX_PIXELS), 1 + len(table) // 1000, y, argmax)

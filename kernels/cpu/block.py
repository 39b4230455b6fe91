"""Conv2D -> ELU -> MaxPooling2D as one op, which never stores the convolution's output.

A task takes a few cells and one group of channels: it computes the pool x pool outputs of a cell in registers and keeps the largest and
its position. Both kernels run over a list of windows (windows.py) and know nothing of images.
"""
import numpy as np
from numba import prange

from ..shapes import conv_output, conv_padding, pair, pool_output
from .activations import activate
from .block_backward import conv2d_block_backward
from .checks import buffer, floats, shaped
from .jit import jit, parallel
from .pack import packed, split
from .tile import LANES, MAX_CHANNELS, MAX_PIXELS, MAX_VECTORS, cells_tile, load, max_tile
from .windows import all_cells, windows

__all__ = ["conv2d_block", "conv2d_block_backward"]
LOWEST = np.float32(-np.inf)


@parallel
def _channels(table, kh, kw, ci, w, start, width, b, alpha, ph, group, cells, y, argmax):
    """Lanes are channels: one cell at a time."""
    n, co = y.shape
    kc = kw * ci
    blocks = (n + cells - 1) // cells
    for task in prange(start.size * blocks):
        g, block = task // blocks, task % blocks                      # a group's weights stay in the cache over all cells
        first, many = start[g], width[g]
        best, where = np.empty(many, np.float32), np.empty(many, np.int32)
        weights = w[kh * kc * first:].ctypes.data
        for i in range(block * cells, min(n, (block + 1) * cells)):
            best[:] = LOWEST
            where[:] = 0
            position = 0
            for r in range(ph):
                address = table[i, 0] + 4 * r * table[i, 1]
                for pixels in group:
                    max_tile(pixels, many // LANES, address, table[i, 1], 1, ci, weights, kc * many, many, kh, kc,
                             best.ctypes.data, where.ctypes.data, position)
                    position += pixels
                    address += 4 * ci * pixels
            for c in range(min(many, co - first)):
                y[i, first + c] = activate(best[c] + b[first + c], alpha)
                argmax[i, first + c] = where[c]


@jit
def _interleave(table, first, n, lanes, wh, wc, x):
    """x[r, k, lane] = element (r, k) of window first + lane; beyond the last window, the last again."""
    for lane in range(lanes):
        i = min(first + lane, n - 1)
        for r in range(wh):
            address = table[i, 0] + 4 * r * table[i, 1]
            for k in range(wc):
                x[r, k, lane] = load(address + 4 * k)


@parallel
def _cells(table, kh, kw, ci, w, start, width, b, alpha, ph, pw, group, y, argmax):
    """Lanes are cells, LANES windows at a time: for few channels, where lanes of channels would stay empty."""
    n, co = y.shape
    kc, wh, wc = kw * ci, ph + kh - 1, (pw + kw - 1) * ci
    for task in prange((n + LANES - 1) // LANES):
        i = task * LANES
        x = np.empty((wh, wc, LANES), np.float32)
        best, where = np.empty((MAX_CHANNELS, LANES), np.float32), np.empty((MAX_CHANNELS, LANES), np.int32)
        _interleave(table, i, n, LANES, wh, wc, x)
        for g in range(start.size):
            first, many = start[g], width[g]
            weights = w[kh * kc * first:].ctypes.data
            best[:] = LOWEST
            where[:] = 0
            position = 0
            for r in range(ph):
                k = 0
                for pixels in group:
                    cells_tile(pixels, many, x[r, k:].ctypes.data, wc, 1, ci, weights, kc * many, many, kh, kc,
                               best.ctypes.data, where.ctypes.data, position)
                    position += pixels
                    k += pixels * ci
            for c in range(many):
                for lane in range(min(LANES, n - i)):
                    y[i + lane, first + c] = activate(best[c, lane] + b[first + c], alpha)
                    argmax[i + lane, first + c] = where[c, lane]


def few_channels(co):
    """Whether lanes of channels would leave more than a quarter of them empty."""
    return 4 * co < 3 * LANES * -(-co // LANES)


def conv2d_block(x, w, b, pool, alpha=1.0, padding="same", work=None):
    """Conv2D (stride 1) -> ELU -> MaxPooling2D (stride = pool): y = elu(max over the window of conv2d(x, w, 0) + b).

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) float32 -> (y float32, argmax uint8), both (N, OH // PH, OW // PW, C_out);
    argmax is the first maximum's position in the window, row by row. alpha 0 makes it a ReLU block. Windows have at most 256 positions.
    With ``work``, y and argmax are its buffers: valid until the next call with the same work.
    """
    x, w, b = floats("conv2d_block", x=x, w=w, b=b)
    pool = pair(pool, "pool size")
    z_shape = conv_output(x.shape, w.shape, (1, 1), padding)
    shape = pool_output(z_shape, pool, pool)
    shaped("conv2d_block", "b", b, shape[3:])
    if pool[0] * pool[1] > 256:
        raise ValueError(f"conv2d_block keeps positions in 8 bits: at most 256 per window, got {pool[0]} x {pool[1]}; use the three ops")
    if alpha < 0:
        raise ValueError(f"conv2d_block needs an increasing activation, alpha >= 0, got {alpha!r}: use the three ops")
    kh, kw, ci, co = w.shape
    cells = all_cells(shape, work)
    table, copies = windows(x, cells, shape, pool, (kh, kw), conv_padding(x.shape, w.shape, (1, 1), padding), work)
    y, argmax = buffer(work, "y", shape), buffer(work, "argmax", shape, np.uint8)
    out = y.reshape(-1, co), argmax.reshape(-1, co)
    alpha = np.float32(alpha)
    if few_channels(co):
        weights = packed(work, "cells", w, 1, MAX_CHANNELS)
        _cells(table, kh, kw, ci, *weights, b, alpha, *pool, split(pool[1], MAX_PIXELS - 1), *out)
    else:
        weights = packed(work, "channels", w, LANES, MAX_VECTORS)
        _channels(table, kh, kw, ci, *weights, b, alpha, pool[0], split(pool[1], MAX_PIXELS), 8, *out)
    return y, argmax

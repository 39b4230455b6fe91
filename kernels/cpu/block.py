"""Conv2D -> ELU -> MaxPooling2D as one op, which never stores the convolution's output.

A task takes a few cells and one group of channels: it computes the outputs of a cell's pooling
window, and keeps the largest and its position. Both kernels run over a table of windows
(windows.py) and know nothing of images.
"""

import numpy as np
from numba import get_num_threads, prange

from ..arguments import Pooled
from ..shapes import Block
from ..types import Array
from ..workspace import Workspace
from .bf16 import paired
from .block_backward import conv2d_block_backward
from .checks import buffer, check_float32, check_shape
from .elementary import activate
from .emit import LANES
from .jit import aligned_empty, jit, parallel
from .pack import few_channels, packed, split
from .rows import (
    NEIGHBOURS,
    STRIDES,
    deinterleave,
    max_of_rows,
    prefetch_for_write,
    transpose,
)
from .tile import (
    CHANNELS,
    MAX_PIXELS,
    VECTORS,
    Best,
    Filter,
    Listed,
    Sums,
    listed_pairs_tile,
    listed_tile,
)
from .windows import address, maxima_of_windows, windows

__all__ = ["conv2d_block", "conv2d_block_backward", "conv2d_block_bf16"]
TOGETHER = 100  # positions whose sums are kept until the maximum is taken: full tiles, first cache


@parallel
def _channels(windows, kernel, pack, b, alpha, pool, cells, pairs, results):
    """Lanes are channels; the tile's pixels are the positions of a few cells in a row. kernel: (KH,
    KW, C_in). cells: that a task takes. pairs: x and w hold pairs of bf16 numbers.
    """
    (kh, kw, ci), (w, start, width), (ph, pw), (y, argmax) = kernel, pack, pool, results
    n, co, kc = windows.table.shape[0], y.shape[1], kw * ci
    size, blocks = ph * pw, (n + cells - 1) // cells
    together = max(1, TOGETHER // size)  # cells
    row_offsets, column_offsets = (
        np.arange(size) // pw,
        np.arange(size) % pw * ci,
    )  # a division takes long
    where = np.arange(size).astype(np.uint8)
    for task in prange(start.size * blocks):  # a group's weights stay in the cache over all cells
        g, t = task // blocks, task % blocks * cells
        lowest, channels, end = start[g], width[g], min(n, t + cells)
        addresses, row, sums = (
            np.empty(together * size, np.int64),
            np.empty(together * size, np.int64),
            aligned_empty((together * size, channels)),
        )
        best, best_at = aligned_empty((channels,)), np.empty(channels, np.int32)
        here = w[kh * kc * lowest :].ctypes.data
        weights = Filter(here, kc * channels, channels, kh, kc)
        while t < end:
            begin, count = t, 0
            while t < min(end, begin + together):
                window_address, row_stride = address(windows, t), windows.table[t, 1]
                for i in range(size):
                    addresses[count] = window_address + 4 * (
                        row_offsets[i] * row_stride + column_offsets[i]
                    )
                    row[count] = row_stride
                    count += 1
                t += 1
            tiles = (count + MAX_PIXELS - 1) // MAX_PIXELS
            for k in range(tiles):
                i = count * k // tiles
                shape = count * (k + 1) // tiles - i, channels // LANES
                listed = Listed(addresses[i:].ctypes.data, row[i:].ctypes.data)
                to = Sums(sums[i:].ctypes.data, channels)
                if pairs:
                    listed_pairs_tile(shape, listed, weights, to)
                else:
                    listed_tile(shape, listed, weights, to)
            for cell in range(begin, t):
                max_of_rows(
                    channels // LANES,
                    size,
                    Sums(sums[(cell - begin) * size :].ctypes.data, channels),
                    where.ctypes.data,
                    Best(best.ctypes.data, best_at.ctypes.data),
                )
                to, to_at, bias = y[cell, lowest:], argmax[cell, lowest:], b[lowest:]
                for c in range(min(channels, co - lowest)):
                    to[c] = activate(best[c] + bias[c], alpha)
                    to_at[c] = best_at[c]


@jit
def _lanes_of_windows(windows, first, wh, wc, windows_apart, addresses, row, x):
    """x[r, k, lane] = element (r, k) of window first + lane; beyond the last window, the last
    again.
    """
    table = windows.table
    neighbours = (
        windows_apart in STRIDES
        and windows_apart <= wc <= windows_apart + NEIGHBOURS
        and first + LANES <= table.shape[0]
    )
    for lane in range(LANES):
        t = min(first + lane, table.shape[0] - 1)
        addresses[lane], row[lane] = address(windows, t), table[t, 1]
        neighbours &= (
            table[t, 0] >= 0 and addresses[lane] == addresses[0] + 4 * lane * windows_apart
        )
    for r in range(wh):
        if neighbours:
            deinterleave(
                windows_apart, addresses[0] + 4 * r * row[0], wc, x.ctypes.data + 4 * LANES * r * wc
            )
        else:
            for k in range(0, wc, LANES):
                transpose(
                    addresses.ctypes.data,
                    row.ctypes.data,
                    r,
                    k,
                    min(LANES, wc - k),
                    x.ctypes.data + 4 * LANES * (r * wc + k),
                )


@parallel
def _cells(windows, kernel, pack, b, alpha, pool, group, tasks, results):
    """Lanes are cells, LANES windows at a time: for few channels, where lanes of channels would
    stay empty. kernel, group: as maxima_of_windows has them.
    """
    (kh, kw, ci), (ph, pw), (y, argmax) = kernel, pool, results
    n, co, wh, wc = y.shape[0], y.shape[1], ph + kh - 1, (pw + kw - 1) * ci
    blocks, channels = (n + LANES - 1) // LANES, pack.start[-1] + pack.width[-1]
    for task in prange(tasks):
        x = aligned_empty((wh, wc, LANES))
        best, where = aligned_empty((channels, LANES)), np.empty((channels, LANES), np.int32)
        flat, bias = best.reshape(-1), b.repeat(LANES)
        addresses, row = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
        for block in range(blocks * task // tasks, blocks * (task + 1) // tasks):
            t = block * LANES
            lanes = min(LANES, n - t)
            # Else every block waits for the memory that it writes to.
            prefetch_for_write(y[t:].ctypes.data, 4 * lanes * co)
            prefetch_for_write(argmax[t:].ctypes.data, lanes * co)
            _lanes_of_windows(windows, t, wh, wc, pw * ci, addresses, row, x)
            maxima_of_windows(x, kernel, pack, pool, group, (best, where))
            for i in range(co * LANES):  # here, not below: contiguous, so it is vectorized
                flat[i] = activate(flat[i] + bias[i], alpha)
            for lane in range(lanes):
                for c in range(co):
                    y[t + lane, c] = best[c, lane]
                    argmax[t + lane, c] = where[c, lane]


def conv2d_block(
    x: Array, w: Array, b: Array, block: Block, workspace: Workspace | None = None
) -> Pooled:
    """Conv2D (stride 1) -> ELU -> MaxPooling2D (stride = pool): y = elu(max over the window of
    conv2d(x, w, 0) + b).

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) float32 -> Pooled with y float32 and
    argmax uint8, both (N, OH // PH, OW // PW, C_out). alpha 0 makes it a ReLU block. With
    ``workspace``, y and argmax are its buffers: valid until the next call with the same one.
    """
    return _block(x, w, b, block, workspace, False)


def conv2d_block_bf16(
    x: Array, w: Array, b: Array, block: Block, workspace: Workspace | None = None
) -> Pooled:
    """The same with x and w rounded to bf16, where there are channels to pair (bf16.py)."""
    return _block(x, w, b, block, workspace, True)


def _block(x, w, b, block, workspace, bf16):
    x, w, b = check_float32("conv2d_block", x=x, w=w, b=b)
    shape, pads = block.output(x.shape, w.shape), block.geometry.pads(x.shape, w.shape)
    check_shape("conv2d_block", "b", b, shape[3:])
    (kh, kw, ci, co), pool = w.shape, block.pool
    y, argmax = buffer(workspace, "y", shape), buffer(workspace, "argmax", shape, np.uint8)
    results = y.reshape(-1, co), argmax.reshape(-1, co)
    cells = len(results[0])
    alpha = np.float32(block.alpha)  # what compiled code takes
    bf16 &= ci > 1 and not few_channels(co)
    image = x
    if bf16:
        image, w = paired(x, w, workspace)
    kernel = kh, kw, image.shape[3]
    listed = windows(image, shape, pool, (kh, kw), pads, workspace)
    if few_channels(co):
        weights = packed(workspace, "cells", w, 1, CHANNELS)
        group, tasks = split(pool[1], MAX_PIXELS - 1), min(256, -(-cells // LANES))
        _cells(listed, kernel, weights, b, alpha, pool, group, tasks, results)
    else:
        weights = packed(workspace, "pairs" if bf16 else "channels", w, LANES, VECTORS)
        # Enough tasks for every thread.
        per_task = min(20, 1 + cells * len(weights.start) // (8 * get_num_threads()))
        _channels(listed, kernel, weights, b, alpha, pool, per_task, bf16, results)
    return Pooled(x, y, argmax)

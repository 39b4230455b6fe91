"""Blocks of few channels on maps that are lit in few places, by the windows of the cells.

lit.py adds the products of a lit input with the weights of a tap to the output that it feeds. Of
one channel into ten that is one short vector per product, and most of the time goes into finding
out where it belongs. Where the inputs lie close together, as those of a track do, it is faster to
take the changes of everything that a cell sees, and to compute all of its sums:

    what a cell of 5 x 5 sees, 9 x 9:   . . . # . . . . .    lanes are 16 cells; then the tile of
                                        . . # # . . . . .    dense images (block.py) has the maxima
                                        . # # . . . . . .    of the changes' sums, and rest comes on
                                        ...                  top, the same in a whole cell

but for cells with positions of several classes, at the border, which are computed one by one. The
gradient of the weights is the sum of patches of the windows, as in block_backward.py.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from ..lit import Lit, LitBlock, LitGeometry, LitLists, Resting
from ..types import Array
from ..workspace import Workspace
from .checks import buffer
from .elementary import activate, slope
from .jit import POSITIVE, aligned_empty, jit, parallel, threaded
from .lit_cells import alike, compiled, corner
from .pack import few_channels, packed, split
from .patch_sums import SEGMENT, _sum_patches, padded
from .tile import CHANNELS, LANES, MAX_PIXELS
from .windows import maxima_of_windows

#: The least number of lit inputs per cell, and the most input channels, for which windows are
#: faster: alone, an input costs four windows of its own.
INPUTS_PER_CELL, MOST_CHANNELS = 2, 4
TASK = 64  # cells of a forward task, and of a piece of windows that stays in a near cache
CHUNK, PARTS = (
    1024,
    8,
)  # cells of which float32 sums are taken; at least so many parts, if they fill
LOWEST = np.float32(-np.inf)


class Inputs(NamedTuple):
    """The changes (n, C_in) of the lit inputs ``at`` (n, 2), the number ``starts`` of the first one
    of every row, and the rows of an event; rows and columns that a cell sees, and how many of them
    lie before its first position. Flat, as Cells.
    """

    changes: Array
    at: Array
    starts: Array
    height: int
    rows: int
    columns: int
    top: int
    left: int


def by_windows(channels: tuple[int, int], geometry: LitGeometry, inputs: int, cells: int) -> bool:
    """Whether a block of (C_in, C_out) channels is computed by windows."""
    ci, co = channels
    kernel = geometry.feeds[1].shape[1]
    few = ci <= MOST_CHANNELS and few_channels(co) and kernel * ci <= SEGMENT
    return few and geometry.before is not None and inputs >= INPUTS_PER_CELL * cells > 0


@threaded
def _row_starts(tasks, at, starts):
    """starts[r] = the number of the first input of row r or a later one."""
    many, rows = at.shape[0], starts.size - 1
    for task in prange(tasks):
        for a in range((many + 1) * task // tasks, (many + 1) * (task + 1) // tasks):
            first = at[a - 1, 0] + 1 if a > 0 else 0
            end = at[a & POSITIVE, 0] + 1 if a < many else rows + 1
            for r in range(first, end):
                starts[r] = a


@jit
def _take(cells, cell, known, inputs, pointers, x, row, step):
    """Put the changes that a cell sees to x[(r * row + column * C_in + channel) * step]; the cells
    of a row come in their order, ``known`` is the row of the last one.
    """
    d, at, starts, height, wh, ww, top, left = inputs
    ci = d.shape[1]
    line, column = cells.at[cell]
    event = line // cells.rows_of_event
    top = line % cells.rows_of_event * cells.down - top
    left = column * cells.across - left
    first = event * height + top
    if line != known:
        for r in range(wh):
            if 0 <= top + r < height:
                pointers[r] = starts[(first + r) & POSITIVE]
    for r in range(max(0, -top), min(wh, height - top)):
        p, end = pointers[r], starts[(first + r + 1) & POSITIVE]
        while p < end and at[p & POSITIVE, 1] < left:
            p += 1
        pointers[r] = p
        while p < end:
            k = at[p & POSITIVE, 1] - left
            if k >= ww:
                break
            to = r * row + k * ci
            for i in range(ci):
                x[((to + i) * step) & POSITIVE] = d[p & POSITIVE, i]
            p += 1
    return line


@jit
def _one_by_one(cells, cell, x, row, ci, w, sums, best, where):
    """The maxima of a cell with positions of several classes: best and where (C_out,). x: what it
    sees, every LANES-th float; w (KH, KW * C_in, C_out).
    """
    r, c = corner(cells, cell)
    best[:] = LOWEST
    total = np.empty(best.size, np.float32)
    for i in range(cells.down):
        for j in range(cells.across):
            total[:] = sums[cells.row_classes[r + i], cells.column_classes[c + j]]
            for ky in range(w.shape[0]):
                for k in range(w.shape[1]):
                    value = x[(i + ky) * row + j * ci + k]
                    if value != 0:
                        for channel in range(total.size):
                            total[channel] += value * w[ky, k, channel]
            for channel in range(total.size):
                if total[channel] > best[channel]:
                    best[channel], where[channel] = total[channel], i * cells.across + j


@parallel
def _forward(inputs, cells, w, pack, group, rest, activation, results):
    """w: (KH, KW, C_in, C_out). pack: PackedWeights of it. group: numbers of neighbouring positions
    that a tile takes. rest: (sums of classes, b).
    """
    wh, ww, (sums, b), (y, argmax) = inputs.rows, inputs.columns, rest, results
    (many, co), (kh, kw, ci) = y.shape, w.shape[:3]
    row, lines, flat_w = ww * ci, pack.start[-1] + pack.width[-1], w.reshape(kh, kw * ci, co)
    for task in prange(-(-many // TASK)):
        x = aligned_empty((wh, row, LANES))
        flat = x.reshape(-1)
        best, where = aligned_empty((lines, LANES)), np.empty((lines, LANES), np.int32)
        own, own_at = np.empty(co, np.float32), np.empty(co, np.int32)
        pointers, known = np.zeros(wh, np.int64), -1
        for t in range(task * TASK, min(many, (task + 1) * TASK), LANES):
            count = min(LANES, many - t)
            flat[:] = np.float32(0)
            for lane in range(count):
                known = _take(cells, t + lane, known, inputs, pointers, flat[lane:], row, LANES)
            pool = cells.down, cells.across
            maxima_of_windows(x, (kh, kw, ci), pack, pool, group, best, where)
            for lane in range(count):
                if alike(cells, t + lane):
                    r, c = corner(cells, t + lane)
                    rest = sums[cells.row_classes[r], cells.column_classes[c]]
                    for channel in range(co):
                        best[channel, lane] += rest[channel]
                else:
                    seen = flat[lane:][::LANES]
                    _one_by_one(cells, t + lane, seen, row, ci, flat_w, sums, own, own_at)
                    for channel in range(co):
                        best[channel, lane], where[channel, lane] = own[channel], own_at[channel]
            for channel in range(co):
                line, bias = best[channel], b[channel]
                if activation.linear:
                    for lane in range(LANES):
                        line[lane] += bias
                else:
                    for lane in range(LANES):
                        line[lane] = activate(line[lane] + bias, activation.alpha)
            for lane in range(count):
                to, to_at = y[t + lane], argmax[t + lane]
                for channel in range(co):
                    to[channel], to_at[channel] = best[channel, lane], where[channel, lane]


@parallel
def _backward(inputs, cells, kernel, gradient, activation, parts):
    """parts (n, C_out, KH, floats): part t adds up the cells m * t // n to m * (t + 1) // n."""
    (dy, y, argmax), (kh, kw, ci), wh, ww = gradient, kernel, inputs.rows, inputs.columns
    (many, co), kc, row = dy.shape, kw * ci, padded(ww * ci)
    for task in prange(parts.shape[0]):
        part = parts[task]
        part[:] = np.float32(0)
        x, pointers, known = aligned_empty((TASK, wh * row)), np.zeros(wh, np.int64), -1
        g, address = np.empty(TASK, np.float32), np.empty(TASK, np.int64)
        apart = np.full(TASK, row)
        end = many * (task + 1) // parts.shape[0]
        for t in range(many * task // parts.shape[0], end, TASK):
            count = min(TASK, end - t)
            for i in range(count):
                x[i] = np.float32(0)
                known = _take(cells, t + i, known, inputs, pointers, x[i], row, 1)
            for c in range(co):
                for i in range(count):
                    cell = (t + i) & POSITIVE
                    at, z = argmax[cell, c], y[cell, c]
                    g[i] = dy[cell, c]
                    if not activation.linear:
                        g[i] *= slope(z, activation.alpha)
                    corner_at = at // cells.across * row + at % cells.across * ci
                    address[i] = x[i].ctypes.data + 4 * corner_at
                _sum_patches(
                    kh,
                    kc,
                    count,
                    g.ctypes.data,
                    address.ctypes.data,
                    apart.ctypes.data,
                    part[c].ctypes.data,
                    part.shape[2],
                )


def _inputs(
    changes: Array, lists: LitLists, block: LitBlock, workspace: Workspace | None
) -> Inputs:
    geometry, (kh, kw), (ph, pw) = block.geometry, block.w.shape[:2], block.geometry.pool
    height, before = len(geometry.feeds[0]), geometry.before
    starts = buffer(workspace, "starts of rows", (lists.events * height + 1,), np.int64)
    tasks = -(-len(changes) // (1 << 14))
    _row_starts(tasks, tasks, lists.inputs, starts)
    assert before is not None
    return Inputs(changes, lists.inputs, starts, height, ph + kh - 1, pw + kw - 1, *before)


def forward(
    changes: Array,
    lists: LitLists,
    resting: Resting,
    block: LitBlock,
    results: tuple[Array, Array],
    workspace: Workspace | None,
) -> None:
    """Write lit_block's ``results``, y and argmax."""
    inputs = _inputs(changes, lists, block, workspace)
    weights = packed(workspace, "cells", block.w, 1, CHANNELS)
    group, rest = split(block.geometry.pool[1], MAX_PIXELS - 1), (resting.sums, block.b)
    cells, activation = compiled(block, lists.cells)
    _forward(inputs, cells, block.w, weights, group, rest, activation, results)


def add_weight_gradient(
    dy: Array, lit: Lit, block: LitBlock, dw: Array, workspace: Workspace | None
) -> None:
    """Add to dw the share of the changes, as lit_block_backward does."""
    changes, lists, y, argmax = lit
    inputs = _inputs(changes, lists, block, workspace)
    kh, kw, ci, co = block.w.shape
    many = len(lists.cells)
    count = max(-(-many // CHUNK), min(PARTS, -(-many // TASK)))
    parts = buffer(workspace, "parts of cells", (count, co, kh, padded(kw * ci)))
    cells, activation = compiled(block, lists.cells)
    gradient = dy, y, argmax
    _backward(inputs, cells, (kh, kw, ci), gradient, activation, parts)
    total = parts[..., : kw * ci].sum(0, dtype=np.float64)
    dw += total.reshape(co, kh, kw, ci).transpose(1, 2, 3, 0).astype(np.float32)

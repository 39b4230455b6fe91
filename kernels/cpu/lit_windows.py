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
gradient of the weights is the sum of patches of the windows, as in block_backward.py. Where windows
come from: lit_strips.py.
"""

import numpy as np
from numba import prange

from ..lit import Lit, LitBlock, LitGeometry, LitLists, Resting
from ..types import Array
from ..workspace import Workspace
from .checks import buffer
from .elementary import activate, slope
from .emit import LANES
from .jit import POSITIVE, aligned_empty, jit, parallel
from .lit_cells import compiled, corner
from .lit_strips import inputs_of, new_strip, new_windows, take_windows
from .pack import few_channels, packed, split
from .patch_sums import SEGMENT, padded, sum_patches
from .rows import Patches, transpose
from .tile import CHANNELS, MAX_PIXELS, Sums
from .windows import maxima_of_windows

#: The least number of lit inputs per cell, and the most input channels, for which windows are
#: faster: alone, an input costs four windows of its own.
INPUTS_PER_CELL, MOST_CHANNELS = 2, 4
#: Cells of a forward task, and of windows that stay in a near cache: a multiple of LANES.
TASK, NEAR = 256, 32
#: Cells of which float32 sums are taken; at least so many parts, of so many cells, if they fill.
CHUNK, PARTS, PART = 1024, 8, 64
LOWEST = np.float32(-np.inf)


def by_windows(channels: tuple[int, int], geometry: LitGeometry, inputs: int, cells: int) -> bool:
    """Whether a block of (C_in, C_out) channels is computed by windows."""
    ci, co = channels
    kernel = geometry.feeds[1].shape[1]
    few = ci <= MOST_CHANNELS and few_channels(co) and kernel * ci <= SEGMENT
    return few and geometry.before is not None and inputs >= INPUTS_PER_CELL * cells > 0


@jit
def _to_lanes(windows, count, place, apart, x):
    """Set x (WH, floats, LANES) to the windows (count, WH, floats), one to a lane; lanes beyond
    ``count`` have what the last one has. place, apart: space for LANES int64, apart zeros.
    """
    row = windows.shape[2]
    for lane in range(LANES):
        place[lane] = windows[min(lane, count - 1)].ctypes.data
    for r in range(x.shape[0]):
        for k in range(0, x.shape[1], LANES):
            lanes, to = min(LANES, x.shape[1] - k), x[r, k:].ctypes.data
            transpose(place.ctypes.data, apart.ctypes.data, 0, r * row + k, lanes, to)


@jit
def _pairs_of(cells, first, count, columns, pairs):
    """Set pairs[lane] to the pair of classes of the cells from ``first`` on, row * ``columns`` +
    column, -1 for a cell of several classes; returns whether all are the same, and none -1.
    """
    line, above, alike, same = np.int64(-1), np.int64(0), False, True
    for lane in range(count):
        row, column = cells.positions[(first + lane) & POSITIVE]
        if row != line:  # neighbours share the row, and a division takes long
            line = np.int64(row)
            own = (line % cells.rows_of_event) & POSITIVE
            alike = cells.rows_alike[own] != 0
            above = cells.row_classes[own * cells.down] * columns
        pairs[lane] = above + cells.column_classes[(column * cells.across) & POSITIVE]
        if not alike or cells.columns_alike[column & POSITIVE] == 0:
            pairs[lane] = -1
        same &= pairs[lane] == pairs[0]
    return same and pairs[0] >= 0


@jit
def _one_by_one(cells, first_position, x, ci, w, sums, best, where):
    """The maxima of a cell with positions of several classes, the first of which has this row
    and column: best and where (C_out,). x (WH, floats): what it sees; w (KH, KW * C_in, C_out).
    """
    r, c = first_position
    best[:], where[:] = LOWEST, 0  # NaN is larger than nothing
    total = np.empty(best.size, np.float32)
    for i in range(cells.down):
        for j in range(cells.across):
            total[:] = sums[cells.row_classes[r + i], cells.column_classes[c + j]]
            for ky in range(w.shape[0]):
                for k in range(w.shape[1]):
                    value = x[i + ky, j * ci + k]
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
    (sums, b), (y, argmax) = rest, results
    (cell_count, co), (kh, kw, ci) = y.shape, w.shape[:3]
    lines, flat_w = pack.start[-1] + pack.width[-1], w.reshape(kh, kw * ci, co)
    for task in prange((cell_count + TASK - 1) // TASK):
        strip = new_strip(inputs)
        windows = new_windows(inputs, NEAR)
        x = aligned_empty((inputs.rows, inputs.columns * ci, LANES))
        place, apart = np.empty(LANES, np.int64), np.zeros(LANES, np.int64)
        best, where = aligned_empty((lines, LANES)), np.empty((lines, LANES), np.int32)
        own, own_at = np.empty(co, np.float32), np.empty(co, np.int32)
        pairs, columns = np.empty(LANES, np.int64), sums.shape[1]
        last = min(cell_count, (task + 1) * TASK)
        for t in range(task * TASK, last, LANES):
            count, ahead = min(LANES, cell_count - t), t % NEAR
            if ahead == 0:
                end = min(t + NEAR, last)
                take_windows(inputs, cells, t, end, strip, windows)
            near = windows[ahead:]
            _to_lanes(near, count, place, apart, x)
            pool = cells.down, cells.across
            maxima_of_windows(x, (kh, kw, ci), pack, pool, group, (best, where))
            if _pairs_of(cells, t, count, columns, pairs):
                here = sums[pairs[0] // columns, pairs[0] % columns]
                for channel in range(co):
                    line, value = best[channel], here[channel]
                    for lane in range(LANES):
                        line[lane] += value
            else:
                for lane in range(count):
                    if pairs[lane] >= 0:
                        here = sums[pairs[lane] // columns, pairs[lane] % columns]
                        for channel in range(co):
                            best[channel, lane] += here[channel]
                    else:
                        first_position = corner(cells, t + lane)[:2]
                        _one_by_one(
                            cells, first_position, near[lane], ci, flat_w, sums, own, own_at
                        )
                        for channel in range(co):
                            best[channel, lane] = own[channel]
                            where[channel, lane] = own_at[channel]
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
    (dy, y, argmax), (kh, kw, ci) = gradient, kernel
    (cell_count, co), kc = dy.shape, kw * ci
    for task in prange(parts.shape[0]):
        part = parts[task]
        part[:] = np.float32(0)
        strip = new_strip(inputs)
        windows = new_windows(inputs, NEAR)
        row, size = windows.shape[2], windows.shape[1] * windows.shape[2]
        g, address, apart = np.empty(NEAR, np.float32), np.empty(NEAR, np.int64), np.full(NEAR, row)
        corners = np.empty(cells.down * cells.across, np.int64)
        for position in range(corners.size):
            corners[position] = 4 * (position // cells.across * row + position % cells.across * ci)
        end = cell_count * (task + 1) // parts.shape[0]
        for t in range(cell_count * task // parts.shape[0], end, NEAR):
            count = min(NEAR, end - t)
            take_windows(inputs, cells, t, t + count, strip, windows)
            for c in range(co):
                for i in range(count):
                    cell = (t + i) & POSITIVE
                    g[i] = dy[cell, c]
                    if not activation.linear:
                        g[i] *= slope(y[cell, c], activation.alpha)
                    address[i] = windows.ctypes.data + 4 * i * size + corners[argmax[cell, c]]
                summed = Patches(count, g.ctypes.data, address.ctypes.data, apart.ctypes.data)
                sum_patches(kh, kc, summed, Sums(part[c].ctypes.data, part.shape[2]))


@jit
def _add_parts(parts, dw):
    """Add parts (n, C_out, KH, floats), summed up in float64, to dw (KH, KW * C_in, C_out)."""
    for ky in range(dw.shape[0]):
        for k in range(dw.shape[1]):
            for c in range(dw.shape[2]):
                total = 0.0
                for part in range(parts.shape[0]):
                    total += np.float64(parts[part, c, ky, k])
                dw[ky, k, c] += np.float32(total)


def forward(
    changes: Array,
    lists: LitLists,
    resting: Resting,
    block: LitBlock,
    results: tuple[Array, Array],
    workspace: Workspace | None,
) -> None:
    """Write lit_block's ``results``, y and argmax."""
    inputs = inputs_of(changes, lists, block, workspace)
    weights = packed(workspace, "cells", block.w, 1, CHANNELS)
    group, rest = split(block.geometry.pool[1], MAX_PIXELS - 1), (resting.sums, block.b)
    cells, activation = compiled(block, lists.cells)
    _forward(inputs, cells, block.w, weights, group, rest, activation, results)


def add_weight_gradient(
    dy: Array, lit: Lit, block: LitBlock, dw: Array, workspace: Workspace | None
) -> None:
    """Add to dw the share of the changes, as lit_block_backward does."""
    changes, lists, y, argmax = lit
    inputs = inputs_of(changes, lists, block, workspace)
    kh, kw, ci, co = block.w.shape
    cell_count = len(lists.cells)
    count = max(-(-cell_count // CHUNK), min(PARTS, -(-cell_count // PART)))
    parts = buffer(workspace, "parts of cells", (count, co, kh, padded(kw * ci)))
    cells, activation = compiled(block, lists.cells)
    gradient = dy, y, argmax
    _backward(inputs, cells, (kh, kw, ci), gradient, activation, parts)
    _add_parts(parts, dw.reshape(kh, kw * ci, co))

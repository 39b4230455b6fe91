"""The backward pass of a block on maps that are lit in few places.

Of a cell each channel has its gradient at one position, that of its maximum. So an input that feeds
a position meets only the channels that have their maximum there, a few of C_out:

    cell 7    position  0   1   2   ...          d[a] feeds position 2 through some tap:
    channels           4 9  .  0 5 11            for c in (0, 5, 11):   dw[tap, :, c] += g[c] d[a]
                                                                        dx[a] += g[c] w[tap, :, c]

Lanes are input channels, so that weights and their gradients are turned over, tap by tap. A task
takes a piece of the input channels and a part of the inputs; parts, which depend on the lists
alone, have gradients of their own, added in their order: same bits for any number of threads.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from ..arguments import Wanted
from ..lit import Lit, LitBlock
from ..types import Array
from ..workspace import Workspace
from . import lit_windows
from .checks import buffer, check_float32, check_shape, gradient_targets
from .elementary import slope
from .emit import LANES
from .jit import POSITIVE, aligned_empty, jit, parallel, tasks, threaded
from .lit_cells import compiled
from .lit_lists import lit_lists
from .lit_tile import MAXIMA_VECTORS, Rows, Turned, Visits, maxima
from .pack import shares
from .rows import transpose

CELLS = 64  # cells that one task sorts
#: Of a task that adds up the classes: most channels, and least cells.
CHANNELS, CLASS_PART = 32, 512
#: Where the gradient of the weights takes fewer bytes than this, the inputs are cut into parts.
SMALL, PARTS, PART = 1 << 17, 8, 1024


class Winners(NamedTuple):
    """The channels of every cell, sorted by the position of their maximum, and the gradients g
    there, (m * C_out,). Those of the output ``slot`` = cell * PH * PW + position are from
    starts[slot] to starts[slot + 1].
    """

    g: Array
    channels: Array
    starts: Array


def _new_winners(cells, channels, size, workspace):
    """Return room for the Winners of so many cells of ``size`` positions."""
    winners = Winners(
        buffer(workspace, "g", (cells * channels,)),
        buffer(workspace, "channels", (cells * channels,), np.uint16),
        buffer(workspace, "starts", (cells * size + 1,), np.int32),
    )
    winners.starts[-1] = cells * channels
    return winners


@jit
def _sort_cells(first, end, size, gradient, activation, winners):
    (dy, y, argmax), (g, channels, starts) = gradient, winners
    co, ahead = dy.shape[1], np.empty(size, np.int32)
    for cell in range(first, end):
        position, slopes, out = argmax[cell], dy[cell], y[cell]
        ahead[:] = 0
        for c in range(co):
            ahead[position[c]] += 1
        begin, begins = np.int32(cell * co), starts[cell * size :]
        for p in range(size):
            begins[p] = begin
            begin, ahead[p] = begin + ahead[p], begin
        for c in range(co):
            k = ahead[position[c]] & POSITIVE
            ahead[position[c]] += 1
            channels[k] = c
            g[k] = slopes[c] if activation.linear else slopes[c] * slope(out[c], activation.alpha)


@jit
def _add_classes(begin, end, first, count, cells, gradient, activation, sums):
    """Add ``count`` channels, from ``first`` on, of the cells begin to end to ``sums``, by class of
    the position.
    """
    rows, columns, (dy, y, argmax) = cells.row_classes, cells.column_classes, gradient
    positions, rows_alike, columns_alike = cells.positions, cells.rows_alike, cells.columns_alike
    g, linear, alpha = aligned_empty((CHANNELS,)), activation.linear, activation.alpha
    for cell in range(begin, end):
        # Not corner(cells, cell): a call with so many arrays counts their references one by one.
        row, column = positions[cell & POSITIVE]
        row, column = (row % cells.rows_of_event) & POSITIVE, column & POSITIVE
        r, c = row * cells.down, column * cells.across
        slopes, out = dy[cell & POSITIVE, first:], y[cell & POSITIVE, first:]
        if linear:
            for k in range(count):
                g[k] = slopes[k]
        else:
            for k in range(count):
                g[k] = slopes[k] * slope(out[k], alpha)
        if rows_alike[row] & columns_alike[column]:
            line = sums[rows[r & POSITIVE] & POSITIVE, columns[c & POSITIVE] & POSITIVE, first:]
            for k in range(count):
                line[k] += g[k]
        else:
            here = argmax[cell & POSITIVE, first:]
            for k in range(count):
                i, j = here[k] // cells.across, here[k] % cells.across
                sums[rows[r + i] & POSITIVE, columns[c + j] & POSITIVE, first + k] += g[k]


@threaded
def _sort_and_add(cells, gradient, activation, winners, sums):
    """gradient: (dy, y, argmax) of the cells. Without room in ``winners`` nothing is sorted. sums
    (parts, R, S, C_out): part t adds up the cells m * t // parts to m * (t + 1) // parts.
    """
    size, (cell_count, co), parts = cells.down * cells.across, gradient[0].shape, sums.shape[0]
    chunks, groups = -(-cell_count // CELLS) if winners.g.size else 0, -(-co // CHANNELS)
    for task in prange(chunks + groups * parts):
        if task < groups * parts:
            first, part = task // parts * CHANNELS, task % parts
            begin, end = cell_count * part // parts, cell_count * (part + 1) // parts
            count = min(CHANNELS, co - first)
            _add_classes(begin, end, first, count, cells, gradient, activation, sums[part])
        else:
            first = (task - groups * parts) * CELLS
            _sort_cells(first, min(cell_count, first + CELLS), size, gradient, activation, winners)


@jit
def _turn_weights(w, first, vectors, out):
    """out (vectors, C_out, LANES) = the input channels from ``first`` on of one tap, w (C_in,
    C_out); lanes beyond the last channel hold anything.
    """
    ci, co = w.shape
    address, row = np.empty(LANES, np.int64), np.zeros(LANES, np.int64)
    whole, plane = co // LANES * LANES, out.size // vectors
    for q in range(vectors):
        for lane in range(LANES):
            address[lane] = w[min(first + q * LANES + lane, ci - 1)].ctypes.data
        to = out[q * plane :]
        for c in range(0, whole, LANES):
            start = to[c * LANES :].ctypes.data
            transpose(address.ctypes.data, row.ctypes.data, 0, c, LANES, start)
        for c in range(whole, co):
            for lane in range(LANES):
                to[c * LANES + lane] = w[min(first + q * LANES + lane, ci - 1), c]


@jit
def _turn_back(turned, vectors, first, dw):
    """Add what _turn_weights would have made of it to one tap of dw (C_in, C_out)."""
    ci, co = dw.shape
    address, row = np.empty(LANES, np.int64), np.zeros(LANES, np.int64)
    square, plane = aligned_empty((LANES * LANES,)), turned.size // vectors
    for q in range(vectors):
        for c in range(0, co, LANES):
            for lane in range(LANES):
                address[lane] = turned[q * plane + (c + lane) * LANES :].ctypes.data
            transpose(address.ctypes.data, row.ctypes.data, 0, 0, LANES, square.ctypes.data)
            real = min(LANES, co - c)
            for lane in range(min(LANES, ci - first - q * LANES)):
                to, own = dw[first + q * LANES + lane, c:], square[lane * LANES :]
                for k in range(real):
                    to[k] += own[k]


@parallel
def _backward(d, feeds, w, winners, pieces, parts, with_dx, dw, dx):
    """dw (parts, taps, C_in, C_out) and dx (n, channels with the lanes left empty) are added to."""
    g, channels, starts = winners
    (input_count, ci), co, row = d.shape, w.shape[2], dx.shape[1]
    room = -(-co // LANES) * LANES  # channels with the lanes that are left empty
    for task in prange(parts * pieces.shape[0]):
        part, piece = task // pieces.shape[0], task % pieces.shape[0]
        first, vectors = pieces[piece]
        turned = aligned_empty((vectors * room * LANES,))
        gradient = aligned_empty((vectors * room * LANES,))
        begin, end = input_count * part // parts, input_count * (part + 1) // parts
        whole = aligned_empty((end - begin if ci < row else 0, row))
        for a in range(whole.shape[0]):  # rows of whole vectors, if d has others
            own, to = d[(begin + a) & POSITIVE], whole[a]
            for k in range(ci):
                to[k] = own[k]
            for k in range(ci, row):
                to[k] = np.float32(0)
        inputs, lows = np.empty(end - begin + 1, np.int64), np.empty(end - begin + 1, np.int64)
        counts = np.empty(end - begin + 1, np.int64)
        for tap in range(feeds.shape[0]):
            fed, n = feeds[tap], 0
            for a in range(begin, end):
                slot = np.int64(fed[a & POSITIVE])
                low, high = starts[max(slot, 0)], starts[max(slot, 0) + 1]
                inputs[n & POSITIVE], lows[n & POSITIVE], counts[n & POSITIVE] = a, low, high - low
                n += (slot >= 0) & (high > low)  # no branch: nobody would foresee it
            if n == 0:
                continue
            gradient[:] = np.float32(0)
            if with_dx:
                _turn_weights(w[tap], first, vectors, turned)
            d_at = d.ctypes.data if ci == row else whole.ctypes.data - 4 * begin * row
            maxima(
                vectors,
                with_dx,
                Visits(n, inputs.ctypes.data, lows.ctypes.data, counts.ctypes.data),
                (channels.ctypes.data, g.ctypes.data),
                Turned(turned.ctypes.data, gradient.ctypes.data, room * LANES),
                Rows(d_at + 4 * first, dx.ctypes.data + 4 * first, row),
            )
            _turn_back(gradient, vectors, first, dw[part, tap])


@threaded
def _add_parts(parts, dw):
    for tap in prange(dw.shape[0]):
        for part in range(parts.shape[0]):
            own = parts[part, tap]
            for i in range(own.shape[0]):
                line, to = own[i], dw[tap, i]
                for k in range(line.size):
                    to[k] += line[k]


def lit_block_backward(
    dy: Array,
    lit: Lit,
    block: LitBlock,
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array, Array]:
    """Gradients of lit_block for dy (m, C_out): returns (dx or None, sums, dw, db).

    dx (n, C_in): at the lit inputs, all of whose gradient comes from fed cells. sums (R, S, C_out)
    float64: the gradient of what the convolution gives, summed over the positions of a class. dw
    gets the share of the changes alone; that of rest follows from ``sums``, see lit_rest_backward.
    """
    changes, lists, y, argmax = lit
    geometry, name = block.geometry, "lit_block_backward"
    dy, changes, w, y = check_float32(name, dy=dy, changes=changes, w=block.w, y=y)
    check_shape(name, "dy", dy, y.shape)
    dw, db = gradient_targets(name, wanted, dw=w.shape, db=w.shape[3:])
    (input_count, ci), co = changes.shape, w.shape[3]
    size, cells = geometry.pool[0] * geometry.pool[1], len(lists.cells)
    room = -(-ci // LANES) * LANES
    dx = buffer(workspace, "dx", (input_count if wanted.dx else 0, room))
    dx[...] = 0
    by_windows = lists.feeds is None and not wanted.dx
    winners = _new_winners(0 if by_windows else cells, co, size, workspace)
    where, activation = compiled(block, lists.cells)
    parts = max(1, min(PARTS, cells // CLASS_PART))
    of_parts = np.zeros((parts, *(len(seen) for seen in geometry.seen), co))
    _sort_and_add(tasks(dy.size), where, (dy, y, argmax), activation, winners, of_parts)
    sums = of_parts[0] if parts == 1 else of_parts.sum(0)
    db += sums.sum((0, 1)).astype(np.float32)
    if by_windows:
        if cells:
            lit_windows.add_weight_gradient(dy, lit, block, dw, workspace)
        return None, sums, dw, db
    feeds = lists.feeds
    if feeds is None:
        feeds = lit_lists(lists.inputs, lists.events, geometry).feeds
    weights, into_dw = (array.reshape(1, -1, ci, co) for array in (w, dw))
    parts = min(PARTS, -(-input_count // PART)) if w.nbytes <= SMALL else 1
    target = into_dw
    if parts > 1:
        target = buffer(workspace, "parts", (parts, *weights.shape[1:]))
        target[...] = 0
    pieces = shares(ci, LANES, MAXIMA_VECTORS[-1])
    _backward(changes, feeds, weights[0], winners, pieces, parts, int(wanted.dx), target, dx)
    if parts > 1:
        _add_parts(tasks(target.size), target, into_dw[0])
    return (dx[:, :ci] if wanted.dx else None), sums, dw, db

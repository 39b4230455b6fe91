"""Which cells the lit inputs of a map feed, and through which taps: lists that depend on no weight.

Fed cells are marked in a bit map, one row of words per row of cells:

    bits     ..1.111. .11.....   of events * OH rows; ``before`` counts the marks in front of each
    before   0        4          word of an event, so that the number of a cell in the list is
                                 before[word] + the marks below its own bit
"""

import numpy as np
from numba import prange

from ..lit import LitGeometry, LitLists
from ..types import Array
from ..workspace import Workspace
from .checks import as_contiguous, buffer
from .jit import POSITIVE, jit, threaded
from .lit_tile import bits_set, lowest_bit
from .lit_windows import by_windows

ONE, WORD = np.uint64(1), 64
TASK = 512  # lit inputs whose feeds one task lists


@jit
def _mark(at, first, end, event, height, rows, columns, bits, grid):
    """Mark the cells that the inputs first to end, all of one event, feed."""
    above, up, width = event * height, event * grid, columns.shape[1]
    for a in range(first, end):
        r, c = at[a, 0] - above, at[a, 1]
        for u in range(rows.shape[1]):
            i = rows[r & POSITIVE, u]
            if i < 0:
                break
            line = bits[(up + i) & POSITIVE]
            for v in range(width):
                j = columns[c & POSITIVE, v]
                if j < 0:
                    break
                line[(j >> 6) & POSITIVE] |= ONE << np.uint64(j & (WORD - 1))


@threaded
def _mark_and_count(at, starts, height, fed, marks, grid, counts, lines):
    """Mark the fed cells of every event and count them; lines[e]: the first and the end of the rows
    of cells that have some. fed: LitGeometry.cells. marks: (bits, before).
    """
    (rows, columns), (bits, before) = fed, marks
    for event in prange(starts.size - 1):
        first, end = starts[event], starts[event + 1]
        total, low, high = 0, grid, 0
        if first < end:
            _mark(at, first, end, event, height, rows, columns, bits, grid)
            top = (at[first, 0] - event * height) & POSITIVE
            bottom = (at[end - 1, 0] - event * height) & POSITIVE
            for r in range(top, bottom + 1):
                for u in range(rows.shape[1]):
                    i = rows[r, u]
                    if i >= 0:
                        low, high = min(low, i), max(high, i + 1)
            for i in range(low, high):
                line = (event * grid + i) & POSITIVE
                for word in range(bits.shape[1]):
                    before[line, word] = total
                    total += bits_set(bits[line, word])
        counts[event], lines[event, 0], lines[event, 1] = total, low, high


@threaded
def _list(bits, lines, grid, starts, cells):
    """Write down the marked cells of every event, from starts[event] on."""
    for event in prange(lines.shape[0]):
        n = starts[event]
        for i in range(lines[event, 0], lines[event, 1]):
            line = (event * grid + i) & POSITIVE
            for word in range(bits.shape[1]):
                left = bits[line, word]
                while left:
                    cells[n, 0], cells[n, 1] = line, word * WORD + lowest_bit(left)
                    left &= left - ONE
                    n += 1


@threaded
def _feed(tasks, at, height, grid, size, fed, marks, starts, feeds):
    """feeds[tap, a] = the output that input a feeds through the tap, or -1. fed:
    LitGeometry.feeds.
    """
    (rows, columns), (bits, before) = fed, marks
    many, down, across = at.shape[0], rows.shape[1], columns.shape[1]
    for task in prange(tasks):
        for a in range(many * task // tasks, many * (task + 1) // tasks):
            event = at[a, 0] // height
            r, c = (at[a, 0] - event * height) & POSITIVE, at[a, 1] & POSITIVE
            base = starts[event & POSITIVE]
            for ky in range(down):
                i, known, number = rows[r, ky, 0], np.int64(-1), np.int64(0)
                line = (event * grid + i) & POSITIVE
                for kx in range(across):
                    j = columns[c, kx, 0]
                    if i < 0 or j < 0:
                        feeds[ky * across + kx, a] = -1
                        continue
                    if j != known:  # neighbouring taps feed the same cell
                        known = np.int64(j)
                        word = (j >> 6) & POSITIVE
                        below = (ONE << np.uint64(j & (WORD - 1))) - ONE
                        number = (
                            base + before[line, word] + bits_set(bits[line, word] & below)
                        ) * size
                    feeds[ky * across + kx, a] = number + rows[r, ky, 1] + columns[c, kx, 1]


@threaded
def _clear(bits, lines, grid):
    for event in prange(lines.shape[0]):
        for i in range(lines[event, 0], lines[event, 1]):
            line = bits[(event * grid + i) & POSITIVE]
            for word in range(line.size):
                line[word] = 0


def lit_lists(
    at: Array,
    events: int,
    geometry: LitGeometry,
    channels: tuple[int, int] | None = None,
    workspace: Workspace | None = None,
) -> LitLists:
    """Return the cells that the lit inputs ``at`` (n, 2) feed, and how; ``at`` is row-major, row r
    of event e is e * H + r. With ``workspace`` the arrays are its buffers. channels: (C_in, C_out)
    of a block that they are for alone, which may do without ``feeds``.
    """
    at = as_contiguous(at, np.int32)
    height, (oh, ow) = len(geometry.feeds[0]), geometry.grid
    starts = np.searchsorted(at[:, 0], np.arange(events + 1) * height)
    shape = events * oh, -(-ow // WORD)
    bits = buffer(workspace, "bits", shape, np.uint64, 0)
    before = buffer(workspace, "before", shape, np.int32)
    counts, lines = np.empty(events, np.int64), np.empty((events, 2), np.int64)
    grown = (1 if len(at) < TASK else events, at, starts, height)  # a few pixels need no threads
    _mark_and_count(*grown, geometry.cells, (bits, before), oh, counts, lines)
    first = np.zeros(events + 1, np.int64)
    np.cumsum(counts, out=first[1:])
    total, size = int(first[-1]), geometry.pool[0] * geometry.pool[1]
    cells = buffer(workspace, "cells", (total, 2), np.int32)
    _list(1 if total < TASK else events, bits, lines, oh, first, cells)
    feeds = None
    if not channels or not by_windows(channels, geometry, len(at), total):
        feeds = buffer(workspace, "feeds", (geometry.taps, len(at)), np.int32)
        tasks = -(-len(at) // TASK)
        marks = bits, before
        _feed(tasks, tasks, at, height, oh, size, geometry.feeds, marks, first, feeds)
    _clear(1 if total < TASK else events, bits, lines, oh)
    chunks = chunks_of(at, cells, geometry, TOGETHER // size)
    return LitLists(cells, feeds, chunks, inputs=at, events=events)


#: Positions whose sums a task keeps in a cache.
TOGETHER = 2000


def chunks_of(at: Array, cells: Array, geometry: LitGeometry, many: int) -> np.ndarray:
    """Return the chunks of LitLists, of at least ``many`` cells: whole rows of cells of an event,
    or several events.
    """
    total = len(cells)
    if not total:
        return np.zeros((0, 4), np.int64)
    rows = np.ascontiguousarray(cells[:, 0])
    starts = rows[:: max(many, 1)]
    first = np.unique(np.searchsorted(rows, starts))
    end = np.append(first[1:], total)
    height, oh = len(geometry.feeds[0]), geometry.grid[0]
    event, row = np.divmod(rows[first], oh)
    low = event * height + geometry.inputs[row, 0]
    event, row = np.divmod(rows[end - 1], oh)
    high = event * height + geometry.inputs[row, 1]
    of = np.ascontiguousarray(at[:, 0])
    return np.stack([first, end, np.searchsorted(of, low), np.searchsorted(of, high)], 1)

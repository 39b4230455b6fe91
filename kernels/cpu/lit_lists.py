"""Which cells the lit inputs of a map feed, and through which taps: lists that depend on no weight.

Fed cells are marked in a bit map, one row of words per row of cells:

    bits     ..1.111. .11.....   of events * OH rows; ``before`` counts the marks in front of each
    before   0        4          word, so that the number of a cell in the list is before[word] +
                                 the marks below its own bit

A task takes a band of the rows of cells of an event.
"""

import numpy as np
from numba import prange

from ..lit import LitGeometry, LitLists
from ..types import Array
from ..workspace import Workspace
from .checks import as_contiguous, buffer
from .jit import POSITIVE, jit, threaded
from .lit_cells import first_from
from .lit_tile import bits_set, lowest_bit
from .lit_windows import by_windows

ONE, WORD = np.uint64(1), 64
#: Lit inputs that one task marks, or whose feeds it lists; cells that are worth a thread.
TASK, CELLS = 512, 4096


@jit
def _mark(positions, begin, end, above, band, up, fed, bits):
    """Mark the cells of a band, rows band[0] to band[1] of an event, that the inputs begin to end
    of the event feed; returns the first and the end of the rows that have some. above, up: rows of
    inputs and of cells before the event.
    """
    (rows, columns), (low, high) = fed, band
    top, bottom, width = high, low, bits.shape[1]
    marks, a = np.zeros(width, np.uint64), begin  # those of one row of inputs
    while a < end:
        r, first, last = positions[a & POSITIVE, 0], width, np.int64(0)
        here, held = np.int64(0), np.uint64(0)  # a word of marks, and what it will have
        while a < end and positions[a & POSITIVE, 0] == r:
            c = positions[a & POSITIVE, 1] & POSITIVE
            for v in range(columns.shape[1]):
                j = np.int64(columns[c, v])
                if j < 0:
                    break
                if j >> 6 != here:  # neighbours share the word
                    marks[here & POSITIVE] |= held
                    here, held = j >> 6, np.uint64(0)
                held |= ONE << np.uint64(j & (WORD - 1))
                first, last = min(first, here), max(last, here + 1)
            a += 1
        marks[here & POSITIVE] |= held
        for u in range(rows.shape[1]):
            i = np.int64(rows[(r - above) & POSITIVE, u])
            if i >= low and i < high and first < last:
                top, bottom = min(top, i), max(bottom, i + 1)
                for word in range(first, last):
                    bits[(up + i) & POSITIVE, word] |= marks[word]
        for word in range(first, last):
            marks[word] = 0
    return top, bottom


@threaded
def _mark_and_count(positions, heights, deep, fed, inputs, marks, counts, lines):
    """Mark the fed cells of every band of ``deep`` rows and count them; lines[band]: the first and
    the end of the rows of cells that have some. heights: rows of inputs and of cells of an event.
    fed, inputs: LitGeometry.cells, inputs. marks: (bits, before).
    """
    (height, grid), (bits, before) = heights, marks
    bands = (grid + deep - 1) // deep
    for band in prange(counts.size):
        event, low = band // bands, band % bands * deep
        high, above, up = min(grid, low + deep), event * height, event * grid
        begin = first_from(positions, 0, 0, positions.shape[0], above + inputs[low & POSITIVE, 0])
        end = first_from(
            positions, 0, begin, positions.shape[0], above + inputs[(high - 1) & POSITIVE, 1]
        )
        top, bottom = _mark(positions, begin, end, above, (low, high), up, fed, bits)
        total = 0
        for i in range(up + top, up + bottom):
            for word in range(bits.shape[1]):
                before[i & POSITIVE, word] = total
                total += bits_set(bits[i & POSITIVE, word])
        counts[band], lines[band, 0], lines[band, 1] = total, up + top, up + bottom


@threaded
def _list(marks, lines, starts, cells):
    """Write down the marked cells of every band, from starts[band] on, and let ``before`` count
    from the first band on.
    """
    bits, before = marks
    for band in prange(lines.shape[0]):
        n = starts[band]
        for line in range(lines[band, 0], lines[band, 1]):
            for word in range(bits.shape[1]):
                left = bits[line & POSITIVE, word]
                before[line & POSITIVE, word] += starts[band]
                while left:
                    cells[n, 0], cells[n, 1] = line, word * WORD + lowest_bit(left)
                    left &= left - ONE
                    n += 1


@threaded
def _feed(tasks, positions, heights, size, fed, marks, feeds):
    """feeds[tap, a] = the output that input a feeds through the tap, or -1. fed:
    LitGeometry.feeds.
    """
    (height, grid), (rows, columns), (bits, before) = heights, fed, marks
    input_count, down, across = positions.shape[0], rows.shape[1], columns.shape[1]
    for task in prange(tasks):
        for a in range(input_count * task // tasks, input_count * (task + 1) // tasks):
            event = positions[a, 0] // height
            r, c = (positions[a, 0] - event * height) & POSITIVE, positions[a, 1] & POSITIVE
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
                        number = before[line, word] + bits_set(bits[line, word] & below)
                        number *= size
                    feeds[ky * across + kx, a] = number + rows[r, ky, 1] + columns[c, kx, 1]


@threaded
def _clear(bits, lines):
    for band in prange(lines.shape[0]):
        for line in range(lines[band, 0], lines[band, 1]):
            bits[line & POSITIVE] = 0


def lit_lists(
    positions: Array,
    events: int,
    geometry: LitGeometry,
    channels: tuple[int, int] | None = None,
    workspace: Workspace | None = None,
) -> LitLists:
    """Return the cells that the lit inputs ``positions`` (n, 2) feed, and how. Positions are
    row-major, row r of event e is e * H + r. With ``workspace`` the arrays are its buffers.
    channels: (C_in, C_out) of a block that they are for alone, which may do without ``feeds``.
    """
    positions = as_contiguous(positions, np.int32)
    heights, (oh, ow) = (len(geometry.feeds[0]), geometry.grid[0]), geometry.grid
    shape = events * oh, -(-ow // WORD)
    bits = buffer(workspace, "bits", shape, np.uint64, 0)
    before = buffer(workspace, "before", shape, np.int32)
    tasks = -(-len(positions) // TASK)
    deep = max(1, -(-oh * events // max(tasks, events)))
    bands = events * -(-oh // deep)
    counts, lines = np.empty(bands, np.int64), np.empty((bands, 2), np.int64)
    marks = bits, before
    _mark_and_count(
        tasks, positions, heights, deep, geometry.cells, geometry.inputs, marks, counts, lines
    )
    first = np.zeros(bands + 1, np.int64)
    np.cumsum(counts, out=first[1:])
    total, size = int(first[-1]), geometry.pool[0] * geometry.pool[1]
    cells = buffer(workspace, "cells", (total, 2), np.int32)
    several = -(-total // CELLS)
    _list(several, marks, lines, first, cells)
    feeds = None
    if not channels or not by_windows(channels, geometry, len(positions), total):
        feeds = buffer(workspace, "feeds", (geometry.taps, len(positions)), np.int32)
        _feed(tasks, tasks, positions, heights, size, geometry.feeds, marks, feeds)
    _clear(several, bits, lines)
    chunks = chunks_of(positions, cells, geometry, TOGETHER // size)
    return LitLists(cells, feeds, chunks, inputs=positions, events=events)


#: Positions whose sums a task keeps in a cache.
TOGETHER = 2000


@jit
def _chunks(positions, cells, least, heights, inputs, chunks):
    """Fill the chunks, of at least so many cells but the last, and return their number. heights:
    rows of inputs and of cells of an event.
    """
    (height, grid), total, n, first = heights, cells.shape[0], 0, 0
    while first < total:
        end = min(first + least, total)
        while end < total and cells[end, 0] == cells[end - 1, 0]:
            end += 1
        top, bottom = cells[first, 0], cells[end - 1, 0]
        low = top // grid * height + inputs[top % grid, 0]
        high = bottom // grid * height + inputs[bottom % grid, 1]
        chunks[n, 0], chunks[n, 1] = first, end
        chunks[n, 2] = first_from(positions, 0, 0, positions.shape[0], low)
        chunks[n, 3] = first_from(positions, 0, 0, positions.shape[0], high)
        first, n = end, n + 1
    return n


def chunks_of(
    positions: Array, cells: Array, geometry: LitGeometry, cells_per_chunk: int
) -> np.ndarray:
    """Return the chunks of LitLists, of about ``cells_per_chunk`` cells each, alike in size:
    whole rows of cells of an event, or several events.
    """
    total, number = len(cells), -(-len(cells) // max(cells_per_chunk, 1))
    chunks = np.empty((number, 4), np.int64)
    heights, least = (len(geometry.feeds[0]), geometry.grid[0]), -(-total // max(number, 1))
    return chunks[: _chunks(positions, cells, least, heights, geometry.inputs, chunks)]

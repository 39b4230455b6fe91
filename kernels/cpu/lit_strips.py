"""The windows of cells, that is all that a cell sees, of maps that are lit in few places.

What a row of cells sees is a strip of the image. The lit inputs are painted into it, the windows
are copied out as they would be from an image, and the inputs are erased again:

    strip of WH rows      . . . . # . . . . . . . .
                          . . . # # . . . # . . . .        a window: WH rows of WW columns, each
                          . . # # . . . . # . . . .        row filled up to whole vectors
                           \\_____/ \\_____/
                            cell 3   cell 4                (windows overlap by KW - 1 columns)
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from ..lit import LitBlock, LitLists
from ..types import Array
from ..workspace import Workspace
from .checks import buffer
from .emit import LANES, Emit
from .jit import POSITIVE, aligned_empty, jit, threaded
from .lit_cells import first_from

#: Floats behind a strip and behind windows that vector loads may read.
SLACK = 64
#: Lit inputs of which one task looks for the beginnings of rows.
TASK = 1 << 14


class Inputs(NamedTuple):
    """The changes (n, C_in) of the lit inputs at ``positions`` (n, 2), the number ``starts`` of the
    first one of every row, and the rows of an event; rows and columns that a cell sees, and how
    many of them lie before its first position; columns of a strip. Flat, as Cells.
    """

    changes: Array
    positions: Array
    starts: Array
    height: int
    rows: int
    columns: int
    top: int
    left: int
    strip: int


@threaded
def _row_starts(tasks, positions, starts):
    """starts[r] = the number of the first input of row r or a later one."""
    input_count, rows = positions.shape[0], starts.size - 1
    for task in prange(tasks):
        for a in range((input_count + 1) * task // tasks, (input_count + 1) * (task + 1) // tasks):
            first = positions[a - 1, 0] + 1 if a > 0 else 0
            end = positions[a & POSITIVE, 0] + 1 if a < input_count else rows + 1
            for r in range(first, end):
                starts[r] = a


def inputs_of(
    changes: Array, lists: LitLists, block: LitBlock, workspace: Workspace | None
) -> Inputs:
    """Return the lit inputs of a block whose geometry has ``before``, for compiled code."""
    geometry, (kh, kw), (ph, pw) = block.geometry, block.w.shape[:2], block.geometry.pool
    height, before = len(geometry.feeds[0]), geometry.before
    assert before is not None
    starts = buffer(workspace, "starts of rows", (lists.events * height + 1,), np.int64)
    tasks = -(-len(changes) // TASK)
    _row_starts(tasks, tasks, lists.inputs, starts)
    strip = (geometry.grid[1] - 1) * pw + pw + kw - 1
    size = height, ph + kh - 1, pw + kw - 1
    return Inputs(changes, lists.inputs, starts, *size, *before, strip)


@intrinsic
def _copy_rows(context, address, row, rows, vectors, out):
    """Copy ``rows`` rows of ``vectors`` vectors, ``row`` floats apart, to ``out``, where they
    follow each other.
    """

    def codegen(context, builder, signature, args):
        e, b = Emit(builder, LANES), builder
        address, row, rows, vectors, out = args
        with e.loop(rows) as r:
            here = e.at(address, b.mul(r.index, row))
            to = e.at(out, b.mul(b.mul(r.index, vectors), e.int(LANES)))
            with e.loop(vectors) as q:
                k = b.mul(q.index, e.int(LANES))
                e.store(e.load(e.at(here, k)), e.at(to, k))
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(*[types.int64] * 5), codegen


@jit
def new_strip(inputs):
    """Return (a strip of zeros (WH, floats), space for the numbers of what is painted in each
    row).
    """
    rows, floats = inputs.rows, inputs.strip * inputs.changes.shape[1]
    room = aligned_empty((rows * floats + SLACK,))
    room[:] = np.float32(0)
    return room[: rows * floats].reshape((rows, floats)), np.zeros((rows, 2), np.int64)


@jit
def vectors_of_window(inputs):
    """Vectors of one row of a window."""
    return (inputs.columns * inputs.changes.shape[1] + LANES - 1) // LANES


@jit
def new_windows(inputs, count):
    """Return space for so many windows, (many, WH, vectors * LANES)."""
    rows, floats = inputs.rows, vectors_of_window(inputs) * LANES
    room = aligned_empty((count * rows * floats + SLACK,))
    return room[: count * rows * floats].reshape((count, rows, floats))


@jit
def paint(inputs, cells, begin, end, strip, painted):
    """Write the changes that the cells begin to end, all of one row, see into their strip."""
    d, positions, ci = inputs.changes, inputs.positions, inputs.changes.shape[1]
    line = cells.positions[begin & POSITIVE, 0]
    event, row = line // cells.rows_of_event, line % cells.rows_of_event
    top = row * cells.down - inputs.top
    low = cells.positions[begin & POSITIVE, 1] * cells.across - inputs.left
    high = cells.positions[(end - 1) & POSITIVE, 1] * cells.across - inputs.left + inputs.columns
    for r in range(inputs.rows):
        painted[r, 0], painted[r, 1] = 0, 0
        if 0 <= top + r < inputs.height:
            number = (event * inputs.height + top + r) & POSITIVE
            first = first_from(positions, 1, inputs.starts[number], inputs.starts[number + 1], low)
            last = first_from(positions, 1, first, inputs.starts[number + 1], high)
            painted[r, 0], painted[r, 1] = first, last
            to = strip[r, inputs.left * ci :]
            for p in range(first, last):
                k = positions[p & POSITIVE, 1] * ci
                to[k & POSITIVE] = d[p & POSITIVE, 0]
                for i in range(1, ci):
                    to[(k + i) & POSITIVE] = d[p & POSITIVE, i]


@jit
def erase(inputs, strip, painted):
    """Set what ``paint`` has written to 0."""
    positions, ci = inputs.positions, inputs.changes.shape[1]
    for r in range(inputs.rows):
        to = strip[r, inputs.left * ci :]
        for p in range(painted[r, 0], painted[r, 1]):
            k = positions[p & POSITIVE, 1] * ci
            to[k & POSITIVE] = np.float32(0)
            for i in range(1, ci):
                to[(k + i) & POSITIVE] = np.float32(0)


@jit
def end_of_row(cells, begin, end):
    """The end of the cells from ``begin`` on, up to ``end``, that are in the same row."""
    line, t = cells.positions[begin & POSITIVE, 0], begin + 1
    while t < end and cells.positions[t & POSITIVE, 0] == line:
        t += 1
    return t


@jit
def take_windows(inputs, cells, begin, end, strip_and_painted, windows):
    """Set the first ``windows`` (n, WH, floats) to what the cells begin to end see; beyond the
    last column a row has anything. strip_and_painted: what new_strip gave.
    """
    strip, painted = strip_and_painted
    rows, vectors = windows.shape[1], windows.shape[2] // LANES
    apart, step = strip.shape[1], cells.across * inputs.changes.shape[1]
    t = begin
    while t < end:
        stop = end_of_row(cells, t, end)
        paint(inputs, cells, t, stop, strip, painted)
        for cell in range(t, stop):
            here = strip.ctypes.data + 4 * cells.positions[cell & POSITIVE, 1] * step
            to = windows.ctypes.data + 4 * (cell - begin) * rows * vectors * LANES
            _copy_rows(here, apart, rows, vectors, to)
        erase(inputs, strip, painted)
        t = stop

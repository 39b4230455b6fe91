"""The input windows of pooling cells: the list that the fused block works on.

Cell (n, i, j) of a block reads the (PH + KH - 1) x (PW + KW - 1) input pixels from row i * PH - top, column j * PW - left.
Cells are listed row by row: row n * OH + i has the columns ``column[row_start[row]:row_start[row + 1]]``, ascending. Any list
will do; that of all cells is the dense block. The list becomes a table with one line per cell:

    table[t] = (address of the window's first float, floats from one row to the next, (n * OH + i) * OW + j)

Windows inside the image are read where they lie. Those that leave it are copied, with zeros outside, so that no padded copy of the
image is ever made.
"""
from typing import NamedTuple

import numpy as np
from numba import prange

from .checks import buffer
from .jit import jit, parallel

SLACK = 16                                  # floats behind each row of a window that vector loads may read, and never use


class Cells(NamedTuple):
    """A list of cells, row by row: row_start (N * OH + 1,), column (cells,), int64."""
    row_start: np.ndarray
    column: np.ndarray


def all_cells(shape, work=None):
    """Return all cells of a grid (N, OH, OW, C)."""
    rows, columns = shape[0] * shape[1], shape[2]
    cells = Cells(buffer(work, "row_start", (rows + 1,), np.int64), buffer(work, "column", (rows * columns,), np.int64))
    cells.row_start[...] = np.arange(rows + 1) * columns
    cells.column.reshape(rows, columns)[...] = np.arange(columns)
    return cells


@jit
def _inside(x, e, i, j, wh, ww):
    """Whether the window at (i, j), and SLACK floats behind it, are within the image."""
    n, h, w, c = x.shape
    end = (((e * h + i + wh - 1) * w) + j + ww) * c + SLACK
    return i >= 0 and j >= 0 and i + wh <= h and j + ww <= w and end <= n * h * w * c


@parallel
def _count_copies(x, row_start, column, oh, ph, pw, top, left, wh, ww, counts):
    for row in prange(row_start.size - 1):
        found = 0
        for t in range(row_start[row], row_start[row + 1]):
            found += not _inside(x, row // oh, row % oh * ph - top, column[t] * pw - left, wh, ww)
        counts[row + 1] = found


@parallel
def _fill(x, row_start, column, oh, ow, ph, pw, top, left, wh, ww, first_copy, table, copies):
    _n, h, w, c = x.shape
    for row in prange(row_start.size - 1):
        e, i, k = row // oh, row % oh * ph - top, first_copy[row]
        for t in range(row_start[row], row_start[row + 1]):
            j = column[t] * pw - left
            table[t, 2] = row * ow + column[t]
            if _inside(x, e, i, j, wh, ww):
                table[t, 0] = x.ctypes.data + 4 * ((e * h + i) * w + j) * c
                table[t, 1] = w * c
            else:
                table[t, 0] = copies[k].ctypes.data
                table[t, 1] = copies.shape[2]
                for a in range(wh):
                    copies[k, a, :] = 0
                    if 0 <= i + a < h:
                        for b in range(max(0, -j), min(ww, w - j)):
                            for d in range(c):
                                copies[k, a, b * c + d] = x[e, i + a, j + b, d]
                k += 1


def windows(x, cells, grid, pool, kernel, pads, work):
    """Return the table of ``cells`` in a grid (N, OH, OW, ...), and the copied windows, which live as long as the caller
    holds them.
    """
    (top, _), (left, _) = pads
    wh, ww = pool[0] + kernel[0] - 1, pool[1] + kernel[1] - 1
    first_copy = np.zeros(cells.row_start.size, np.int64)
    _count_copies(x, *cells, grid[1], *pool, top, left, wh, ww, first_copy)
    np.cumsum(first_copy, out=first_copy)
    table = buffer(work, "table", (cells.column.size, 3), np.int64)
    copies = buffer(work, "windows", (first_copy[-1], wh, ww * x.shape[3] + SLACK))
    _fill(x, *cells, *grid[1:3], *pool, top, left, wh, ww, first_copy, table, copies)
    return table, copies

"""The input windows of pooling cells: the list that the fused block works on.

Cell (n, i, j) of a block reads the (PH + KH - 1) x (PW + KW - 1) input pixels from row i * PH - top, column j * PW - left. A list of
cells becomes a table with one line (address of the window's first float, floats from one row to the next). Windows inside the image
are read where they lie. Those that leave it are copied, with zeros outside, so that no padded copy of the image is ever made. Any list
of cells will do: all of them is the dense block.
"""
import numpy as np
from numba import prange

from .checks import buffer
from .jit import jit, parallel

SLACK = 16                                  # floats behind each window that vector loads may read, and never use


@jit
def _table(x, cells, oh, ow, ph, pw, top, left, wh, ww, table, border):
    """Fill in windows inside the image; returns how many are not, listed in ``border``."""
    n, h, w, c = x.shape
    base, row, size, found = x.ctypes.data, w * c, x.size, 0
    for t in range(cells.size):
        e, i, j = cells[t] // (oh * ow), cells[t] // ow % oh * ph - top, cells[t] % ow * pw - left
        first = ((e * h + i) * w + j) * c
        inside = i >= 0 and j >= 0 and i + wh <= h and j + ww <= w and first + (wh - 1) * row + ww * c + SLACK <= size
        table[t, 0] = base + 4 * first
        table[t, 1] = row
        if not inside:
            border[found] = t
            found += 1
    return found


@parallel
def _copy(x, cells, oh, ow, ph, pw, top, left, wh, ww, table, border, copies):
    n, h, w, c = x.shape
    for k in prange(copies.shape[0]):
        t = border[k]
        e, i, j = cells[t] // (oh * ow), cells[t] // ow % oh * ph - top, cells[t] % ow * pw - left
        table[t, 0] = copies[k].ctypes.data
        table[t, 1] = copies.shape[2]
        for a in range(wh):
            copies[k, a, :] = 0
            if 0 <= i + a < h:
                for b in range(max(0, -j), min(ww, w - j)):
                    for d in range(c):
                        copies[k, a, b * c + d] = x[e, i + a, j + b, d]


def windows(x, cells, cell_shape, pool, kernel, pads, work):
    """Return the table (n, 2) of ``cells`` (n,) int64, numbers in a grid (N, OH, OW), and the copied windows it points into."""
    (top, _), (left, _) = pads
    wh, ww = pool[0] + kernel[0] - 1, pool[1] + kernel[1] - 1
    table, border = buffer(work, "table", (cells.size, 2), np.int64), buffer(work, "border", cells.shape, np.int64)
    place = (*cell_shape[1:3], *pool, top, left, wh, ww)
    found = _table(x, cells, *place, table, border)
    copies = buffer(work, "windows", (found, wh, ww * x.shape[3] + SLACK))
    _copy(x, cells, *place, table, border, copies)
    return table, copies


def all_cells(shape, work):
    """Return the list of all cells of a grid (N, OH, OW, C)."""
    cells = buffer(work, "cells", (shape[0] * shape[1] * shape[2],), np.int64)
    cells[...] = np.arange(cells.size)
    return cells

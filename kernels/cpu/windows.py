"""The input windows of pooling cells: the list that the fused block works on.

Cell (row, column) of a block, where row = n * OH + i counts through the images, reads the (PH + KH
- 1) x (PW + KW - 1) input pixels from row i * PH - top, column column * PW - left. Any list of
cells will do; that of all cells is the dense block. It becomes a table:

    table[t] = (place of the window's first float, floats from one row to the next)

Windows inside the image are read where they lie: the place counts from the image's first float.
Those that leave it are copied, with zeros outside, so that no padded copy of the image is ever
made: place -1 - k is float k of the copies. A table thus holds for all images of a shape, and that
of a whole grid is made once.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from ..types import Array, Pads, Shape
from ..workspace import Workspace
from .checks import buffer
from .jit import jit, parallel

SLACK = 16  # floats behind each row of a window that vector loads may read, and never use


class Windows(NamedTuple):
    """What compiled code needs to find window t: see ``address``."""

    table: np.ndarray  # (windows, 2) int64
    x: np.ndarray  # (N, H, W, C) float32
    copies: np.ndarray  # (copied windows, rows, floats) float32


@jit
def address(windows, t):
    """Return the address of the first float of window t."""
    place = windows.table[t, 0]
    return (
        windows.x.ctypes.data + 4 * place
        if place >= 0
        else windows.copies.ctypes.data + 4 * (-1 - place)
    )


@jit
def _list(n, h, w, c, cells, oh, ph, pw, top, left, wh, ww, table, edges):
    """Fill the table; ``edges`` (copied windows, 3) takes image, row and column of those that leave
    the image. Returns their number.
    """
    found, size, row = 0, n * h * w * c, ww * c + SLACK
    for t in range(cells.shape[0]):
        e, i, j = cells[t, 0] // oh, cells[t, 0] % oh * ph - top, cells[t, 1] * pw - left
        end = (((e * h + i + wh - 1) * w) + j + ww) * c + SLACK
        if i >= 0 and j >= 0 and i + wh <= h and j + ww <= w and end <= size:
            table[t, 0], table[t, 1] = ((e * h + i) * w + j) * c, w * c
        else:
            table[t, 0], table[t, 1] = -1 - found * wh * row, row
            edges[found, 0], edges[found, 1], edges[found, 2] = e, i, j
            found += 1
    return found


@parallel
def _copy(x, edges, ww, copies):
    _n, h, w, c = x.shape
    for k in prange(edges.shape[0]):
        e, i, j = edges[k, 0], edges[k, 1], edges[k, 2]
        for a in range(copies.shape[1]):
            copies[k, a, :] = 0
            if 0 <= i + a < h:
                for b in range(max(0, -j), min(ww, w - j)):
                    pixel, to = x[e, i + a, j + b], copies[k, a, b * c :]
                    for d in range(c):
                        to[d] = pixel[d]


def windows(
    x: Array,
    cells: Array | None,
    grid: Shape,
    pool: tuple[int, int],
    kernel: tuple[int, int],
    pads: Pads,
    work: Workspace | None,
) -> Windows:
    """Return the Windows of the ``cells`` (m, 2), None for all, in a grid (N, OH, OW, ...) of x (N,
    H, W, C).
    """
    (top, _), (left, _) = pads
    wh, ww = pool[0] + kernel[0] - 1, pool[1] + kernel[1] - 1

    def listed(cells, work):
        table, edges = (
            buffer(work, name, (len(cells), n), np.int64)
            for name, n in (("table", 2), ("edges", 3))
        )
        return table, edges[
            : _list(*x.shape, cells, grid[1], *pool, top, left, wh, ww, table, edges)
        ]

    def whole():
        table, edges = listed(
            np.indices((grid[0] * grid[1], grid[2]), np.int32).reshape(2, -1).T.copy(), None
        )
        return table, edges.copy()

    if cells is not None:
        table, edges = listed(np.ascontiguousarray(cells, np.int32), work)
    elif work is None:
        table, edges = whole()
    else:
        table, edges = work.keep(
            "windows of all cells", (x.shape, grid[:3], pool, kernel, pads), whole
        )
    copies = buffer(work, "copied windows", (len(edges), wh, ww * x.shape[3] + SLACK))
    if len(edges):
        _copy(x, edges, ww, copies)
    return Windows(table, x, copies)

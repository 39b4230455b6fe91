"""The input windows of pooling cells, which the fused block works on.

Cell (row, column) of a block, where row = n * OH + i counts through the images, reads the (PH + KH
- 1) x (PW + KW - 1) input pixels from row i * PH - top, column column * PW - left. All cells,
in row-major order, become a table:

    table[t] = (place of the window's first float, floats from one row to the next)

Windows inside the image are read where they lie: the place counts from the image's first float.
Those that leave it are copied, with zeros outside, so that no padded copy of the image is ever
made: place -1 - k is float k of the copies. A table thus holds for all images of a shape, and is
made once.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from ..types import Array, Pads, Shape
from ..workspace import Workspace
from .checks import buffer
from .emit import LANES
from .jit import jit, parallel
from .tile import Best, Filter, Pixels, cells_tile

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
def maxima_of_windows(x, kernel, pack, pool, group, maxima):
    """The maxima over the pooling cells of LANES windows, x (rows, floats, LANES): ``maxima`` =
    (best, where), (channels, LANES), all of which are written.

    kernel: (KH, KW, C_in). pack: PackedWeights. group: numbers of neighbouring positions that a
    tile takes.
    """
    (kh, kw, ci), (w, start, width), (ph, pw), row = kernel, pack, pool, x.shape[1]
    best, where = maxima
    kc = kw * ci
    best[:] = np.float32(-np.inf)
    where[:] = 0
    for g in range(start.size):
        weights, channels = w[kh * kc * start[g] :].ctypes.data, width[g]
        to = Best(best[start[g] :].ctypes.data, where[start[g] :].ctypes.data)
        for r in range(ph):
            k, position = 0, r * pw
            for pixels in group:
                here = x.ctypes.data + 4 * LANES * (r * row + k)
                cells_tile(
                    (pixels, channels),
                    Pixels(here, row, np.int64(1), ci),
                    Filter(weights, kc * channels, channels, kh, kc),
                    to,
                    position,
                )
                position += pixels
                k += pixels * ci


@jit
def _list(n, h, w, c, oh, ow, ph, pw, top, left, wh, ww, table, edges):
    """Fill the table; ``edges`` (copied windows, 3) takes image, row and column of those that leave
    the image. Returns their number.
    """
    found, size, row = 0, n * h * w * c, ww * c + SLACK
    for t in range(table.shape[0]):
        e, i, j = t // ow // oh, t // ow % oh * ph - top, t % ow * pw - left
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
    grid: Shape,
    pool: tuple[int, int],
    kernel: tuple[int, int],
    pads: Pads,
    workspace: Workspace | None,
) -> Windows:
    """Return the Windows of all cells of a grid (N, OH, OW, ...) of x (N, H, W, C)."""
    (top, _), (left, _) = pads
    wh, ww = pool[0] + kernel[0] - 1, pool[1] + kernel[1] - 1

    def listed():
        cells = grid[0] * grid[1] * grid[2]
        table, edges = np.empty((cells, 2), np.int64), np.empty((cells, 3), np.int64)
        copied = _list(*x.shape, *grid[1:3], *pool, top, left, wh, ww, table, edges)
        return table, edges[:copied].copy()

    key = (x.shape, grid[:3], pool, kernel, pads)
    table, edges = listed() if workspace is None else workspace.keep("windows", key, listed)
    copies = buffer(workspace, "copied windows", (len(edges), wh, ww * x.shape[3] + SLACK))
    if len(edges):
        _copy(x, edges, ww, copies)
    return Windows(table, x, copies)

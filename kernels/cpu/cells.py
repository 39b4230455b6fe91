"""The fused block at listed cells alone: what zero suppression runs. Positions are (n, 2) row,
column, in row-major order.

Forward and weight gradient are those of the dense block over a shorter list of windows. The input
gradient is first made window by window, each by one task, and then gathered at the positions that
are asked for: every sum has a fixed order and one owner.
"""

import numpy as np
from numba import get_num_threads, prange

from ..shapes import conv_output, conv_padding, pair, pool_output
from ..types import Array, Pair
from ..workspace import Workspace
from .block import few_channels, run_block
from .block_backward import add_dw, turned_weights
from .checks import buffer, check_float32, check_shape, gradient_target
from .jit import POSITIVE, parallel
from .patch_sums import padded, sort_by_argmax, sum_rows
from .positions import changed_positions, every
from .windows import windows

CACHED = 1 << 20  # bytes of weights that are used for several cells in turn, from the second cache
PARTS = 8  # partial sums over cells, fixed so that bits do not follow the threads


@parallel
def _fill_windows(x, cells, ph, pw, kh, kw, top, left, values, row_class, column_class):
    h, w, c = x.shape
    for t in prange(cells.shape[0]):  # windows overlap: there two threads write the same numbers
        i, j = cells[t, 0] * ph - top, cells[t, 1] * pw - left
        first = 0  # columns that the window before fills
        if t and cells[t - 1, 0] == cells[t, 0] and cells[t - 1, 1] == cells[t, 1] - 1:
            first = kw - 1
        for a in range(max(0, i), min(h, i + ph + kh - 1)):
            to, value = x[a & POSITIVE], values[row_class[a & POSITIVE] & POSITIVE]
            for b in range(max(0, j + first), min(w, j + pw + kw - 1)):
                s = column_class[b & POSITIVE] & POSITIVE
                for d in range(c):
                    to[b & POSITIVE, d] = value[s, d]


def fill_windows(
    x: Array,
    cells: Array,
    kernel: tuple[int, int],
    pool: tuple[int, int],
    padding: str,
    values: Array,
    classes: tuple[Array, Array],
) -> Array:
    """Set x[0, r, c] = values[row_class[r], column_class[c]] at all pixels that the windows of the
    cells hold; returns x.

    values (R, S, C), classes = (row_class (H,), column_class (W,)). ``x`` is the output, (1, H, W,
    C); other pixels keep what they have.
    """
    (top, _), (left, _) = conv_padding(x.shape, (*kernel, 0, 0), (1, 1), padding)
    row_class, column_class = (np.ascontiguousarray(a, np.int64) for a in classes)
    _fill_windows(
        x[0],
        np.ascontiguousarray(cells, np.int32),
        *pool,
        *kernel,
        top,
        left,
        check_float32("fill_windows", values=values),
        row_class,
        column_class,
    )
    return x


@parallel
def _copy_windows(x, cells, ph, pw, top, left, out):
    h, width, ci = x.shape
    for t in prange(out.shape[0]):
        i, j = cells[t, 0] * ph - top, cells[t, 1] * pw - left
        for a in range(out.shape[1]):
            for b in range(out.shape[2]):
                inside = 0 <= i + a < h and 0 <= j + b < width
                for d in range(ci):
                    out[t, a, b, d] = x[i + a, j + b, d] if inside else np.float32(0)


def cell_windows(
    x: Array,
    cells: Array,
    kernel: tuple[int, int],
    pool: tuple[int, int],
    padding: str = "same",
    out: Array | None = None,
    work: Workspace | None = None,
) -> Array:
    """Return the input windows (m, PH + KH - 1, PW + KW - 1, C) of the cells of x (1, H, W, C), 0
    outside the image, in ``out``.
    """
    x, pool = check_float32("cell_windows", x=x), pair(pool, "pool size")
    shape = len(cells), pool[0] + kernel[0] - 1, pool[1] + kernel[1] - 1, x.shape[3]
    out = gradient_target("cell_windows", "out", out, shape)
    (top, _), (left, _) = conv_padding(x.shape, (*kernel, 0, 0), (1, 1), padding)
    _copy_windows(x[0], np.ascontiguousarray(cells, np.int32), *pool, top, left, out)
    return out


def conv2d_block_cells(
    x: Array,
    cells: Array,
    w: Array,
    b: Array,
    pool: Pair,
    alpha: float = 1.0,
    padding: str = "same",
    changed: tuple[Array, Array, Array] | None = None,
    work: Workspace | None = None,
) -> tuple[Array, Array]:
    """conv2d_block at the listed cells alone: (y float32, argmax uint8), both (m, C_out), for cells
    (m, 2) of x (1, H, W, C_in).

    Bit for bit what conv2d_block gives there. y and argmax are new arrays. ``changed`` = (at (n,
    2), rows (OH, PH), columns (OW, PW) uint8) tells that x differs from an image at rest at the
    positions ``at`` alone, and that at rest position (r, c) of cell (i, j) sees the same as its
    position (rows[i, r], columns[j, c]): sums that see nothing of ``at`` are then computed once.
    """
    x, w, b = check_float32("conv2d_block_cells", x=x, w=w, b=b)
    pool = pair(pool, "pool size")
    grid = pool_output(conv_output(x.shape, w.shape, (1, 1), padding), pool, pool)
    check_shape("conv2d_block_cells", "b", b, w.shape[3:])
    y, argmax = (
        np.empty((len(cells), w.shape[3]), np.float32),
        np.empty((len(cells), w.shape[3]), np.uint8),
    )
    if len(cells):
        listed = windows(
            x, cells, grid, pool, w.shape[:2], conv_padding(x.shape, w.shape, (1, 1), padding), work
        )
        positions = every(pool)
        if changed and not few_channels(w.shape[3]):
            positions = changed_positions(changed, cells, x.shape, w.shape[:2], pool, padding, work)
        run_block(listed, positions, w, b, pool, alpha, y, argmax, work)
    return y, argmax


@parallel
def _window_gradients(dy, y, argmax, alpha, w, ph, pw, kh, kw, ci, rows, tasks, dwin):
    """dwin[t] (PH + KH - 1, (PW + KW - 1) * C_in padded): the gradient of the window of cell t; w
    is (C_out, KH, KC padded).

    So many ``rows`` of the KH at a time for all cells of a task, whose weights stay in the cache. A
    cell's sums have one order.
    """
    n, co = dy.shape
    for task in prange(tasks):
        first, last = n * task // tasks, n * (task + 1) // tasks
        g, address = (
            np.empty((last - first, co), np.float32),
            np.empty((last - first, co), np.int64),
        )
        begin, stride = np.empty((last - first, ph * pw + 1), np.int64), np.full(co, w.shape[2])
        for t in range(first, last):
            dwin[t] = 0
            i = t - first
            sort_by_argmax(argmax[t], dy[t], y[t], alpha, w, g[i], address[i], begin[i])
        for ky in range(0, kh, rows):
            for i in range(last - first):
                own = dwin[first + i]
                for a in range(ph * pw):
                    count = begin[i, a + 1] - begin[i, a]
                    if count:
                        sum_rows(
                            count,
                            g[i, begin[i, a] :],
                            address[i, begin[i, a] :],
                            stride,
                            ky,
                            min(rows, kh - ky),
                            0,
                            kw * ci,
                            own.ctypes.data + 4 * ((a // pw + ky) * own.shape[1] + a % pw * ci),
                            own.shape[1],
                        )


@parallel
def _class_sums(cells, ph, pw, kh, kw, top, left, ci, dwin, row_class, column_class, parts):
    """parts[p, r, s] (C_in,) float64: the sum of dwin over the pixels of row class r and column
    class s, for part p of the cells.
    """
    n, h, width = cells.shape[0], row_class.size, column_class.size
    for p in prange(parts.shape[0]):
        parts[p] = 0
        for t in range(n * p // parts.shape[0], n * (p + 1) // parts.shape[0]):
            i, j = cells[t, 0] * ph - top, cells[t, 1] * pw - left
            for a in range(max(0, -i), min(ph + kh - 1, h - i)):
                for b in range(max(0, -j), min(pw + kw - 1, width - j)):
                    here, to = dwin[t, a, b * ci :], parts[p, row_class[i + a], column_class[j + b]]
                    for d in range(ci):
                        to[d] += here[d]


@parallel
def _gather(at, rows, cells, ph, pw, kh, kw, top, left, ci, dwin, out):
    """out[n] = the sum over the cells whose window holds position at[n] of their gradient there, in
    row-major order of cells.
    """
    for n in prange(at.shape[0]):
        out[n] = 0
        r, c = at[n, 0] + top, at[n, 1] + left
        for i in range(max(0, (r - kh + 1) // ph), min(rows.size - 2, r // ph) + 1):
            low, high, first = rows[i], rows[i + 1], (c - kw + 1) // pw
            while low < high:  # the first cell of the row whose window can hold the position
                middle = (low + high) // 2
                if cells[middle, 1] < first:
                    low = middle + 1
                else:
                    high = middle
            while low < rows[i + 1] and cells[low, 1] * pw <= c:
                here = dwin[low, r - i * ph, (c - cells[low, 1] * pw) * ci :]
                for d in range(ci):
                    out[n, d] += here[d]
                low += 1


def conv2d_block_cells_backward(
    dy: Array,
    cells: Array,
    at: Array | None,
    x: Array,
    w: Array,
    y: Array,
    argmax: Array,
    pool: Pair,
    alpha: float = 1.0,
    padding: str = "same",
    classes: tuple[Array, Array] | None = None,
    dw: Array | None = None,
    db: Array | None = None,
    need_dw: bool = True,
    work: Workspace | None = None,
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """Gradients of conv2d_block_cells for dy (m, C_out): returns (dx_at, dx_sums, dw, db).

    dx_at (n, C_in): the input gradient at the positions ``at`` (n, 2). dx_sums (R, S, C_in)
    float64: its sums over the pixels of each pair of row class and column class, for ``classes`` =
    (row_class (H,), column_class (W,)) counting from 0; by default one class. Both are None where
    ``at`` is None. dw and db are added to, unless need_dw=False.
    """
    op = "conv2d_block_cells_backward"
    dy, x, w, y = check_float32(op, dy=dy, x=x, w=w, y=y)
    pool = pair(pool, "pool size")
    pads = conv_padding(x.shape, w.shape, (1, 1), padding)
    grid = pool_output(conv_output(x.shape, w.shape, (1, 1), padding), pool, pool)
    kh, kw, ci, co = w.shape
    for name, a in (("dy", dy), ("y", y), ("argmax", argmax)):
        check_shape(op, name, a, (len(cells), co))
    if need_dw:
        dw, db = gradient_target(op, "dw", dw, w.shape), gradient_target(op, "db", db, w.shape[3:])
    argmax = np.ascontiguousarray(argmax, np.uint8)
    alpha = np.float32(alpha)  # type: ignore[assignment]  # what compiled code takes
    if len(cells) and need_dw:
        add_dw(
            windows(x, cells, grid, pool, (kh, kw), pads, work),
            dy,
            y,
            argmax,
            alpha,
            pool,
            (kh, kw, ci),
            dw,
            db,
        )
    if at is None:
        return None, None, dw, db
    classes = classes or (np.zeros(x.shape[1], np.int64), np.zeros(x.shape[2], np.int64))
    row_class, column_class = (np.ascontiguousarray(c, np.int64) for c in classes)
    parts = np.zeros((PARTS, row_class.max() + 1, column_class.max() + 1, ci))
    dx_at = np.zeros((len(at), ci), np.float32)
    if not len(cells):
        return dx_at, parts[0], dw, db

    wh, ww = pool[0] + kh - 1, pool[1] + kw - 1
    dwin = buffer(work, "window gradients", (grid[1] * grid[2], wh, padded(ww * ci)))[: len(cells)]
    turned = turned_weights(w, work)
    rows = max(1, min(kh, kh * CACHED // turned.nbytes))
    _window_gradients(
        dy,
        y,
        argmax,
        alpha,
        turned,
        *pool,
        kh,
        kw,
        ci,
        rows,
        min(len(cells), get_num_threads()),
        dwin,
    )
    geometry = (*pool, kh, kw, pads[0][0], pads[1][0])
    cells = np.ascontiguousarray(cells, np.int32)
    _class_sums(cells, *geometry, ci, dwin, row_class, column_class, parts)
    rows = np.searchsorted(cells[:, 0], np.arange(grid[1] + 1))
    _gather(np.ascontiguousarray(at, np.int32), rows, cells, *geometry, ci, dwin, dx_at)
    return dx_at, parts.sum(0), dw, db

"""The fused block at listed cells alone: what zero suppression runs. Positions are (n, 2) row,
column, in row-major order, on the device.

With several images x (N, H, W, C), rows count on through them: row r of image e is e * H + r, and
row i of its cells e * OH + i.
"""

import math

import numpy as np

from ..shapes import conv_output, conv_padding, pair, pool_output
from ..types import Array, Kernels, Pair
from ..workspace import Workspace
from .block import check, run_block, tile
from .block_backward import add_dw, dw_constants, window_gradients
from .checks import cached_until_update, check_float32, check_shape, gradient_target, integers

PARTS = 256  # partial sums over cells of the class sums: short loops, because each step waits for memory


def _geometry(x, kernel, pool, padding):
    """Return (OH, PH, PW, KH, KW, top, left) of the cells of x."""
    (top, _), (left, _) = conv_padding(x.shape, (*kernel, 0, 0), (1, 1), padding)
    return (
        pool_output(conv_output(x.shape, (*kernel, x.shape[3], 1), (1, 1), padding), pool, pool)[1],
        *pool,
        *kernel,
        top,
        left,
    )


def cell_windows(
    kernels: Kernels,
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
    x, cells = check_float32(kernels, "cell_windows", x=x), integers(kernels, cells)
    shape = len(cells), *(p + q - 1 for p, q in zip(pool, kernel)), x.shape[3]
    out = kernels.empty(shape) if out is None else out
    check_shape("cell_windows", "out", out, shape)
    oh, *rest = _geometry(x, kernel, pool, padding)
    kernels.each("cells.cu", "cell_windows", out.size, x, *x.shape[1:], oh, cells, *rest, out)
    return out


def fill_windows(
    kernels: Kernels,
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
    oh, *rest = _geometry(x, kernel, pool, padding)
    row_class, column_class = (integers(kernels, c) for c in classes)
    values, cells = check_float32(kernels, "fill_windows", values=values), integers(kernels, cells)
    n = len(cells) * math.prod(p + q - 1 for p, q in zip(pool, kernel)) * x.shape[3]
    kernels.each(
        "cells.cu",
        "fill_windows",
        n,
        x,
        *x.shape[1:],
        oh,
        cells,
        *rest,
        values,
        values.shape[1],
        row_class,
        column_class,
    )
    return x


def _too_large(op, w, pool):
    size = pool[0] + w.shape[0] - 1, pool[1] + w.shape[1] - 1, w.shape[2]
    return ValueError(
        f"{op}: the input window of a cell, {' x '.join(map(str, size))} floats, does not fit into the shared memory of this "
        'GPU: use zero_suppression="never"'
    )


def conv2d_block_cells(
    kernels: Kernels,
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

    Bit for bit what conv2d_block gives there; all sums are computed, also those that ``changed``
    would spare. Raises ValueError where a window does not fit into shared memory.
    """
    x, w, b, pool, shape = check(kernels, "conv2d_block_cells", x, w, b, pool, alpha, padding)
    constants = tile(kernels, w.shape[:2], pool, w.shape[2], w.shape[3], len(cells))
    if constants is None:
        raise _too_large("conv2d_block_cells", w, pool)
    y, argmax = (
        kernels.empty((len(cells), w.shape[3])),
        kernels.empty((len(cells), w.shape[3]), np.uint8),
    )
    run_block(
        kernels,
        constants,
        x,
        integers(kernels, cells),
        shape[1:3],
        w,
        b,
        pool,
        alpha,
        padding,
        y,
        argmax,
        work,
    )
    return y, argmax


def conv2d_block_cells_backward(
    kernels: Kernels,
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
    dy, x, w, y = check_float32(kernels, op, dy=dy, x=x, w=w, y=y)
    pool, alpha = pair(pool, "pool size"), float(alpha)
    pads = conv_padding(x.shape, w.shape, (1, 1), padding)
    grid = pool_output(conv_output(x.shape, w.shape, (1, 1), padding), pool, pool)[1:3]
    ci, co = w.shape[2:]
    for name, a in (("dy", dy), ("y", y), ("argmax", argmax)):
        check_shape(op, name, a, (len(cells), co))
    if need_dw:
        dw, db = (
            gradient_target(kernels, op, "dw", dw, w.shape),
            gradient_target(kernels, op, "db", db, (co,)),
        )
    cells, argmax = integers(kernels, cells), integers(kernels, argmax, np.uint8)
    how = dw_constants(kernels.runtime.shared_memory, w.shape[:2], pool, ci, co)
    if how is None:
        raise _too_large(op, w, pool)
    if len(cells) and need_dw:
        add_dw(kernels, how, dy, x, cells, grid, y, argmax, pads, alpha, dw, db)
    if at is None:
        return None, None, dw, db
    rows, columns = (
        (integers(kernels, c) for c in classes)
        if classes
        else (kernels.zeros((n,), np.int32) for n in x.shape[1:3])
    )
    where = tuple(kernels.runtime.address(c) for c in (rows, columns))
    counts = (
        cached_until_update(
            work, ("classes", where), lambda: tuple(int(c.max()) + 1 for c in (rows, columns))
        )
        if classes
        else (1, 1)
    )
    if not len(cells):
        return kernels.zeros((len(at), ci)), kernels.zeros((*counts, ci), np.float64), dw, db
    dwindow, constants = window_gradients(kernels, dy, y, argmax, w, pool, alpha, work)
    place = pads[0][0], pads[1][0]
    dx_at, parts = (
        kernels.empty((len(at), ci)),
        kernels.empty((min(PARTS, len(cells)), *counts, ci), np.float64),
    )
    kernels.each(
        "block_dx.cu",
        "gather_at",
        dx_at.size,
        dwindow,
        cells,
        len(cells),
        integers(kernels, at),
        x.shape[1],
        *place,
        *grid,
        dx_at,
        **constants,
    )
    kernels.launch(
        "block_dx.cu",
        "sum_classes",
        (len(parts), counts[0] * counts[1]),
        min(-(-ci // 32) * 32, 256),
        (
            dwindow,
            cells,
            len(cells),
            *x.shape[1:3],
            *place,
            grid[0],
            rows,
            columns,
            counts[1],
            parts,
        ),
        constants,
    )
    return dx_at, parts.sum(0), dw, db

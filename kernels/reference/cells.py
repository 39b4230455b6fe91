"""Zero suppression: the fused block at listed cells alone.

One image (1, H, W, C) at a time, and lists of positions (n, 2) = row, column in row-major order. A
cell is one pooled output.
"""

import numpy as np

from ..shapes import conv_padding, pair
from ..types import Array, Pair
from ..workspace import Workspace
from .block import conv2d_block
from .block_backward import conv2d_block_backward


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
    (top, bottom), (left, right) = conv_padding(x.shape, (*kernel, 0, 0), (1, 1), padding)
    xp = np.pad(x[0], ((top, bottom), (left, right), (0, 0)))
    size = pool[0] + kernel[0] - 1, pool[1] + kernel[1] - 1
    out = np.empty((len(cells), *size, x.shape[3]), x.dtype) if out is None else out
    for window, (i, j) in zip(out, cells * pool):
        window[...] = xp[i : i + size[0], j : j + size[1]]
    return out


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
    for i, j in cells * pool - (top, left):
        rows = slice(max(i, 0), max(i + pool[0] + kernel[0] - 1, 0))
        columns = slice(max(j, 0), max(j + pool[1] + kernel[1] - 1, 0))
        x[0, rows, columns] = values[classes[0][rows, None], classes[1][None, columns]]
    return x


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
    """conv2d_block at the listed cells alone: (y, argmax), both (m, C_out), for cells (m, 2) of x
    (1, H, W, C_in).

    Bit for bit what conv2d_block gives there: the block applied to the m windows as m small images.
    ``changed`` = (lit, rows, columns), a hint: x equals the resting image except at the positions
    lit (n, 2). In the resting image pooling position (r, c) of cell (i, j) has the same sum as
    (rows[i, r], columns[j, c]); uint8 (OH, PH), (OW, PW). A backend may skip sums that neither see
    a lit position nor differ at rest.
    """
    pool = pair(pool, "pool size")
    windows = cell_windows(x, cells, w.shape[:2], pool, padding)
    y, argmax = conv2d_block(windows, w, b, pool, alpha, "valid")
    return y[:, 0, 0], argmax[:, 0, 0]


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
    pool = pair(pool, "pool size")
    (top, _), (left, _) = conv_padding(x.shape, w.shape, (1, 1), padding)
    windows, one = cell_windows(x, cells, w.shape[:2], pool, padding), (slice(None), None, None)
    dwin, dw, db = conv2d_block_backward(
        dy[one],
        windows,
        w,
        y[one],
        argmax[one],
        pool,
        alpha,
        "valid",
        at is not None,
        dw,
        db,
        need_dw,
    )
    if at is None:
        return None, None, dw, db
    h, width = x.shape[1:3]
    rows, columns = classes or (np.zeros(h, int), np.zeros(width, int))
    dx = np.zeros((top + h + pool[0] + w.shape[0], left + width + pool[1] + w.shape[1], x.shape[3]))
    if len(cells):
        for (i, j), d in zip(cells * pool, np.asarray(dwin)):
            dx[i : i + d.shape[0], j : j + d.shape[1]] += d
    dx = dx[top : top + h, left : left + width]
    sums = np.zeros((rows.max() + 1, columns.max() + 1, x.shape[3]))
    np.add.at(sums, (rows[:, None], columns[None]), dx)
    return dx[at[:, 0], at[:, 1]].astype(x.dtype), sums, dw, db

"""Chooses which convolution outputs of a pooling window have to be computed. Beside a track most
outputs of a cell see background only and equal one another: one of each group gives the maximum.

    . . . . .      a cell's pooling window, 5 x 5: # sees the track, each of these is computed;
    . . . # #      . is as at rest, where all of them are equal: the first one is computed
    . . # # #
    . # # # #
    # # # # .

A list of positions has two arrays, ``first`` (cells + 1,) int64 and ``where`` uint8: those of cell
t are where[first[t]:first[t + 1]], in rising order. With an empty ``first``, ``where`` is meant for
every cell.
"""

from typing import TypeAlias

import numpy as np

from ..shapes import conv_output, conv_padding, pool_output
from ..types import Array, Shape
from ..workspace import Workspace
from .checks import buffer
from .jit import POSITIVE, jit

#: A list of positions: (first, where).
Positions: TypeAlias = tuple[np.ndarray, np.ndarray]
NO_CELLS = np.empty(0, np.int64)


@jit
def span(first, where, t):
    """Return the range in ``where`` of the positions of cell t."""
    return (first[t], first[t + 1]) if first.size else (0, where.size)


def every(pool: tuple[int, int]) -> Positions:
    """Return the list that has all positions."""
    return NO_CELLS, np.arange(pool[0] * pool[1]).astype(np.uint8)


@jit
def distinct_positions(distinct, ph, pw):
    """Return the list of the first distinct[t] = (rows, columns) of every cell."""
    n, many = distinct.shape[0], 0
    first, where = np.zeros(n + 1, np.int64), np.empty(n * ph * pw, np.uint8)
    for t in range(n):
        for r in range(min(ph, distinct[t, 0])):
            for c in range(min(pw, distinct[t, 1])):
                where[many] = r * pw + c
                many += 1
        first[t + 1] = many
    return first, where[:many]


@jit
def _changed(at, cells, h, oh, ph, pw, kh, kw, top, left, rows, columns, index, seen, first, where):
    """Fill the list for ``cells`` and return its length. Scratch: ``index`` (N * OH, OW) maps a grid
    cell to 1 + its number in ``cells``; it must be all zero and is zeroed again. ``seen`` (cells,
    PH * PW) is overwritten.
    """
    _, across = index.shape
    seen[:] = False
    for t in range(cells.shape[0]):
        index[cells[t, 0], cells[t, 1]] = t + 1
    for n in range(at.shape[0]):  # output (i, j) of an image reads rows i - top to i - top + KH - 1
        e, c = at[n, 0] // h, at[n, 1] + left
        r = at[n, 0] - e * h + top
        above, before = max(0, r - kh + 1), max(0, c - kw + 1)
        row, first_column = above // ph, before // pw
        y, left_of = (
            above - row * ph,
            before - first_column * pw,
        )  # counted on from here: a division takes long
        for _ in range(above, min(oh * ph - 1, r) + 1):
            of_row, column, x = index[(e * oh + row) & POSITIVE], first_column, left_of
            for _ in range(before, min(across * pw - 1, c) + 1):
                t = of_row[column & POSITIVE]
                if t > 0:
                    seen[(t - 1) & POSITIVE, (y * pw + x) & POSITIVE] = True
                x += 1
                if x == pw:
                    column, x = column + 1, 0
            y += 1
            if y == ph:
                row, y = row + 1, 0
    many = 0
    known = np.empty(ph * pw, np.bool_)
    for t in range(cells.shape[0]):
        i, j = cells[t, 0] % oh, cells[t, 1]
        index[cells[t, 0], j] = 0
        first[t] = many
        known[:] = False
        for r in range(ph):
            for c in range(pw):
                here = r * pw + c
                if not seen[t, here]:
                    kind = min(
                        rows[i, r] * pw + columns[j, c], here
                    )  # an earlier position, or itself
                    if known[kind]:
                        continue
                    known[kind] = True
                where[many] = here
                many += 1
    first[cells.shape[0]] = many
    return many


def changed_positions(
    changed: tuple[Array, Array, Array],
    cells: Array,
    x_shape: Shape,
    kernel: tuple[int, int],
    pool: tuple[int, int],
    padding: str,
    work: Workspace | None,
) -> Positions:
    """Return the list for ``cells`` (m, 2) of x (N, H, W, C): see conv2d_block_cells."""
    at, rows, columns = changed
    (top, _), (left, _) = conv_padding(x_shape, (*kernel, 0, 0), (1, 1), padding)
    n, oh, ow, _ = pool_output(
        conv_output(x_shape, (*kernel, x_shape[3], 1), (1, 1), padding), pool, pool
    )
    for name, a, shape in (("rows", rows, (oh, pool[0])), ("columns", columns, (ow, pool[1]))):
        if a.shape != shape or a.dtype != np.uint8:
            raise ValueError(
                f"conv2d_block_cells needs changed {name} as uint8 {shape}, got {a.dtype} {a.shape}"
            )
    m = len(cells)
    index = buffer(work, "index of cells", (n * oh, ow), np.int32, 0)
    seen, first = (
        buffer(work, "changed sums", (m, pool[0] * pool[1]), np.bool_),
        buffer(work, "first positions", (m + 1,), np.int64),
    )
    where = buffer(work, "positions", (m * pool[0] * pool[1],), np.uint8)
    many = _changed(
        np.ascontiguousarray(at, np.int32),
        np.ascontiguousarray(cells, np.int32),
        x_shape[1],
        oh,
        *pool,
        *kernel,
        top,
        left,
        rows,
        columns,
        index,
        seen,
        first,
        where,
    )
    return first, where[:many]

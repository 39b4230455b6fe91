"""Lists of positions, (n, 2) row, column, in row-major order: the pixels that are lit, and what
is read, written and summed at listed pixels alone.
"""

import numpy as np
from numba import prange

from ..types import Array
from .checks import as_contiguous, check_float32, check_shape, gradient_target
from .jit import POSITIVE, jit, parallel


@parallel
def _count_lit(x, background, counts):
    h, w, c = x.shape
    for i in prange(h):
        n = 0
        for j in range(w):
            lit = False
            for d in range(c):
                lit |= x[i, j, d] != background
            n += lit
        counts[i + 1] = n


@parallel
def _list_lit(x, background, start, out):
    h, w, c = x.shape
    for i in prange(h):
        k = start[i]
        if start[i + 1] == k:
            continue
        for j in range(w):
            lit = False
            for d in range(c):
                lit |= x[i, j, d] != background
            if lit:
                out[k, 0], out[k, 1] = i, j
                k += 1


def lit_pixels(x: Array, background: float = 0.0, most: int | None = None) -> Array | None:
    """Return the positions, int32 (n, 2), where any channel of x (1, H, W, C) differs from
    ``background``; None if more than ``most``.
    """
    x = check_float32("lit_pixels", x=x)[0]
    start = np.zeros(len(x) + 1, np.int64)
    _count_lit(x, np.float32(background), start)
    np.cumsum(start, out=start)
    if most is not None and start[-1] > most:
        return None
    out = np.empty((start[-1], 2), np.int32)
    _list_lit(x, np.float32(background), start, out)
    return out


def take_pixels(x: Array, positions: Array) -> Array:
    """Return x (1, H, W, C) at the ``positions`` (m, 2): (m, C)."""
    return x.reshape(-1, *x.shape[2:])[positions[:, 0], positions[:, 1]]


@jit
def _put(x, positions, values):
    """Set x[positions[t]] = values[t], and return how many that were: all, or those before the
    first that lies outside.
    """
    for t in range(positions.shape[0]):
        r, c = positions[t, 0], positions[t, 1]
        if r < 0 or c < 0 or r >= x.shape[0] or c >= x.shape[1]:
            return t
        to, own = x[r & POSITIVE, c & POSITIVE], values[t]
        for d in range(own.size):
            to[d] = own[d]
    return positions.shape[0]


def put_pixels(x: Array, positions: Array, values: Array) -> Array:
    """Set x (1, H, W, C) at the ``positions`` (m, 2) to values (m, C); returns x, which is the
    output.
    """
    x = gradient_target("put_pixels", "x", x, x.shape)
    check_shape("put_pixels", "values", values, (len(positions), x.shape[3]))
    done = _put(
        x.reshape(-1, *x.shape[2:]),
        as_contiguous(positions, np.int32),
        check_float32("put_pixels", values=values),
    )
    if done < len(positions):
        raise IndexError(
            f"put_pixels: position {tuple(map(int, positions[done]))} is outside an array of shape "
            f"{x.shape}"
        )
    return x


@jit
def _add_to_classes(values, positions, row_class, column_class, sums):
    height = row_class.size
    for t in range(values.shape[0]):
        row = row_class[(positions[t, 0] % height) & POSITIVE] & POSITIVE
        to = sums[row, column_class[positions[t, 1] & POSITIVE] & POSITIVE]
        for c in range(values.shape[1]):
            to[c] += values[t, c]


def class_sums(
    values: Array, positions: Array, classes: tuple[Array, Array], pairs: tuple[int, int]
) -> Array:
    """Return the sums (R, S, C) float64 of values (m, C) at ``positions`` (m, 2) over the pairs
    of row class and column class.

    classes = (row_class (H,), column_class (W,)), pairs = (R, S) the number of classes.
    """
    sums = np.zeros((*pairs, values.shape[1]))
    row_class, column_class = (as_contiguous(array, np.int32) for array in classes)
    _add_to_classes(
        check_float32("class_sums", values=values),
        as_contiguous(positions, np.int32),
        row_class,
        column_class,
        sums,
    )
    return sums


@jit
def _of_classes(table, positions, row_class, column_class, values):
    height = row_class.size
    for t in range(values.shape[0]):
        row = row_class[(positions[t, 0] % height) & POSITIVE] & POSITIVE
        own, to = table[row, column_class[positions[t, 1] & POSITIVE] & POSITIVE], values[t]
        for c in range(to.size):
            to[c] = own[c]


def class_values(table: Array, positions: Array, classes: tuple[Array, Array]) -> Array:
    """Return what a table (R, S, C) by class of row and of column has for the ``positions`` (m,
    2): (m, C). The transpose of class_sums.
    """
    table = check_float32("class_values", table=table)
    values = np.empty((len(positions), table.shape[2]), np.float32)
    row_class, column_class = (as_contiguous(array, np.int32) for array in classes)
    _of_classes(table, as_contiguous(positions, np.int32), row_class, column_class, values)
    return values

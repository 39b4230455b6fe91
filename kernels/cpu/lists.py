"""Lists of positions, (n, 2) row, column, in row-major order: the pixels that are lit, the cells that
see them, and what is read, written and summed at listed pixels alone.
"""

import numpy as np
from numba import prange

from ..shapes import conv_output, conv_padding, pool_output
from ..types import Array, Shape
from ..workspace import Workspace
from .checks import buffer, check_float32, check_shape, gradient_target
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


@jit
def _reach(pool, kernel):
    """Return back (pool,): how many *preceding* cells also have a window that covers a pixel at
    offset r within its cell's pooling area (windows overlap by kernel - 1).
    """
    back = np.empty(pool, np.int64)
    for r in range(pool):
        back[r] = (pool + kernel - 2 - r) // pool
    return back


@jit
def _mark(active, ph, pw, kh, kw, top, left, mask, ends):
    """Mark the cells whose window holds an active position: i PH <= row + top <= i PH + PH + KH -
    2, columns likewise.

    ends[i] = (first, end) of the marked columns in row i; the caller initialises it to the empty
    range (OW, 0).
    """
    oh, ow = mask.shape
    up, back = _reach(ph, kh), _reach(pw, kw)
    row, begin, end = np.int64(-1), 0, 0
    for n in range(active.shape[0]):
        if active[n, 0] != row:  # rarely: a division takes as long as all marks of a position
            row = np.int64(active[n, 0])
            last = (row + top) // ph
            begin, end = max(0, last - up[(row + top - last * ph) & POSITIVE]), min(oh, last + 1)
        c = active[n, 1] + left
        last = c // pw
        low, high = max(0, last - back[(c - last * pw) & POSITIVE]), min(ow, last + 1)
        if low >= high:
            continue
        for i in range(begin, end):
            near, marks = ends[i & POSITIVE], mask[i & POSITIVE]
            near[0], near[1] = min(near[0], low), max(near[1], high)
            marks[low & POSITIVE] = marks[(high - 1) & POSITIVE] = (
                True  # usually one or two cells: both ends, instead of a branch that is mispredicted
            )
            for j in range(low + 1, high - 1):
                marks[j & POSITIVE] = True


@jit
def _list_and_clear(mask, ends, cells):
    """List the marked cells row by row, looking only where there can be some, and clear the marks."""
    m = 0
    for i in range(mask.shape[0]):
        for j in range(ends[i, 0], ends[i, 1]):
            if mask[i, j]:
                mask[i, j] = False
                cells[m, 0], cells[m, 1] = i, j
                m += 1
    return m


def active_cells(
    active: Array,
    x_shape: Shape,
    kernel: tuple[int, int],
    pool: tuple[int, int],
    padding: str = "same",
    work: Workspace | None = None,
) -> Array:
    """Return the cells, int32 (m, 2), in row-major order, whose input window holds one of the
    ``active`` positions.

    Cell (i, j) of a block with kernel (KH, KW) and pool (PH, PW) reads rows i PH - top to i PH -
    top + PH + KH - 2, columns likewise.
    """
    (top, _), (left, _) = conv_padding(x_shape, (*kernel, 0, 0), (1, 1), padding)
    _, oh, ow, _ = pool_output(
        conv_output(x_shape, (*kernel, x_shape[3], 1), (1, 1), padding), pool, pool
    )
    active = np.ascontiguousarray(active, np.int32)
    mask, ends = buffer(work, "mask", (oh, ow), np.bool_, 0), np.full((oh, 2), (ow, 0), np.int64)
    _mark(active, *pool, *kernel, top, left, mask, ends)
    cells = buffer(work, "cells", (oh * ow, 2), np.int32)
    return cells[: _list_and_clear(mask, ends, cells)].copy()


def take_pixels(x: Array, at: Array) -> Array:
    """Return x (1, H, W, C) at the positions ``at`` (m, 2): (m, C)."""
    return x.reshape(-1, *x.shape[2:])[at[:, 0], at[:, 1]]


@jit
def _put(x, at, values):
    """Set x[at[t]] = values[t], and return how many that were: all, or those before the first that
    lies outside.
    """
    for t in range(at.shape[0]):
        r, c = at[t, 0], at[t, 1]
        if r < 0 or c < 0 or r >= x.shape[0] or c >= x.shape[1]:
            return t
        to, own = x[r & POSITIVE, c & POSITIVE], values[t]
        for d in range(own.size):
            to[d] = own[d]
    return at.shape[0]


def put_pixels(x: Array, at: Array, values: Array) -> Array:
    """Set x (1, H, W, C) at the positions ``at`` (m, 2) to values (m, C); returns x, which is the
    output.
    """
    x = gradient_target("put_pixels", "x", x, x.shape)
    check_shape("put_pixels", "values", values, (len(at), x.shape[3]))
    done = _put(
        x.reshape(-1, *x.shape[2:]),
        np.ascontiguousarray(at, np.int32),
        check_float32("put_pixels", values=values),
    )
    if done < len(at):
        raise IndexError(
            f"put_pixels: position {tuple(map(int, at[done]))} is outside an array of shape {x.shape}"
        )
    return x


@jit
def _add_to_classes(values, at, row_class, column_class, sums):
    height = row_class.size
    for t in range(values.shape[0]):
        to = sums[row_class[at[t, 0] % height], column_class[at[t, 1]]]
        for c in range(values.shape[1]):
            to[c] += values[t, c]


def class_sums(
    values: Array, at: Array, classes: tuple[Array, Array], pairs: tuple[int, int]
) -> Array:
    """Return the sums (R, S, C) float64 of values (m, C) at positions ``at`` (m, 2) over the pairs
    of row class and column class.

    classes = (row_class (H,), column_class (W,)), pairs = (R, S) the number of classes.
    """
    sums = np.zeros((*pairs, values.shape[1]))
    row_class, column_class = (np.ascontiguousarray(a, np.int64) for a in classes)
    _add_to_classes(
        check_float32("class_sums", values=values),
        np.ascontiguousarray(at, np.int32),
        row_class,
        column_class,
        sums,
    )
    return sums

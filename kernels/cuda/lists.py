"""Lists of positions (n, 2) row, column, in row-major order, made and used on the device. With
several images x (N, H, W, C), rows count on through them: row r of image e is e * H + r.
"""

import numpy as np

from ..types import Array, Kernels
from .checks import check_float32, check_shape, gradient_target, integers

SEGMENT = 1024  # as in lists.cu
#: Partial sums over positions of the class sums: short loops, because each step waits for memory.
PARTS = 256


def listed(kernels: Kernels, mask: Array, most: int | None = None) -> Array:
    """Return the positions (n, 2) of the marks of a mask (rows, columns), or None if more than
    ``most``.
    """
    n, width = mask.size, mask.shape[-1]
    segments = -(-n // SEGMENT)
    counts, start = kernels.empty((segments,), np.int32), kernels.empty((segments + 1,), np.int32)
    kernels.launch("lists.cu", "count_marks", (segments, 256), (mask, np.int64(n), counts))
    kernels.launch("lists.cu", "scan_counts", (1, 256), (counts, segments, start))
    found = int(start[-1])  # the one number that the host waits for
    if most is not None and found > most:
        return None
    positions = kernels.empty((found, 2), np.int32)
    if found:
        kernels.launch(
            "lists.cu", "list_marks", (segments, 256), (mask, np.int64(n), width, start, positions)
        )
    return positions


def lit_pixels(
    kernels: Kernels, x: Array, background: float = 0.0, most: int | None = None
) -> Array | None:
    """Return the positions, int32 (n, 2), where any channel of x (1, H, W, C) differs from
    ``background``; None if more than ``most``.
    """
    x = check_float32(kernels, "lit_pixels", x=x)
    mask = kernels.empty((x.shape[0] * x.shape[1], x.shape[2]), np.uint8)
    kernels.each("lists.cu", "mark_pixels", mask.size, x, x.shape[3], float(background), mask)
    return listed(kernels, mask, most)


def take_pixels(kernels: Kernels, x: Array, positions: Array) -> Array:
    """Return x (1, H, W, C) at the ``positions`` (m, 2): (m, C)."""
    x, positions = check_float32(kernels, "take_pixels", x=x), integers(kernels, positions)
    values = kernels.empty((len(positions), x.shape[3]))
    kernels.each("lists.cu", "take_or_put", values.size, x, *x.shape[2:], positions, values, False)
    return values


def put_pixels(kernels: Kernels, x: Array, positions: Array, values: Array) -> Array:
    """Set x (1, H, W, C) at the ``positions`` (m, 2) to values (m, C); returns x, which is the
    output and must be contiguous.
    """
    values, positions = (
        check_float32(kernels, "put_pixels", values=values),
        integers(kernels, positions),
    )
    check_shape("put_pixels", "values", values, (len(positions), x.shape[3]))
    kernels.each(
        "lists.cu",
        "take_or_put",
        values.size,
        gradient_target(kernels, "put_pixels", "x", x, x.shape),
        *x.shape[2:],
        positions,
        values,
        True,
    )
    return x


def class_sums(
    kernels: Kernels,
    values: Array,
    positions: Array,
    classes: tuple[Array, Array],
    pairs: tuple[int, int],
) -> Array:
    """Return the sums (R, S, C) float64 of values (m, C) at ``positions`` (m, 2) over the pairs
    of row class and column class.

    classes = (row_class (H,), column_class (W,)), pairs = (R, S) the number of classes.
    """
    values, positions = (
        check_float32(kernels, "class_sums", values=values),
        integers(kernels, positions),
    )
    check_shape("class_sums", "positions", positions, (len(values), 2))
    if not len(positions):
        return kernels.zeros((*pairs, values.shape[1]), np.float64)
    rows, columns = (integers(kernels, c) for c in classes)
    parts = kernels.empty((min(PARTS, len(positions)), *pairs, values.shape[1]), np.float64)
    kernels.launch(
        "lists.cu",
        "class_sums",
        ((len(parts), pairs[0] * pairs[1]), min(-(-values.shape[1] // 32) * 32, 256)),
        (values, positions, *values.shape, len(rows), rows, columns, pairs[1], parts),
    )
    return parts.sum(0)


def class_values(
    kernels: Kernels, table: Array, positions: Array, classes: tuple[Array, Array]
) -> Array:
    """Return what a table (R, S, C) by class of row and of column has for the ``positions`` (m,
    2): (m, C). The transpose of class_sums.
    """
    positions, (rows, columns) = (
        integers(kernels, positions),
        (integers(kernels, c) for c in classes),
    )
    return table[rows[positions[:, 0] % len(rows)], columns[positions[:, 1]]]

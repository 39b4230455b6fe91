"""Lists of positions (n, 2) = row, column, in row-major order, of one image (1, H, W, C): pixels, or
cells, which are pooled outputs.
"""

import numpy as np

from ..shapes import conv_output, conv_padding, pool_output
from ..types import Array, Shape
from ..workspace import Workspace


def lit_pixels(x: Array, background: float = 0.0, most: int | None = None) -> Array | None:
    """Return the positions, int32 (n, 2), where any channel of x (1, H, W, C) differs from
    ``background``; None if more than ``most``.
    """
    lit = np.argwhere((x[0] != background).any(-1)).astype(np.int32)
    return None if most is not None and len(lit) > most else lit


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
    i, j = np.arange(oh) * pool[0] - top, np.arange(ow) * pool[1] - left
    mask = np.zeros((oh, ow), bool)
    for row, column in active:
        mask[
            np.ix_(
                (i <= row) & (row < i + pool[0] + kernel[0] - 1),
                (j <= column) & (column < j + pool[1] + kernel[1] - 1),
            )
        ] = True
    return np.argwhere(mask).astype(np.int32)


def take_pixels(x: Array, at: Array) -> Array:
    """Return x (1, H, W, C) at the positions ``at`` (m, 2): (m, C)."""
    return x.reshape(-1, *x.shape[2:])[at[:, 0], at[:, 1]]


def put_pixels(x: Array, at: Array, values: Array) -> Array:
    """Set x (1, H, W, C) at the positions ``at`` (m, 2) to values (m, C); returns x, which is the
    output.
    """
    x.reshape(-1, *x.shape[2:])[at[:, 0], at[:, 1]] = values
    return x


def class_sums(
    values: Array, at: Array, classes: tuple[Array, Array], pairs: tuple[int, int]
) -> Array:
    """Return the sums (R, S, C) float64 of values (m, C) at positions ``at`` (m, 2) over the pairs
    of row class and column class.

    classes = (row_class (H,), column_class (W,)), pairs = (R, S) the number of classes.
    """
    sums = np.zeros((*pairs, values.shape[1]))
    np.add.at(sums, (classes[0][at[:, 0] % len(classes[0])], classes[1][at[:, 1]]), values)
    return sums

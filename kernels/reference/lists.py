"""Lists of positions (n, 2) = row, column, in row-major order, of the pixels of one image (1, H, W,
C).
"""

import numpy as np

from ..types import Array


def lit_pixels(x: Array, background: float = 0.0, most: int | None = None) -> Array | None:
    """Return the positions, int32 (n, 2), where any channel of x (1, H, W, C) differs from
    ``background``; None if more than ``most``.
    """
    lit = np.argwhere((x[0] != background).any(-1)).astype(np.int32)
    return None if most is not None and len(lit) > most else lit


def take_pixels(x: Array, positions: Array) -> Array:
    """Return x (1, H, W, C) at the ``positions`` (m, 2): (m, C)."""
    return x.reshape(-1, *x.shape[2:])[positions[:, 0], positions[:, 1]]


def put_pixels(x: Array, positions: Array, values: Array) -> Array:
    """Set x (1, H, W, C) at the ``positions`` (m, 2) to values (m, C); returns x, which is the
    output.
    """
    x.reshape(-1, *x.shape[2:])[positions[:, 0], positions[:, 1]] = values
    return x


def class_sums(
    values: Array, positions: Array, classes: tuple[Array, Array], pairs: tuple[int, int]
) -> Array:
    """Return the sums (R, S, C) float64 of values (m, C) at ``positions`` (m, 2) over the pairs
    of row class and column class.

    classes = (row_class (H,), column_class (W,)), pairs = (R, S) the number of classes.
    """
    sums = np.zeros((*pairs, values.shape[1]))
    np.add.at(
        sums, (classes[0][positions[:, 0] % len(classes[0])], classes[1][positions[:, 1]]), values
    )
    return sums


def class_values(table: Array, positions: Array, classes: tuple[Array, Array]) -> Array:
    """Return what a table (R, S, C) by class of row and of column has for the ``positions`` (m,
    2): (m, C). The transpose of class_sums.
    """
    return table[classes[0][positions[:, 0] % len(classes[0])], classes[1][positions[:, 1]]]

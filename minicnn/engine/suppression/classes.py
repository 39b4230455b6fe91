"""Positions that see the same at rest: classes along each axis, and the table of a block at rest.

An image at rest has one class of pixels. A window of the first block at the left edge sees the
padding, one inside does not, so the cells behind the block have a few classes, and so on. For an
axis of 20 pixels, a kernel of 3, "same" padding and a pool of 4 (windows of 6 pixels, one every 4):

    pixel    . 0 1 2 3 4 5 6 7 8 9 ... 19 .          . is outside, class -1
    cell 0   [-1 0 0 0 0 0]                          class 0
    cell 1           [0 0 0 0 0 0]                   class 2 (cells 1, 2 and 3 see the same)
    cell 4                            [0 0 0 0 0 -1] class 1

    axis_classes(zeros(20), 3, 4, 1, 5) -> cell classes [0, 2, 2, 2, 1]

A cell of the image belongs to a *pair* of classes, (row class, column class).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels.types import Array


def axis_classes(
    before: np.ndarray, kernel: int, pool: int, padding: int, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (patterns (K, window), cell_class (cells,)): the different windows along one axis, as
    classes of the pixels ``before``.

    ``before`` (size,) is the class of every pixel; a window of pool + kernel - 1 starts at
    cell * pool - padding; outside is -1.
    """
    window = np.arange(cells)[:, None] * pool - padding + np.arange(pool + kernel - 1)
    inside = (window >= 0) & (window < len(before))
    pattern = np.where(inside, before[np.clip(window, 0, len(before) - 1)], -1)
    patterns, cell_class = np.unique(pattern, axis=0, return_inverse=True)
    return patterns, cell_class.reshape(-1).astype(np.int32)


def first_positions(patterns: np.ndarray, kernel: int) -> np.ndarray:
    """Return, uint8 (K, positions), for each window (K, window) and each position of the kernel in
    it the first position that sees the same.
    """
    seen = [
        [tuple(window[i : i + kernel]) for i in range(len(window) - kernel + 1)]
        for window in patterns.tolist()
    ]
    return np.array([[window.index(view) for view in window] for window in seen], np.uint8)


@dataclass
class Table:
    """A block at rest: one window per pair of classes, numbered r * S + s.

    classes: (row_class (OH,), column_class (OW,)) of its cells.
    patterns: what windows of a class see: (R, PH + KH - 1), (S, PW + KW - 1).
    first_equal_position: (row_map (OH, PH), column_map (OW, PW)), uint8. At rest, pooling row r of
        a cell in grid row i sees the same input as its pooling row row_map[i, r] <= r, so the two
        sums are equal and only the first has to be computed.
    distinct_extent: (R * S, 2). For the window of each class pair the number of leading pooling
        rows and columns that contain every different sum.
    class_membership: (R, OH), (S, OW) float64: 1 where a row or column is of a class.
    rows_of_class: the rows (n,) of each class.
    class_incidence: two 0/1 matrices float64, one per axis. rows[c, r * WH + i] is 1 if row i of a
        class-r window lies on an input row of class c. Multiplying by them adds window gradients
        up over input classes.
    x, y, argmax: the windows (R * S, window rows, window columns, C_in) and what the block makes of
        them, (R * S, 1, 1, C_out).
    """

    classes: Any
    patterns: Any
    first_equal_position: Any
    distinct_extent: np.ndarray
    class_membership: Any = None
    rows_of_class: Any = None
    class_incidence: Any = None
    x: Array = None
    y: Array = None
    argmax: Array = None

    def to_device(self, kernels: Any, before: tuple[int, int]) -> None:
        """Move to the device what is looked up there; ``before``: the class pairs (R, S) of the
        pixels that the windows see.
        """
        self.class_incidence = tuple(
            kernels.asarray((np.arange(n)[:, None] == pattern.reshape(-1)).astype(np.float64))
            for n, pattern in zip(before, self.patterns)
        )
        self.class_membership = tuple(
            kernels.asarray((np.arange(n)[:, None] == c).astype(np.float64))
            for n, c in zip(self.pairs, self.classes)
        )
        self.rows_of_class = rows_of_classes(kernels, self.classes[0])
        self.classes, self.patterns = (
            tuple(map(kernels.asarray, a)) for a in (self.classes, self.patterns)
        )

    @property
    def pairs(self) -> tuple[int, int]:
        """(R, S)"""
        return len(self.patterns[0]), len(self.patterns[1])


def rows_of_classes(kernels: Any, classes: np.ndarray) -> list[Array]:
    """Return the rows (n,) of each class, on the device."""
    return [kernels.asarray(np.flatnonzero(classes == r)) for r in range(classes.max() + 1)]


def class_sums(a: Array, table: Table) -> Array:
    """Return the sums (R, S, C) float64 of a (OH, OW, C) over the class pairs of a table."""
    rows, columns = table.class_membership
    return columns @ (rows @ a.reshape(len(a), -1)).reshape(-1, *a.shape[1:])

"""Tables of rest, (R, S, C) by class of row and of column, read at other classes and summed
back.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ...kernels.types import Array


class Lookup:
    """Which row and which column of a table (R, S, C) belong to each of A rows and B columns: the
    classes of an image's pixels, what windows see under their taps, classes within wider ones.

    positions: the rows, int (A,), and the columns, (B,), on the host; -1 lies outside, where
    everything is 0. pairs: (R, S).
    """

    def __init__(
        self, kernels: Any, positions: tuple[np.ndarray, np.ndarray], pairs: tuple[int, int]
    ) -> None:
        self.kernels, self.pairs = kernels, pairs
        self.rows, self.columns = np.ravel(positions[0]), np.ravel(positions[1])

    @cached_property
    def _on_device(self) -> tuple[Array, Array]:
        return self.kernels.asarray(self.rows[:, None]), self.kernels.asarray(self.columns[None])

    @cached_property
    def _members(self) -> tuple[Array, Array]:
        """(R, A) and (S, B) float64: 1 where a row or column belongs to one of the table."""
        rows, columns = (
            self.kernels.asarray((np.arange(n)[:, None] == c).astype(np.float64))
            for n, c in zip(self.pairs, (self.rows, self.columns))
        )
        return rows, columns

    def read(self, table: Array) -> Array:
        """Return table[rows, columns]: (A, B, C)."""
        if min(self.rows.min(), self.columns.min()) < 0:
            inside, (r, s) = table, self.pairs
            table = self.kernels.zeros((r + 1, s + 1, inside.shape[2]), inside.dtype)
            table[:-1, :-1] = inside  # the last ones are what -1 finds
        return table[self._on_device]

    def sums(self, array: Array) -> Array:
        """Return the transpose of ``read``: a (A, B, C) summed over what belongs to each entry of
        the table, (R, S, C) float64.
        """
        rows, columns = self._members
        by_row = rows @ array.reshape(len(array), -1).astype(np.float64)
        return columns @ by_row.reshape(len(rows), *array.shape[1:])

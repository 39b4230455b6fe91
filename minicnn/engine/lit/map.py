"""A feature map that is at rest nearly everywhere.

Away from the event every position has the value that it has in an empty image, and that depends on
its class alone: on how far it is from the border, in a few classes per axis. So the maps of n events
are

    rest     one value per pair of classes: the same for all events, made once per weight update
    at       the lit positions; everything else is at rest
    values   of the lit positions

    .  .  .  .  .  .  .          . at rest, inside        values (m, C): one row for each #
    .  .  #  #  .  .  .
    :  .  .  #  #  .  :          : at rest, at the border: other classes
    :  :  :  #  :  :  :

and the gradient of a loss with respect to such maps is the same: at the lit positions one by one, and
elsewhere only as sums over each pair of classes, for all positions of a pair do the same to what
follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...kernels.types import Array, Shape


@dataclass(frozen=True, eq=False)
class Grid:
    """The positions (H, W) of a map. classes: the class of every row, int32 (H,), and of every
    column, (W,), on the host, counted from 0.
    """

    kernels: Any
    classes: tuple[np.ndarray, np.ndarray]

    @classmethod
    def uniform(cls, kernels: Any, height: int, width: int) -> Grid:
        """Return the grid of an image: at rest all pixels are alike."""
        return cls(kernels, (np.zeros(height, np.int32), np.zeros(width, np.int32)))

    @cached_property
    def size(self) -> tuple[int, int]:
        """(H, W)"""
        return len(self.classes[0]), len(self.classes[1])

    @cached_property
    def pairs(self) -> tuple[int, int]:
        """(R, S): how many classes of rows and of columns there are."""
        return int(self.classes[0].max()) + 1, int(self.classes[1].max()) + 1

    @cached_property
    def on_device(self) -> tuple[Array, Array]:
        """``classes`` on the device."""
        rows, columns = map(self.kernels.asarray, self.classes)
        return rows, columns

    @cached_property
    def counts(self) -> np.ndarray:
        """The number of positions of each pair of classes, float64 (R, S)."""
        rows, columns = (np.bincount(c).astype(np.float64) for c in self.classes)
        return rows[:, None] * columns

    def at_rest(self, rest: Array) -> Array:
        """Return ``rest`` (R, S, C) at all positions: (H, W, C)."""
        rows, columns = self.on_device
        return rest[rows[:, None], columns[None]]

    def rest_of(self, rest: Array, at: Array) -> Array:
        """Return ``rest`` (R, S, C) of the positions ``at`` (m, 2), rows counted on through the
        events: (m, C).
        """
        if self.pairs == (1, 1):
            return rest.reshape(1, -1)
        rows, columns = self.on_device
        return rest[rows[at[:, 0] % self.size[0]], columns[at[:, 1]]]

    def sums_at(self, values: Array, at: Array) -> Array:
        """Return the sums (R, S, C) float64 over pairs of classes of values (m, C) at ``at``."""
        return self.kernels.class_sums(values, at, self.on_device, self.pairs)

    def sums(self, a: Array) -> Array:
        """Return the sums (R, S, C) float64 over pairs of classes of a (n, H, W, C)."""
        rows, columns = self._membership
        total = self.kernels.asarray(a.sum(0, dtype=np.float64))
        by_row = rows @ total.reshape(len(total), -1)
        return columns @ by_row.reshape(len(rows), *total.shape[1:])

    @cached_property
    def _membership(self) -> tuple[Array, Array]:
        """(R, H) and (S, W) float64: 1 where a row or column is of a class."""
        rows, columns = (
            self.kernels.asarray((np.arange(n)[:, None] == c).astype(np.float64))
            for n, c in zip(self.pairs, self.classes)
        )
        return rows, columns


@dataclass(eq=False)
class LitMap:
    """The maps of ``events`` events on one grid.

    at: int32 (m, 2), row-major without repetition, rows counted on through the events: row r of
    event e is e * H + r. values: (m, C). rest: (R, S, C).
    """

    grid: Grid
    events: int
    at: Array
    values: Array
    rest: Array

    def __len__(self) -> int:
        return self.events

    @property
    def channels(self) -> int:
        """C"""
        return self.values.shape[1]

    @property
    def shape(self) -> Shape:
        """Of the same maps as an array, (n, H, W, C)."""
        return self.events, *self.grid.size, self.channels

    @property
    def lit_fraction(self) -> float:
        """The fraction of positions that are lit."""
        return len(self.at) / max(1, self.events * self.grid.size[0] * self.grid.size[1])

    def changes(self) -> Array:
        """Return how far the lit positions are from rest, (m, C)."""
        return self.values - self.grid.rest_of(self.rest, self.at)

    def dense(self) -> Array:
        """Return the maps as an array (n, H, W, C)."""
        kernels = self.grid.kernels
        x = kernels.empty(self.shape, self.values.dtype)
        x[...] = self.grid.at_rest(self.rest)
        return kernels.put_pixels(x, self.at, self.values)

    def gradient_of(self, dense: Array) -> LitGradient:
        """Return the gradient (n, H, W, C) of the maps as an array as one of the LitMap."""
        values = self.grid.kernels.take_pixels(dense, self.at)
        return LitGradient(values, self.grid.sums(dense) - self.grid.sums_at(values, self.at))


@dataclass(eq=False)
class LitGradient:
    """values (m, C): of the lit positions. rest (R, S, C) float64: of all others, summed over each
    pair of classes and over the events.
    """

    values: Array
    rest: Array

    def __add__(self, other: LitGradient) -> LitGradient:
        return LitGradient(self.values + other.values, self.rest + other.rest)

"""A feature map that is at rest nearly everywhere.

Away from the event every position has the value that it has in an empty image, and that depends on
its class alone: on how far it is from the border, in a few classes per axis. So the maps of n
events are

    rest       one value per pair of classes: the same for all events, made once per weight update
    positions  of what is lit; everything else is at rest
    values     at the lit positions

    .  .  .  .  .  .  .          . at rest, inside        values (m, C): one row for each #
    .  .  #  #  .  .  .
    :  .  .  #  #  .  :          : at rest, at the border: other classes
    :  :  :  #  :  :  :

and the gradient of a loss with respect to such maps is the same: at the lit positions one by one,
and elsewhere only as sums over each pair of classes, for all positions of a pair do the same to
what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...kernels.types import Array, Shape
from .tables import Lookup


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

    @cached_property
    def counts_on_device(self) -> Array:
        """``counts`` on the device, one for all channels: (R, S, 1)."""
        return self.kernels.asarray(self.counts[..., None])

    def at_rest(self, rest: Array) -> Array:
        """Return ``rest`` (R, S, C) at all positions: (H, W, C)."""
        return self._lookup.read(rest)

    def rest_of(self, rest: Array, positions: Array) -> Array:
        """Return ``rest`` (R, S, C) of the ``positions`` (m, 2), rows counted on through the
        events: (m, C).
        """
        if self.pairs == (1, 1):
            return rest.reshape(1, -1)
        return self.kernels.class_values(rest, positions, self.on_device)

    def sums_at(self, values: Array, positions: Array) -> Array:
        """Return the sums (R, S, C) float64 over pairs of classes of the values (m, C)."""
        return self.kernels.class_sums(values, positions, self.on_device, self.pairs)

    def sums(self, array: Array) -> Array:
        """Return the sums (R, S, C) float64 over pairs of classes of a (n, H, W, C)."""
        return self._lookup.sums(array.sum(0, dtype=np.float64))

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self.kernels, self.classes, self.pairs)

    def pair_of(self, positions: Array) -> Array:
        """Return the pair of classes r * S + s of the ``positions`` (m, 2): (m,)."""
        rows, columns = self.on_device
        return rows[positions[:, 0] % self.size[0]] * self.pairs[1] + columns[positions[:, 1]]


def common_grid(*grids: Grid) -> tuple[Grid, list[Lookup]]:
    """Return the coarsest grid whose classes lie within the classes of each grid, and how a table
    of each is read by the classes of that one.
    """
    patterns, classes = zip(
        *(
            np.unique(np.stack([g.classes[axis] for g in grids]), axis=1, return_inverse=True)
            for axis in (0, 1)
        )
    )
    pairs = patterns[0].shape[1], patterns[1].shape[1]
    first = grids[0]
    # Patterns are in the order of their first entry: where they are as many, they are the same.
    grid = first
    if pairs != first.pairs:
        rows, columns = (c.reshape(-1).astype(np.int32) for c in classes)
        grid = Grid(first.kernels, (rows, columns))
    kernels = first.kernels
    return grid, [Lookup(kernels, (r, c), g.pairs) for g, r, c in zip(grids, *patterns)]


@dataclass(eq=False)
class LitMap:
    """The maps of ``events`` events on one grid.

    positions: int32 (m, 2), row-major without repetition, rows counted on through the events: row r
    of event e is e * H + r. values: (m, C). rest: (R, S, C).
    """

    grid: Grid
    events: int
    positions: Array
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
        return len(self.positions) / max(1, self.events * self.grid.size[0] * self.grid.size[1])

    def changes(self) -> Array:
        """Return how far the lit positions are from rest, (m, C)."""
        return self.values - self.grid.rest_of(self.rest, self.positions)

    def dense(self) -> Array:
        """Return the maps as an array (n, H, W, C)."""
        kernels = self.grid.kernels
        x = kernels.empty(self.shape, self.values.dtype)
        x[...] = self.grid.at_rest(self.rest)
        return kernels.put_pixels(x, self.positions, self.values)

    def gradient_of(self, dense: Array) -> LitGradient:
        """Return the gradient (n, H, W, C) of the maps as an array as one of the LitMap."""
        values = self.grid.kernels.take_pixels(dense, self.positions)
        return LitGradient(
            values, self.grid.sums(dense) - self.grid.sums_at(values, self.positions)
        )

    # ------------------------------------------------- a position at rest may be listed like others
    def widened(self, positions: Array, own: Array | None) -> Array:
        """Return the values (k, C) at ``positions`` (k, 2) that hold all of the map's, which are
        number ``own`` (m,) among them; None: they are the same.
        """
        if own is None:
            return self.values
        values = self.grid.kernels.empty((len(positions), self.channels), self.values.dtype)
        values[...] = self.grid.rest_of(self.rest, positions)
        values[own] = self.values
        return values

    def narrowed(self, gradient: LitGradient, positions: Array, own: Array | None) -> LitGradient:
        """Return the gradient with respect to ``widened`` and the other positions as one of the
        map: of positions that are not its own the sums are what counts.
        """
        if own is None:
            return gradient
        values = gradient.values[own]
        more = self.grid.sums_at(gradient.values, positions) - self.grid.sums_at(
            values, self.positions
        )
        return LitGradient(values, gradient.rest + more)

    def pick(self, positions: Array) -> tuple[Array, Callable[[Array], LitGradient]]:
        """Return the values (k, C) at the ``positions`` (k, 2), lit or not, row-major without
        repetition; and the function that makes the gradient of the maps of one of these values.
        """
        kernels = self.grid.kernels
        union, own, wanted = kernels.merge_positions(self.positions, positions)

        def gradient(slope: Array) -> LitGradient:
            values = kernels.zeros((len(union), self.channels), slope.dtype)
            values[wanted] = slope
            rest = kernels.zeros(self.rest.shape, np.float64)
            return self.narrowed(LitGradient(values, rest), union, own)

        return self.widened(union, own)[wanted], gradient


@dataclass(eq=False)
class LitGradient:
    """values (m, C): of the lit positions. rest (R, S, C) float64: of all others, summed over each
    pair of classes and over the events.
    """

    values: Array
    rest: Array

    def __add__(self, other: LitGradient) -> LitGradient:
        return LitGradient(self.values + other.values, self.rest + other.rest)

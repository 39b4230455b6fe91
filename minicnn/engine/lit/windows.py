"""The windows of a layer that slides over its input, where the input is lit and at rest."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...kernels.lit import LitGeometry, LitLists, lit_geometry, seen_by_convolution
from ...kernels.types import Array
from ...kernels.workspace import Workspace
from .map import Grid, LitMap
from .tables import Lookup

#: Of rows and of columns: the input (outputs, taps) that each output sees under each tap.
Seen = tuple[np.ndarray, np.ndarray]


class Windows(NamedTuple):
    """How a layer meets a grid: its geometry, the grid of its outputs, and ``lookup``, what the
    windows of each class of outputs see under their taps.
    """

    geometry: LitGeometry
    grid: Grid
    lookup: Lookup

    @classmethod
    def over(cls, grid: Grid, seen: Seen, pool: tuple[int, int] = (1, 1)) -> Windows:
        """Return those of a layer whose outputs see ``seen`` of the grid, and are pooled."""
        geometry = lit_geometry(grid.classes, seen, pool)
        outputs = Grid(grid.kernels, geometry.cell_classes)
        return cls(geometry, outputs, Lookup(grid.kernels, geometry.seen, grid.pairs))

    def lists(self, x: LitMap, workspace: Workspace) -> LitLists:
        """Return what the lit positions of ``x`` feed, in buffers."""
        kernels = self.grid.kernels
        return kernels.lit_lists(x.positions, x.events, self.geometry, workspace=workspace)

    @property
    def kernel(self) -> tuple[int, int]:
        """(KH, KW)"""
        return self.geometry.feeds[0].shape[1], self.geometry.feeds[1].shape[1]

    def at_rest(self, rest: Array) -> Array:
        """Return the windows of all classes of outputs at rest, as images: (R * S, KH, KW, C)."""
        (kh, kw), (r, s), kernels = self.kernel, self.grid.pairs, self.grid.kernels
        windows = kernels.empty((r * s, kh, kw, rest.shape[2]), rest.dtype)
        seen = self.lookup.read(rest).reshape(r, kh, s, kw, -1)
        windows.reshape(r, s, kh, kw, -1)[...] = seen.swapaxes(1, 2)
        return windows

    def sums(self, windows: Array) -> Array:
        """Return the transpose of ``at_rest``: the sums (R', S', C) float64 over what the windows
        see of each class of inputs.
        """
        (kh, kw), (r, s) = self.kernel, self.grid.pairs
        seen = windows.reshape(r, s, kh, kw, -1).swapaxes(1, 2)
        return self.lookup.sums(seen.reshape(r * kh, s * kw, -1))


def sliding(
    size: tuple[int, int],
    kernel: tuple[int, int],
    outputs: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    before: tuple[int, int] = (0, 0),
) -> Seen:
    """Return what the outputs of a kernel see that slides over an image; ``before``: how many rows
    and columns of zeros there are before it (below 0: how many are left out).
    """
    rows, columns = (
        seen_by_convolution(*axis) for axis in zip(size, kernel, strides, dilation, before, outputs)
    )
    return rows, columns


def seen_by(conv: Any, size: tuple[int, int]) -> Seen:
    """Return what the outputs of a layer see that has the geometry of a convolution."""
    shape, window = (1, *size, 1), (*conv.kernel_size, 1, 1)
    (top, _), (left, _) = conv.geometry.pads(shape, window)
    _, oh, ow, _ = conv.geometry.output(shape, window)
    return sliding(size, conv.kernel_size, (oh, ow), conv.strides, conv.dilation, (top, left))

"""Maximum over windows, and pooling of whole images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...kernels.types import Array
from ...nn.layers import GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from .map import Grid, LitGradient, LitMap
from .rules import Rule, rule_of
from .windows import Windows, sliding


@rule_of(MaxPooling2D)
class MaxPoolingRule(Rule):
    """The windows that hold a lit position become small images, of its value and of what rests
    around it, and these are pooled; so are the windows of each class at rest.
    """

    def forward(self, x: LitMap) -> tuple[LitMap, Any] | None:  # type: ignore[override]
        kernels, size = self.context.kernels, self.layer.pool_size
        windows = self.once_per_grid(self._windows, x.grid)
        lists = windows.lists(x, self.context.workspace.part("lists"))
        at_rest, rest, rest_argmax = self.once_per_update(
            "rest", lambda: self._at_rest(windows, x.rest), x.rest
        )
        shape, taps = (len(lists.cells), *size, x.channels), size[0] * size[1]
        # One row for each pixel of each window, and one for what no window sees.
        rows = kernels.empty((len(lists.cells) * taps + 1, x.channels), x.values.dtype)
        around = at_rest.reshape(-1, taps, x.channels)
        rows[:-1].reshape(-1, taps, x.channels)[...] = around[windows.grid.pair_of(lists.cells)]
        slots = lists.feeds * taps + kernels.asarray(np.arange(taps, dtype=np.int32)[:, None])
        slots[lists.feeds < 0] = len(rows) - 1
        rows[slots] = x.values
        y, argmax = kernels.maxpool2d(rows[:-1].reshape(shape), size)
        result = LitMap(windows.grid, x.events, lists.cells, y[:, 0, 0], rest)
        return result, (x, windows, lists.cells, slots, argmax, shape, rest_argmax)

    def backward(self, dy: LitGradient, saved: Any) -> tuple[LitGradient | None]:
        x, windows, cells, slots, argmax, shape, rest_argmax = saved
        kernels, size, grid = self.context.kernels, self.layer.pool_size, windows.grid
        rows = kernels.zeros((len(cells) * size[0] * size[1] + 1, x.channels), dy.values.dtype)
        seen = kernels.maxpool2d_backward(dy.values[:, None, None], argmax, shape, size)
        rows[:-1] = seen.reshape(-1, x.channels)
        values = rows[slots].sum(0)
        table = dy.rest.astype(dy.values.dtype).reshape(-1, 1, 1, x.channels)
        rest_shape = len(table), *shape[1:]
        resting = kernels.maxpool2d_backward(table, rest_argmax, rest_shape, size)
        lit = grid.sums_at(rows[:-1].reshape(len(cells), math.prod(shape[1:])), cells)
        rest = windows.sums(resting.astype(np.float64) + lit.reshape(rest_shape))
        return (LitGradient(values, rest - x.grid.sums_at(values, x.positions)),)

    def _windows(self, grid: Grid) -> Windows:
        size, strides = self.layer.pool_size, self.layer.strides
        outputs = self.layer.output_shape((*grid.size, 1))[:2]
        return Windows.over(grid, sliding(grid.size, size, outputs, strides))

    def _at_rest(self, windows: Windows, rest: Array) -> tuple[Array, Array, Array]:
        """Return (windows, maxima (R, S, C), argmax) of all classes."""
        images = windows.at_rest(rest)
        y, argmax = self.context.kernels.maxpool2d(images, self.layer.pool_size)
        return images, y.reshape(*windows.grid.pairs, -1), argmax


class _GlobalRule(Rule):
    """Pooling of whole images: gives an array (n, C)."""

    ends = True

    def _event_classes(self, x: LitMap) -> tuple[tuple[Array, Array], tuple[int, int]]:
        """Return ``classes`` and ``pairs`` by which kernels.class_sums sums over events."""

        def make(grid: Grid) -> tuple[Array, Array]:
            rows = np.repeat(np.arange(x.events, dtype=np.int32), grid.size[0])
            columns = np.zeros(grid.size[1], np.int32)
            return grid.kernels.asarray(rows), grid.kernels.asarray(columns)

        workspace, key = self.context.workspace, (x.grid, x.events)
        return workspace.keep("events", key, lambda: make(x.grid)), (x.events, 1)


@rule_of(GlobalAveragePooling2D)
class GlobalAverageRule(_GlobalRule):
    """y = (sum of counts * rest + sum of the changes of the event's lit positions) / (H W)."""

    def forward(self, x: LitMap) -> tuple[Array, Any] | None:  # type: ignore[override]
        kernels = self.context.kernels
        changes = kernels.class_sums(x.changes(), x.positions, *self._event_classes(x))
        total = (x.grid.counts_on_device * x.rest).sum((0, 1)) + changes[:, 0]
        y = total / (x.grid.size[0] * x.grid.size[1])
        return y.astype(x.values.dtype), x

    def backward(self, dy: Array, saved: Any) -> tuple[LitGradient | None]:
        x, (height, width) = saved, saved.grid.size
        each = dy / dy.dtype.type(height * width)
        values = each[x.positions[:, 0] // height]
        everywhere = x.grid.counts_on_device * each.sum(0, dtype=np.float64)
        return (LitGradient(values, everywhere - x.grid.sums_at(values, x.positions)),)


@rule_of(GlobalMaxPooling2D)
class GlobalMaxRule(_GlobalRule):
    """Of every event the maximum over its lit values and over the classes that are at rest in it,
    as of an image of these pixels. Of equal maxima a lit one has the gradient.
    """

    def forward(self, x: LitMap) -> tuple[Array, Any] | None:  # type: ignore[override]
        kernels = self.context.kernels
        ones = kernels.zeros((len(x.positions), 1), x.values.dtype) + x.values.dtype.type(1)
        lit = kernels.class_sums(ones, x.positions, *self._event_classes(x))
        ends = np.cumsum(kernels.to_host(lit)[:, 0, 0]).astype(int)
        y = kernels.empty((x.events, x.channels), x.values.dtype)
        saved = []
        for event, (first, end) in enumerate(zip([0, *ends[:-1]], ends)):
            piece = slice(int(first), int(end))
            gone = x.grid.counts_on_device <= x.grid.sums_at(
                ones[piece], x.positions[piece]
            )  # nowhere at rest
            pixels = kernels.empty((1, end - first + x.rest[..., 0].size, 1, x.channels), y.dtype)
            pixels[0, : end - first, 0] = x.values[piece]
            rest = pixels[0, end - first :, 0].reshape(x.rest.shape)
            rest[...] = x.rest
            rest[gone[..., 0]] = -np.inf
            y[event : event + 1], argmax = kernels.global_max_pool(pixels)
            saved.append((piece, argmax, pixels.shape))
        return y, (x, saved)

    def backward(self, dy: Array, saved: Any) -> tuple[LitGradient | None]:
        (x, events), kernels = saved, self.context.kernels
        values = kernels.empty(x.values.shape, dy.dtype)
        rest = kernels.zeros(x.rest.shape, np.float64)
        for event, (piece, argmax, shape) in enumerate(events):
            pixels = kernels.global_max_pool_backward(dy[event : event + 1], argmax, shape)
            lit = piece.stop - piece.start
            values[piece] = pixels[0, :lit, 0]
            rest += pixels[0, lit:, 0].reshape(rest.shape)
        return (LitGradient(values, rest),)

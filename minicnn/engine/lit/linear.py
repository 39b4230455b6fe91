"""Linear layers that treat every channel by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.arguments import Wanted
from ...kernels.shapes import Geometry
from ...kernels.types import Array
from ...nn.layers import (
    AveragePooling2D,
    Cropping2D,
    DepthwiseConv2D,
    UpSampling2D,
    ZeroPadding2D,
)
from .map import Grid, LitGradient, LitMap
from .rules import Rule, rule_of
from .tables import Lookup
from .windows import Windows, seen_by, sliding

#: Of windows that are images of their own.
WHOLE = Geometry(padding="valid")


class ChannelwiseRule(Rule):
    """Rest + changes, as for a convolution: y = (the windows at rest) . w + b + sum of (changes of
    lit inputs) * w, with w (KH, KW, C, M) and what an output sees of each layer's own.
    """

    def forward(self, x: LitMap) -> tuple[LitMap, Any] | None:  # type: ignore[override]
        kernels = self.context.kernels
        windows = self.once_per_grid(self.windows, x.grid)
        lists = windows.lists(x, self.context.workspace.part("lists"))
        w, b = self.weights(windows, x)
        at_rest, rest = self.once_per_update(
            "rest", lambda: self._at_rest(windows, x.rest, w, b), x.rest
        )
        y = kernels.empty((len(lists.cells), rest.shape[2]), x.values.dtype)
        y[...] = windows.grid.rest_of(rest, lists.cells)
        changes = x.changes()
        y = kernels.lit_channelwise(y, changes, lists, w)
        result = LitMap(windows.grid, x.events, lists.cells, y, rest)
        return result, (x, windows, lists, changes, at_rest, w)

    def backward(self, dy: LitGradient, saved: Any) -> tuple[LitGradient | None]:
        x, windows, lists, changes, at_rest, w = saved
        context, kernels = self.context, self.context.kernels
        need = context.need_input_gradient
        dw, db = context.grads.get("w"), context.grads.get("b")
        dw = kernels.zeros(w.shape, w.dtype) if dw is None else dw
        values, _ = kernels.lit_channelwise_backward(
            dy.values, changes, lists, w, Wanted(need, (dw,))
        )
        # What rests beneath the lit outputs and what is at rest itself learn from sums alone.
        sums = windows.grid.sums_at(dy.values, lists.cells) + dy.rest
        table = sums.astype(dy.values.dtype).reshape(-1, 1, 1, dy.rest.shape[2])
        seen, _, _ = kernels.depthwise_conv2d_backward(
            table, at_rest, w, WHOLE, Wanted(need, (dw, db))
        )
        if not need:
            return (None,)
        return (LitGradient(values, windows.sums(seen) - x.grid.sums_at(values, x.positions)),)

    def _at_rest(self, windows: Windows, rest: Array, w: Array, b: Array) -> tuple[Array, Array]:
        """Return (windows, outputs (R, S, C * M)) of all classes."""
        images = windows.at_rest(rest)
        y = self.context.kernels.depthwise_conv2d(images, w, b, WHOLE)
        return images, y.reshape(*windows.grid.pairs, -1)

    # ------------------------------------------------------------------------- of each kind of
    # layer
    def windows(self, grid: Grid) -> Windows:
        """Return what the outputs see of ``grid``."""
        raise NotImplementedError(f"{type(self).__name__}.windows")

    def weights(self, windows: Windows, x: LitMap) -> tuple[Array, Array]:
        """Return w (KH, KW, C, M) and b (C * M,); by default all that is seen adds up."""
        return self.constant(1.0, windows, x)

    def constant(self, value: float, windows: Windows, x: LitMap) -> tuple[Array, Array]:
        """Return weights that are all ``value``, and biases of 0."""

        def make() -> tuple[Array, Array]:
            zeros, dtype = self.context.kernels.zeros, x.values.dtype
            w = zeros((*windows.kernel, x.channels, 1), dtype) + dtype.type(value)
            return w, zeros((x.channels,), dtype)

        return self.context.workspace.keep("weights", (x.channels, x.grid), make)


@rule_of(DepthwiseConv2D)
class DepthwiseRule(ChannelwiseRule):
    """A convolution of every channel by itself."""

    def windows(self, grid: Grid) -> Windows:
        return Windows.over(grid, seen_by(self.layer, grid.size))

    def weights(self, windows: Windows, x: LitMap) -> tuple[Array, Array]:
        return self.context.params["w"], self.context.params["b"]


@rule_of(AveragePooling2D)
class AveragePoolingRule(ChannelwiseRule):
    """The mean of what is seen."""

    def windows(self, grid: Grid) -> Windows:
        size, strides = self.layer.pool_size, self.layer.strides
        outputs = self.layer.output_shape((*grid.size, 1))[:2]
        return Windows.over(grid, sliding(grid.size, size, outputs, strides))

    def weights(self, windows: Windows, x: LitMap) -> tuple[Array, Array]:
        rows, columns = windows.kernel
        return self.constant(1 / (rows * columns), windows, x)


@rule_of(ZeroPadding2D, Cropping2D)
class BorderRule(ChannelwiseRule):
    """Every output sees one pixel; those of a padding nothing."""

    def windows(self, grid: Grid) -> Windows:
        outputs = self.layer.output_shape((*grid.size, 1))[:2]
        if isinstance(self.layer, ZeroPadding2D):
            (top, _), (left, _) = self.layer.padding
        else:
            (top, _), (left, _) = self.layer.cropping
            top, left = -top, -left
        return Windows.over(grid, sliding(grid.size, (1, 1), outputs, before=(top, left)))


@rule_of(UpSampling2D)
class UpSamplingRule(ChannelwiseRule):
    """Output i sees input i // size, under the tap i % size. All taps do the same, so that the
    copies of a pixel are of one class.
    """

    def windows(self, grid: Grid) -> Windows:
        (sh, sw), (h, w), (r, s) = self.layer.size, grid.size, grid.pairs
        geometry = Windows.over(grid, (_copies(h, sh), _copies(w, sw))).geometry
        classes = grid.classes[0].repeat(sh), grid.classes[1].repeat(sw)
        under_first = _under_first_tap(r, sh), _under_first_tap(s, sw)
        geometry = geometry._replace(
            positions=classes,
            seen=under_first,
            pooled=(_under_first_tap(r, 1), _under_first_tap(s, 1)),
            cell_classes=classes,
        )
        outputs = Grid(grid.kernels, classes)
        return Windows(geometry, outputs, Lookup(grid.kernels, under_first, grid.pairs))


def _copies(length: int, size: int) -> np.ndarray:
    """Return (length * size, size): the input that each output sees, under one tap of ``size``."""
    output = np.arange(length * size)
    seen = np.full((length * size, size), -1)
    seen[output, output % size] = output // size
    return seen


def _under_first_tap(classes: int, taps: int) -> np.ndarray:
    """Return int32 (classes, taps): class i under the first tap, nothing under the others."""
    seen = np.full((classes, taps), -1, np.int32)
    seen[:, 0] = np.arange(classes)
    return seen

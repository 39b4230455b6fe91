"""Convolutions, by themselves or with the activation and the pooling behind them."""

from __future__ import annotations

from typing import Any

from ...inspect import trace
from ...kernels.arguments import Wanted
from ...kernels.lit import LitBlock, LitGeometry, seen_by_transposed
from ...kernels.types import Array
from ...nn.layers import Conv2D, Conv2DTranspose
from ..fused import FusedBlock
from .map import Grid, LitGradient, LitMap
from .rules import Rule, rule_of
from .windows import Windows, seen_by

#: The fraction of lit inputs above which the dense kernels are faster: with few channels, whose lit
#: products are short, and with at least MANY_CHANNELS. benchmarks/active.py prints where they
#: cross.
CROSSOVER, CROSSOVER_OF_MANY, MANY_CHANNELS = 0.3, 0.7, 32


@rule_of(Conv2D, FusedBlock)
class ConvolutionRule(Rule):
    """Rest + changes: z = (the convolution at rest) + sum of (changes of lit inputs) * w."""

    def forward(self, x: LitMap) -> tuple[LitMap, Any] | None:  # type: ignore[override]
        crossover = CROSSOVER if x.channels < MANY_CHANNELS else CROSSOVER_OF_MANY
        if not self.always and x.lit_fraction > crossover:
            return None
        kernels, workspace = self.context.kernels, self.context.workspace
        geometry, grid, _ = self.once_per_grid(self._windows, x.grid)
        block = self._block(geometry)
        lists = kernels.lit_lists(
            x.positions, x.events, geometry, block.w.shape[2:], workspace.part("lists")
        )
        resting = self.once_per_update(
            "rest", lambda: kernels.lit_rest(x.rest, block, workspace.part("rest")), x.rest
        )
        lit = kernels.lit_block(x.changes(), lists, resting, block, workspace.part("lit"))
        return LitMap(grid, x.events, lists.cells, lit.y, resting.y), (x, lit, resting)

    def backward(self, dy: LitGradient, saved: Any) -> tuple[LitGradient | None]:
        x, lit, resting = saved
        context, kernels = self.context, self.context.kernels
        block = self._block(self.once_per_grid(self._windows, x.grid).geometry)
        wanted = Wanted(context.need_input_gradient, self._gradients())
        values, sums, _, _ = kernels.lit_block_backward(
            dy.values, lit, block, wanted, context.workspace.part("lit")
        )
        with trace.span("backward", "resting tables"):
            rest, _, _ = kernels.lit_rest_backward(
                dy.rest, sums, resting, block, wanted, context.workspace.part("rest")
            )
        if not wanted.dx:
            return (None,)
        return (LitGradient(values, rest - x.grid.sums_at(values, x.positions)),)

    def _block(self, geometry: LitGeometry) -> LitBlock:
        params, fused = self.context.params, isinstance(self.layer, FusedBlock)
        return LitBlock(params["w"], params["b"], geometry, self.layer.alpha if fused else None)

    def _gradients(self) -> tuple[Array, Array]:
        """Return the arrays that the gradients of the block's w and b are added to."""
        return self.context.grads["w"], self.context.grads["b"]

    def _windows(self, grid: Grid) -> Windows:
        fused = isinstance(self.layer, FusedBlock)
        conv, pool = (self.layer.conv, self.layer.pool) if fused else (self.layer, (1, 1))
        return Windows.over(grid, seen_by(conv, grid.size), pool)


@rule_of(Conv2DTranspose)
class TransposedRule(ConvolutionRule):
    """Output i * s - before + tap sees input i; the weights (KH, KW, C_out, C_in) are turned
    round.
    """

    def backward(self, dy: LitGradient, saved: Any) -> tuple[LitGradient | None]:
        turned, _ = self._gradients()
        turned[...] = 0
        dx = super().backward(dy, saved)
        self.context.grads["w"] += turned.swapaxes(2, 3)
        return dx

    def _block(self, geometry: LitGeometry) -> LitBlock:
        w, workspace = self.context.params["w"], self.context.workspace
        turned = workspace.once("turned", lambda: w.swapaxes(2, 3).copy())
        return LitBlock(turned, self.context.params["b"], geometry, None)

    def _gradients(self) -> tuple[Array, Array]:
        kernels, (kh, kw, co, ci) = self.context.kernels, self.context.grads["w"].shape
        dtype = self.context.grads["w"].dtype
        dw = self.context.workspace.keep(
            "dw turned", dtype, lambda: kernels.zeros((kh, kw, ci, co), dtype)
        )
        return dw, self.context.grads["b"]

    def _windows(self, grid: Grid) -> Windows:
        layer = self.layer
        _, oh, ow, _ = output = (1, *layer.output_shape((*grid.size, 1))[:2], 1)
        (top, _), (left, _) = layer.geometry.pads(output, (*layer.kernel_size, 1, 1))
        rows, columns = (
            seen_by_transposed(*axis)
            for axis in zip(grid.size, layer.kernel_size, layer.strides, (top, left), (oh, ow))
        )
        return Windows.over(grid, (rows, columns))

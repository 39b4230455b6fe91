"""Convolutions, by themselves or with the activation and the pooling behind them."""

from __future__ import annotations

from typing import Any

from ...kernels import lit as geometry_of
from ...kernels import shapes
from ...kernels.lit import LitBlock, LitGeometry
from ...nn.layers import Conv2D
from ..fused import FusedBlock
from .map import Grid, LitGradient, LitMap
from .rules import Rule, rule_of


@rule_of(Conv2D, FusedBlock)
class ConvolutionRule(Rule):
    """Rest + changes: z = (the convolution at rest) + sum of (changes of lit inputs) * w."""

    def forward(self, x: LitMap) -> tuple[LitMap, Any] | None:  # type: ignore[override]
        kernels, workspace = self.context.kernels, self.context.workspace
        geometry, grid = self.once_per_grid(self._geometry, x.grid)
        lists = kernels.lit_lists(x.at, x.events, geometry, work=workspace.part("lists"))
        cells = x.events * grid.size[0] * grid.size[1]
        if len(lists.cells) > self.dense_above * cells:
            return None
        block = self._block(geometry)
        resting = self.once_per_update(
            "rest", x.rest, lambda: kernels.lit_rest(x.rest, block, work=workspace.part("rest"))
        )
        lit = kernels.lit_block(x.changes(), lists, resting, block, work=workspace.part("lit"))
        return LitMap(grid, x.events, lists.cells, lit.y, resting.y), (x, lit, resting)

    def backward(self, dy: LitGradient, saved: Any) -> tuple[LitGradient | None]:
        x, lit, resting = saved
        context, kernels = self.context, self.context.kernels
        into = context.grads["w"], context.grads["b"]
        block = self._block(self.once_per_grid(self._geometry, x.grid)[0])
        need = context.need_input_gradient
        values, sums, _, _ = kernels.lit_block_backward(
            dy.values, lit, block, into, need, work=context.workspace.part("lit")
        )
        rest, _, _ = kernels.lit_rest_backward(
            dy.rest, sums, resting, block, into, need, work=context.workspace.part("rest")
        )
        if not need:
            return (None,)
        return (LitGradient(values, rest - x.grid.sums_at(values, x.at)),)

    def _block(self, geometry: LitGeometry) -> LitBlock:
        params, fused = self.context.params, isinstance(self.layer, FusedBlock)
        return LitBlock(params["w"], params["b"], geometry, self.layer.alpha if fused else None)

    def _geometry(self, grid: Grid) -> tuple[LitGeometry, Grid]:
        fused = isinstance(self.layer, FusedBlock)
        conv, pool = (self.layer.conv, self.layer.pool) if fused else (self.layer, (1, 1))
        shape = (*conv.kernel_size, 1, 1)
        options = conv.strides, conv.padding, conv.dilation
        pads = shapes.conv_padding((1, *grid.size, 1), shape, *options)
        outputs = shapes.conv_output((1, *grid.size, 1), shape, *options)[1:3]
        seen = [
            geometry_of.seen_by_convolution(
                grid.size[a],
                conv.kernel_size[a],
                conv.strides[a],
                conv.dilation[a],
                pads[a][0],
                outputs[a],
            )
            for a in (0, 1)
        ]
        geometry = geometry_of.lit_geometry(grid.classes, (seen[0], seen[1]), pool)
        return geometry, Grid(grid.kernels, geometry.cell_classes)



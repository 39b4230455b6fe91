"""Layers that treat every position by itself, of one map or of several."""

from __future__ import annotations

from typing import Any

from ...kernels.types import Array
from ...nn.layers import (
    ELU,
    GELU,
    Add,
    Concatenate,
    Dropout,
    LayerNormalization,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    SpatialDropout2D,
    Tanh,
)
from .map import LitGradient, LitMap, common_grid
from .rules import Rule, rule_of


@rule_of(
    Add,
    Concatenate,
    ELU,
    GELU,
    LayerNormalization,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
class PixelwiseRule(Rule):
    """The layer itself, on the rows of values and on the tables of rest, each as an image. What the
    table's gradient gives is right because a resting position's gradient enters linearly: the layer
    does to the sum over a class what it does to each.

    Several maps are brought onto one grid and one list of positions first. A position that is lit
    in one of them is at rest in the others, and has its resting value there.
    """

    def forward(self, *maps: LitMap) -> tuple[LitMap, Any] | None:
        grid, lookups = self.once_per_grid(common_grid, *(x.grid for x in maps))
        positions, own = _union(maps)
        rests = [x.rest for x in maps]
        rest, rest_saved = self.once_per_update(
            "rest",
            lambda: self._of_table([look.read(r) for look, r in zip(lookups, rests)]),
            *rests,
        )
        rows = [x.widened(positions, where)[None, :, None] for x, where in zip(maps, own)]
        y, saved = self.layer.forward(self.context, *rows)
        result = LitMap(grid, maps[0].events, positions, y[0, :, 0], rest)
        return result, (maps, lookups, positions, own, saved, rest_saved)

    def backward(self, dy: LitGradient, saved: Any) -> tuple[LitGradient | None, ...]:
        maps, lookups, positions, own, rows_saved, rest_saved = saved
        table = dy.rest.astype(dy.values.dtype)[None]
        values = self._layer_backward(dy.values[None, :, None], rows_saved)
        rests = self._layer_backward(table, rest_saved)
        return tuple(
            None
            if value is None or rest is None
            else x.narrowed(LitGradient(value[0, :, 0], look.sums(rest[0])), positions, where)
            for x, look, where, value, rest in zip(maps, lookups, own, values, rests)
        )

    def _of_table(self, tables: list[Array]) -> tuple[Array, Any]:
        y, saved = self.layer.forward(self.context, *(table[None] for table in tables))
        return y[0], saved

    def _layer_backward(self, dy: Array, saved: Any) -> tuple[Array | None, ...]:
        dx = self.layer.backward(self.context, dy, saved)
        return dx if isinstance(dx, tuple) else (dx,)


@rule_of(Dropout, SpatialDropout2D)
class DropoutRule(PixelwiseRule):
    """The identity in evaluation. While training every position draws a number, resting ones too:
    arrays then.
    """

    remark = "an array while training"

    def forward(self, *maps: LitMap) -> tuple[LitMap, Any] | None:
        if self.context.training and self.layer.rate > 0:
            return None
        return maps[0], None

    def backward(self, dy: LitGradient, saved: Any) -> tuple[LitGradient | None, ...]:
        return (dy,)


def _union(maps: tuple[LitMap, ...]) -> tuple[Array, list[Array | None]]:
    """Return the positions that are lit in any of the maps, and where in this list those of each
    are; None: they are the same.
    """
    positions, own = maps[0].positions, [None]
    for x in maps[1:]:
        if x.positions is positions:
            own.append(None)
            continue
        positions, first, second = x.grid.kernels.merge_positions(positions, x.positions)
        own = [first if where is None else first[where] for where in own]
        own.append(second)
    return positions, own

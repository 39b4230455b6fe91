"""Dense layers, and what turns images into vectors."""

from __future__ import annotations

import math
from typing import Any

from ...kernels.types import Array, Shape
from .base import Context, Layer, Parameter, label, positive_integer

__all__ = ["Dense", "Flatten"]


class Flatten(Layer):
    """(H, W, C) -> (H * W * C,), row-major."""

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def flops(self, shape: Shape) -> int:
        return 0

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        return x.reshape(len(x), math.prod(x.shape[1:])), x.shape

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return dy.reshape(saved)


class Dense(Layer):
    """y = x w + b with ``units`` outputs; the input must be flat (put a Flatten before it).
    initializer: of w, a name out of mc.initializers. (C,) -> (units,).
    """

    def __init__(self, units: int, initializer: str = "glorot_uniform", **options: Any) -> None:
        super().__init__(**options)
        self.units, self.initializer = positive_integer(units, "units"), initializer

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        if len(shape) != 1:
            raise ValueError(
                f"{label(self)} needs a flat input, got shape {shape}: put a Flatten() before it"
            )
        return {
            "w": Parameter((shape[0], self.units), self.initializer),
            "b": Parameter((self.units,), "zeros", decay=False),
        }

    def output_shape(self, shape: Shape) -> Shape:
        return self.parameters(shape)["b"].shape

    def flops(self, shape: Shape) -> int:
        return 2 * shape[0] * self.units

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        return ctx.kernels.dense(x, ctx.params["w"], ctx.params["b"], ctx.workspace), x

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        wanted = ctx.wanted("w", "b")
        return ctx.kernels.dense_backward(dy, saved, ctx.params["w"], wanted, ctx.workspace)[0]

"""Pooling: of windows, and of whole images."""

from __future__ import annotations

from typing import Any

from ...kernels import shapes
from ...kernels.types import Array, Pair, Shape
from .base import Context, Layer, image_shape

__all__ = ["AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "MaxPooling2D"]


class _Pooling2D(Layer):
    def __init__(self, pool_size: Pair = 2, strides: Pair | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.pool_size = shapes.pair(pool_size, "pool_size")
        self.strides = self.pool_size if strides is None else shapes.pair(strides, "strides")

    def output_shape(self, shape: Shape) -> Shape:
        return shapes.pool_output((1, *image_shape(self, shape)), self.pool_size, self.strides)[1:]

    def flops(self, shape: Shape) -> int:
        h, w, c = self.output_shape(shape)
        return h * w * c * self.pool_size[0] * self.pool_size[1]


class MaxPooling2D(_Pooling2D):
    """Maximum over windows of ``pool_size``, one every ``strides`` (default: pool_size); windows
    that do not fit are dropped. The gradient goes to the first of equal maxima.
    """

    prefix = "max_pooling2d"

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        y, argmax = ctx.kernels.maxpool2d(x, self.pool_size, self.strides)
        return y, (argmax, x.shape)

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return ctx.kernels.maxpool2d_backward(dy, *saved, self.pool_size, self.strides)


class AveragePooling2D(_Pooling2D):
    """Mean over windows of ``pool_size``, one every ``strides`` (default: pool_size); windows that
    do not fit are dropped.
    """

    prefix = "average_pooling2d"

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        return ctx.kernels.avgpool2d(x, self.pool_size, self.strides), x.shape

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return ctx.kernels.avgpool2d_backward(dy, saved, self.pool_size, self.strides)


class GlobalAveragePooling2D(Layer):
    """Mean over all positions: (H, W, C) -> (C,)  (Lin, Chen, Yan 2014)."""

    prefix = "global_average_pooling2d"

    def output_shape(self, shape: Shape) -> Shape:
        return image_shape(self, shape)[2:]

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        return ctx.kernels.global_average_pool(x), x.shape

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return ctx.kernels.global_average_pool_backward(dy, saved)


class GlobalMaxPooling2D(Layer):
    """Maximum over all positions: (H, W, C) -> (C,)."""

    prefix = "global_max_pooling2d"

    def output_shape(self, shape: Shape) -> Shape:
        return image_shape(self, shape)[2:]

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        y, argmax = ctx.kernels.global_max_pool(x)
        return y, (argmax, x.shape)

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return ctx.kernels.global_max_pool_backward(dy, *saved)

"""Layers with several inputs, and layers that only move pixels."""

from __future__ import annotations

import math
from typing import Any

from ...kernels import shapes
from ...kernels.types import Array, Pair, Shape
from .base import Context, Layer, image_shape, label

__all__ = ["Add", "Concatenate", "Cropping2D", "UpSampling2D", "ZeroPadding2D"]


class Add(Layer):
    """The sum of inputs of one shape: a residual connection (He et al. 2016)."""

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(inputs) < 2 or any(shape != inputs[0] for shape in inputs):
            raise ValueError(
                f"{label(self)} needs at least two inputs of one shape, got {list(inputs)}: a 1 x "
                "1 Conv2D gives a branch the channels of another"
            )
        return inputs[0]

    def flops(self, *inputs: Shape) -> int:
        return (len(inputs) - 1) * math.prod(inputs[0])

    def forward(self, ctx: Context, *xs: Array) -> tuple[Array, Any]:
        total = xs[0] + xs[1]
        for x in xs[2:]:
            total += x
        return total, len(xs)

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return (dy,) * saved


class Concatenate(Layer):
    """The inputs' channels behind each other; all other axes must agree."""

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(inputs) < 2 or any(shape[:-1] != inputs[0][:-1] for shape in inputs):
            raise ValueError(
                f"{label(self)} needs at least two inputs that differ in channels alone, got "
                f"{list(inputs)}"
            )
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))

    def flops(self, *inputs: Shape) -> int:
        return 0

    def forward(self, ctx: Context, *xs: Array) -> tuple[Array, Any]:
        channels = [x.shape[-1] for x in xs]
        y = ctx.kernels.empty((*xs[0].shape[:-1], sum(channels)), xs[0].dtype)
        first = 0
        for x, count in zip(xs, channels):
            y[..., first : first + count] = x
            first += count
        return y, channels

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        pieces, first = [], 0
        for count in saved:
            pieces.append(dy[..., first : first + count].copy())
            first += count
        return tuple(pieces)


class UpSampling2D(Layer):
    """Every pixel ``size`` times down and across (nearest neighbour)."""

    prefix = "up_sampling2d"

    def __init__(self, size: Pair = 2, **options: Any) -> None:
        super().__init__(**options)
        self.size = shapes.pair(size, "size")

    def output_shape(self, shape: Shape) -> Shape:
        h, w, c = image_shape(self, shape)
        return h * self.size[0], w * self.size[1], c

    def flops(self, shape: Shape) -> int:
        return 0

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        return ctx.kernels.upsample2d(x, self.size), None

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return ctx.kernels.upsample2d_backward(dy, self.size)


def _four(value: Any, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ((top, bottom), (left, right)) of one number, (rows, columns) or all four."""
    if isinstance(value, int):
        value = (value, value)
    rows, columns = ((v, v) if isinstance(v, int) else tuple(v) for v in value)
    if len(rows) != 2 or len(columns) != 2 or min(*rows, *columns) < 0:
        raise ValueError(f"{name} must be one, two or 2 x 2 integers >= 0, got {value!r}")
    return rows, columns


class ZeroPadding2D(Layer):
    """Zeros around the image. padding: one number, (rows, columns), or ((top, bottom), (left,
    right)).
    """

    prefix = "zero_padding2d"

    def __init__(self, padding: Any = 1, **options: Any) -> None:
        super().__init__(**options)
        self.padding = _four(padding, "padding")

    def output_shape(self, shape: Shape) -> Shape:
        h, w, c = image_shape(self, shape)
        return h + sum(self.padding[0]), w + sum(self.padding[1]), c

    def flops(self, shape: Shape) -> int:
        return 0

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        (top, _), (left, _) = self.padding
        n, h, w, _c = x.shape
        y = ctx.kernels.zeros((n, *self.output_shape(x.shape[1:])), x.dtype)
        y[:, top : top + h, left : left + w] = x
        return y, (h, w)

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        (top, _), (left, _), (h, w) = *self.padding, saved
        return dy[:, top : top + h, left : left + w].copy()


class Cropping2D(Layer):
    """The image without its border. cropping: one number, (rows, columns), or ((top, bottom),
    (left, right)).
    """

    prefix = "cropping2d"

    def __init__(self, cropping: Any = 1, **options: Any) -> None:
        super().__init__(**options)
        self.cropping = _four(cropping, "cropping")

    def output_shape(self, shape: Shape) -> Shape:
        h, w, c = image_shape(self, shape)
        out = h - sum(self.cropping[0]), w - sum(self.cropping[1])
        if min(out) < 1:
            raise ValueError(f"{label(self)} leaves nothing of an image of {h} x {w}")
        return *out, c

    def flops(self, shape: Shape) -> int:
        return 0

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        (top, _), (left, _) = self.cropping
        h, w, _ = self.output_shape(x.shape[1:])
        return x[:, top : top + h, left : left + w].copy(), x.shape

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        (top, _), (left, _) = self.cropping
        dx = ctx.kernels.zeros(saved, dy.dtype)
        dx[:, top : top + dy.shape[1], left : left + dy.shape[2]] = dy
        return dx

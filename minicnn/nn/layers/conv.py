"""Convolutions. Images are NHWC, weights (KH, KW, C_in, C_out) as in Keras."""

from __future__ import annotations

import math
from typing import Any

from ...kernels.shapes import Geometry, pair
from ...kernels.types import Array, Pair, Shape
from .base import Context, Layer, Parameter, image_shape, positive_integer

__all__ = ["Conv2D", "Conv2DTranspose", "DepthwiseConv2D"]


class Conv2D(Layer):
    """2-D convolution (cross-correlation, as Keras) with ``filters`` outputs per position.

    y[i, j, o] = b[o] + sum over (ky, kx, c) of x[i * s + ky * d - top, j * s + kx * d - left, c]
    w[ky, kx, c, o], with strides s and dilation d; kernel_size, strides, dilation: a number or
    (rows, columns). padding: "same" (ceil(H / s) outputs, zeros outside) or "valid". initializer:
    of w, a name out of mc.initializers. (H, W, C) -> (OH, OW, filters).
    """

    prefix = "conv2d"

    def __init__(
        self,
        filters: int,
        kernel_size: Pair,
        strides: Pair = 1,
        padding: str = "valid",
        dilation: Pair = 1,
        initializer: str = "glorot_uniform",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.filters = positive_integer(filters, "filters")
        self.kernel_size, self.initializer = pair(kernel_size, "kernel_size"), initializer
        self.geometry = Geometry(strides, padding, dilation)
        self.strides, self.padding, self.dilation = self.geometry

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        window = (*self.kernel_size, image_shape(self, shape)[2], self.filters)
        return {
            "w": Parameter(window, self.initializer),
            "b": Parameter((self.filters,), "zeros", decay=False),
        }

    def output_shape(self, shape: Shape) -> Shape:
        window = (*self.kernel_size, image_shape(self, shape)[2], self.filters)
        return self.geometry.output((1, *shape), window)[1:]

    def flops(self, shape: Shape) -> int:
        return 2 * math.prod(self.output_shape(shape)) * math.prod(self.kernel_size) * shape[2]

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        w, b = ctx.params["w"], ctx.params["b"]
        return ctx.kernels.conv2d(x, w, b, self.geometry, ctx.workspace), x

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        wanted = ctx.wanted("w", "b")
        return ctx.kernels.conv2d_backward(
            dy, saved, ctx.params["w"], self.geometry, wanted, ctx.workspace
        )[0]


class DepthwiseConv2D(Layer):
    """A convolution of every channel by itself: ``depth_multiplier`` (M) outputs per channel.

    y[i, j, c * M + m] = b[c * M + m] + sum over (ky, kx) of x[i * s + ky * d - top, j * s + kx * d
    - left, c] w[ky, kx, c, m]. (H, W, C) -> (OH, OW, C * M)  (Chollet 2017). kernel_size, strides,
    padding, dilation, initializer: as of Conv2D.
    """

    prefix = "depthwise_conv2d"

    def __init__(
        self,
        kernel_size: Pair,
        strides: Pair = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        dilation: Pair = 1,
        initializer: str = "glorot_uniform",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.kernel_size, self.initializer = pair(kernel_size, "kernel_size"), initializer
        self.geometry = Geometry(strides, padding, dilation)
        self.strides, self.padding, self.dilation = self.geometry
        self.depth_multiplier = positive_integer(depth_multiplier, "depth_multiplier")

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        channels = image_shape(self, shape)[2]
        return {
            "w": Parameter((*self.kernel_size, channels, self.depth_multiplier), self.initializer),
            "b": Parameter((channels * self.depth_multiplier,), "zeros", decay=False),
        }

    def output_shape(self, shape: Shape) -> Shape:
        channels = image_shape(self, shape)[2]
        window = (*self.kernel_size, channels, channels * self.depth_multiplier)
        return self.geometry.output((1, *shape), window)[1:]

    def flops(self, shape: Shape) -> int:
        return 2 * math.prod(self.output_shape(shape)) * math.prod(self.kernel_size)

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        w, b = ctx.params["w"], ctx.params["b"]
        return ctx.kernels.depthwise_conv2d(x, w, b, self.geometry, ctx.workspace), x

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        wanted = ctx.wanted("w", "b")
        return ctx.kernels.depthwise_conv2d_backward(
            dy, saved, ctx.params["w"], self.geometry, wanted, ctx.workspace
        )[0]


class Conv2DTranspose(Layer):
    """The convolution that goes the other way: the input gradient of a Conv2D with these strides.

    Every input pixel adds its window of w (KH, KW, filters, C_in) to the output, ``strides`` apart.
    padding "same": (H, W, C) -> (H * s, W * s, filters); "valid": (H - 1) * s + max(KH, s).
    kernel_size, initializer: as of Conv2D.
    """

    prefix = "conv2d_transpose"

    def __init__(
        self,
        filters: int,
        kernel_size: Pair,
        strides: Pair = 1,
        padding: str = "valid",
        initializer: str = "glorot_uniform",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.filters = positive_integer(filters, "filters")
        self.kernel_size, self.initializer = pair(kernel_size, "kernel_size"), initializer
        self.geometry = Geometry(strides, padding)
        self.strides, self.padding, _ = self.geometry

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        window = (*self.kernel_size, self.filters, image_shape(self, shape)[2])
        return {
            "w": Parameter(window, self.initializer),
            "b": Parameter((self.filters,), "zeros", decay=False),
        }

    def output_shape(self, shape: Shape) -> Shape:
        window = (*self.kernel_size, self.filters, image_shape(self, shape)[2])
        return self.geometry.transposed_output((1, *shape), window)[1:]

    def flops(self, shape: Shape) -> int:
        return 2 * math.prod(shape) * math.prod(self.kernel_size) * self.filters

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        w, b = ctx.params["w"], ctx.params["b"]
        return ctx.kernels.conv2d_transpose(x, w, b, self.geometry, ctx.workspace), x

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        wanted = ctx.wanted("w", "b")
        return ctx.kernels.conv2d_transpose_backward(
            dy, saved, ctx.params["w"], self.geometry, wanted, ctx.workspace
        )[0]

"""Activations, number by number, and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.types import Array, Shape
from .base import Context, Layer, image_shape

__all__ = [
    "ELU",
    "GELU",
    "Activation",
    "Dropout",
    "LeakyReLU",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SpatialDropout2D",
    "Tanh",
]


class ELU(Layer):
    """y = x where x > 0, else alpha (e^x - 1)  (Clevert et al. 2015)."""

    prefix = "elu"

    def __init__(self, alpha: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = float(alpha)

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        y = ctx.kernels.elu(x, self.alpha)
        return y, y

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return ctx.kernels.elu_backward(dy, saved, self.alpha)


class ReLU(Layer):
    """y = max(x, 0)."""

    prefix = "relu"
    alpha = 0.0  # a fused block computes max(x, 0) as an ELU whose negative branch is 0

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        y = ctx.kernels.relu(x)
        return y, y

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return ctx.kernels.relu_backward(dy, saved)


class _Pointwise(Layer):
    """y = function(x) for a function of the kernels' table."""

    function = ""
    alpha = 0.0

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        y = ctx.kernels.activation(x, self.function, self.alpha)
        return y, (x, y)

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return ctx.kernels.activation_backward(dy, *saved, self.function, self.alpha)


class LeakyReLU(_Pointwise):
    """y = x where x > 0, else alpha x  (Maas et al. 2013)."""

    prefix, function = "leaky_relu", "leaky_relu"

    def __init__(self, alpha: float = 0.01, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = float(alpha)


class GELU(_Pointwise):
    """y = x P(X <= x) for a normal X: 0.5 x (1 + erf(x / sqrt 2))  (Hendrycks, Gimpel 2016)."""

    prefix, function = "gelu", "gelu"


class SiLU(_Pointwise):
    """y = x / (1 + e^-x), also called swish  (Elfwing et al. 2018)."""

    prefix, function = "silu", "silu"


class Sigmoid(_Pointwise):
    """y = 1 / (1 + e^-x)."""

    function = "sigmoid"


class Tanh(_Pointwise):
    """y = tanh x."""

    function = "tanh"


class Softplus(_Pointwise):
    """y = log(1 + e^x)."""

    function = "softplus"


class Softmax(Layer):
    """y[c] = e^x[c] / sum of e^x over the last axis. The loss SoftmaxCrossEntropy has its own: do
    not put this layer before it.
    """

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        y = ctx.kernels.softmax(x)
        return y, y

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return ctx.kernels.softmax_backward(dy, saved)


ACTIVATIONS = {
    cls.prefix: cls for cls in (ELU, ReLU, LeakyReLU, GELU, SiLU, Sigmoid, Tanh, Softplus, Softmax)
}


def Activation(function: str, **options: Any) -> Layer:
    """Return the activation layer that ``function`` names: "relu", "elu", "leaky_relu", "gelu",
    "silu", "sigmoid", "tanh", "softplus" or "softmax"; ValueError for another name. ``options`` go
    to the layer (alpha of "elu" and "leaky_relu", name, trainable).
    """
    if function not in ACTIVATIONS:
        raise ValueError(f"unknown activation {function!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[function](**options)


class Dropout(Layer):
    """While training each value is dropped with probability ``rate`` and the others are divided by
    1 - rate  (Srivastava et al. 2014).
    """

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must lie in [0, 1), got {rate}")
        self.rate = float(rate)

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        if not ctx.training or self.rate == 0:
            return x, None
        keep = ctx.kernels.asarray((ctx.random(x.shape) >= self.rate).astype(np.uint8))
        return ctx.kernels.dropout(x, keep, self.rate), keep

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return dy if saved is None else ctx.kernels.dropout(dy, saved, self.rate)


class SpatialDropout2D(Dropout):
    """Dropout of whole channels of an image (Tompson et al. 2015): neighbouring pixels say nearly
    the same, so that dropping some of them hides nothing. rate: the share that is dropped.
    """

    prefix = "spatial_dropout2d"

    def output_shape(self, shape: Shape) -> Shape:
        return image_shape(self, shape)

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        if not ctx.training or self.rate == 0:
            return x, None
        keep = ctx.random((len(x), 1, 1, x.shape[3])) >= self.rate
        scale = ctx.kernels.asarray((keep / (1 - self.rate)).astype(x.dtype))
        return x * scale, scale

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        return dy if saved is None else dy * saved

"""Normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...kernels.arguments import Moments
from ...kernels.types import Array, Shape
from .base import Context, Layer, Parameter

__all__ = ["BatchNormalization", "LayerNormalization"]


class BatchNormalization(Layer):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta, per channel  (Ioffe, Szegedy 2015).

    While training, mean and (biased) variance are those of the batch over all events and positions,
    and the running ones follow: running = momentum * running + (1 - momentum) * batch. Otherwise
    the running ones are used. The batch is this rank's own, so with several ranks a network with
    this layer is not the same as on one rank with all events; running statistics are averaged over
    the ranks at the end of an epoch. All events of a batch run at once.
    """

    prefix = "batch_normalization"
    needs_whole_batch = True

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if not epsilon > 0:
            raise ValueError(f"epsilon must be > 0, got {epsilon}")
        self.momentum, self.epsilon = float(momentum), float(epsilon)

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        channels = shape[-1:]
        return {
            "gamma": Parameter(channels, "ones", decay=False),
            "beta": Parameter(channels, "zeros", decay=False),
        }

    def state(self, shape: Shape) -> dict[str, Parameter]:
        return {"mean": Parameter(shape[-1:], "zeros"), "variance": Parameter(shape[-1:], "ones")}

    def flops(self, shape: Shape) -> int:
        return 2 * math.prod(shape)

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        if ctx.training and self.trainable and len(x) > 0:
            moments = ctx.kernels.channel_moments(x)
            self.follow(ctx, moments)
        else:
            mean, variance = (ctx.state[name].astype(np.float64) for name in ("mean", "variance"))
            moments = Moments(mean, variance, of_batch=False)
        gamma, beta = ctx.params["gamma"], ctx.params["beta"]
        return ctx.kernels.normalize(x, moments, gamma, beta, self.epsilon), (x, moments)

    def follow(self, ctx: Context, moments: Moments) -> None:
        """Let the running statistics, in the Context ``ctx``, follow the ``moments`` of a batch."""
        for name, value in (("mean", moments.mean), ("variance", moments.variance)):
            new = self.momentum * ctx.state[name] + (1 - self.momentum) * value
            ctx.state[name][...] = new.astype(ctx.state[name].dtype)

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        wanted = ctx.wanted("gamma", "beta")
        return ctx.kernels.normalize_backward(
            dy, *saved, ctx.params["gamma"], self.epsilon, wanted
        )[0]


class LayerNormalization(Layer):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta over the channels of every position by
    itself  (Ba, Kiros, Hinton 2016). Independent of the batch and of all other positions.
    """

    def __init__(self, epsilon: float = 1e-3, **options: Any) -> None:
        super().__init__(**options)
        if not epsilon > 0:
            raise ValueError(f"epsilon must be > 0, got {epsilon}")
        self.epsilon = float(epsilon)

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        return {
            "gamma": Parameter(shape[-1:], "ones", decay=False),
            "beta": Parameter(shape[-1:], "zeros", decay=False),
        }

    def flops(self, shape: Shape) -> int:
        return 6 * math.prod(shape)

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        y, mean, inverse_deviation = ctx.kernels.layer_norm(
            x, ctx.params["gamma"], ctx.params["beta"], self.epsilon
        )
        return y, (x, mean, inverse_deviation)

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        wanted = ctx.wanted("gamma", "beta")
        return ctx.kernels.layer_norm_backward(dy, *saved, ctx.params["gamma"], wanted)[0]

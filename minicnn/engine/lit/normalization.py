"""Batch normalisation: the statistics of the batch in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.arguments import Moments
from ...kernels.types import Array
from ...nn.layers import BatchNormalization
from .map import LitGradient, LitMap
from .pixelwise import PixelwiseRule
from .rules import rule_of


@rule_of(BatchNormalization)
class BatchNormalizationRule(PixelwiseRule):
    """With running statistics pixel by pixel. With those of the batch, over P positions of which N
    of each class are at rest,

        mean     = (sum of lit values + sum of N rest) / P
        variance = (sum of (lit value - mean)^2 + sum of N (rest - mean)^2) / P

    and with x^ = (x - mean) / sqrt(variance + epsilon) of lit and of resting positions

        dx = gamma / sqrt(variance + epsilon) (dy - (sum of dy + x^ sum of dy x^) / P)

    where a class at rest has N times what is subtracted, because its dy is a sum.
    """

    def forward(self, *maps: LitMap) -> tuple[LitMap, Any] | None:
        context, layer, (x,) = self.context, self.layer, maps
        if not (context.training and layer.trainable and x.events):
            return super().forward(x)
        positions, resting = self._counts(x)
        values, rest = x.values.astype(np.float64), x.rest.astype(np.float64)
        mean = (values.sum(0) + (resting * rest).sum((0, 1))) / positions
        variance = ((values - mean) ** 2).sum(0) + (resting * (rest - mean) ** 2).sum((0, 1))
        moments = Moments(mean, variance / positions)
        layer.follow(context, moments)
        context.workspace.expire()  # what super() knows of the running statistics
        scale = moments, context.params["gamma"], context.params["beta"], layer.epsilon
        y, at_rest = (context.kernels.normalize(array, *scale) for array in (x.values, x.rest))
        saved = x, mean, 1 / (moments.variance + layer.epsilon) ** 0.5
        return LitMap(x.grid, x.events, x.positions, y, at_rest), saved

    def backward(self, dy: LitGradient, saved: Any) -> tuple[LitGradient | None, ...]:
        if len(saved) > 3:
            return super().backward(dy, saved)
        x, mean, inverse = saved
        context = self.context
        positions, resting = self._counts(x)
        hat, rest_hat = ((array - mean) * inverse for array in (x.values, x.rest))
        sum_dy = dy.values.sum(0, dtype=np.float64) + dy.rest.sum((0, 1))
        sum_dy_hat = (dy.values * hat).sum(0) + (dy.rest * rest_hat).sum((0, 1))
        for name, total in (("gamma", sum_dy_hat), ("beta", sum_dy)):
            context.grads[name] += total.astype(context.grads[name].dtype)
        if not context.need_input_gradient:
            return (None,)
        slope = context.params["gamma"] * inverse
        values = slope * (dy.values - (sum_dy + hat * sum_dy_hat) / positions)
        rest = slope * (dy.rest - resting * (sum_dy + rest_hat * sum_dy_hat) / positions)
        return (LitGradient(values.astype(dy.values.dtype), rest),)

    def _counts(self, x: LitMap) -> tuple[int, Array]:
        """Return how many positions there are, and how many of each class are at rest, (R, S,
        1).
        """
        kernels = self.context.kernels
        ones = kernels.zeros((len(x.positions), 1), x.values.dtype) + x.values.dtype.type(1)
        resting = x.events * x.grid.counts_on_device - x.grid.sums_at(ones, x.positions)
        return x.events * x.grid.size[0] * x.grid.size[1], resting

"""Normalisation: over all positions, per channel (batch normalisation), and over channels, per
position (layer normalisation).
"""

import numpy as np

from ..arguments import Moments, Wanted
from ..types import Array
from .arrays import gradient_targets


def channel_moments(x: Array) -> Moments:
    """mean[c] and variance[c] of x (..., C) over all axes but the last."""
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    mean = flat.mean(0)
    return Moments(mean, np.square(flat - mean).mean(0))


def normalize(x: Array, moments: Moments, gamma: Array, beta: Array, epsilon: float) -> Array:
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta per channel, for x (..., C), gamma
    and beta (C,).

    With the moments of x itself this is batch normalisation (Ioffe, Szegedy 2015,
    arXiv:1502.03167).
    """
    scale = gamma / np.sqrt(moments.variance + epsilon)
    return ((x - moments.mean) * scale + beta).astype(x.dtype)


def normalize_backward(
    dy: Array,
    x: Array,
    moments: Moments,
    gamma: Array,
    epsilon: float,
    wanted: Wanted = Wanted(),
) -> tuple[Array | None, Array, Array]:
    """Gradients of normalize: returns (dx or None, dgamma, dbeta), with x^ = (x - mean) /
    sqrt(variance + epsilon) and P positions:

        dgamma += sum of dy * x^        dbeta += sum of dy
        dx = gamma / sqrt(variance + epsilon) * (dy - (sum of dy + x^ * sum of dy * x^) / P)

    With moments ``of_batch`` the sums in dx are what changes by way of them; else these are
    constants, and dx has no such sums.
    """
    axes = tuple(range(x.ndim - 1))
    inverse = 1 / np.sqrt(moments.variance + epsilon)
    hat = (x - moments.mean) * inverse
    sum_dy, sum_dy_hat = dy.sum(axes, np.float64), (dy * hat).sum(axes, np.float64)
    shapes = gamma.shape, gamma.shape
    dgamma, dbeta = gradient_targets("normalize_backward", wanted, gamma.dtype, *shapes)
    dgamma += sum_dy_hat.astype(dgamma.dtype)
    dbeta += sum_dy.astype(dbeta.dtype)
    if not wanted.dx:
        return None, dgamma, dbeta
    through = 0
    if moments.of_batch:
        through = (sum_dy + hat * sum_dy_hat) / (x.size // x.shape[-1])
    return (gamma * inverse * (dy - through)).astype(x.dtype), dgamma, dbeta


def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """y = gamma * (x - mean) * inverse_deviation + beta, with the mean and inverse_deviation = 1 /
    sqrt(variance + epsilon) of each position's channels (Ba et al. 2016, arXiv:1607.06450).

    x (..., C), gamma and beta (C,) -> (y (..., C), mean (..., 1), inverse_deviation (..., 1)).
    """
    wide = x.astype(np.float64)
    mean = wide.mean(-1, keepdims=True)
    inverse = 1 / np.sqrt(np.square(wide - mean).mean(-1, keepdims=True) + epsilon)
    y = gamma * (wide - mean) * inverse + beta
    return tuple(array.astype(x.dtype) for array in (y, mean, inverse))


def layer_norm_backward(
    dy: Array,
    x: Array,
    mean: Array,
    inverse_deviation: Array,
    gamma: Array,
    wanted: Wanted = Wanted(),
) -> tuple[Array | None, Array, Array]:
    """Gradients of layer_norm: returns (dx or None, dgamma, dbeta), with x^ = (x - mean) *
    inverse_deviation, g = dy * gamma, and means over a position's channels:

        dgamma += sum of dy * x^        dbeta += sum of dy        over all positions
        dx = inverse_deviation * (g - mean of g - x^ * mean of g * x^)
    """
    axes = tuple(range(x.ndim - 1))
    hat = (x - mean) * inverse_deviation
    shapes = gamma.shape, gamma.shape
    dgamma, dbeta = gradient_targets("layer_norm_backward", wanted, gamma.dtype, *shapes)
    dgamma += (dy * hat).sum(axes)
    dbeta += dy.sum(axes)
    if not wanted.dx:
        return None, dgamma, dbeta
    g = dy * gamma
    through = g.mean(-1, keepdims=True) + hat * (g * hat).mean(-1, keepdims=True)
    return inverse_deviation * (g - through), dgamma, dbeta

"""Batch and layer normalisation: sums in float64, of differences from the mean."""

import numpy as np

from ..arguments import Moments, Wanted
from ..types import Array, Kernels
from .checks import check_float32, check_last_axis, check_moments, check_shape, gradient_targets
from .sums import add_spans, channel_sums, spans_of


def _gradient_sums(kernels, dy, x, mean, inverse):
    """Return the sums over positions of dy and of dy * x^, (2, C) float64, for statistics of
    channels (float64) or of positions (float32).
    """
    positions, c = x.shape
    spans, span = spans_of(positions)
    parts = kernels.empty((1, spans, 2 * c), np.float64)
    statistic = "float" if mean.dtype == np.float32 else "double"
    kernels.each(
        "normalization.cu",
        "gradient_sums",
        spans * c,
        dy,
        x,
        mean,
        inverse,
        np.int64(positions),
        c,
        span,
        parts,
        STATISTIC=statistic,
    )
    return add_spans(kernels, parts).reshape(2, c)


def _each(kernels, kernel, n, *args):
    kernels.each("normalization.cu", kernel, n, *args, STATISTIC="double")


def channel_moments(kernels: Kernels, x: Array) -> Moments:
    """mean[c] and variance[c] of x (..., C) float32 over all axes but the last."""
    flat = check_last_axis(
        "channel_moments", "x", check_float32(kernels, "channel_moments", x=x), least=2
    )
    if not flat.size:
        raise ValueError(f"channel_moments needs at least one number, got shape {x.shape}")
    mean = channel_sums(kernels, flat) / len(flat)
    return Moments(mean, channel_sums(kernels, flat, mean, squares=True) / len(flat))


def normalize(
    kernels: Kernels,
    x: Array,
    moments: Moments,
    gamma: Array,
    beta: Array,
    epsilon: float,
) -> Array:
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta per channel, for x (..., C) float32,
    gamma and beta (C,) float32.

    With the moments of x itself this is batch normalisation (Ioffe, Szegedy 2015,
    arXiv:1502.03167).
    """
    x, gamma, beta = check_float32(kernels, "normalize", x=x, gamma=gamma, beta=beta)
    flat = check_last_axis("normalize", "x", x, least=2)
    mean, variance = check_moments(kernels, "normalize", flat, moments)
    check_shape("normalize", "gamma", gamma, mean.shape)
    check_shape("normalize", "beta", beta, mean.shape)
    y = kernels.empty(x.shape)
    scale = gamma / np.sqrt(variance + epsilon)
    _each(kernels, "normalize", y.size, x, mean, scale, beta, x.shape[-1], y)
    return y


def normalize_backward(
    kernels: Kernels,
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
    op = "normalize_backward"
    dy, x, gamma = check_float32(kernels, op, dy=dy, x=x, gamma=gamma)
    flat = check_last_axis(op, "x", x, least=2)
    mean, variance = check_moments(kernels, op, flat, moments)
    check_shape(op, "dy", dy, x.shape)
    check_shape(op, "gamma", gamma, mean.shape)
    dgamma, dbeta = gradient_targets(kernels, op, wanted, dgamma=gamma.shape, dbeta=gamma.shape)
    inverse = 1 / np.sqrt(variance + epsilon)
    sums = _gradient_sums(kernels, dy.reshape(flat.shape), flat, mean, inverse)
    dbeta += sums[0].astype(np.float32)
    dgamma += sums[1].astype(np.float32)
    if not wanted.dx:
        return None, dgamma, dbeta
    sums = sums / len(flat) if moments.of_batch else sums * 0
    dx = kernels.empty(x.shape)
    scale, c = gamma * inverse, x.shape[-1]
    _each(kernels, "normalize_dx", dx.size, dy, x, mean, inverse, scale, sums[0], sums[1], c, dx)
    return dx, dgamma, dbeta


def layer_norm(
    kernels: Kernels, x: Array, gamma: Array, beta: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """y = gamma * (x - mean) * inverse_deviation + beta, with the mean and inverse_deviation = 1 /
    sqrt(variance + epsilon) of each position's channels (Ba et al. 2016, arXiv:1607.06450).

    x (..., C), gamma and beta (C,) -> (y (..., C), mean (..., 1), inverse_deviation (..., 1)), all
    float32.
    """
    x, gamma, beta = check_float32(kernels, "layer_norm", x=x, gamma=gamma, beta=beta)
    rows, c = check_last_axis("layer_norm", "x", x, least=1).shape
    check_shape("layer_norm", "gamma", gamma, (c,))
    check_shape("layer_norm", "beta", beta, (c,))
    y = kernels.empty(x.shape)
    mean, inverse = (kernels.empty((*x.shape[:-1], 1)) for _ in range(2))
    _each(kernels, "layer_norm", rows, x, gamma, beta, c, float(epsilon), y, mean, inverse)
    return y, mean, inverse


def layer_norm_backward(
    kernels: Kernels,
    dy: Array,
    x: Array,
    mean: Array,
    inverse_deviation: Array,
    gamma: Array,
    wanted: Wanted = Wanted(),
) -> tuple[Array | None, Array, Array]:
    """Gradients of layer_norm: returns (dx or None, dgamma, dbeta), all float32, with x^ = (x -
    mean) * inverse_deviation, g = dy * gamma, and means over a position's channels:

        dgamma += sum of dy * x^        dbeta += sum of dy        over all positions
        dx = inverse_deviation * (g - mean of g - x^ * mean of g * x^)
    """
    op = "layer_norm_backward"
    dy, x, mean, inverse_deviation, gamma = check_float32(
        kernels, op, dy=dy, x=x, mean=mean, inverse_deviation=inverse_deviation, gamma=gamma
    )
    flat = check_last_axis(op, "x", x, least=1)
    rows, c = flat.shape
    check_shape(op, "dy", dy, x.shape)
    check_shape(op, "mean", mean, (*x.shape[:-1], 1))
    check_shape(op, "inverse_deviation", inverse_deviation, mean.shape)
    check_shape(op, "gamma", gamma, (c,))
    dgamma, dbeta = gradient_targets(kernels, op, wanted, dgamma=gamma.shape, dbeta=gamma.shape)
    sums = _gradient_sums(kernels, dy.reshape(flat.shape), flat, mean, inverse_deviation)
    dbeta += sums[0].astype(np.float32)
    dgamma += sums[1].astype(np.float32)
    if not wanted.dx:
        return None, dgamma, dbeta
    dx = kernels.empty(x.shape)
    _each(kernels, "layer_norm_dx", rows, dy, x, mean, inverse_deviation, gamma, c, dx)
    return dx, dgamma, dbeta

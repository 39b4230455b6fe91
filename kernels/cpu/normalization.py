"""Batch and layer normalisation: bound by memory. Sums are taken in float64, of differences from
the mean, so that a mean much larger than the deviation costs no digits.
"""

import numpy as np
from numba import prange

from ..arguments import Moments, Wanted
from ..types import Array
from .checks import check_float32, check_last_axis, check_moments, check_shape, gradient_targets
from .jit import VECTOR_CHUNK, threaded


def _rows(x):
    """Return how many rows of x (rows, C) a task has, and the number of tasks: from the shape
    alone, so that sums do not depend on the threads.
    """
    rows = max(1, VECTOR_CHUNK // max(1, x.shape[1]))
    return rows, -(-x.shape[0] // rows)


@threaded
def _sums(x, mean, squares, rows, sums):
    """sums[task] = the sum over the task's rows of x - mean, or of its square."""
    for task in prange(sums.shape[0]):
        to = sums[task]
        for r in range(task * rows, min(x.shape[0], (task + 1) * rows)):
            line = x[r]
            if squares:
                for c in range(line.size):
                    to[c] += (line[c] - mean[c]) * (line[c] - mean[c])
            else:
                for c in range(line.size):
                    to[c] += line[c] - mean[c]


@threaded
def _normalize(x, mean, scale, beta, rows, y):
    for task in prange((x.shape[0] + rows - 1) // rows):
        for r in range(task * rows, min(x.shape[0], (task + 1) * rows)):
            before, after = x[r], y[r]
            for c in range(before.size):
                after[c] = (before[c] - mean[c]) * scale[c] + beta[c]


@threaded
def _gradient_sums(dy, x, mean, inverse, rows, sums):
    """sums[task] = (the sum of dy, the sum of dy * x^) over the task's rows."""
    for task in prange(sums.shape[0]):
        plain, weighted = sums[task, 0], sums[task, 1]
        for r in range(task * rows, min(x.shape[0], (task + 1) * rows)):
            g, line = dy[r], x[r]
            for c in range(g.size):
                plain[c] += g[c]
                weighted[c] += g[c] * ((line[c] - mean[c]) * inverse[c])


@threaded
def _normalize_backward(dy, x, mean, inverse, scale, shift, slope, rows, dx):
    for task in prange((x.shape[0] + rows - 1) // rows):
        for r in range(task * rows, min(x.shape[0], (task + 1) * rows)):
            g, line, to = dy[r], x[r], dx[r]
            for c in range(g.size):
                hat = (line[c] - mean[c]) * inverse[c]
                to[c] = scale[c] * (g[c] - shift[c] - slope[c] * hat)


@threaded
def _layer_norm(x, gamma, beta, epsilon, rows, y, means, inverses):
    count = x.shape[1]
    for task in prange((x.shape[0] + rows - 1) // rows):
        for r in range(task * rows, min(x.shape[0], (task + 1) * rows)):
            before, after = x[r], y[r]
            mean, square = 0.0, 0.0
            for c in range(count):
                mean += before[c]
            mean /= count
            for c in range(count):
                square += (before[c] - mean) * (before[c] - mean)
            inverse = 1 / np.sqrt(square / count + epsilon)
            means[r], inverses[r] = mean, inverse
            for c in range(count):
                after[c] = (before[c] - mean) * inverse * gamma[c] + beta[c]


@threaded
def _layer_norm_backward(dy, x, means, inverses, gamma, rows, sums, dx):
    count = x.shape[1]
    for task in prange(sums.shape[0]):
        plain, weighted = sums[task, 0], sums[task, 1]
        for r in range(task * rows, min(x.shape[0], (task + 1) * rows)):
            g, line = dy[r], x[r]
            mean, inverse = np.float64(means[r]), np.float64(inverses[r])
            shift, slope = 0.0, 0.0
            for c in range(count):
                hat = (line[c] - mean) * inverse
                plain[c] += g[c]
                weighted[c] += g[c] * hat
                shift += g[c] * gamma[c]
                slope += g[c] * gamma[c] * hat
            if dx.size:
                to = dx[r]
                shift, slope = shift / count, slope / count
                for c in range(count):
                    hat = (line[c] - mean) * inverse
                    to[c] = inverse * (g[c] * gamma[c] - shift - hat * slope)


def channel_moments(x: Array) -> Moments:
    """mean[c] and variance[c] of x (..., C) float32 over all axes but the last."""
    flat = check_last_axis("channel_moments", "x", check_float32("channel_moments", x=x), least=2)
    if not flat.size:
        raise ValueError(f"channel_moments needs at least one number, got shape {x.shape}")
    rows, count = _rows(flat)

    def mean_of(mean, squares):
        sums = np.zeros((count, flat.shape[1]))
        _sums(count, flat, mean, squares, rows, sums)
        return np.add.reduce(sums, 0) / len(flat)

    mean = mean_of(np.zeros(flat.shape[1]), False)
    return Moments(mean, mean_of(mean, True))


def normalize(x: Array, moments: Moments, gamma: Array, beta: Array, epsilon: float) -> Array:
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta per channel, for x (..., C) float32,
    gamma and beta (C,) float32.

    With the moments of x itself this is batch normalisation (Ioffe, Szegedy 2015,
    arXiv:1502.03167).
    """
    x, gamma, beta = check_float32("normalize", x=x, gamma=gamma, beta=beta)
    flat = check_last_axis("normalize", "x", x, least=2)
    mean, variance = check_moments("normalize", flat, moments)
    check_shape("normalize", "gamma", gamma, mean.shape)
    check_shape("normalize", "beta", beta, mean.shape)
    rows, count = _rows(flat)
    y = np.empty_like(x)
    scale = gamma / np.sqrt(variance + epsilon)
    _normalize(count, flat, mean, scale, beta, rows, y.reshape(flat.shape))
    return y


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
    op = "normalize_backward"
    dy, x, gamma = check_float32(op, dy=dy, x=x, gamma=gamma)
    flat = check_last_axis(op, "x", x, least=2)
    mean, variance = check_moments(op, flat, moments)
    check_shape(op, "dy", dy, x.shape)
    check_shape(op, "gamma", gamma, mean.shape)
    dgamma, dbeta = gradient_targets(op, wanted, dgamma=gamma.shape, dbeta=gamma.shape)
    inverse, g = 1 / np.sqrt(variance + epsilon), dy.reshape(flat.shape)
    rows, count = _rows(flat)
    sums = np.zeros((count, 2, flat.shape[1]))
    _gradient_sums(count, g, flat, mean, inverse, rows, sums)
    sum_dy, sum_dy_hat = np.add.reduce(sums, 0)
    dgamma += sum_dy_hat
    dbeta += sum_dy
    if not wanted.dx:
        return None, dgamma, dbeta
    positions = max(1, len(flat)) if moments.of_batch else np.inf
    dx = np.empty_like(x)
    shift, slope = sum_dy / positions, sum_dy_hat / positions
    _normalize_backward(
        count,
        g,
        flat,
        mean,
        inverse,
        gamma * inverse,
        shift,
        slope,
        rows,
        dx.reshape(flat.shape),
    )
    return dx, dgamma, dbeta


def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """y = gamma * (x - mean) * inverse_deviation + beta, with the mean and inverse_deviation = 1 /
    sqrt(variance + epsilon) of each position's channels (Ba et al. 2016, arXiv:1607.06450).

    x (..., C), gamma and beta (C,) -> (y (..., C), mean (..., 1), inverse_deviation (..., 1)), all
    float32.
    """
    x, gamma, beta = check_float32("layer_norm", x=x, gamma=gamma, beta=beta)
    flat = check_last_axis("layer_norm", "x", x, least=1)
    check_shape("layer_norm", "gamma", gamma, flat.shape[1:])
    check_shape("layer_norm", "beta", beta, flat.shape[1:])
    y = np.empty_like(x)
    mean, inverse = (np.empty((*x.shape[:-1], 1), np.float32) for _ in range(2))
    rows, count = _rows(flat)
    _layer_norm(
        count,
        flat,
        gamma,
        beta,
        float(epsilon),
        rows,
        y.reshape(flat.shape),
        mean.reshape(-1),
        inverse.reshape(-1),
    )
    return y, mean, inverse


def layer_norm_backward(
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
        op, dy=dy, x=x, mean=mean, inverse_deviation=inverse_deviation, gamma=gamma
    )
    flat = check_last_axis(op, "x", x, least=1)
    check_shape(op, "dy", dy, x.shape)
    check_shape(op, "mean", mean, (*x.shape[:-1], 1))
    check_shape(op, "inverse_deviation", inverse_deviation, mean.shape)
    check_shape(op, "gamma", gamma, flat.shape[1:])
    dgamma, dbeta = gradient_targets(op, wanted, dgamma=gamma.shape, dbeta=gamma.shape)
    rows, count = _rows(flat)
    sums = np.zeros((count, 2, flat.shape[1]))
    dx = np.empty(x.shape if wanted.dx else 0, np.float32)
    _layer_norm_backward(
        count,
        dy.reshape(flat.shape),
        flat,
        mean.reshape(-1),
        inverse_deviation.reshape(-1),
        gamma,
        rows,
        sums,
        dx.reshape(flat.shape if wanted.dx else (0, 0)),
    )
    sum_dy, sum_dy_hat = np.add.reduce(sums, 0)
    dgamma += sum_dy_hat
    dbeta += sum_dy
    return dx if wanted.dx else None, dgamma, dbeta

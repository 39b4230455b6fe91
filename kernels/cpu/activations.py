"""ELU, ReLU, dropout and the activations of one table: elementwise, bound by memory, so one pass
each.
"""

import math

import numpy as np
from numba import prange

from ..types import Array
from .checks import as_contiguous, check_float32, check_shape
from .elementary import ONE, ZERO, activate, exp, expm1, slope
from .jit import VECTOR_CHUNK, jit, tasks, threaded, vector_chunk


@threaded
def _elu(x, alpha, y):
    for task in prange((x.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
        before, after = vector_chunk(x, task), vector_chunk(y, task)
        for i in range(before.size):
            after[i] = activate(before[i], alpha)


@threaded
def _elu_backward(dy, y, alpha, dx):
    for task in prange((y.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
        g, after, to = vector_chunk(dy, task), vector_chunk(y, task), vector_chunk(dx, task)
        for i in range(g.size):
            to[i] = g[i] * slope(after[i], alpha)


@threaded
def _relu(x, y):
    for task in prange((x.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
        before, after = vector_chunk(x, task), vector_chunk(y, task)
        for i in range(before.size):
            after[i] = before[i] if before[i] > ZERO else ZERO


@threaded
def _relu_backward(dy, y, dx):
    for task in prange((y.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
        g, after, to = vector_chunk(dy, task), vector_chunk(y, task), vector_chunk(dx, task)
        for i in range(g.size):
            to[i] = g[i] if after[i] > ZERO else ZERO


@threaded
def _dropout(x, keep, scale, y):
    for task in prange((x.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
        before, kept, after = vector_chunk(x, task), vector_chunk(keep, task), vector_chunk(y, task)
        for i in range(before.size):
            after[i] = before[i] * kept[i] * scale


def elu(x: Array, alpha: float = 1.0) -> Array:
    """y = x where x > 0, else alpha * (exp(x) - 1)  (Clevert et al. 2015, arXiv:1511.07289); alpha
    0 is relu. float32, any shape.
    """
    x = check_float32("elu", x=x)
    y = np.empty_like(x)
    _elu(tasks(x.size), x.reshape(-1), np.float32(alpha), y.reshape(-1))
    return y


def elu_backward(dy: Array, y: Array, alpha: float = 1.0) -> Array:
    """dx = dy where y > 0, else dy * (y + alpha): the derivative written in terms of the output.
    float32, any shape.
    """
    dy, y = check_float32("elu_backward", dy=dy, y=y)
    check_shape("elu_backward", "dy", dy, y.shape)
    dx = np.empty_like(dy)
    _elu_backward(tasks(y.size), dy.reshape(-1), y.reshape(-1), np.float32(alpha), dx.reshape(-1))
    return dx


def relu(x: Array) -> Array:
    """y = max(x, 0). float32, any shape."""
    x = check_float32("relu", x=x)
    y = np.empty_like(x)
    _relu(tasks(x.size), x.reshape(-1), y.reshape(-1))
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """dx = dy where y > 0, else 0. float32, any shape."""
    dy, y = check_float32("relu_backward", dy=dy, y=y)
    check_shape("relu_backward", "dy", dy, y.shape)
    dx = np.empty_like(dy)
    _relu_backward(tasks(y.size), dy.reshape(-1), y.reshape(-1), dx.reshape(-1))
    return dx


def dropout(x: Array, keep: Array, rate: float) -> Array:
    """y = x * keep / (1 - rate) for a mask ``keep`` of 0 and 1 with the shape of x; its own
    backward with dy for x.
    """
    x = check_float32("dropout", x=x)
    check_shape("dropout", "keep", keep, x.shape)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout needs a rate from 0 to below 1, got {rate!r}")
    y = np.empty_like(x)
    _dropout(
        tasks(x.size),
        x.reshape(-1),
        as_contiguous(keep, np.float32).reshape(-1),
        np.float32(1 / (1 - rate)),
        y.reshape(-1),
    )
    return y


# ------------------------------------------------------------------------ the table of activations
HALF, TWO = np.float32(0.5), np.float32(2)
ROOT_HALF = np.float32(math.sqrt(0.5))
DENSITY = np.float32(1 / math.sqrt(2 * math.pi))  # of the normal distribution, at 0


@jit
def _leaky_relu(x, alpha):
    return x if x > ZERO else alpha * x


@jit
def _leaky_relu_slope(x, y, alpha):
    return ONE if x > ZERO else alpha


@jit
def _normal_distribution(x):
    # By erfc: 1 + erf(x) has no digits left for x far below 0.
    return HALF * np.float32(math.erfc(-x * ROOT_HALF))


@jit
def _gelu(x, alpha):
    return x * _normal_distribution(x)


@jit
def _gelu_slope(x, y, alpha):
    return _normal_distribution(x) + x * DENSITY * exp(-HALF * x * x)


@jit
def _sigmoid(x, alpha):
    small = exp(-abs(x))  # <= 1: nothing overflows
    return (ONE if x >= ZERO else small) / (ONE + small)


@jit
def _sigmoid_slope(x, y, alpha):
    return y * _sigmoid(-x, alpha)


@jit
def _silu(x, alpha):
    return x * _sigmoid(x, alpha)


@jit
def _silu_slope(x, y, alpha):
    return _sigmoid(x, alpha) * (ONE + x * _sigmoid(-x, alpha))


@jit
def _tanh(x, alpha):
    t = expm1(-TWO * abs(x))  # in [-1, 0]: exact to the last digit also near 0
    t = -t / (TWO + t)
    return t if x >= ZERO else -t


@jit
def _tanh_slope(x, y, alpha):
    return (ONE - y) * (ONE + y)


@jit
def _softplus(x, alpha):
    return (x if x > ZERO else ZERO) + np.float32(math.log1p(exp(-abs(x))))


@jit
def _softplus_slope(x, y, alpha):
    return _sigmoid(x, alpha)


def _forward(value):
    """Return the compiled loop y = value(x, alpha)."""

    @threaded
    def loop(x, alpha, y):
        for task in prange((x.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
            before, after = vector_chunk(x, task), vector_chunk(y, task)
            for i in range(before.size):
                after[i] = value(before[i], alpha)

    return loop


def _backward(derivative):
    """Return the compiled loop dx = dy * derivative(x, y, alpha)."""

    @threaded
    def loop(dy, x, y, alpha, dx):
        for task in prange((x.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
            g, before, after, to = (
                vector_chunk(dy, task),
                vector_chunk(x, task),
                vector_chunk(y, task),
                vector_chunk(dx, task),
            )
            for i in range(g.size):
                to[i] = g[i] * derivative(before[i], after[i], alpha)

    return loop


#: {name: (loop of y = f(x, alpha), loop of dx = dy * f'(x, y, alpha))}: what ``activation`` knows.
ACTIVATIONS = {
    name: (_forward(value), _backward(derivative))
    for name, value, derivative in (
        ("leaky_relu", _leaky_relu, _leaky_relu_slope),
        ("gelu", _gelu, _gelu_slope),
        ("silu", _silu, _silu_slope),
        ("sigmoid", _sigmoid, _sigmoid_slope),
        ("tanh", _tanh, _tanh_slope),
        ("softplus", _softplus, _softplus_slope),
    )
}


def _loops(op, function):
    if function not in ACTIVATIONS:
        raise ValueError(f"{op} knows {', '.join(ACTIVATIONS)}, got {function!r}")
    return ACTIVATIONS[function]


def activation(x: Array, function: str, alpha: float = 0.0) -> Array:
    """y = function(x), float32, any shape, elementwise and safe for large |x|:

    leaky_relu  x where x > 0, else alpha * x       (Maas et al. 2013)
    gelu        x * (1 + erf(x / sqrt(2))) / 2      (Hendrycks, Gimpel 2016, arXiv:1606.08415)
    silu        x * sigmoid(x)                      (ibid.; Ramachandran et al. 2017, swish)
    sigmoid     1 / (1 + exp(-x))
    tanh        (exp(x) - exp(-x)) / (exp(x) + exp(-x))
    softplus    log(1 + exp(x))                     (Dugas et al. 2001)
    """
    x, (loop, _) = check_float32("activation", x=x), _loops("activation", function)
    y = np.empty_like(x)
    loop(tasks(x.size), x.reshape(-1), np.float32(alpha), y.reshape(-1))
    return y


def activation_backward(dy: Array, x: Array, y: Array, function: str, alpha: float = 0.0) -> Array:
    """dx = dy * function'(x), where y = function(x); float32, any shape."""
    op = "activation_backward"
    dy, x, y = check_float32(op, dy=dy, x=x, y=y)
    check_shape(op, "dy", dy, x.shape)
    check_shape(op, "y", y, x.shape)
    dx, (_, loop) = np.empty_like(x), _loops(op, function)
    loop(
        tasks(x.size),
        dy.reshape(-1),
        x.reshape(-1),
        y.reshape(-1),
        np.float32(alpha),
        dx.reshape(-1),
    )
    return dx

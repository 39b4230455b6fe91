"""Activations and dropout: elementwise, any shape."""

import math

import numpy as np

from ..types import Array


def elu(x: Array, alpha: float = 1.0) -> Array:
    """y = x where x > 0, else alpha * (exp(x) - 1)  (Clevert et al. 2015, arXiv:1511.07289); alpha
    0 is relu.
    """
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))).astype(x.dtype)


def elu_backward(dy: Array, y: Array, alpha: float = 1.0) -> Array:
    """dx = dy where y > 0, else dy * (y + alpha): the derivative written in terms of the output."""
    return (dy * np.where(y > 0, 1, y + alpha)).astype(dy.dtype)


def relu(x: Array) -> Array:
    """y = max(x, 0)."""
    return np.maximum(x, 0)


def relu_backward(dy: Array, y: Array) -> Array:
    """dx = dy where y > 0, else 0."""
    return np.where(y > 0, dy, 0).astype(dy.dtype)


def dropout(x: Array, keep: Array, rate: float) -> Array:
    """y = x * keep / (1 - rate) for a mask ``keep`` of 0 and 1 with the shape of x; its own
    backward with dy for x.
    """
    return (x * keep * (1 / (1 - rate))).astype(x.dtype)


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(x):
    small = np.exp(-np.abs(x))  # <= 1: nothing overflows
    return np.where(x >= 0, 1, small) / (1 + small)


def _normal_density(x):
    return np.exp(-0.5 * np.square(x)) / math.sqrt(2 * math.pi)


def _normal_distribution(x):
    return 0.5 * _erfc(-x / math.sqrt(2))  # by erfc: 1 + erf(x) has no digits left for x << 0


#: {name: (y of (x, alpha), dy/dx of (x, y, alpha))}: what ``activation`` knows.
ACTIVATIONS = {
    "leaky_relu": (
        lambda x, alpha: np.where(x > 0, x, alpha * x),
        lambda x, y, alpha: np.where(x > 0, 1, alpha),
    ),
    "gelu": (
        lambda x, alpha: x * _normal_distribution(x),
        lambda x, y, alpha: _normal_distribution(x) + x * _normal_density(x),
    ),
    "silu": (
        lambda x, alpha: x * _sigmoid(x),
        lambda x, y, alpha: _sigmoid(x) * (1 + x * _sigmoid(-x)),
    ),
    "sigmoid": (lambda x, alpha: _sigmoid(x), lambda x, y, alpha: y * _sigmoid(-x)),
    "tanh": (lambda x, alpha: np.tanh(x), lambda x, y, alpha: (1 - y) * (1 + y)),
    "softplus": (
        lambda x, alpha: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        lambda x, y, alpha: _sigmoid(x),
    ),
}


def _functions(op, function):
    if function not in ACTIVATIONS:
        raise ValueError(f"{op} knows {', '.join(ACTIVATIONS)}, got {function!r}")
    return ACTIVATIONS[function]


def activation(x: Array, function: str, alpha: float = 0.0) -> Array:
    """y = function(x), any shape, elementwise and safe for large |x|:

    leaky_relu  x where x > 0, else alpha * x       (Maas et al. 2013)
    gelu        x * (1 + erf(x / sqrt(2))) / 2      (Hendrycks, Gimpel 2016, arXiv:1606.08415)
    silu        x * sigmoid(x)                      (ibid.; Ramachandran et al. 2017, swish)
    sigmoid     1 / (1 + exp(-x))
    tanh        (exp(x) - exp(-x)) / (exp(x) + exp(-x))
    softplus    log(1 + exp(x))                     (Dugas et al. 2001)
    """
    return _functions("activation", function)[0](x, alpha).astype(x.dtype)


def activation_backward(dy: Array, x: Array, y: Array, function: str, alpha: float = 0.0) -> Array:
    """dx = dy * function'(x), where y = function(x); any shape."""
    return (dy * _functions("activation_backward", function)[1](x, y, alpha)).astype(dy.dtype)

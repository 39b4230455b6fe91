"""Activations and dropout: one thread per element."""

import numpy as np

from ..types import Array, Kernels
from .checks import check_float32, check_shape, contiguous


def elu(kernels: Kernels, x: Array, alpha: float = 1.0) -> Array:
    """y = x where x > 0, else alpha * (exp(x) - 1)  (Clevert et al. 2015, arXiv:1511.07289); alpha
    0 is relu. float32, any shape.
    """
    x = check_float32(kernels, "elu", x=x)
    y = kernels.empty(x.shape)
    kernels.each("activations.cu", "elu", x.size, x, float(alpha), y)
    return y


def elu_backward(kernels: Kernels, dy: Array, y: Array, alpha: float = 1.0) -> Array:
    """dx = dy where y > 0, else dy * (y + alpha): the derivative written in terms of the output.
    float32, any shape.
    """
    dy, y = check_float32(kernels, "elu_backward", dy=dy, y=y)
    check_shape("elu_backward", "dy", dy, y.shape)
    dx = kernels.empty(dy.shape)
    kernels.each("activations.cu", "elu_backward", y.size, dy, y, float(alpha), dx)
    return dx


def relu(kernels: Kernels, x: Array) -> Array:
    """y = max(x, 0). float32, any shape."""
    x = check_float32(kernels, "relu", x=x)
    y = kernels.empty(x.shape)
    kernels.each("activations.cu", "relu", x.size, x, y)
    return y


def relu_backward(kernels: Kernels, dy: Array, y: Array) -> Array:
    """dx = dy where y > 0, else 0. float32, any shape."""
    dy, y = check_float32(kernels, "relu_backward", dy=dy, y=y)
    check_shape("relu_backward", "dy", dy, y.shape)
    dx = kernels.empty(dy.shape)
    kernels.each("activations.cu", "relu_backward", y.size, dy, y, dx)
    return dx


def dropout(kernels: Kernels, x: Array, keep: Array, rate: float) -> Array:
    """y = x * keep / (1 - rate) for a mask ``keep`` of 0 and 1 with the shape of x; its own
    backward with dy for x.
    """
    x = check_float32(kernels, "dropout", x=x)
    check_shape("dropout", "keep", keep, x.shape)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout needs a rate from 0 to below 1, got {rate!r}")
    y = kernels.empty(x.shape)
    kernels.each(
        "activations.cu",
        "dropout",
        x.size,
        x,
        contiguous(keep.astype(np.uint8)),
        float(1 / (1 - rate)),
        y,
    )
    return y


#: {name: (y of x and alpha, dy/dx of x, y and alpha)} as C++, by way of the functions of
#: activation.cu: what ``activation`` knows.
ACTIVATIONS = {
    "leaky_relu": ("x > 0 ? x : alpha * x", "x > 0 ? 1.f : alpha"),
    "gelu": ("x * normal_distribution(x)", "normal_distribution(x) + x * normal_density(x)"),
    "silu": ("x * sigmoid(x)", "sigmoid(x) * (1 + x * sigmoid(-x))"),
    "sigmoid": ("sigmoid(x)", "y * sigmoid(-x)"),
    "tanh": ("tanhf(x)", "(1 - y) * (1 + y)"),
    "softplus": ("fmaxf(x, 0) + log1pf(expf(-fabsf(x)))", "sigmoid(x)"),
}


def formulas(function: str) -> dict[str, str]:
    """Return the constants of activation.cu for the function ``function``."""
    return dict(zip(("FORWARD", "DERIVATIVE"), ACTIVATIONS[function]))


def _formulas(op, function):
    if function not in ACTIVATIONS:
        raise ValueError(f"{op} knows {', '.join(ACTIVATIONS)}, got {function!r}")
    return formulas(function)


def activation(kernels: Kernels, x: Array, function: str, alpha: float = 0.0) -> Array:
    """y = function(x), float32, any shape, elementwise and safe for large |x|:

    leaky_relu  x where x > 0, else alpha * x       (Maas et al. 2013)
    gelu        x * (1 + erf(x / sqrt(2))) / 2      (Hendrycks, Gimpel 2016, arXiv:1606.08415)
    silu        x * sigmoid(x)                      (ibid.; Ramachandran et al. 2017, swish)
    sigmoid     1 / (1 + exp(-x))
    tanh        (exp(x) - exp(-x)) / (exp(x) + exp(-x))
    softplus    log(1 + exp(x))                     (Dugas et al. 2001)
    """
    x, constants = check_float32(kernels, "activation", x=x), _formulas("activation", function)
    y = kernels.empty(x.shape)
    kernels.each("activation.cu", "activation", x.size, x, float(alpha), y, **constants)
    return y


def activation_backward(
    kernels: Kernels, dy: Array, x: Array, y: Array, function: str, alpha: float = 0.0
) -> Array:
    """dx = dy * function'(x), where y = function(x); float32, any shape."""
    op = "activation_backward"
    dy, x, y = check_float32(kernels, op, dy=dy, x=x, y=y)
    check_shape(op, "dy", dy, x.shape)
    check_shape(op, "y", y, x.shape)
    constants, dx = _formulas(op, function), kernels.empty(x.shape)
    kernels.each(
        "activation.cu", "activation_backward", x.size, dy, x, y, float(alpha), dx, **constants
    )
    return dx

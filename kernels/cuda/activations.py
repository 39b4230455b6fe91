"""Activations and dropout: one thread per element."""

import numpy as np

from .checks import contiguous, floats, shaped


def elu(k, x, alpha=1.0):
    """y = x where x > 0, else alpha * (exp(x) - 1)  (Clevert et al. 2015, arXiv:1511.07289); alpha
    0 is relu. float32, any shape.
    """
    x = floats(k, "elu", x=x)
    y = k.empty(x.shape)
    k.each("activations.cu", "elu", x.size, x, float(alpha), y)
    return y


def elu_backward(k, dy, y, alpha=1.0):
    """dx = dy where y > 0, else dy * (y + alpha): the derivative written in terms of the output.
    float32, any shape.
    """
    dy, y = floats(k, "elu_backward", dy=dy, y=y)
    shaped("elu_backward", "dy", dy, y.shape)
    dx = k.empty(dy.shape)
    k.each("activations.cu", "elu_backward", y.size, dy, y, float(alpha), dx)
    return dx


def relu(k, x):
    """y = max(x, 0). float32, any shape."""
    x = floats(k, "relu", x=x)
    y = k.empty(x.shape)
    k.each("activations.cu", "relu", x.size, x, y)
    return y


def relu_backward(k, dy, y):
    """dx = dy where y > 0, else 0. float32, any shape."""
    dy, y = floats(k, "relu_backward", dy=dy, y=y)
    shaped("relu_backward", "dy", dy, y.shape)
    dx = k.empty(dy.shape)
    k.each("activations.cu", "relu_backward", y.size, dy, y, dx)
    return dx


def dropout(k, x, keep, rate):
    """y = x * keep / (1 - rate) for a mask ``keep`` of 0 and 1 with the shape of x; its own
    backward with dy for x.
    """
    x = floats(k, "dropout", x=x)
    shaped("dropout", "keep", keep, x.shape)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout needs a rate from 0 to below 1, got {rate!r}")
    y = k.empty(x.shape)
    k.each(
        "activations.cu",
        "dropout",
        x.size,
        x,
        contiguous(keep.astype(np.uint8)),
        float(1 / (1 - rate)),
        y,
    )
    return y

"""Softmax over the last axis."""

from ..types import Array
from .checks import check_last_axis, floats, shaped


def softmax(k, x: Array) -> Array:
    """y = exp(x) / sum of exp(x) over the last axis, with the largest x subtracted first, so that
    nothing overflows. x (..., C) float32 -> y (..., C).
    """
    x = floats(k, "softmax", x=x)
    rows, c = check_last_axis("softmax", "x", x, least=1).shape
    y = k.empty(x.shape)
    k.each("softmax.cu", "softmax", rows, x, c, y)
    return y


def softmax_backward(k, dy: Array, y: Array) -> Array:
    """dx = y * (dy - sum of dy * y over the last axis), for dy and y (..., C) float32."""
    dy, y = floats(k, "softmax_backward", dy=dy, y=y)
    shaped("softmax_backward", "dy", dy, y.shape)
    rows, c = check_last_axis("softmax_backward", "y", y, least=1).shape
    dx = k.empty(y.shape)
    k.each("softmax.cu", "softmax_backward", rows, dy, y, c, dx)
    return dx

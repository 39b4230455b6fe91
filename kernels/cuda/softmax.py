"""Softmax over the last axis."""

from ..types import Array, Kernels
from .checks import check_float32, check_last_axis, check_shape


def softmax(kernels: Kernels, x: Array) -> Array:
    """y = exp(x) / sum of exp(x) over the last axis, with the largest x subtracted first, so that
    nothing overflows. x (..., C) float32 -> y (..., C).
    """
    x = check_float32(kernels, "softmax", x=x)
    rows, c = check_last_axis("softmax", "x", x, least=1).shape
    y = kernels.empty(x.shape)
    kernels.each("softmax.cu", "softmax", rows, x, c, y)
    return y


def softmax_backward(kernels: Kernels, dy: Array, y: Array) -> Array:
    """dx = y * (dy - sum of dy * y over the last axis), for dy and y (..., C) float32."""
    dy, y = check_float32(kernels, "softmax_backward", dy=dy, y=y)
    check_shape("softmax_backward", "dy", dy, y.shape)
    rows, c = check_last_axis("softmax_backward", "y", y, least=1).shape
    dx = kernels.empty(y.shape)
    kernels.each("softmax.cu", "softmax_backward", rows, dy, y, c, dx)
    return dx

"""Enlarging an image by repeating its pixels."""

from ..shapes import pair, upsampled
from ..types import Array, Kernels, Pair
from .checks import check_float32
from .pool2d import window_sums


def upsample2d(kernels: Kernels, x: Array, size: Pair) -> Array:
    """y[n, i, j, c] = x[n, i // SH, j // SW, c]: nearest neighbour. x (N, H, W, C) float32 -> y (N,
    H * SH, W * SW, C).
    """
    x = check_float32(kernels, "upsample2d", x=x)
    size = pair(size, "size")
    y = kernels.empty(upsampled(x.shape, size))
    kernels.each("upsample2d.cu", "upsample2d", y.size, x, *x.shape[1:], *size, y)
    return y


def upsample2d_backward(kernels: Kernels, dy: Array, size: Pair) -> Array:
    """dx[n, i, j, c] = sum of dy over the SH x SW copies of pixel (i, j). dy (N, H * SH, W * SW, C)
    float32 -> dx (N, H, W, C).
    """
    dy = check_float32(kernels, "upsample2d_backward", dy=dy)
    size = pair(size, "size")
    return window_sums(kernels, dy, size, size, 1.0, upsampled(dy.shape, size, back=True))

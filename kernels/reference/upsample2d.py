"""Enlarging an image by repeating its pixels."""

import numpy as np

from ..shapes import pair
from ..types import Array, Pair


def upsample2d(x: Array, size: Pair) -> Array:
    """y[n, i, j, c] = x[n, i // SH, j // SW, c]: nearest neighbour. x (N, H, W, C) -> y (N, H * SH,
    W * SW, C).
    """
    size = pair(size, "size")
    return np.repeat(np.repeat(x, size[0], 1), size[1], 2)


def upsample2d_backward(dy: Array, size: Pair) -> Array:
    """dx[n, i, j, c] = sum of dy over the SH x SW copies of pixel (i, j). dy (N, H * SH, W * SW, C)
    -> dx (N, H, W, C).
    """
    size = pair(size, "size")
    n, h, w, c = dy.shape
    return dy.reshape(n, h // size[0], size[0], w // size[1], size[1], c).sum((2, 4))

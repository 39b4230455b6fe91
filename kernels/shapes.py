"""Output sizes and padding, integers only: the one place where every backend learns how large a
result is.

Arguments are tuples: the functions are pure and remember their results, because every kernel call
asks.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from .types import Pair, Shape


def pair(value: Pair, name: str = "value") -> tuple[int, int]:
    """Return ``value`` as two positive ints (rows, columns); one int stands for both."""
    both: Any = (value, value) if np.isscalar(value) else value
    a, b = both
    if int(a) != a or int(b) != b or min(a, b) < 1:
        raise ValueError(f"{name} must be one or two positive integers, got {value!r}")
    return int(a), int(b)


def same_or_valid(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Return (before, after) zero padding of one axis, as Keras: "same" gives ceil(size / stride)
    outputs, extra goes after.
    """
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2
    raise ValueError(f'padding must be "same" or "valid", got {padding!r}')


@lru_cache(maxsize=1024)
def conv_padding(
    x_shape: Shape,
    w_shape: Shape,
    stride: tuple[int, int],
    padding: str,
    dilation: tuple[int, int] = (1, 1),
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ((top, bottom), (left, right)) for x (N, H, W, C_in) and w (KH, KW, C_in, C_out)."""
    rows, columns = (
        same_or_valid(x_shape[1 + i], effective_kernel(w_shape[i], dilation[i]), stride[i], padding)
        for i in (0, 1)
    )
    return rows, columns


def effective_kernel(kernel: int, dilation: int) -> int:
    """Return how many pixels a kernel reaches over whose taps are ``dilation`` apart."""
    return (kernel - 1) * dilation + 1


def _conv_size(
    x_shape: Shape,
    w_shape: Shape,
    stride: tuple[int, int],
    padding: str,
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """Return (OH, OW) of a convolution; raises ValueError where nothing would remain."""
    pads = conv_padding(x_shape, w_shape, stride, padding, dilation)
    reach = [effective_kernel(w_shape[i], dilation[i]) for i in (0, 1)]
    size = [(x_shape[1 + i] + sum(pads[i]) - reach[i]) // stride[i] + 1 for i in (0, 1)]
    if min(size) < 1:
        raise ValueError(
            f"a {reach[0]} x {reach[1]} kernel does not fit into an image of "
            f"{x_shape[1]} x {x_shape[2]}"
        )
    return size[0], size[1]


@lru_cache(maxsize=1024)
def conv_output(
    x_shape: Shape,
    w_shape: Shape,
    stride: tuple[int, int],
    padding: str,
    dilation: tuple[int, int] = (1, 1),
) -> Shape:
    """Return (N, OH, OW, C_out) of a convolution; raises ValueError where channels differ or
    nothing would remain.
    """
    if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != w_shape[2]:
        raise ValueError(
            f"conv2d needs x (N, H, W, C_in) and w (KH, KW, C_in, C_out), got {x_shape} and {w_shape}"
        )
    return x_shape[0], *_conv_size(x_shape, w_shape, stride, padding, dilation), w_shape[3]


@lru_cache(maxsize=1024)
def depthwise_output(
    x_shape: Shape,
    w_shape: Shape,
    stride: tuple[int, int],
    padding: str,
    dilation: tuple[int, int] = (1, 1),
) -> Shape:
    """Return (N, OH, OW, C * M) of a depthwise convolution with w (KH, KW, C, M); raises ValueError
    as conv_output does.
    """
    if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != w_shape[2]:
        raise ValueError(
            f"depthwise_conv2d needs x (N, H, W, C) and w (KH, KW, C, M), got {x_shape} and {w_shape}"
        )
    size = _conv_size(x_shape, w_shape, stride, padding, dilation)
    return x_shape[0], *size, w_shape[2] * w_shape[3]


@lru_cache(maxsize=1024)
def conv_transpose_output(
    x_shape: Shape, w_shape: Shape, stride: tuple[int, int], padding: str
) -> Shape:
    """Return (N, OH, OW, C_out) of a transposed convolution with w (KH, KW, C_out, C_in), as Keras:
    "same" gives size * stride, "valid" size * stride + max(kernel - stride, 0).

    A convolution of the result's shape with this kernel, stride and padding has x's shape.
    """
    if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != w_shape[3]:
        raise ValueError(
            "conv2d_transpose needs x (N, H, W, C_in) and w (KH, KW, C_out, C_in), got "
            f"{x_shape} and {w_shape}"
        )
    if padding not in ("same", "valid"):
        raise ValueError(f'padding must be "same" or "valid", got {padding!r}')
    more = [max(w_shape[i] - stride[i], 0) if padding == "valid" else 0 for i in (0, 1)]
    size = [x_shape[1 + i] * stride[i] + more[i] for i in (0, 1)]
    return x_shape[0], *size, w_shape[2]


@lru_cache(maxsize=1024)
def pool_output(x_shape: Shape, size: tuple[int, int], stride: tuple[int, int]) -> Shape:
    """Return (N, OH, OW, C) of a floor pooling; raises ValueError where the window is larger than
    the image.
    """
    if len(x_shape) != 4:
        raise ValueError(f"pooling needs x (N, H, W, C), got {x_shape}")
    out = [(x_shape[1 + i] - size[i]) // stride[i] + 1 for i in (0, 1)]
    if min(out) < 1:
        raise ValueError(
            f"a {size[0]} x {size[1]} pooling window does not fit into an image of {x_shape[1]} x {x_shape[2]}"
        )
    return x_shape[0], *out, x_shape[3]


@lru_cache(maxsize=1024)
def upsampled(shape: Shape, size: tuple[int, int], back: bool = False) -> Shape:
    """Return (N, H * SH, W * SW, C) for an image (N, H, W, C), or ``back`` the shape that this one
    came from; raises ValueError where there is none.
    """
    if len(shape) != 4:
        raise ValueError(f"upsampling needs images (N, H, W, C), got {shape}")
    n, h, w, c = shape
    if not back:
        return n, h * size[0], w * size[1], c
    if h % size[0] or w % size[1]:
        raise ValueError(f"an image of {h} x {w} is no image enlarged by {size[0]} x {size[1]}")
    return n, h // size[0], w // size[1], c


def global_pool_check(op: str, shape: Shape) -> None:
    """Raise ValueError unless a global pooling has images (N, H, W, C) of at least one pixel."""
    if len(shape) != 4 or not shape[1] * shape[2]:
        raise ValueError(f"{op} needs images (N, H, W, C) of at least one pixel, got {shape}")


def argmax_dtype(size: tuple[int, int]) -> type:
    """Positions in a pooling window count from 0 row by row: uint8 up to 256 positions (16 x 16),
    else int32.
    """
    return np.uint8 if size[0] * size[1] <= 256 else np.int32

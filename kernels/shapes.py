"""Output sizes and padding, integers only: the one place where every backend learns how large a
result is.

Arguments are tuples: the functions are pure and remember their results, because every kernel call
asks.
"""

from functools import lru_cache

import numpy as np


def pair(value, name="value"):
    """Return ``value`` as two positive ints (rows, columns); one int stands for both."""
    a, b = (value, value) if np.isscalar(value) else value
    if int(a) != a or int(b) != b or min(a, b) < 1:
        raise ValueError(f"{name} must be one or two positive integers, got {value!r}")
    return int(a), int(b)


def same_or_valid(size, kernel, stride, padding):
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
def conv_padding(x_shape, w_shape, stride, padding):
    """Return ((top, bottom), (left, right)) for x (N, H, W, C_in) and w (KH, KW, C_in, C_out)."""
    return tuple(same_or_valid(x_shape[1 + i], w_shape[i], stride[i], padding) for i in (0, 1))


@lru_cache(maxsize=1024)
def conv_output(x_shape, w_shape, stride, padding):
    """Return (N, OH, OW, C_out) of a convolution; raises ValueError where channels differ or
    nothing would remain.
    """
    if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != w_shape[2]:
        raise ValueError(
            f"conv2d needs x (N, H, W, C_in) and w (KH, KW, C_in, C_out), got {x_shape} and {w_shape}"
        )
    pads = conv_padding(x_shape, w_shape, stride, padding)
    size = [(x_shape[1 + i] + sum(pads[i]) - w_shape[i]) // stride[i] + 1 for i in (0, 1)]
    if min(size) < 1:
        raise ValueError(
            f"a {w_shape[0]} x {w_shape[1]} kernel does not fit into an image of {x_shape[1]} x {x_shape[2]}"
        )
    return x_shape[0], *size, w_shape[3]


@lru_cache(maxsize=1024)
def pool_output(x_shape, size, stride):
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


def argmax_dtype(size):
    """Positions in a pooling window count from 0 row by row: uint8 up to 256 positions (16 x 16),
    else int32.
    """
    return np.uint8 if size[0] * size[1] <= 256 else np.int32

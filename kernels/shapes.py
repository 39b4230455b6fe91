"""Output sizes and padding, integers only: the one place where every backend learns how large a
result is.

Arguments are tuples: the functions are pure and remember their results, because every kernel call
asks.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .types import Pads, Pair, Shape


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


def effective_kernel(kernel: int, dilation: int) -> int:
    """Return how many pixels a kernel reaches over whose taps are ``dilation`` apart."""
    return (kernel - 1) * dilation + 1


class _Geometry(NamedTuple):
    stride: tuple[int, int]
    padding: str
    dilation: tuple[int, int]


class Geometry(_Geometry):
    """How a convolution goes over an image, by rows and columns: its windows are ``stride`` apart,
    the taps of its kernel ``dilation``, and ``padding`` says which zeros lie around the image:
    "same" or "valid", as in Keras.

    Of a transposed convolution: that of the convolution whose input gradient it is. ValueError
    where the values make no sense, so that ops need not look at them again.
    """

    __slots__ = ()

    def __new__(cls, stride: Pair = 1, padding: str = "same", dilation: Pair = 1) -> "Geometry":
        same_or_valid(1, 1, 1, padding)
        return super().__new__(cls, pair(stride, "stride"), padding, pair(dilation, "dilation"))

    @lru_cache(maxsize=1024)
    def pads(self, x_shape: Shape, w_shape: Shape) -> Pads:
        """Return the zeros around x (N, H, W, C_in) for w (KH, KW, ...): ((top, bottom), (left,
        right)).
        """
        rows, columns = (
            same_or_valid(x_shape[1 + i], reach, self.stride[i], self.padding)
            for i, reach in enumerate(self._reach(w_shape))
        )
        return rows, columns

    @lru_cache(maxsize=1024)
    def output(self, x_shape: Shape, w_shape: Shape) -> Shape:
        """Return (N, OH, OW, C_out) of a convolution of x (N, H, W, C_in) with w (KH, KW, C_in,
        C_out); raises ValueError where channels differ or nothing would remain.
        """
        if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != w_shape[2]:
            raise ValueError(
                "conv2d needs x (N, H, W, C_in) and w (KH, KW, C_in, C_out), got "
                f"{x_shape} and {w_shape}"
            )
        return x_shape[0], *self._size(x_shape, w_shape), w_shape[3]

    @lru_cache(maxsize=1024)
    def depthwise_output(self, x_shape: Shape, w_shape: Shape) -> Shape:
        """Return (N, OH, OW, C * M) of a depthwise convolution with w (KH, KW, C, M); raises
        ValueError as ``output`` does.
        """
        if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != w_shape[2]:
            raise ValueError(
                "depthwise_conv2d needs x (N, H, W, C) and w (KH, KW, C, M), got "
                f"{x_shape} and {w_shape}"
            )
        return x_shape[0], *self._size(x_shape, w_shape), w_shape[2] * w_shape[3]

    @lru_cache(maxsize=1024)
    def transposed_output(self, x_shape: Shape, w_shape: Shape) -> Shape:
        """Return (N, OH, OW, C_out) of a transposed convolution with w (KH, KW, C_out, C_in), as
        Keras: "same" gives size * stride, "valid" size * stride + max(kernel - stride, 0).

        A convolution of the result's shape with this kernel and geometry has x's shape. ValueError
        where channels differ, and for a dilation.
        """
        if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != w_shape[3]:
            raise ValueError(
                "conv2d_transpose needs x (N, H, W, C_in) and w (KH, KW, C_out, C_in), got "
                f"{x_shape} and {w_shape}"
            )
        if self.dilation != (1, 1):
            raise ValueError(f"conv2d_transpose knows no dilation, got {self.dilation}")
        valid = self.padding == "valid"
        more = [max(w_shape[i] - self.stride[i], 0) if valid else 0 for i in (0, 1)]
        size = [x_shape[1 + i] * self.stride[i] + more[i] for i in (0, 1)]
        return x_shape[0], *size, w_shape[2]

    def _reach(self, w_shape: Shape) -> list[int]:
        """Return over how many rows and columns the kernel reaches."""
        return [effective_kernel(w_shape[i], self.dilation[i]) for i in (0, 1)]

    def _size(self, x_shape: Shape, w_shape: Shape) -> tuple[int, int]:
        """Return (OH, OW) of a convolution; raises ValueError where nothing would remain."""
        pads, reach = self.pads(x_shape, w_shape), self._reach(w_shape)
        size = [(x_shape[1 + i] + sum(pads[i]) - reach[i]) // self.stride[i] + 1 for i in (0, 1)]
        if min(size) < 1:
            raise ValueError(
                f"a {reach[0]} x {reach[1]} kernel does not fit into an image of "
                f"{x_shape[1]} x {x_shape[2]}"
            )
        return size[0], size[1]


class _Block(NamedTuple):
    pool: tuple[int, int]
    alpha: float
    padding: str


class Block(_Block):
    """What makes a convolution of stride 1 and ``padding`` a block: an ELU of ``alpha`` behind it
    (0: ReLU), and the maximum over windows ``pool`` (PH, PW) that do not overlap.

    ValueError where that is no block: the position of a maximum is kept in 8 bits, and only an
    activation that increases may change places with the maximum.
    """

    __slots__ = ()

    def __new__(cls, pool: Pair, alpha: float = 1.0, padding: str = "same") -> "Block":
        pool = pair(pool, "pool size")
        same_or_valid(1, 1, 1, padding)
        if pool[0] * pool[1] > 256:
            raise ValueError(
                "conv2d_block keeps positions in 8 bits: at most 256 per window, got "
                f"{pool[0]} x {pool[1]}; use the three ops"
            )
        if alpha < 0:
            raise ValueError(
                "conv2d_block needs an increasing activation, alpha >= 0, got "
                f"{alpha!r}: use the three ops"
            )
        return super().__new__(cls, pool, float(alpha), padding)

    @property
    def geometry(self) -> Geometry:
        """That of the convolution."""
        return _OF_STRIDE_1[self.padding]

    @lru_cache(maxsize=1024)
    def output(self, x_shape: Shape, w_shape: Shape) -> Shape:
        """Return (N, OH // PH, OW // PW, C_out) for x (N, H, W, C_in), w (KH, KW, C_in, C_out);
        raises ValueError where the kernel or the window does not fit.
        """
        return pool_output(self.geometry.output(x_shape, w_shape), self.pool, self.pool)


_OF_STRIDE_1 = {padding: Geometry(1, padding) for padding in ("same", "valid")}


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
            f"a {size[0]} x {size[1]} pooling window does not fit into an image of "
            f"{x_shape[1]} x {x_shape[2]}"
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

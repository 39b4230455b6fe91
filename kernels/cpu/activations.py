"""ELU, ReLU and dropout: elementwise, bound by memory, so one pass each."""

import numpy as np
from numba import prange, types
from numba.extending import intrinsic

from .checks import floats, shaped
from .jit import BLOCK, block, jit, parallel
from .tile import F32, I32


@intrinsic
def _bits(context, x):
    """The 32 bits of a float32 as an integer."""
    return types.int32(types.float32), lambda context, b, signature, args: b.bitcast(args[0], I32)


@intrinsic
def _from_bits(context, n):
    """The float32 with these 32 bits."""
    return types.float32(types.int32), lambda context, b, signature, args: b.bitcast(args[0], F32)


LOG2E, LN2_HIGH, LN2_LOW = (
    np.float32(1.44269504),
    np.float32(0.693145752),
    np.float32(1.42860677e-6),
)
ROUND = np.float32(
    12582912
)  # 1.5 * 2**23: adding it rounds to an integer, which then sits in the lowest bits
ZERO, ONE, LOWEST = np.float32(0), np.float32(1), np.float32(-20)  # exp(-20) - 1 is -1 in float32
TAYLOR = [np.float32(1 / n) for n in (2, 6, 24, 120, 720, 5040)]
C2, C3, C4, C5, C6, C7 = TAYLOR
EXPONENT, ONE_BITS = np.int32(23), np.int32(0x3F800000)


@jit
def expm1(x):
    """exp(x) - 1 for x <= 0, to about 1 unit in the last place, without a branch or a call: the
    compiler vectorizes it.

    x = n ln 2 + r with |r| <= ln(2) / 2; exp(x) - 1 = 2**n (exp(r) - 1) + (2**n - 1).
    """
    x = LOWEST if x < LOWEST else x
    t = x * LOG2E + ROUND
    n = t - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = r + r * r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7)))))
    two_n = _from_bits(np.int32((_bits(t) << EXPONENT) + ONE_BITS))
    return two_n * p + (two_n - ONE)


@jit
def activate(z, alpha):
    """ELU of one number: the one function that conv blocks and elu() use, so that they agree bit
    for bit.
    """
    return z if z > ZERO else alpha * expm1(ZERO if z > ZERO else z)


@jit
def slope(y, alpha):
    """ELU's derivative from its output."""
    return ONE if y > ZERO else y + alpha


@parallel
def _elu(x, alpha, y):
    for task in prange((x.size + BLOCK - 1) // BLOCK):
        before, after = block(x, task), block(y, task)
        for i in range(before.size):
            after[i] = activate(before[i], alpha)


@parallel
def _elu_backward(dy, y, alpha, dx):
    for task in prange((y.size + BLOCK - 1) // BLOCK):
        g, after, to = block(dy, task), block(y, task), block(dx, task)
        for i in range(g.size):
            to[i] = g[i] * slope(after[i], alpha)


@parallel
def _relu(x, y):
    for task in prange((x.size + BLOCK - 1) // BLOCK):
        before, after = block(x, task), block(y, task)
        for i in range(before.size):
            after[i] = before[i] if before[i] > ZERO else ZERO


@parallel
def _relu_backward(dy, y, dx):
    for task in prange((y.size + BLOCK - 1) // BLOCK):
        g, after, to = block(dy, task), block(y, task), block(dx, task)
        for i in range(g.size):
            to[i] = g[i] if after[i] > ZERO else ZERO


@parallel
def _dropout(x, keep, scale, y):
    for task in prange((x.size + BLOCK - 1) // BLOCK):
        before, kept, after = block(x, task), block(keep, task), block(y, task)
        for i in range(before.size):
            after[i] = before[i] * kept[i] * scale


def elu(x, alpha=1.0):
    """y = x where x > 0, else alpha * (exp(x) - 1)  (Clevert et al. 2015, arXiv:1511.07289); alpha 0 is relu. float32, any
    shape.
    """
    x = floats("elu", x=x)
    y = np.empty_like(x)
    _elu(x.reshape(-1), np.float32(alpha), y.reshape(-1))
    return y


def elu_backward(dy, y, alpha=1.0):
    """dx = dy where y > 0, else dy * (y + alpha): the derivative written in terms of the output.
    float32, any shape.
    """
    dy, y = floats("elu_backward", dy=dy, y=y)
    shaped("elu_backward", "dy", dy, y.shape)
    dx = np.empty_like(dy)
    _elu_backward(dy.reshape(-1), y.reshape(-1), np.float32(alpha), dx.reshape(-1))
    return dx


def relu(x):
    """y = max(x, 0). float32, any shape."""
    x = floats("relu", x=x)
    y = np.empty_like(x)
    _relu(x.reshape(-1), y.reshape(-1))
    return y


def relu_backward(dy, y):
    """dx = dy where y > 0, else 0. float32, any shape."""
    dy, y = floats("relu_backward", dy=dy, y=y)
    shaped("relu_backward", "dy", dy, y.shape)
    dx = np.empty_like(dy)
    _relu_backward(dy.reshape(-1), y.reshape(-1), dx.reshape(-1))
    return dx


def dropout(x, keep, rate):
    """y = x * keep / (1 - rate) for a mask ``keep`` of 0 and 1 with the shape of x; its own
    backward with dy for x.
    """
    x = floats("dropout", x=x)
    shaped("dropout", "keep", keep, x.shape)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout needs a rate from 0 to below 1, got {rate!r}")
    y = np.empty_like(x)
    _dropout(
        x.reshape(-1),
        np.ascontiguousarray(keep, np.float32).reshape(-1),
        np.float32(1 / (1 - rate)),
        y.reshape(-1),
    )
    return y

"""Exponentials of one number, and ELU by way of them, for loops that are to become vector code: no
branch, no call. Apart from activations.py, because every fused block is compiled again when this
file changes.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from .emit import F32, I32
from .jit import jit


@intrinsic
def bits(context, x):
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
LOWEST_EXP, HIGHEST_EXP = np.float32(-87), np.float32(88)  # 2**n is a normal number
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
    two_n = _from_bits(np.int32((bits(t) << EXPONENT) + ONE_BITS))
    return two_n * p + (two_n - ONE)


@jit
def exp(x):
    """exp(x) to about 1 unit in the last place for -87 <= x <= 88; below it is 0, above exp(88). As
    expm1, without the last subtraction.
    """
    below = x < LOWEST_EXP
    x = LOWEST_EXP if below else HIGHEST_EXP if x > HIGHEST_EXP else x
    t = x * LOG2E + ROUND
    n = t - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = r + r * r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7)))))
    two_n = _from_bits(np.int32((bits(t) << EXPONENT) + ONE_BITS))
    return ZERO if below else two_n + two_n * p


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

"""float32 in 2 bytes and back, in vector code: what minicnn/parallel/sync/compressed.py sends.

    bf16   the upper half of a float32: 8 bits of fraction, its range
    fp16   IEEE half precision: 11 bits, up to 65504

Rounded to nearest, ties to even, as NumPy's own float16. Nothing may be infinite or no number.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import VECTOR_CHUNK, jit, tasks, threaded

HALF, ONE, SIGN = np.uint32(0x7FFF), np.uint32(1), np.uint32(0x80000000)
MANTISSA, UP, EXPONENT = np.uint32(13), np.uint32(0xFFF), np.uint32(112 << 23)
LEAST_NORMAL = np.uint32(113 << 23)  # 2 ** -14 as a float32
MAGIC = np.float32(0.5)  # the last bit of 0.5 + x is that of half precision below 2 ** -14
MAGIC_BITS = np.uint32(126 << 23)
TO_FLOAT = np.float32(2.0**112)


@jit
def _bf16(a, q, keep):
    """q = a as bf16; ``keep``: take it away from a."""
    bits = a.view(np.uint32)
    for i in range(a.size):
        q[i] = (bits[i] + HALF + ((bits[i] >> np.uint32(16)) & ONE)) >> np.uint32(16)
    if keep:
        near = np.empty(a.size, np.float32)
        _from_bf16(q, near)
        for i in range(a.size):
            a[i] -= near[i]


@jit
def _from_bf16(q, a):
    bits = a.view(np.uint32)
    for i in range(q.size):
        bits[i] = np.uint32(q[i]) << np.uint32(16)


@jit
def _fp16(a, q, scale, keep):
    """q = a * scale as fp16; ``keep``: take q / scale away from a. |a * scale| is below 65504."""
    x, low = np.empty(a.size, np.float32), np.empty(a.size, np.float32)
    for i in range(a.size):
        x[i] = a[i] * scale
        low[i] = abs(x[i]) + MAGIC
    bits, low_bits = x.view(np.uint32), low.view(np.uint32)
    for i in range(a.size):
        size = bits[i] & ~SIGN
        normal = (size + UP + ((size >> MANTISSA) & ONE) - EXPONENT) >> MANTISSA
        tiny = low_bits[i] - MAGIC_BITS
        sign = (bits[i] & SIGN) >> np.uint32(16)
        q[i] = (tiny if size < LEAST_NORMAL else normal) | sign
    if keep:
        _from_fp16(q, x, np.float32(1) / scale)
        for i in range(a.size):
            a[i] -= x[i]


@jit
def _from_fp16(q, a, scale):
    """a = q * scale."""
    bits = a.view(np.uint32)
    for i in range(q.size):
        h = np.uint32(q[i])
        bits[i] = (h & HALF) << MANTISSA | (h & np.uint32(0x8000)) << np.uint32(16)
    for i in range(q.size):
        a[i] = a[i] * TO_FLOAT * scale


@jit
def _largest(a):
    """The largest |a| as the bits of a float32: the order of integers is theirs, and what is no
    number is above all.
    """
    bits, most = a.view(np.uint32), np.uint32(0)
    for i in range(a.size):
        most = max(most, bits[i] & ~SIGN)
    return most


@jit
def _add(a, numbers, first):
    """a += numbers[first:], as far as there are any."""
    some = numbers[first : first + a.size]
    for i in range(some.size):
        a[i] += some[i]


@threaded
def _add_up(total, numbers, largest):
    for task in prange(largest.size):
        first, end = task * VECTOR_CHUNK, min(total.size, (task + 1) * VECTOR_CHUNK)
        _add(total[first:end], numbers, first)
        largest[task] = _largest(total[first:end])


@threaded
def _pack(a, numbers, q, scale, half, keep, largest):
    for task in prange(largest.size):
        first, end = task * VECTOR_CHUNK, min(a.size, (task + 1) * VECTOR_CHUNK)
        some = a[first:end]
        _add(some, numbers, first)
        largest[task] = _largest(some)
        if half:
            _fp16(some, q[first:end], scale, keep)
        else:
            _bf16(some, q[first:end], keep)


@threaded
def _unpack(q, a, scale, half, add):
    for task in prange(-(-a.size // VECTOR_CHUNK)):
        first, end = task * VECTOR_CHUNK, min(a.size, (task + 1) * VECTOR_CHUNK)
        near = np.empty(end - first, np.float32)
        to, some = a[first:end], q[first:end]
        if half:
            _from_fp16(some, near, scale)
        else:
            _from_bf16(some, near)
        if add:
            for i in range(near.size):
                to[i] += near[i]
        else:
            for i in range(near.size):
                to[i] = near[i]


NOTHING = np.empty(0, np.float32)


def add_up(total: np.ndarray, numbers: np.ndarray = NOTHING) -> float:
    """Add ``numbers`` to the first ones of ``total``, contiguous float32 arrays of any shape;
    returns the largest |total| of then, nan or inf where one is not finite.
    """
    largest = np.zeros(tasks(total.size), np.uint32)
    _add_up(largest.size, total.reshape(-1), numbers.reshape(-1), largest)
    return float(largest.view(np.float32).max(initial=0))


def pack(
    array: np.ndarray,
    packed: np.ndarray,
    form: str,
    scale: float = 1.0,
    add: np.ndarray = NOTHING,
    keep: bool = False,
) -> float:
    """Write ``array`` * scale, contiguous float32, to ``packed``, uint16 of its shape; form: "fp16"
    or "bf16" (which is not scaled). ``add`` is added to the first ones of ``array`` before, and
    with ``keep`` it becomes what rounding took away: one pass. Returns what ``add_up`` returns.
    """
    half, largest = form == "fp16", np.zeros(tasks(array.size), np.uint32)
    flat, into = array.reshape(-1), packed.reshape(-1)
    _pack(largest.size, flat, add.reshape(-1), into, np.float32(scale), half, keep, largest)
    return float(largest.view(np.float32).max(initial=0))


def unpack(
    packed: np.ndarray, out: np.ndarray, form: str, scale: float = 1.0, add: bool = False
) -> np.ndarray:
    """Write the numbers that ``pack`` was given with this scale to ``out``, a contiguous float32
    array of its size; ``add``: add them to it.
    """
    half, inverse = form == "fp16", np.float32(1 / np.float32(scale))
    _unpack(tasks(packed.size), packed.reshape(-1), out.reshape(-1), inverse, half, add)
    return out

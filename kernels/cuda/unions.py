"""Lists of positions (n, 2) row, column, in row-major order, put together."""

import numpy as np

from ..types import Array, Kernels
from .checks import integers


def merge_positions(kernels: Kernels, first: Array, second: Array) -> tuple[Array, Array, Array]:
    """Return (positions, in_first, in_second): the union of two lists of positions, int32 (m, 2),
    and where in it the entries of each are, int32 (n,) and (k,).

    first (n, 2), second (k, 2) and the result are row-major, without repetition.
    """
    first, second = integers(kernels, first), integers(kernels, second)
    n, k = len(first), len(second)
    new = kernels.empty((k,), np.int32)
    kernels.each("unions.cu", "find_new", k, first, n, second, new)
    before = new.cumsum(dtype=np.int32)  # of the second list's own entries, up to each of them
    total = n + (int(before[-1]) if k else 0)
    positions = kernels.empty((total, 2), np.int32)
    slots = kernels.empty((n,), np.int32), kernels.empty((k,), np.int32)
    kernels.each("unions.cu", "merge", n + k, first, n, second, k, new, before, positions, *slots)
    return positions, *slots

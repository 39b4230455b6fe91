"""Lists of positions (n, 2) row, column, in row-major order, put together."""

import numpy as np

from ..types import Array
from .checks import as_contiguous
from .jit import jit


@jit
def _merge(first, second, positions, in_first, in_second):
    """Merge two sorted lists into ``positions``; returns how many there are."""
    i, j, k = 0, 0, 0
    while i < first.shape[0] or j < second.shape[0]:
        order = np.int64(0)  # below 0: the first list has the next position; above: the second
        if i == first.shape[0]:
            order = 1
        elif j == second.shape[0]:
            order = -1
        else:
            order = np.int64(first[i, 0]) - second[j, 0]
            if order == 0:
                order = np.int64(first[i, 1]) - second[j, 1]
        if order <= 0:
            positions[k, 0], positions[k, 1] = first[i, 0], first[i, 1]
            in_first[i] = k
            i += 1
        if order >= 0:
            positions[k, 0], positions[k, 1] = second[j, 0], second[j, 1]
            in_second[j] = k
            j += 1
        k += 1
    return k


def merge_positions(first: Array, second: Array) -> tuple[Array, Array, Array]:
    """Return (positions, in_first, in_second): the union of two lists of positions, int32 (m, 2),
    and where in it the entries of each are, int32 (n,) and (k,).

    first (n, 2), second (k, 2) and the result are row-major, without repetition.
    """
    first, second = (as_contiguous(array, np.int32) for array in (first, second))
    positions = np.empty((len(first) + len(second), 2), np.int32)
    slots = np.empty(len(first), np.int32), np.empty(len(second), np.int32)
    return positions[: _merge(first, second, positions, *slots)], *slots

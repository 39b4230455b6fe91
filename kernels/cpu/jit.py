"""What the compiled functions of this backend share: the decorators (kernels/jit.py), the cut of a
vector into tasks, and arrays from the start of a cache line.
"""

import numpy as np

from ..jit import CACHE, _LockedCache, jit, parallel, threaded

__all__ = [
    "CACHE",
    "POSITIVE",
    "VECTOR_CHUNK",
    "_LockedCache",
    "aligned_empty",
    "jit",
    "parallel",
    "tasks",
    "threaded",
    "vector_chunk",
]

#: numba supports negative indices, so that for a[first + k] it has to test the sign of the index,
#: which prevents vector code (4 to 16 times slower for the talk's weights). Inner loops slice
#: first, ``to = a[first:]``, and use to[k]; computed indices are masked, ``a[k & POSITIVE]``, which
#: proves to the compiler that they are not negative.
POSITIVE = 2**62 - 1
VECTOR_CHUNK = 8192  # elements per task: 32 kB, small enough for the nearest cache


@jit
def vector_chunk(array, task):
    """The part of a vector that this task works on, of ceil(size / VECTOR_CHUNK) tasks."""
    return array[task * VECTOR_CHUNK : min(array.size, (task + 1) * VECTOR_CHUNK)]


def tasks(elements: int) -> int:
    """Return how many tasks of VECTOR_CHUNK elements there are."""
    return -(-elements // VECTOR_CHUNK)


@jit
def aligned_empty(shape):
    """An uninitialised float32 array from the start of a cache line, for compiled code; see
    checks.aligned.
    """
    size = 1
    for n in shape:
        size *= n
    room = np.empty(size + 16, np.float32)
    skip = -room.ctypes.data % 64 // 4
    return room[skip : skip + size].reshape(shape)

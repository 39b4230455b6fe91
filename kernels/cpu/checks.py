"""Arrays on this device (plain NumPy arrays) and the checks that every public function makes before
its compiled loops run.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import prange
from numpy.typing import DTypeLike

from ..arguments import Moments, Wanted
from ..types import Array, Shape
from ..workspace import Workspace
from .jit import VECTOR_CHUNK, tasks, threaded, vector_chunk

#: The object that arrays have for their type, all but a few: quicker to compare than by value.
FLOAT32 = np.dtype(np.float32)


def empty(shape: Shape, dtype: Any = np.float32) -> Array:
    """Return an uninitialised array from the start of a cache line."""
    return aligned(shape, dtype, empty=True)


def zeros(shape: Shape, dtype: Any = np.float32) -> Array:
    """Return an array of zeros from the start of a cache line."""
    return aligned(shape, dtype)


def clear(array: Array) -> None:
    """Set all of ``array`` to 0."""
    if array.dtype == np.float32 and array.flags.c_contiguous:
        _clear(tasks(array.size), array.reshape(-1))
    else:
        array[...] = 0


@threaded
def _clear(array):
    for task in prange((array.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
        here = vector_chunk(array, task)
        for i in range(here.size):  # numba would leave out here[:] = 0, as of no use
            here[i] = np.float32(0)


def asarray(array: Array, dtype: Any = None) -> Array:
    """Return ``array`` as an array on this device: the same memory where possible."""
    return np.asarray(array, dtype)


def to_host(array: Array) -> np.ndarray:
    """Return ``array`` as a NumPy array: on the CPU the same memory."""
    return np.asarray(array)


def synchronize() -> None:
    """Return at once: functions of this backend have finished when they return."""


def set_threads(n: int) -> None:
    """Use ``n`` threads in all functions of this backend, 1 <= n <= the threads that numba started
    with. Results do not change.
    """
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    if not isinstance(n, int | np.integer) or not 1 <= n <= most:
        raise ValueError(
            f"set_threads needs an integer from 1 to {most} (the cores, or NUMBA_NUM_THREADS), "
            f"got {n!r}"
        )
    numba.set_num_threads(int(n))


def check_float32(op: str, **arrays: Array) -> Any:
    """Return the arrays C-contiguous (and writable in type: one compiled version each); TypeError
    where one is not float32.
    """
    out = []
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            got = f"{array.dtype} array" if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(
                f"{op} on the cpu backend needs float32 arrays, but {name} is {got}: use the "
                "reference backend"
            )
        flags = array.flags
        out.append(array if flags.c_contiguous and flags.writeable else as_contiguous(array))
    return out[0] if len(out) == 1 else out


def as_contiguous(array: Array, dtype: DTypeLike | None = None) -> Array:
    """Return ``array`` C-contiguous and, where given, in a ``dtype``; a read-only array is seen
    through a writable view, which spares a second compilation.
    """
    array = np.ascontiguousarray(array, dtype)
    if not array.flags.writeable:
        array = np.asarray(_Memory(array)) if array.size else array.copy()
    return array


class _Memory:
    """Lends an array's memory through NumPy's array interface."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = dict(array.__array_interface__, data=(array.ctypes.data, False))


def check_shape(op: str, name: str, array: Array, shape: Shape) -> None:
    """Raise ValueError unless ``array`` has this shape."""
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"{op} needs {name} of shape {tuple(shape)}, got {tuple(array.shape)}")


def gradient_target(op: str, name: str, array: Array | None, shape: Shape) -> Array:
    """Return the array that a gradient is added to: ``array`` checked, or new zeros."""
    if array is None:
        return np.zeros(shape, np.float32)
    if not isinstance(array, np.ndarray) or (array.dtype is not FLOAT32 and array.dtype != FLOAT32):
        raise TypeError(
            f"{op} on the cpu backend adds to a float32 array, but {name} is "
            f"{getattr(array, 'dtype', type(array).__name__)}"
        )
    if array.shape != shape:
        check_shape(op, name, array, shape)
    flags = array.flags
    if not flags.c_contiguous or not flags.writeable:
        raise ValueError(
            f"{op} adds to {name} in place, so it must be C-contiguous and writable, got strides "
            f"{array.strides}"
        )
    return array


def gradient_targets(op: str, wanted: Wanted, **shapes: Shape) -> list[Array]:
    """Return the arrays that the gradients named in ``shapes`` are added to, as gradient_target
    does: those of ``wanted`` or new zeros.
    """
    given = wanted.targets(op, len(shapes))
    return [
        gradient_target(op, name, array, shape)
        for (name, shape), array in zip(shapes.items(), given)
    ]


def aligned(shape: Shape, dtype: DTypeLike = np.float32, empty: bool = False) -> Array:
    """Return zeros whose first element starts a cache line: a vector that crosses two lines takes
    twice as long to load.

    NumPy's own arrays start 16 bytes behind one, so that each of their 64-byte vectors crosses two.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = (np.empty if empty else np.zeros)(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def buffer(
    workspace: Workspace | None,
    name: str,
    shape: Shape,
    dtype: DTypeLike = np.float32,
    fill: float | None = None,
) -> Array:
    """Return an array from the start of a cache line: the first part of workspace's buffer
    ``name``, or a new one where there is no Workspace.

    ``fill`` is None, or 0 for a buffer of exactly this shape that was zeros when it was made.
    """
    if workspace is None:
        return aligned(shape, dtype, empty=fill is None)
    key, size = (name, shape) if fill == 0 else name, math.prod(shape) * np.dtype(dtype).itemsize
    room = workspace.buffers.get(key)
    if room is None or room.size < size:
        room = workspace.buffers[key] = aligned((size,), np.uint8, empty=fill is None)
    return np.ndarray(shape, dtype, room)


def cached_until_update(workspace: Workspace | None, name: str, make: Callable[[], Any]) -> Any:
    """Return ``make()``, from workspace if it was computed since the last weight update."""
    return make() if workspace is None else workspace.once(name, make)


def check_last_axis(op: str, name: str, array: np.ndarray, least: int) -> np.ndarray:
    """Return ``array`` (..., C) as (rows, C); ValueError unless it has at least ``least`` axes and
    C >= 1.
    """
    if array.ndim < least or array.shape[-1] < 1:
        raise ValueError(
            f"{op} needs {name} with at least {least} axes, the last of at least 1 channel, got "
            f"shape {array.shape}"
        )
    return array.reshape(-1, array.shape[-1])


def check_moments(op: str, x: np.ndarray, moments: Moments) -> list[np.ndarray]:
    """Return mean and variance, checked to be float64 with one number for each channel of x (rows,
    C).
    """
    arrays = {"mean": moments.mean, "variance": moments.variance}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float64:
            raise TypeError(
                f"{op} needs {name} as a float64 array, as channel_moments gives it, got "
                f"{getattr(array, 'dtype', type(array).__name__)}"
            )
        check_shape(op, name, array, x.shape[1:])
    return [
        np.array(array) for array in arrays.values()
    ]  # small; a copy spares a version for strides

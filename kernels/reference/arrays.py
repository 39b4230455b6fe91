"""Arrays of this backend: plain NumPy arrays."""

from typing import Any

import numpy as np

from ..arguments import Wanted
from ..types import Array, Shape


def empty(shape: Shape, dtype: Any = np.float32) -> Array:
    """Return an uninitialised array on the device."""
    return np.empty(shape, dtype)


def zeros(shape: Shape, dtype: Any = np.float32) -> Array:
    """Return an array of zeros on the device."""
    return np.zeros(shape, dtype)


def clear(array: Array) -> None:
    """Set all of ``array`` to 0."""
    array[...] = 0


def asarray(array: Array, dtype: Any = None) -> Array:
    """Return ``array`` as an array on the device."""
    return np.asarray(array, dtype)


def to_host(array: Array) -> np.ndarray:
    """Return ``array`` as a NumPy array."""
    return np.asarray(array)


def synchronize() -> None:
    """Wait until the device is idle."""


def set_threads(n: int) -> None:
    """Use ``n`` threads; the reference uses NumPy's own."""


def gradient_targets(op: str, wanted: Wanted, dtype: Any, *shapes: Shape) -> list[Array]:
    """Return the arrays that gradients of these shapes are added to: those of ``wanted``, or
    zeros.
    """
    given = wanted.targets(op, len(shapes))
    return [
        np.zeros(shape, dtype) if array is None else array for shape, array in zip(shapes, given)
    ]

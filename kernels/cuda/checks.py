"""The checks that every op makes before its kernels run: nothing is checked on the device."""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..types import Array, Kernels, Shape
from ..workspace import Workspace


def check_float32(kernels: Kernels, op: str, **arrays: Array) -> Any:
    """Return the arrays C-contiguous; TypeError where one is no device array of float32."""
    out = []
    for name, a in arrays.items():
        if not kernels.runtime.is_array(a) or a.dtype != np.float32:
            got = (
                f"{a.dtype} array on the {'device' if kernels.runtime.is_array(a) else 'host'}"
                if hasattr(a, "dtype")
                else type(a).__name__
            )
            raise TypeError(
                f"{op} on the {kernels.name} backend needs float32 arrays on the device, but {name} is {got}: use asarray, or the "
                "reference backend for other dtypes"
            )
        out.append(contiguous(a))
    return out[0] if len(out) == 1 else out


def contiguous(a: Array) -> Array:
    """Return ``a``, or a copy of it in row-major order."""
    return a if a.flags.c_contiguous else a.copy()


def integers(kernels: Kernels, a: Array, dtype: DTypeLike = np.int32) -> Array:
    """Return ``a`` as a contiguous device array of ``dtype``."""
    return contiguous(kernels.asarray(a, dtype))


def check_shape(op: str, name: str, a: Array, shape: Shape) -> None:
    """Raise ValueError unless ``a`` has this shape."""
    if tuple(a.shape) != tuple(shape):
        raise ValueError(f"{op} needs {name} of shape {tuple(shape)}, got {tuple(a.shape)}")


def gradient_target(kernels: Kernels, op: str, name: str, a: Array | None, shape: Shape) -> Array:
    """Return the array that a gradient is added to: ``a`` checked, or new zeros."""
    if a is None:
        return kernels.zeros(shape)
    if not kernels.runtime.is_array(a) or a.dtype != np.float32:
        raise TypeError(
            f"{op} on the {kernels.name} backend adds to a float32 array on the device, but {name} is "
            f"{getattr(a, 'dtype', type(a).__name__)}"
        )
    check_shape(op, name, a, shape)
    if not a.flags.c_contiguous:
        raise ValueError(
            f"{op} adds to {name} in place, so it must be C-contiguous, got strides {a.strides}"
        )
    return a


def cached_until_update(work: Workspace | None, name: Hashable, make: Callable[[], Any]) -> Any:
    """Return ``make()``, from work if it was computed since the last weight update."""
    return make() if work is None else work.once(name, make)


def check_last_axis(op: str, name: str, a: Array, least: int) -> Array:
    """Return ``a`` (..., C) as (rows, C); ValueError unless it has at least ``least`` axes and C >=
    1.
    """
    if a.ndim < least or a.shape[-1] < 1:
        raise ValueError(
            f"{op} needs {name} with at least {least} axes, the last of at least 1 channel, got "
            f"shape {a.shape}"
        )
    return a.reshape(-1, a.shape[-1])


def moments(kernels: Kernels, op: str, x: Array, **arrays: Array) -> list[Array]:
    """Return mean and variance, checked to be float64 on the device with one number for each
    channel of x (rows, C).
    """
    for name, a in arrays.items():
        if not kernels.runtime.is_array(a) or a.dtype != np.float64:
            raise TypeError(
                f"{op} needs {name} as a float64 array on the device, as channel_moments gives it, "
                f"got {getattr(a, 'dtype', type(a).__name__)}"
            )
        check_shape(op, name, a, x.shape[1:])
    return [contiguous(a) for a in arrays.values()]

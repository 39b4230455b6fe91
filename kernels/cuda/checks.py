"""The checks that every op makes before its kernels run: nothing is checked on the device."""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..arguments import Moments, Wanted
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
                f"{op} on the {kernels.name} backend needs float32 arrays on the device, but "
                f"{name} is {got}: use asarray, or the reference backend for other dtypes"
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
            f"{op} on the {kernels.name} backend adds to a float32 array on the device, but {name} "
            f"is {getattr(a, 'dtype', type(a).__name__)}"
        )
    check_shape(op, name, a, shape)
    if not a.flags.c_contiguous:
        raise ValueError(
            f"{op} adds to {name} in place, so it must be C-contiguous, got strides {a.strides}"
        )
    return a


def gradient_targets(kernels: Kernels, op: str, wanted: Wanted, **shapes: Shape) -> list[Array]:
    """Return the arrays that the gradients named in ``shapes`` are added to, as gradient_target
    does: those of ``wanted`` or new zeros.
    """
    given = zip(shapes.items(), wanted.targets(op, len(shapes)))
    return [gradient_target(kernels, op, name, a, shape) for (name, shape), a in given]


def cached_until_update(
    workspace: Workspace | None, name: Hashable, make: Callable[[], Any]
) -> Any:
    """Return ``make()``, from workspace if it was computed since the last weight update."""
    return make() if workspace is None else workspace.once(name, make)


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


def check_moments(kernels: Kernels, op: str, x: Array, moments: Moments) -> list[Array]:
    """Return mean and variance, checked to be float64 on the device with one number for each
    channel of x (rows, C).
    """
    arrays = {"mean": moments.mean, "variance": moments.variance}
    for name, a in arrays.items():
        if not kernels.runtime.is_array(a) or a.dtype != np.float64:
            raise TypeError(
                f"{op} needs {name} as a float64 array on the device, as channel_moments gives it, "
                f"got {getattr(a, 'dtype', type(a).__name__)}"
            )
        check_shape(op, name, a, x.shape[1:])
    return [contiguous(a) for a in arrays.values()]

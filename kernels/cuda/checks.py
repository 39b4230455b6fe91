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
    for name, array in arrays.items():
        if not kernels.runtime.is_array(array) or array.dtype != np.float32:
            side = "device" if kernels.runtime.is_array(array) else "host"
            has_dtype = hasattr(array, "dtype")
            got = f"{array.dtype} array on the {side}" if has_dtype else type(array).__name__
            raise TypeError(
                f"{op} on the {kernels.name} backend needs float32 arrays on the device, but "
                f"{name} is {got}: use asarray, or the reference backend for other dtypes"
            )
        out.append(contiguous(array))
    return out[0] if len(out) == 1 else out


def contiguous(array: Array) -> Array:
    """Return ``array``, or a copy of it in row-major order."""
    return array if array.flags.c_contiguous else array.copy()


def integers(kernels: Kernels, array: Array, dtype: DTypeLike = np.int32) -> Array:
    """Return ``array`` as a contiguous device array of ``dtype``."""
    return contiguous(kernels.asarray(array, dtype))


def check_shape(op: str, name: str, array: Array, shape: Shape) -> None:
    """Raise ValueError unless ``array`` has this shape."""
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"{op} needs {name} of shape {tuple(shape)}, got {tuple(array.shape)}")


def gradient_target(
    kernels: Kernels, op: str, name: str, array: Array | None, shape: Shape
) -> Array:
    """Return the array that a gradient is added to: ``array`` checked, or new zeros."""
    if array is None:
        return kernels.zeros(shape)
    if not kernels.runtime.is_array(array) or array.dtype != np.float32:
        raise TypeError(
            f"{op} on the {kernels.name} backend adds to a float32 array on the device, but {name} "
            f"is {getattr(array, 'dtype', type(array).__name__)}"
        )
    check_shape(op, name, array, shape)
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{op} adds to {name} in place, so it must be C-contiguous, got strides {array.strides}"
        )
    return array


def gradient_targets(kernels: Kernels, op: str, wanted: Wanted, **shapes: Shape) -> list[Array]:
    """Return the arrays that the gradients named in ``shapes`` are added to, as gradient_target
    does: those of ``wanted`` or new zeros.
    """
    given = zip(shapes.items(), wanted.targets(op, len(shapes)))
    return [gradient_target(kernels, op, name, array, shape) for (name, shape), array in given]


def cached_until_update(
    workspace: Workspace | None, name: Hashable, make: Callable[[], Any]
) -> Any:
    """Return ``make()``, from workspace if it was computed since the last weight update."""
    return make() if workspace is None else workspace.once(name, make)


def check_last_axis(op: str, name: str, array: Array, least: int) -> Array:
    """Return ``array`` (..., C) as (rows, C); ValueError unless it has at least ``least`` axes and
    C >= 1.
    """
    if array.ndim < least or array.shape[-1] < 1:
        raise ValueError(
            f"{op} needs {name} with at least {least} axes, the last of at least 1 channel, got "
            f"shape {array.shape}"
        )
    return array.reshape(-1, array.shape[-1])


def check_moments(kernels: Kernels, op: str, x: Array, moments: Moments) -> list[Array]:
    """Return mean and variance, checked to be float64 on the device with one number for each
    channel of x (rows, C).
    """
    arrays = {"mean": moments.mean, "variance": moments.variance}
    for name, array in arrays.items():
        if not kernels.runtime.is_array(array) or array.dtype != np.float64:
            raise TypeError(
                f"{op} needs {name} as a float64 array on the device, as channel_moments gives it, "
                f"got {getattr(array, 'dtype', type(array).__name__)}"
            )
        check_shape(op, name, array, x.shape[1:])
    return [contiguous(array) for array in arrays.values()]

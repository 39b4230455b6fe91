"""The types that annotations name."""

from typing import Any, TypeAlias

#: An array on the device of its backend: numpy.ndarray on the CPU, cupy.ndarray on a GPU. What is
#: always on the host is annotated as numpy.ndarray.
Array: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]
#: One number for rows and columns, or one of each.
Pair: TypeAlias = int | tuple[int, int]
#: The zeros around an image: ((top, bottom), (left, right)).
Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
#: A backend: the module or object that has the ops.
Kernels: TypeAlias = Any

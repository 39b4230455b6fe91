"""The types that annotations name."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

#: An array on the device of its backend: numpy.ndarray on the CPU, cupy.ndarray on a GPU. What is
#: always on the host is annotated as numpy.ndarray.
Array: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]
#: One number for rows and columns, or one of each.
Pair: TypeAlias = int | tuple[int, int]
#: The zeros around an image: ((top, bottom), (left, right)).
Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


@runtime_checkable
class Backend(Protocol):
    """What runs the ops, a module or an object. Beside these members it has a function for every
    row of kernels/ops.py, with the signature of the reference.

    name: "reference", "cpu", "cuda" or "emulated". microbatch: how many events a call takes, None
    for the whole batch. on_device: whether its arrays are in another memory than NumPy's; it then
    has ``pinned``, ``nccl_sum`` and ``memory_free`` as well (cuda/backend.py). precisions: other
    precisions by name, each with a function that returns the backend in it, or raises RuntimeError
    where this machine has it not.
    """

    name: str
    microbatch: int | None
    on_device: bool
    precisions: Mapping[str, Callable[[], Any]]

    def empty(self, shape: Shape, dtype: Any = ...) -> Array:
        """Return an uninitialised array on the device."""

    def zeros(self, shape: Shape, dtype: Any = ...) -> Array:
        """Return an array of zeros on the device."""

    def asarray(self, array: Array, dtype: Any = None) -> Array:
        """Return ``array`` as an array on the device."""

    def to_host(self, array: Array) -> Any:
        """Return ``array`` as a NumPy array."""

    def synchronize(self) -> None:
        """Wait until the device is idle."""

    def set_threads(self, n: int) -> None:
        """Use ``n`` threads."""


#: What annotations say for a Backend: its ops follow from a table, which type checkers do not see.
Kernels: TypeAlias = Any

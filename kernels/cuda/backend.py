"""The ops of the cuda backend as one namespace over a runtime: a GPU (gpu.py) or the emulator
(emulator.py).

An op is a function of a module here, with the backend, ``kernels``, before the arguments that it
has in the reference. It checks shapes, allocates, and launches kernels; it does not know which
runtime it has.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops import gather
from ..types import Array, Shape

THREADS = 256  # of a block, where each thread has one element


class Backend:
    """The same functions as kernels.reference, with device arrays in float32."""

    microbatch = (
        8  # events per call: enough to fill a GPU; memory does not grow with the batch beyond it
    )

    on_device = True

    def __init__(self, runtime, tf32=False):
        self.runtime, self.name, self.tf32 = runtime, runtime.name, tf32
        self.precisions = {"tf32": self.in_tf32}

    def in_tf32(self) -> "Backend":
        """Return this backend with the block's forward pass on tensor cores, to about 5e-4 of a
        sum's size; backward stays in float32.

        Raises RuntimeError for a GPU that has none for TF32.
        """
        if not self.runtime.has_tf32:
            raise RuntimeError(
                f"{self.runtime.describe()} has no tensor cores for TF32, which came with compute "
                "capability 8.0"
            )
        return Backend(self.runtime, tf32=True)

    # --------------------------------------------------------------------------------------- arrays
    def empty(self, shape: Shape, dtype: Any = np.float32) -> Array:
        """Return an uninitialised array on the device."""
        return self.runtime.empty(shape, dtype)

    def zeros(self, shape: Shape, dtype: Any = np.float32) -> Array:
        """Return an array of zeros on the device."""
        array = self.runtime.empty(shape, dtype)
        self.clear(array)
        return array

    def clear(self, array: Array) -> None:
        """Set all of ``array`` to 0."""
        array[...] = 0

    def asarray(self, array: Array, dtype: Any = None) -> Array:
        """Return ``array`` as an array on the device."""
        return self.runtime.asarray(array, dtype)

    def to_host(self, array: Array) -> np.ndarray:
        """Return ``array`` as a NumPy array."""
        return self.runtime.to_host(array)

    def synchronize(self) -> None:
        """Wait until the device is idle."""
        self.runtime.synchronize()

    def pinned(self, array: Array) -> Array:
        """Return a copy of a device ``array`` in host memory that the device copies to and from
        fastest.
        """
        return self.runtime.pinned(array)

    def nccl_sum(
        self, size: int, rank: int, share: Callable[[Any], Any] | None
    ) -> Callable[[Array], None] | None:
        """Return a function that sums a float32 device array over ``size`` ranks in place;
        ``share(value)`` gives all of them rank 0's.

        Every rank has to call this and has a GPU of its own. ``share`` None only sees whether it
        can: RuntimeError where not.
        """
        if not hasattr(self.runtime, "nccl"):
            raise RuntimeError(f"NCCL is for GPUs, this is {self.runtime.describe()}")
        nccl = self.runtime.nccl()
        if share is None:
            return None
        communicator = nccl.NcclCommunicator(
            size, share(nccl.get_unique_id() if rank == 0 else None), rank
        )

        def add(array):
            address, stream = (
                self.runtime.address(array),
                self.runtime.xp.cuda.get_current_stream().ptr,
            )
            communicator.allReduce(
                address, address, array.size, nccl.NCCL_FLOAT32, nccl.NCCL_SUM, stream
            )

        return add

    def memory_free(self) -> int:
        """Return the bytes that arrays could still take on the device."""
        return self.runtime.memory_free()

    def set_threads(self, n: int) -> None:
        """Use ``n`` threads of the CPU: kernels run on the device and need none."""

    # ------------------------------------------------------------------------------------- launches
    def launch(
        self,
        file: str,
        kernel: str,
        threads: tuple[Any, Any],
        args: tuple,
        defines: dict[str, Any] | None = None,
        shared: int = 0,
    ) -> None:
        """Run ``kernel`` of ``file`` on ``threads`` = (grid, block) of them with ``shared`` bytes
        of dynamic shared memory.

        args: device arrays, None for no array, and numbers (an int is a C int, a float a C float).
        defines: constants of the source. A grid of nothing is no launch.
        """
        grid, _ = threads
        if 0 not in (grid if isinstance(grid, tuple) else (grid,)):
            self.runtime.launch(file, kernel, threads, args, defines or {}, shared)

    def each(self, file: str, kernel: str, n: int, *args: Any, **defines: Any) -> None:
        """Run ``kernel`` with one thread for each of ``n`` elements; its last argument is n, a C
        long long.
        """
        threads = -(-n // THREADS), THREADS
        self.launch(file, kernel, threads, (*args, np.int64(n)), defines)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


for _name, _function in gather(__package__).items():  # the table's ops, as methods
    setattr(Backend, _name, _function)

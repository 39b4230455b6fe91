"""The cuda backend on a GPU, through CuPy: arrays, and kernels that NVRTC compiles at their first
launch (CuPy keeps them on disk).
"""

import os
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..types import Array, Shape
from .backend import Backend
from .source import scalar, source, three


def problem() -> str | None:
    """Return why no GPU can be used here, or None."""
    try:
        import cupy
    except ImportError as failure:
        return (
            f'CuPy cannot be imported ({failure}): pip install "minicnn[cuda12]" or '
            '"minicnn[cuda13]", after the driver\'s CUDA version'
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as failure:  # the driver is missing or older than CuPy's CUDA
        return f"CuPy {cupy.__version__} finds no usable CUDA driver ({failure}): see nvidia-smi"
    return None if count else "the CUDA driver sees no GPU (is CUDA_VISIBLE_DEVICES set?)"


def device_count() -> int:
    """Return the number of GPUs that this process sees."""
    import cupy

    return cupy.cuda.runtime.getDeviceCount()


class Gpu:
    """Arrays and launches on one GPU."""

    name = "cuda"

    def __init__(self, index):
        import cupy

        self.xp, self.index = cupy, index
        self.device = cupy.cuda.Device(index)
        self.device.use()
        self.OutOfMemory = cupy.cuda.memory.OutOfMemoryError
        attributes = self.device.attributes
        self.has_tf32 = int(self.device.compute_capability) >= 80
        self.multiprocessors = attributes["MultiProcessorCount"]
        self.shared_memory = attributes.get(
            "MaxSharedMemoryPerBlockOptin", attributes["MaxSharedMemoryPerBlock"]
        )

    def describe(self) -> str:
        """Return a name for the plan."""
        properties = self.xp.cuda.runtime.getDeviceProperties(self.index)
        name, memory = properties["name"].decode(), properties["totalGlobalMem"] / 2**30
        return f"cuda:{self.index} ({name}, {memory:.0f} GiB)"

    # --------------------------------------------------------------------------------------- arrays
    def empty(self, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        return self.xp.empty(shape, dtype)

    def asarray(self, array: Any, dtype: DTypeLike | None = None) -> Array:
        return self.xp.asarray(array, dtype)

    def to_host(self, array: Array) -> np.ndarray:
        return self.xp.asnumpy(array)

    def pinned(self, array: Array) -> np.ndarray:
        """Return a copy of ``array`` in page-locked host memory, which the GPU copies to and from
        fastest.
        """
        memory = self.xp.cuda.alloc_pinned_memory(array.nbytes)
        host = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
        array.get(out=host)
        return host

    def is_array(self, array: Any) -> bool:
        return isinstance(array, self.xp.ndarray)

    def address(self, array: Array) -> int:
        return array.data.ptr

    def synchronize(self) -> None:
        self.device.synchronize()

    def memory_free(self) -> int:
        """Bytes that arrays could still take: free ones, and those that CuPy's pool holds
        unused.
        """
        return self.device.mem_info[0] + self.xp.get_default_memory_pool().free_bytes()

    def nccl(self) -> Any:
        """Return CuPy's NCCL module; raises RuntimeError where the library is missing."""
        nccl = import_module("cupy.cuda.nccl")
        if not nccl.available:
            raise RuntimeError(
                "CuPy finds no NCCL library: pip install nvidia-nccl-cu13 (or -cu12)"
            )
        return nccl

    # ------------------------------------------------------------------------------------- launches
    def launch(
        self,
        file: str,
        kernel: str,
        threads: tuple[Any, Any],
        args: tuple,
        defines: dict[str, Any],
        shared: int,
    ) -> None:
        """Run one kernel on the current stream."""
        grid, block = threads
        function = self._function(file, kernel, tuple(sorted(defines.items())))
        if (
            shared > 16 << 10 and function.max_dynamic_shared_size_bytes < shared
        ):  # what static arrays leave of 48 KiB, by default
            function.max_dynamic_shared_size_bytes = shared
        function(
            three(grid),
            three(block),
            tuple(np.uint64(0) if value is None else scalar(value) for value in args),
            shared_mem=shared,
        )

    @cache  # noqa: B019  one Gpu per process
    def _function(self, file, kernel, defines):
        options = ("-std=c++17", *(f"-D{key}={value}" for key, value in defines))
        return self.xp.RawModule(code=source(file), options=options).get_function(kernel)


_backend = None


def backend(index: int | None = None) -> Backend:
    """Return the backend on GPU ``index``, by default the one that this process uses, or 0: one
    process drives one GPU.

    Raises RuntimeError where CuPy, the driver or the GPU is missing, and for another GPU than the
    one in use.
    """
    global _backend
    reason = problem()
    if reason:
        raise RuntimeError(reason)
    if _backend is None:
        if index is not None and index >= device_count():
            raise RuntimeError(
                f"there is no GPU {index}: this process sees {device_count()} "
                f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')})"
            )
        _backend = Backend(Gpu(index or 0))
    if index not in (None, _backend.runtime.index):
        raise RuntimeError(
            f"this process uses GPU {_backend.runtime.index} already and cannot use {index} too: "
            "start one rank per GPU"
        )
    return _backend

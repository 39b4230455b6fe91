"""Device buffers in MPI calls: as they are where the MPI library can read them, else by way of
page-locked host memory.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from ..kernels.types import Array
from .collective import everywhere


@contextmanager
def mpi_buffer(buffer: Array, kernels: Any = None) -> Iterator[Any]:
    """``with mpi_buffer(buffer, kernels) as memory:`` gives what MPI may read and write in place of
    ``buffer``.

    For host backends (and ``kernels`` None) that is the buffer. Work that the device still has to
    do on the buffer is waited for first, because MPI knows nothing of streams; what MPI wrote is in
    the buffer afterwards.
    """
    if kernels is None or not kernels.on_device:
        yield buffer
    elif kernels.name == "cuda" and cuda_aware():
        kernels.synchronize()
        yield buffer
    else:
        kernels.synchronize()
        memory = kernels.pinned(buffer)
        yield memory
        buffer[...] = kernels.asarray(memory)


def nccl_sum(comm: Any, kernels: Any) -> Callable[[Array], None]:
    """Return the function that sums a device buffer over the ranks by NCCL; where one rank cannot,
    all raise ValueError.
    """

    def ready() -> None:
        if not kernels.on_device:
            raise RuntimeError(f'transport "nccl" is for GPUs, this is the {kernels.name} backend')
        kernels.nccl_sum(comm.size, comm.rank, None)

    everywhere(comm, ready)
    return kernels.nccl_sum(comm.size, comm.rank, comm.bcast)


@cache
def cuda_aware() -> bool | None:
    """Tell whether the MPI library reads GPU memory, None where it does not say: Open MPI and MPICH
    are asked, Cray's MPICH is told by the environment.

    MINICNN_CUDA_AWARE=0 or 1 decides instead.
    """
    if os.environ.get("MINICNN_CUDA_AWARE"):
        return os.environ["MINICNN_CUDA_AWARE"] == "1"
    if os.environ.get("MPICH_GPU_SUPPORT_ENABLED") == "1":
        return True
    from mpi4py import MPI

    library = ctypes.CDLL(MPI.__file__)
    if hasattr(library, "MPIX_Query_cuda_support"):  # Open MPI
        return bool(library.MPIX_Query_cuda_support())
    if hasattr(library, "MPIX_GPU_query_support"):  # MPICH: kind 0 is CUDA
        answer = ctypes.c_int(0)
        return library.MPIX_GPU_query_support(0, ctypes.byref(answer)) == 0 and bool(answer.value)
    return None

"""Start and end of an MPI job: find the world, refuse a wrong launcher, share the cores, end all
ranks when one fails.
"""

import atexit
import ctypes
import faulthandler
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from ..watch import end_by, launched_by, starting, waiting, watched
from .comm import ALONE
from .segments import remove_stale_segments

#: Seconds that ranks which exit with status 0 give each other.
PATIENCE = 5.0


def announced_size() -> tuple[int, str]:
    """Return (ranks, launcher) that the environment announces, (1, "") without a launcher."""
    return launched_by()[1:]


#: (rank on its node, ranks of the node) in the environment of Hydra (MPICH, Intel MPI), Open MPI,
#: MVAPICH, PALS, Flux, Cray's PMI and Slurm.
PLACES = (
    ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
    ("PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"),
    ("FLUX_TASK_LOCAL_ID", ""),
    ("PMI_LOCAL_RANK", "PMI_LOCAL_SIZE"),
    ("SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
)


def place_on_node() -> tuple[int, int]:
    """Return (this rank's number on its node, ranks there) as the launcher says in the environment;
    (0, 1) where it says nothing.
    """
    for rank, size in PLACES:
        if os.environ.get(rank, "").isdigit():
            number = int(os.environ[rank])
            return number, max(
                number + 1, int(os.environ[size]) if os.environ.get(size, "").isdigit() else 1
            )
    return 0, 1


@contextmanager
def world() -> Iterator[Any]:
    """``with world() as comm:`` gives MPI.COMM_WORLD, or ``Alone`` for one process.

    An exception or a non-zero exit inside ends *all* ranks at once with this rank's traceback,
    because the others would otherwise wait for it for ever, and so does ``sys.exit(0)`` on a rank
    that the others do not follow; an error that all ranks agreed on (``together``) ends them in
    order and is printed once, by rank 0. Raises RuntimeError under a
    launcher that belongs to another MPI than mpi4py's, where every rank would take itself for the
    only one.
    """
    with suppress(OSError, ValueError, AttributeError):  # a stderr that is no file
        faulthandler.enable()
    with watched():
        yield from _world()


def _world() -> Iterator[Any]:
    """``world`` by itself."""
    with starting():
        comm = _communicator()
    rank, size = comm.rank, comm.size
    ends = comm.Dup() if comm else comm  # for the end alone: others may be in the middle of comm's

    def end_all(kind, value, trace):
        text = "".join(traceback.format_exception(kind, value, trace))
        print(
            f"\nrank {rank} of {size} on {socket.gethostname()} failed; all ranks end:\n{text}",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(0.2)  # the launcher may end before it has passed the text on
        comm.Abort(1)

    if comm:
        end_by(comm.Abort)
        sys.excepthook = end_all
        threading.excepthook = lambda args: end_all(
            args.exc_type, args.exc_value, args.exc_traceback
        )
    try:
        yield comm
    except BaseException as problem:
        if isinstance(problem, SystemExit) and getattr(problem, "together", False):
            raise
        if isinstance(problem, SystemExit) and problem.code in (None, 0):
            if _all_end(ends, PATIENCE):
                raise
            problem = RuntimeError(f"exit status 0 on rank {rank} alone, before the end of the job")
        if getattr(problem, "together", False):
            if rank == 0:
                print(f"error: {problem}", file=sys.stderr, flush=True)
            sys.exit(1)
        if comm:
            end_all(type(problem), problem, problem.__traceback__)
        raise
    with waiting("the end of the job"):
        _all_end(ends, math.inf)


def _all_end(comm: Any, patience: float) -> bool:
    """Tell whether all ranks have come to their end within ``patience`` seconds of this one."""
    if not comm:
        return True
    request, began = comm.Ibarrier(), time.monotonic()
    while not request.Test():
        if time.monotonic() - began > patience:
            return False
        time.sleep(0.002)
    return True


def _started_mpi() -> Any:
    """Return mpi4py.MPI after MPI_Init, which waits for all ranks: called by way of ctypes, for
    mpi4py would keep the interpreter's lock meanwhile, and no watchdog could run.
    """
    if "mpi4py.MPI" not in sys.modules:
        import mpi4py

        mpi4py.rc.initialize = False
    MPI = import_module("mpi4py.MPI")
    if not MPI.Is_initialized():
        provided = ctypes.c_int()
        multiple = ctypes.c_int(MPI.THREAD_MULTIPLE)
        ctypes.CDLL(MPI.__file__).MPI_Init_thread(None, None, multiple, ctypes.byref(provided))
        for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):  # as mpi4py does: errors are exceptions
            comm.Set_errhandler(MPI.ERRORS_RETURN)
        atexit.register(lambda: MPI.Is_finalized() or MPI.Finalize())
    return MPI


def _communicator() -> Any:
    """Return MPI.COMM_WORLD if it has several ranks, else ALONE; refuses a launcher that announces
    more ranks than MPI sees.
    """
    size, launcher = announced_size()
    if place_on_node()[0] == 0:
        remove_stale_segments()  # a full /dev/shm would end MPI_Init without a word
    try:
        MPI = _started_mpi() if size > 1 else import_module("mpi4py.MPI")
    except ImportError as problem:
        if size > 1:
            raise RuntimeError(
                f"started as {size} ranks by {launcher}, but mpi4py cannot be imported "
                f'({problem}): pip install "minicnn[mpi]"'
            ) from None
        return ALONE
    comm = MPI.COMM_WORLD
    if comm.size == 1 and size > 1:
        library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
        raise RuntimeError(
            f"{launcher} started {size} processes, but mpi4py's MPI ({library}) sees only one: "
            "this mpiexec belongs to another MPI. Use the mpiexec of the environment that mpi4py "
            'is installed in, or build mpi4py against this MPI (pip install "minicnn[mpi-system]")'
        )
    return comm if comm.size > 1 else ALONE


def threads_per_rank(comm: Any) -> int:
    """Return how many threads this rank of ``comm`` may use: the cores of its node shared between
    the node's ranks, at least 1, and no more than NUMBA_NUM_THREADS, where it is set.

    A rank that the launcher bound to cores of its own uses just these.
    """
    own = (
        frozenset(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else frozenset(range(os.cpu_count() or 1))
    )
    variable = os.environ.get("NUMBA_NUM_THREADS", "")
    limit = max(1, int(variable)) if variable.isdecimal() else len(own)
    if not comm:
        return min(len(own), limit)
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    cores = node.allgather(own)
    node.Free()
    sharing = sum(bool(other & own) for other in cores)
    return max(1, min(len(own) // sharing, limit))

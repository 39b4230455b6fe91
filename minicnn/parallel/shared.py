"""Memory that the ranks of one node share."""

import os
import socket
from typing import Any

from .collective import agree


def node_of(comm: Any) -> Any:
    """Return the communicator of this rank's node, its ranks in the order of ``comm``."""
    from mpi4py import MPI

    return comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)


class NodeMemory:
    """A piece of memory for every rank of a node in one MPI window: each fills its own, then all of
    them read all.

    comm: all ranks. nbytes: size of this rank's piece. ``pieces[r]`` is the writable memory of rank
    r of ``node``; ``seal`` ends the writing. Raises MemoryError on all ranks where a node has less
    shared memory than its ranks ask for: the system would only notice on writing, and end the rank
    with a bus error.
    """

    def __init__(self, comm: Any, nbytes: int) -> None:
        from mpi4py import MPI

        self.node = node_of(comm)
        needed, free = self.node.allreduce(nbytes), free_shared_memory()
        problem = None
        if needed > free:
            problem = (
                f"{socket.gethostname()}: {needed / 1e6:.1f} MB of events do not fit into its "
                f"shared memory, /dev/shm has {free / 1e6:.1f} MB left: enlarge it (docker run "
                "--shm-size, mount -o remount,size=...), or let every rank keep its own events"
            )
        agree(comm, problem, error=MemoryError)
        self.window = MPI.Win.Allocate_shared(nbytes, 1, comm=self.node)
        memories: list[Any] = [self.window.Shared_query(r)[0] for r in range(self.node.size)]
        self.pieces = [memoryview(memory).cast("B") for memory in memories]

    def seal(self) -> None:
        """Wait until every rank of the node has filled its piece; from here on all pieces are
        read-only.
        """
        self.window.Fence()
        self.pieces = [piece.toreadonly() for piece in self.pieces]


def free_shared_memory() -> float:
    """Return the bytes left in /dev/shm, where MPI libraries keep shared windows; infinity where
    the system has no such place.
    """
    try:
        volume = os.statvfs("/dev/shm")
    except (AttributeError, OSError):
        return float("inf")
    return volume.f_bavail * volume.f_frsize

"""Sums over ranks that are made while the main thread computes.

"Non-blocking" is not "overlapped": most MPI libraries move data only inside MPI calls, and the call
that begins a reduction copies what the network takes. So somebody has to call MPI while kernels
run, and here it is a thread that begins the reductions, tests them as long as that moves data, and
else sleeps for an INTERVAL. Kernels run without Python's lock, so that it gets to work. It takes a
core for as long as MPI copies data from and to the network, which would have to be done anyway.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from typing import Any

import numpy as np

from .. import shared

#: Seconds between two tests: at 1 Gbit/s 25 kB arrive in it, less than sockets hold.
INTERVAL = 0.2e-3
#: Seconds that a test takes at least in which data have moved: the next one follows at once.
MOVED = 40e-6
#: Seconds without work after which the thread ends.
IDLE = 1.0


class UnderWay:
    """The sums of buffers over the ranks of ``comm``, in place, in the order in which they are
    added; all ranks add the same ones. Made on all ranks together.

    MPI allows one thread at a time to complete a request, so all of that happens under a lock, and
    two threads must not begin reductions on one communicator, so the thread has its own. There is
    none where the MPI must not be called by several (``MPI.Query_thread``), nor on a single node,
    whose ranks copy the data with their own cores, so that nothing is to be gained: there ``add``
    begins the reduction, and data move when ``progress`` is called.
    """

    def __init__(self, comm: Any) -> None:
        self._comm, self._by_thread = comm, False
        if comm.size > 1:
            from mpi4py import MPI

            node = shared.node_of(comm)
            self._by_thread = node.size < comm.size and MPI.Query_thread() == MPI.THREAD_MULTIPLE
            node.Free()
            if self._by_thread:
                self._comm = comm.Dup()
        self._queued: deque[np.ndarray] = deque()
        self._requests: list[Any] = []
        self._some = threading.Event()  # whether anything is left to do
        self._calls, self._life = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        if self._by_thread:  # what nobody waited for must not meet the end of MPI
            atexit.register(_close, weakref.ref(self))

    @property
    def begun(self) -> bool:
        """Whether anything was added since ``wait``."""
        return bool(self._queued or self._requests)

    @property
    def moving(self) -> bool:
        """Whether something is not complete yet, as far as MPI has been asked."""
        return self._some.is_set()

    def add(self, buffer: np.ndarray) -> None:
        """Begin the sum of a contiguous ``buffer``, which belongs to MPI until ``wait``."""
        with self._life:  # no thread ends from here on
            self._queued.append(buffer)
            self._some.set()
            if self._by_thread and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="MPI progress", daemon=True)
                self._thread.start()
        if not self._by_thread:
            self._begin()

    def progress(self) -> None:
        """Let MPI move what is under way, where no thread does."""
        if self.moving and not self._by_thread:
            self._test()

    def wait(self) -> None:
        """Wait until all sums are complete."""
        from mpi4py import MPI

        self._some.clear()  # the thread steps back
        with self._calls:
            self._begin()
            MPI.Request.Waitall(self._requests)
            self._requests = []

    def close(self) -> None:
        """Let the thread call MPI no more."""
        with self._calls:
            self._closed = True

    def _begin(self) -> None:
        from mpi4py import MPI

        while self._queued:
            self._requests.append(
                self._comm.Iallreduce(MPI.IN_PLACE, self._queued.popleft(), MPI.SUM)
            )

    def _test(self) -> None:
        from mpi4py import MPI

        self._some.clear()  # before looking: what is added meanwhile sets it again
        if not MPI.Request.Testall(self._requests) or self._queued:
            self._some.set()

    def _run(self) -> None:
        while True:
            work = self._some.wait(IDLE)
            with self._life:
                if self._closed or not (work or self._some.is_set()):
                    self._thread = None
                    return
            began = time.perf_counter()
            with self._calls:
                if not self._closed:
                    self._begin()
                    self._test()
            if time.perf_counter() - began < MOVED:
                time.sleep(INTERVAL)


def _close(reference: weakref.ref[UnderWay]) -> None:
    under_way = reference()
    if under_way:
        under_way.close()

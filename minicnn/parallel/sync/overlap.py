"""Gradients on their way while the main thread computes: in buckets within a step, or beside the
whole next step.

"Non-blocking" is not "overlapped": most MPI libraries move data only inside MPI calls. So the
requests are tested at every call of ``progress``, between stages and events, by the main thread (a
thread of its own would take a core from the kernels, and needs an MPI that allows several threads).
What is left to wait for in the end is exposed; the ledger books the two apart.
"""

from typing import Any

import numpy as np

from ...inspect import trace
from ...inspect.exchanges import Exchange
from .base import Sync

#: Bytes of a bucket: in the talk's network four of the five buckets are already complete after the
#: backward pass of the last block, and small ones cost little. benchmarks/allreduce.py measures
#: sizes in real steps and prints the one to set; on one node, where ranks move data themselves, one
#: piece.
BUCKET = 1 << 20


class OverlapSync(Sync):
    """The gradients as contiguous pieces of the one buffer, the last layers' first, each reduced as
    soon as it is complete.

    Pieces are cut at the same places on all ranks, so every rank starts the same reductions in the
    same order, also one without events. The tail goes last, because it says whether the gradients
    were finite. Sums are those of one Allreduce: equal bits on two ranks; on more, MPI may add in
    another order for another size (to about 1e-6, relative in norm).
    """

    options = ("bucket",)

    def __init__(self, comm: Any, bucket: int = BUCKET) -> None:
        super().__init__(comm)
        if bucket < 4:
            raise ValueError(f"a bucket holds at least one float32, 4 bytes, got {bucket}")
        self.bucket = bucket
        self.requests: list[Any] = []
        self.unsent = -1  # parameters that are not under way yet; -1 between steps
        self.all_finite, self.since = True, 0.0

    def on_gradients_ready(self, model: Any, start: int) -> None:
        """Send what is complete, gradients[start:P], and let MPI move what is under way."""
        size, count = model.parameters.size, max(self.bucket // model.gradients.itemsize, 1)
        if self.unsent < 0:
            self.unsent, self.all_finite = size, True
        while self.unsent > 0 and (self.unsent - 1) // count * count >= start:
            begin = (self.unsent - 1) // count * count  # pieces end at multiples of the bucket
            self._send(model, slice(begin, self.unsent))
            self.unsent = begin
        if self.requests:
            from mpi4py import MPI

            with trace.span("exposed communication", "progress"):
                MPI.Request.Testall([request for _, _, request in self.requests])

    def _send(self, model, piece):
        with trace.span("check finite"):
            gradients = model.gradients[piece]
            self.all_finite &= model.kernels.finite(gradients)
        if self.size > 1:
            from mpi4py import MPI

            with trace.span("exposed communication", "start"):
                if not self.requests:
                    self.since = trace.now()
                host = model.kernels.to_host(gradients)
                self.requests.append(
                    (gradients, host, self.comm.Iallreduce(MPI.IN_PLACE, host, MPI.SUM))
                )

    def finite(self, model: Any) -> bool:
        """Tell whether this rank's own gradients of the step are finite; what is under way holds
        sums already.
        """
        self.on_gradients_ready(model, 0)
        return self.all_finite

    def reduce_gradients(self, model: Any) -> bool:
        """Wait for all pieces, and sum the tail."""
        self.on_gradients_ready(model, 0)
        if self.size > 1:
            from mpi4py import MPI

            sent = sum(host.nbytes for _, host, _ in self.requests)
            moved = Exchange("allreduce", sent)
            trace.hidden("allreduce", self.since, trace.now(), exchange=moved)
            tail = model.gradients[model.parameters.size :]
            host = model.kernels.to_host(tail)
            with trace.collective("exposed communication"):
                self.requests.append(
                    (tail, host, self.comm.Iallreduce(MPI.IN_PLACE, host, MPI.SUM))
                )
                MPI.Request.Waitall([request for _, _, request in self.requests])
            for buffer, host, _ in self.requests:
                if host is not buffer:
                    buffer[...] = model.kernels.asarray(host)
        self.requests, self.unsent = [], -1
        return True


class DelayedSync(Sync):
    """The sums of step t are waited for, and applied, at the end of step t + 1: w(t + 1) = w(t) -
    rate * update(G(w(t - 1))).

    A whole step hides the communication; the price is one step of staleness (a pipelined SGD). The
    first step updates nothing, and an epoch ends with the update that is still outstanding. Figures
    and a not-finite error come one step late.
    """

    def __init__(self, comm: Any) -> None:
        super().__init__(comm)
        self.buffers: Any = None
        self.request: Any = None
        self.under_way, self.since = False, 0.0

    def on_gradients_ready(self, model: Any, start: int) -> None:
        """Let MPI move what is under way."""
        if self.request:
            with trace.span("exposed communication", "progress"):
                self.request.Test()

    def reduce_gradients(self, model: Any) -> bool:
        """Start this step's sums and put the last step's into the buffer; tells whether there were
        any.
        """
        if self.buffers is None:
            self.buffers = [
                np.empty(model.gradients.shape, model.gradients.dtype) for _ in range(2)
            ]
        arriving, leaving = self.buffers
        leaving[...] = model.kernels.to_host(model.gradients)
        ready = self.collect_pending(model)
        self.since = trace.now()
        if self.size > 1:
            from mpi4py import MPI

            self.request = self.comm.Iallreduce(MPI.IN_PLACE, leaving, MPI.SUM)
        self.buffers, self.under_way = [leaving, arriving], True
        return ready

    def collect_pending(self, model: Any) -> bool:
        if not self.under_way:
            return False
        # A completed request of mpi4py is falsy, so compare with None: every rank must record the
        # collective in the ledger.
        if self.request is not None:
            moved = Exchange("allreduce", self.buffers[0].nbytes)
            trace.hidden("allreduce", self.since, trace.now(), exchange=moved)
            with trace.collective("exposed communication"):
                self.request.Wait()
        self.request, self.under_way = None, False
        model.gradients[...] = model.kernels.asarray(self.buffers[0])
        return True

    def state(self, model: Any) -> dict[str, np.ndarray]:
        """Return the sums that the next step will apply."""
        if not self.under_way:
            return {}
        if self.request is not None:
            self.request.Wait()
            self.request = None
        return {"sums": self.buffers[0]}

    def set_state(self, model: Any, arrays: dict[str, np.ndarray]) -> None:
        """Let the next step apply these sums."""
        if "sums" in arrays:
            self.buffers = [arrays["sums"], np.empty_like(arrays["sums"])]
            self.under_way = True

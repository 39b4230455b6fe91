"""Gradients on their way while the main thread computes: in buckets within a step, or beside the
whole next step.

"Non-blocking" is not "overlapped": most MPI libraries move data only inside MPI calls. So the
requests are tested at every call of ``progress``, between stages and events, by the main thread (a
thread of its own would take a core from the kernels, and needs an MPI that allows several threads).
What is left to wait for in the end is exposed; the ledger books the two apart.
"""

import numpy as np

from ..inspect import trace
from .sync import GradientSync

#: Bytes of a bucket: of the talk's network four of five pieces are complete when its last block is,
#: and the small ones cost little. benchmarks/allreduce.py measures sizes in real steps and prints
#: the one to set; on one node, where ranks move data themselves, one piece.
BUCKET = 1 << 20


class OverlapSync(GradientSync):
    """The gradients as contiguous pieces of the one buffer, the last layers' first, each reduced as
    soon as it is complete.

    Pieces are cut at the same places on all ranks, so every rank starts the same reductions in the
    same order, also one without events. The tail goes last, because it says whether the gradients
    were finite. Sums are those of one Allreduce: equal bits on two ranks; on more, MPI may add in
    another order for another size (to about 1e-6, relative in norm).
    """

    def __init__(self, comm, bucket=BUCKET):
        super().__init__(comm)
        if bucket < 4:
            raise ValueError(f"a bucket holds at least one float32, 4 bytes, got {bucket}")
        self.bucket = bucket
        self.requests, self.unsent, self.all_finite, self.host, self.since = (
            [],
            None,
            True,
            None,
            None,
        )

    def progress(self, model, start):
        """Send what is complete, gradients[start:P], and let MPI move what is under way."""
        size, count = model.parameters.size, max(self.bucket // model.gradients.itemsize, 1)
        if self.unsent is None:
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
            mine = model.gradients[piece]
            self.all_finite &= model.kernels.finite(mine)
        if self.size > 1:
            from mpi4py import MPI

            with trace.span("exposed communication", "start"):
                if not self.requests:
                    self.since = trace.now()
                host = model.kernels.to_host(mine)
                self.requests.append(
                    (mine, host, self.comm.Iallreduce(MPI.IN_PLACE, host, MPI.SUM))
                )

    def finite(self, model):
        """Tell whether this rank's own gradients of the step are finite; what is under way holds
        sums already.
        """
        self.progress(model, 0)
        return self.all_finite

    def reduce_gradients(self, model):
        """Wait for all pieces, and sum the tail."""
        self.progress(model, 0)
        if self.size > 1:
            from mpi4py import MPI

            trace.hidden("allreduce", self.since, trace.now())
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
        self.requests, self.unsent = [], None
        return True


class DelayedSync(GradientSync):
    """The sums of step t are waited for, and applied, at the end of step t + 1: w(t + 1) = w(t) -
    rate * update(G(w(t - 1))).

    A whole step hides the communication; the price is one step of staleness (a pipelined SGD). The
    first step updates nothing, and an epoch ends with the update that is still outstanding. Figures
    and a not-finite error come one step late.
    """

    def __init__(self, comm):
        super().__init__(comm)
        self.buffers, self.request, self.under_way, self.since = None, None, False, None

    def progress(self, model, start):
        """Let MPI move what is under way."""
        if self.request:
            with trace.span("exposed communication", "progress"):
                self.request.Test()

    def reduce_gradients(self, model):
        """Start this step's sums and put the last step's into the buffer; tells whether there were
        any.
        """
        if self.buffers is None:
            self.buffers = [
                np.empty(model.gradients.shape, model.gradients.dtype) for _ in range(2)
            ]
        arriving, leaving = self.buffers
        leaving[...] = model.kernels.to_host(model.gradients)
        ready = self.outstanding(model)
        self.since = trace.now()
        if self.size > 1:
            from mpi4py import MPI

            self.request = self.comm.Iallreduce(MPI.IN_PLACE, leaving, MPI.SUM)
        self.buffers, self.under_way = [leaving, arriving], True
        return ready

    def outstanding(self, model):
        if not self.under_way:
            return False
        if self.request is not None:  # one that is done is false, yet all ranks book it
            trace.hidden("allreduce", self.since, trace.now())
            with trace.collective("exposed communication"):
                self.request.Wait()
        self.request, self.under_way = None, False
        model.gradients[...] = model.kernels.asarray(self.buffers[0])
        return True

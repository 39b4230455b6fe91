"""Gradients on their way while the main thread computes: in buckets within a step, or beside the
whole next step.

progress.py moves them. What is left to wait for in the end is exposed; the ledger books the two
apart.
"""

from typing import Any

import numpy as np

from ...inspect import trace
from ...inspect.exchanges import Exchange
from .base import Sync
from .progress import UnderWay

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
        self.under_way = UnderWay(self.comm)
        self.sent: list[tuple[Any, np.ndarray]] = []  # pieces, and their copies on the host
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
        if self.sent:
            with trace.span("exposed communication", "progress"):
                self.under_way.progress()

    def _send(self, model, piece):
        with trace.span("check finite"):
            gradients = model.gradients[piece]
            self.all_finite &= model.kernels.finite(gradients)
        if self.size > 1:
            with trace.span("exposed communication", "start"):
                if not self.sent:
                    self.since = trace.now()
                self._start(model, gradients)

    def _start(self, model, gradients):
        host = model.kernels.to_host(gradients)
        self.under_way.add(host)
        self.sent.append((gradients, host))

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
            moved = Exchange("allreduce", sum(host.nbytes for _, host in self.sent))
            trace.hidden("allreduce", self.since, trace.now(), exchange=moved)
            with trace.collective("exposed communication"):
                self._start(model, model.gradients[model.parameters.size :])
                self.under_way.wait()
            for buffer, host in self.sent:
                if host is not buffer:
                    buffer[...] = model.kernels.asarray(host)
        self.sent, self.unsent = [], -1
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
        self.under_way, self.pending, self.since = UnderWay(self.comm), False, 0.0

    def on_gradients_ready(self, model: Any, start: int) -> None:
        """Let MPI move what is under way."""
        with trace.span("exposed communication", "progress"):
            self.under_way.progress()

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
            self.under_way.add(leaving)
        self.buffers, self.pending = [leaving, arriving], True
        return ready

    def collect_pending(self, model: Any) -> bool:
        if not self.pending:
            return False
        if self.under_way.begun:  # not so behind a step that was saved
            moved = Exchange("allreduce", self.buffers[0].nbytes)
            trace.hidden("allreduce", self.since, trace.now(), exchange=moved)
            with trace.collective("exposed communication"):
                self.under_way.wait()
        self.pending = False
        model.gradients[...] = model.kernels.asarray(self.buffers[0])
        return True

    def state(self, model: Any) -> dict[str, np.ndarray]:
        """Return the sums that the next step will apply."""
        if not self.pending:
            return {}
        self.under_way.wait()
        return {"sums": self.buffers[0]}

    def set_state(self, model: Any, arrays: dict[str, np.ndarray]) -> None:
        """Let the next step apply these sums."""
        if "sums" in arrays:
            self.buffers = [arrays["sums"], np.empty_like(arrays["sums"])]
            self.pending = True

"""Gradients in half precision between ranks, with error feedback."""

from typing import Any

import numpy as np

from ...inspect import trace
from ...inspect.exchanges import Exchange
from .base import Sync

FP16_MOST = 65504 / 2


class CompressedSync(Sync):
    """Sum gradients that travel as 2 bytes each; what rounding took away is added to the next
    step's (error feedback).

    Each rank owns one piece of the buffer. q = round(g + e), e = g + e - q, q goes to the owners
    (Alltoall); an owner adds up in float32, in the order of ranks, and sends r = round(s + e'), e'
    = s + e' - r, to all (Allgather). So nothing is ever added in half precision, all ranks get the
    same bits, and the errors of one step are undone by the next ones: the sum of what was applied
    stays within one rounding of the sum of the gradients. Tail and scales travel as float32, exact.

    form: "fp16" has 11 significant bits and is scaled by a power of two from the largest gradient,
    so that nothing overflows; "bf16" has 8 bits, and float32's range. Seide et al. 2014 (error
    feedback); Karimireddy et al. 2019. Wins where the network, not the processor, bounds the
    Allreduce: it halves the bytes and costs passes over the buffer.
    """

    def __init__(self, comm: Any, form: str = "fp16") -> None:
        super().__init__(comm)
        self.form = form
        self.error: Any = None
        self.owner_error: Any = None

    def reduce_gradients(self, model: Any) -> bool:
        """Sum gradients and tail over all ranks before the update; gradients approximately."""
        if self.size > 1:
            host = model.kernels.to_host(model.gradients)  # what follows is NumPy's work
            self._reduce(host, model.parameters.size)
            if host is not model.gradients:
                model.gradients[...] = model.kernels.asarray(host)
        return True

    def _reduce(self, buffer, size):
        """Sum buffer[:size] compressed and the tail behind it exactly, in place."""
        from ...kernels.cpu.half import pack, unpack  # compiled code, where it is used

        ranks, piece = self.size, -(-size // self.size)
        if self.error is None:
            self.error, self.owner_error = (
                np.zeros((ranks, piece), np.float32),
                np.zeros(piece, np.float32),
            )
        with trace.span("pack"):
            g = self.error  # both at once: g + e, padded to equal pieces
            g.reshape(-1)[:size] += buffer[:size]
            largest = np.abs(g).max()
            own = np.concatenate([buffer[size:], [largest, np.abs(self.owner_error).max()]]).astype(
                np.float32
            )
        per_rank = np.empty((ranks, own.size), np.float32)
        with trace.collective("allreduce", exchange=Exchange("allgather", per_rank.nbytes)):
            self.comm.Allgather(own, per_rank)
        buffer[size:] = per_rank[:, :-2].sum(0, dtype=np.float64)
        largest, owner_largest = per_rank[:, -2], per_rank[:, -1].max()
        if not np.isfinite(largest).all() or buffer[-1]:
            self.error[...] = 0  # the step is an error on all ranks: nothing to keep
            return
        with trace.span("pack"):
            scales, total_scale = (
                [self._scale(maximum) for maximum in largest],
                self._scale(largest.sum() + owner_largest),
            )
            q = pack(g, self.form, scales[self.comm.rank], keep=True)
        received = np.empty_like(q)
        with trace.collective("allreduce", exchange=Exchange("alltoall", q.nbytes)):
            self.comm.Alltoall(q, received)
        with trace.span("pack"):
            s = self.owner_error
            for part, scale in zip(received, scales):
                unpack(part, s, self.form, scale, add=True)
            r = pack(s, self.form, total_scale, keep=True)
        everything = np.empty((ranks, piece), np.uint16)
        with trace.collective("allreduce", exchange=Exchange("allgather", everything.nbytes)):
            self.comm.Allgather(r, everything)
        with trace.span("pack"):
            unpack(everything.reshape(-1)[:size], buffer[:size], self.form, total_scale)

    def state(self, model: Any) -> dict[str, np.ndarray]:
        """Return what rounding has taken away so far, of this rank's gradients and of its sums."""
        if self.error is None:
            return {}
        return {"error": self.error, "owner_error": self.owner_error}

    def set_state(self, model: Any, arrays: dict[str, np.ndarray]) -> None:
        """Carry on with what rounding took away before."""
        if "error" in arrays:
            size = model.parameters.size
            piece = -(-size // self.size)
            self.error = np.zeros((self.size, piece), np.float32)
            self.error.reshape(-1)[:size] = arrays["error"].reshape(-1)[:size]
            self.owner_error = arrays.get("owner_error", np.zeros(piece, np.float32))

    def _scale(self, largest):
        """Return the power of two that brings ``largest`` to at most FP16_MOST; 1 for bf16."""
        if self.form == "bf16" or largest == 0:
            return np.float32(1)
        return np.float32(2.0 ** np.clip(np.floor(np.log2(FP16_MOST / float(largest))), -100, 100))

"""How ranks stay one model: sum the gradients every step, or average the weights every k steps.

    gradients       one Allreduce of the whole buffer, the main thread waits for it
    overlap         the same sums in buckets, each on its way while earlier layers' gradients are still being computed (overlap.py)
    delayed         the sums arrive one step later and are applied then: all of a step hides them, the weights lag by one (overlap.py)
    fp16, bf16      half the bytes; what rounding loses is kept and sent with the next step (compressed.py)
    hierarchical    within the nodes first, then between one rank of each
    weights         every k steps the mean of weights and optimizer state

All but "delayed" and "weights" make the same updates as one rank with all the events, up to
rounding (or compression). ``benchmarks/allreduce.py`` measures which is fastest where.
"""

import numpy as np

from ..inspect import trace
from .device import lent, nccl_sum

MODES = ("gradients", "overlap", "delayed", "fp16", "bf16", "hierarchical", "weights")
TRANSPORTS = ("mpi", "nccl")


def make_sync(mode, comm, every=1, bucket=None, transport="mpi"):
    """Return the sync of that name for ``comm`` (None: one rank); ``every`` is for "weights",
    ``bucket`` (bytes) for "overlap", and ``transport`` "nccl" lets NCCL add up the device buffers
    of "gradients" and "weights".

    Raises ValueError for an unknown mode, and for an option that the mode would ignore.
    """
    from .compressed import CompressedSync
    from .overlap import DelayedSync, OverlapSync

    makers = {
        "gradients": GradientSync,
        "overlap": OverlapSync,
        "delayed": DelayedSync,
        "hierarchical": HierarchicalSync,
        "weights": WeightSync,
        "fp16": CompressedSync,
        "bf16": CompressedSync,
    }
    if mode not in makers:
        raise ValueError(f"sync must be one of {', '.join(MODES)}, got {mode!r}")
    if every != 1 and mode != "weights":
        raise ValueError(f'averaging every {every} steps goes with sync="weights", got {mode!r}')
    if bucket is not None and mode != "overlap":
        raise ValueError(f'a bucket size goes with sync="overlap", got {mode!r}')
    if transport not in TRANSPORTS:
        raise ValueError(f"transport must be one of {', '.join(TRANSPORTS)}, got {transport!r}")
    if transport == "nccl" and mode not in ("gradients", "weights"):
        raise ValueError(f'transport "nccl" goes with sync="gradients" or "weights", got {mode!r}')
    options = {"every": every} if mode == "weights" else {"bucket": bucket} if bucket else {}
    options |= {"form": mode} if mode in ("fp16", "bf16") else {}
    options |= {"transport": transport} if transport != "mpi" else {}
    return makers[mode](comm, **options)


class GradientSync:
    """One Allreduce(SUM) of the gradient buffer per step: summed gradients, event count, loss and
    correct count at once.
    """

    local = False  # the update sees the gradients of all ranks
    progress = (
        None  # progress(model, start) while gradients are computed, see Sequential.accumulate
    )

    def __init__(self, comm, transport="mpi"):
        self.comm, self.size, self.transport, self.nccl = (
            comm,
            comm.size if comm else 1,
            transport,
            None,
        )

    def finite(self, model):
        """Tell whether this rank's own gradients of the step are finite."""
        return model.kernels.finite(model.gradients)

    def allreduce(self, buffer, kernels=None):
        """Sum ``buffer`` over the ranks, in place; ``kernels``: the backend it belongs to, None for
        a NumPy array.
        """
        if self.size > 1 and self.transport == "nccl" and kernels is not None:
            self.nccl = self.nccl or nccl_sum(self.comm, kernels)
            with trace.collective("allreduce"):
                self.nccl(buffer)
        elif self.size > 1:
            from mpi4py import MPI

            with lent(buffer, kernels) as memory, trace.collective("allreduce"):
                self.comm.Allreduce(MPI.IN_PLACE, memory, MPI.SUM)

    def total(self, values):
        """Return the sum of a float64 vector over the ranks."""
        values = np.array(values, np.float64)
        self.allreduce(values)
        return values

    def broadcast(self, model, optimizer):
        """Give all ranks the weights, optimizer state and step counts of rank 0."""
        optimizer.prepare(model)
        if self.size > 1:
            for vector in (model.parameters, *optimizer.state.values()):
                with lent(vector, model.kernels) as memory:
                    self.comm.Bcast(memory)
            optimizer.steps, model.updates = self.comm.bcast((optimizer.steps, model.updates))
            model.weights_changed()

    def reduce_gradients(self, model):
        """Sum gradients and tail over all ranks before the update; tells whether there is something
        to update with.
        """
        self.allreduce(model.gradients, model.kernels)
        return True

    def outstanding(self, model):
        """Put gradients that are still under way into the buffer, at the end of an epoch; tells
        whether there were any.
        """
        return False

    def reduce_weights(self, model, optimizer, tail):
        """Return the tail that this step accounts for; weights are equal already."""
        return tail

    def flush(self, model, optimizer):
        """Bring weights together at the end of an epoch: nothing is outstanding."""


class HierarchicalSync(GradientSync):
    """Sum within each node on its first rank, then between these, then hand out: only one rank of a
    node uses the network.

    Wins where the ranks of a node share one network adapter and the MPI library does not do this by
    itself.
    """

    def __init__(self, comm):
        super().__init__(comm)
        if self.size > 1:
            from . import shared

            self.node = shared.node_of(comm)
            self.leaders = comm.Split(0 if self.node.rank == 0 else 1, comm.rank)

    def allreduce(self, buffer, kernels=None):
        """Sum ``buffer`` over the ranks, in place."""
        if self.size > 1:
            from mpi4py import MPI

            first = self.node.rank == 0
            with lent(buffer, kernels) as memory, trace.collective("allreduce"):
                self.node.Reduce(
                    MPI.IN_PLACE if first else memory, memory if first else None, MPI.SUM, 0
                )
                if first:
                    self.leaders.Allreduce(MPI.IN_PLACE, memory, MPI.SUM)
                self.node.Bcast(memory, 0)


class WeightSync(GradientSync):
    """Every ``every`` steps weights and optimizer state become the mean over ranks, weighted by the
    events each has seen since the last.

    At every = 1 this equals GradientSync up to rounding for SGD with momentum and weight decay,
    because both are linear in the gradients. The talk's "aggregate weights across nodes, average,
    update all nodes".
    """

    local = True  # each rank updates with its own gradients

    def __init__(self, comm, every=1, transport="mpi"):
        super().__init__(comm, transport)
        if every < 1:
            raise ValueError(f"weights are averaged every k >= 1 steps, got {every}")
        self.every, self.since, self.pending = every, 0, None

    def reduce_gradients(self, model):
        return True

    def reduce_weights(self, model, optimizer, tail):
        self.pending = (
            tail if self.pending is None else {key: self.pending[key] + tail[key] for key in tail}
        )
        self.since += 1
        return self.flush(model, optimizer) if self.since >= self.every else None

    def flush(self, model, optimizer):
        if self.pending is None:
            return None
        mine, self.pending, self.since = self.pending, None, 0
        k, vectors = model.kernels, [model.parameters, *optimizer.state.values()]
        with trace.span("pack"):
            rows = k.empty(
                (len(vectors), model.parameters.size + len(mine)), model.parameters.dtype
            )
            for row, vector in zip(rows, vectors):
                row[: vector.size] = vector * mine["events"]
                row[vector.size :] = k.asarray(np.array(list(mine.values()), vector.dtype))
        self.allreduce(rows, k)
        with trace.span("pack"):
            total = dict(zip(mine, map(float, k.to_host(rows[0, model.parameters.size :]))))
            if total["events"]:
                for row, vector in zip(rows, vectors):
                    vector[...] = row[: vector.size] / total["events"]
                model.weights_changed()
        return total

"""How ranks stay one model: sum the gradients every step, or average the weights every k steps."""
import numpy as np

from .device import lent, nccl_sum

MODES, TRANSPORTS = ("gradients", "weights"), ("mpi", "nccl")


def make_sync(mode, comm, every=1, transport="mpi"):
    """Return the GradientSync or WeightSync for ``comm`` (None: one rank); raises ValueError for another mode or transport."""
    if transport not in TRANSPORTS:
        raise ValueError(f"transport must be one of {', '.join(TRANSPORTS)}, got {transport!r}")
    if mode not in MODES:
        raise ValueError(f"sync must be one of {', '.join(MODES)}, got {mode!r}")
    return GradientSync(comm, transport) if mode == "gradients" else WeightSync(comm, every, transport)


class GradientSync:
    """One Allreduce(SUM) of the gradient buffer per step: summed gradients, event count, loss and correct count at once."""

    local = False                                   # the update sees the gradients of all ranks

    def __init__(self, comm, transport="mpi"):
        self.comm, self.size, self.transport, self.nccl = comm, comm.size if comm else 1, transport, None

    def allreduce(self, buffer, kernels=None):
        """Sum ``buffer`` over the ranks, in place; ``kernels``: the backend it belongs to, None for a NumPy array."""
        if self.size > 1 and self.transport == "nccl" and kernels is not None:
            self.nccl = self.nccl or nccl_sum(self.comm, kernels)
            self.nccl(buffer)
        elif self.size > 1:
            from mpi4py import MPI
            with lent(buffer, kernels) as memory:
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
        """Sum gradients and tail over all ranks before the update."""
        self.allreduce(model.gradients, model.kernels)

    def reduce_weights(self, model, optimizer, tail):
        """Return the tail that this step accounts for; weights are equal already."""
        return tail

    def flush(self, model, optimizer):
        """Bring weights together at the end of an epoch: nothing is outstanding."""


class WeightSync(GradientSync):
    """Every ``every`` steps weights and optimizer state become the mean over ranks, weighted by the events each has seen since the last.

    At every = 1 this equals GradientSync up to rounding for SGD with momentum and weight decay, because both are linear in the
    gradients. The talk's "aggregate weights across nodes, average, update all nodes".
    """

    local = True                                    # each rank updates with its own gradients

    def __init__(self, comm, every=1, transport="mpi"):
        super().__init__(comm, transport)
        if every < 1:
            raise ValueError(f"weights are averaged every k >= 1 steps, got {every}")
        self.every, self.since, self.pending = every, 0, None

    def reduce_gradients(self, model):
        pass

    def reduce_weights(self, model, optimizer, tail):
        self.pending = tail if self.pending is None else {key: self.pending[key] + tail[key] for key in tail}
        self.since += 1
        return self.flush(model, optimizer) if self.since >= self.every else None

    def flush(self, model, optimizer):
        if self.pending is None:
            return None
        mine, self.pending, self.since = self.pending, None, 0
        k, vectors = model.kernels, [model.parameters, *optimizer.state.values()]
        rows = k.empty((len(vectors), model.parameters.size + len(mine)), model.parameters.dtype)
        for row, vector in zip(rows, vectors):
            row[:vector.size] = vector * mine["events"]
            row[vector.size:] = k.asarray(np.array(list(mine.values()), vector.dtype))
        self.allreduce(rows, k)
        total = dict(zip(mine, map(float, k.to_host(rows[0, model.parameters.size:]))))
        if total["events"]:
            for row, vector in zip(rows, vectors):
                vector[...] = row[:vector.size] / total["events"]
            model.weights_changed()
        return total

"""The protocol of a sync mode: how ranks stay one model.

What a training asks of it, in this order, on every rank alike:

    broadcast(model, optimizer)              once: all ranks begin with the weights of rank 0
    each step:
        on_gradients_ready(model, start)     again and again while gradients[start:] become final,
                                             for modes that send them at once; None for the others
        finite(model)                        are this rank's own gradients finite?
        reduce_gradients(model) -> ready     the sums of all ranks are in model.gradients
        (the optimizer updates, if ready)
        reconcile_weights(model, ...)        bring weights together, where each rank has its own
    at the end of an epoch:
        collect_pending(model) -> ready      sums that are still under way (one more update then)
        finish_epoch(model, optimizer)       bring weights together
        average_state(model)                 running statistics become the mean over ranks
    where a step is saved and taken up again:
        state(model) -> arrays               what this rank carries into the next step
        set_state(model, arrays)             the same on the rank that goes on

A mode is a subclass of Sync with a row in ``MODES`` of this package; ``options`` names what
make_sync may give to its constructor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...inspect import trace
from ...inspect.exchanges import Exchange
from ...kernels.types import Array
from ..comm import as_comm
from ..device import mpi_buffer, nccl_sum

if TYPE_CHECKING:
    from ...engine.engine import Engine
    from ...train.optim import Optimizer

Tail = dict[str, float]


class Sync:
    """What all modes share: sums over ranks, the start, the end of an epoch.

    comm: an mpi4py communicator, or None for one rank. transport: "mpi", or "nccl" between GPUs.
    Methods get the ``model`` that is trained and its ``optimizer``; a tail is what stands behind
    the gradients, {"events", "loss", ...}, summed over the ranks.
    """

    #: Arguments of the constructor that make_sync passes on.
    options: tuple[str, ...] = ()
    #: The name that make_sync knows it by.
    mode = "gradients"
    #: Whether each rank updates with its own gradients, before anything is reduced.
    updates_before_reduction = False
    #: What run.json says of it beside its name: what a training has chosen, and why.
    record: dict[str, Any]
    #: See the module; None where nothing is sent before all gradients are there.
    on_gradients_ready: Callable[[Engine, int], None] | None = None

    def __init__(self, comm: Any, transport: str = "mpi") -> None:
        self.comm, self.transport = as_comm(comm), transport
        self.size = self.comm.size
        self.nccl: Callable[[Array], None] | None = None
        self.record: dict[str, Any] = {}

    # ------------------------------------------------------------------------------- the protocol
    def broadcast(self, model: Engine, optimizer: Optimizer) -> None:
        """Give all ranks the weights, states, optimizer state and step counts of rank 0."""
        optimizer.prepare(model)
        if self.size > 1:
            vectors = [model.parameters, *optimizer.state.values()]
            if model.buffers.state.size:
                vectors.append(model.buffers.state)
            for vector in vectors:
                with mpi_buffer(vector, model.kernels) as memory:
                    self.comm.Bcast(memory)
            counts = optimizer.steps, model.updates
            optimizer.steps, model.updates = self.comm.bcast(counts)
            model.weights_changed()

    def finite(self, model: Engine) -> bool:
        """Tell whether this rank's own gradients of the step are finite."""
        return model.kernels.finite(model.gradients)

    def reduce_gradients(self, model: Engine) -> bool:
        """Sum gradients and tail of ``model`` over all ranks before the update; tells whether there
        is something to update with.
        """
        raise NotImplementedError(f"{type(self).__name__}.reduce_gradients")

    def reconcile_weights(self, model: Engine, optimizer: Optimizer, tail: Tail) -> Tail | None:
        """Bring the weights of ``model`` together where each rank has its own; returns the tail
        that this step accounts for. By default weights are equal already.
        """
        return tail

    def collect_pending(self, model: Engine) -> bool:
        """Put gradients that are still under way into the buffer; tells whether there were any."""
        return False

    def finish_epoch(self, model: Engine, optimizer: Optimizer) -> Tail | None:
        """Bring the weights of ``model`` together at the end of an epoch; returns the tail of what
        is left.
        """
        return None

    def average_state(self, model: Engine) -> None:
        """Replace the states of layers by their mean over ranks."""
        state = model.buffers.state
        if self.size > 1 and state.size:
            self.allreduce(state, model.kernels)
            state[...] = state / self.size

    def state(self, model: Engine) -> dict[str, np.ndarray]:
        """Return what this rank carries from one step into the next, beside model and optimizer.
        All ranks call it together: what is under way is waited for.
        """
        return {}

    def set_state(self, model: Engine, arrays: dict[str, np.ndarray]) -> None:
        """Carry on with ``arrays``, which ``state`` returned on this rank."""

    # -------------------------------------------------------------------------------- what they use
    def allreduce(self, buffer: Array, kernels: Any = None) -> None:
        """Sum ``buffer`` over the ranks, in place; ``kernels``: the backend it belongs to, None for
        a NumPy array.
        """
        if self.size > 1 and self.transport == "nccl" and kernels is not None:
            self.nccl = self.nccl or nccl_sum(self.comm, kernels)
            with trace.collective("allreduce", exchange=Exchange("allreduce", buffer.nbytes)):
                self.nccl(buffer)
        elif self.size > 1:
            from mpi4py import MPI

            moved = Exchange("allreduce", buffer.nbytes)
            with (
                mpi_buffer(buffer, kernels) as memory,
                trace.collective("allreduce", exchange=moved),
            ):
                self.comm.Allreduce(MPI.IN_PLACE, memory, MPI.SUM)

    def total(self, values: Any) -> np.ndarray:
        """Return the sum of ``values``, a float64 vector, over the ranks."""
        values = np.array(values, np.float64)
        self.allreduce(values)
        return values

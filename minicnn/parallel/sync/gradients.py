"""One Allreduce of the whole gradient buffer per step, flat or by nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...inspect import trace
from ...inspect.exchanges import Exchange
from ...kernels.types import Array
from ..device import mpi_buffer
from .base import Sync

if TYPE_CHECKING:
    from ...engine.engine import Engine


class GradientSync(Sync):
    """One Allreduce(SUM) of the gradient buffer per step: summed gradients, event count, loss and
    figures at once. comm: all ranks. transport: "mpi", or "nccl" between GPUs.
    """

    options: tuple[str, ...] = ("transport",)

    def reduce_gradients(self, model: Engine) -> bool:
        self.allreduce(model.gradients, model.kernels)
        return True


class HierarchicalSync(GradientSync):
    """Sum within each node on its first rank, then between these, then hand out: only one rank of a
    node uses the network.

    Wins where the ranks of a node share one network adapter and the MPI library does not do this by
    itself.
    """

    options = ()

    def __init__(self, comm: Any) -> None:
        super().__init__(comm)
        if self.size > 1:
            from .. import shared

            self.node = shared.node_of(comm)
            self.leaders = comm.Split(0 if self.node.rank == 0 else 1, comm.rank)

    def allreduce(self, buffer: Array, kernels: Any = None) -> None:
        """Sum ``buffer`` over the ranks, in place."""
        if self.size > 1:
            from mpi4py import MPI

            first = self.node.rank == 0
            moved = Exchange("allreduce", buffer.nbytes)
            with (
                mpi_buffer(buffer, kernels) as memory,
                trace.collective("allreduce", exchange=moved),
            ):
                self.node.Reduce(
                    MPI.IN_PLACE if first else memory, memory if first else None, MPI.SUM, 0
                )
                if first:
                    self.leaders.Allreduce(MPI.IN_PLACE, memory, MPI.SUM)
                self.node.Bcast(memory, 0)

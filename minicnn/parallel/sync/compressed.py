"""Gradients in half precision between ranks, with error feedback."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ...inspect import trace
from ...inspect.exchanges import Exchange
from .. import shared
from .base import Sync

FP16_MOST = 65504 / 2


class Levels:
    """Which ranks add up in float32 before anything is rounded, and which then exchange.

    Where several nodes have several ranks, the ranks of a node own a piece of the buffer each, and
    the owners of the same piece exchange it:

        node A            node B
        rank 0  rank 1    rank 2  rank 3     each gets the node's sum of its piece, float32
          +-------|---------+       |        half precision over the network, pieces side by side
                  +-----------------+
        rank 0  rank 1    rank 2  rank 3     all pieces to all ranks of the node, float32

    Ranks beyond those of the smallest node own nothing. On one node, or with one rank on each,
    every rank stands for a node.

    node: the ranks of this one's node; shared: whether any node has several. across: the owners of
    this rank's piece, itself alone if it owns nothing; members: their ranks in ``comm``. owners:
    pieces of the buffer.
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        node = shared.node_of(comm)
        if node.size == comm.size:
            node = comm.Split(comm.rank)
        self.node, self.owners = node, comm.allreduce(node.size, MPI.MIN)
        self.shared = comm.allreduce(node.size, MPI.MAX) > 1
        owner = node.rank < self.owners
        across = comm.Split(node.rank if owner else MPI.UNDEFINED, comm.rank)
        self.across: Any = across if owner else MPI.COMM_SELF
        self.members = self.across.allgather(comm.rank)

    def counts(self, size: int) -> list[int]:
        """Return how many of ``size`` numbers each rank of the node owns, in their order."""
        piece = -(-size // self.owners)
        starts = [min(size, piece * min(r, self.owners)) for r in range(self.node.size + 1)]
        return [end - start for start, end in pairwise(starts)]


class Pieces(NamedTuple):
    """What lives from step to step on an owner.

    first, length: its piece of the buffer. sums (length,): of its node. error (members, part): what
    rounding took away from them, a row for each member's part; owner_error (part,): from the sums
    of its own part. own, received: uint16 (members, part).
    """

    first: int
    length: int
    sums: np.ndarray
    error: np.ndarray
    owner_error: np.ndarray
    own: np.ndarray
    received: np.ndarray


class CompressedSync(Sync):
    """Sum gradients that travel as 2 bytes each; what rounding took away is added to the next
    step's (error feedback).

    Ranks of a node that others share are summed in float32 first (Levels), so that each node sends
    half the bytes of "hierarchical". Then each rank owns one part of its piece. q = round(g + e), e
    = g + e - q, q goes to the owners (Alltoall); an owner adds up in float32, in the order of
    ranks, and sends r = round(s + e'), e' = s + e' - r, to all (Allgather). So nothing is ever
    added in half precision, all ranks get the same bits, and the errors of one step are undone by
    the next ones: the sum of what was applied stays within one rounding of the sum of the
    gradients. Tail and scales travel as float32, exact.

    form: "fp16" has 11 significant bits and is scaled by a power of two from the largest gradient,
    so that nothing overflows; "bf16" has 8 bits, and float32's range. Seide et al. 2014 (error
    feedback); Karimireddy et al. 2019. Wins where the network, not the processor, bounds the
    Allreduce: it halves the bytes and costs passes over the buffer.
    """

    def __init__(self, comm: Any, form: str = "fp16") -> None:
        super().__init__(comm)
        self.form = form
        self.pieces: Pieces | None = None
        self.alone: dict[str, np.ndarray] = {}  # what one rank, which rounds nothing, hands on
        if self.size > 1:
            self.levels = Levels(comm)

    def reduce_gradients(self, model: Any) -> bool:
        """Sum gradients and tail over all ranks before the update; gradients approximately."""
        if self.size > 1:
            host = model.kernels.to_host(model.gradients)  # what follows is NumPy's work
            self._reduce(host, model.parameters.size)
            if host is not model.gradients:
                model.gradients[...] = model.kernels.asarray(host)
        return True

    def _reduce(self, buffer: np.ndarray, size: int) -> None:
        """Sum buffer[:size] compressed and the tail behind it exactly, in place."""
        from ...kernels.cpu.half import add_up, pack  # compiled code, where it is used

        self.pieces = pieces = self.pieces or self._new_pieces(size)
        numbers = self._sum_within_node(buffer[:size], pieces.sums)
        with trace.span("pack"):
            # bf16, which needs no scale, is packed in the pass that adds up g + e.
            if self.form == "bf16":
                largest = pack(pieces.error, pieces.own, self.form, add=numbers, keep=True), 0.0
            else:
                largest = add_up(pieces.error, numbers), add_up(pieces.owner_error)
            tail = np.concatenate([buffer[size:], largest]).astype(np.float32)
        per_rank = np.empty((self.size, tail.size), np.float32)
        with trace.collective("allreduce", exchange=Exchange("allgather", per_rank.nbytes)):
            self.comm.Allgather(tail, per_rank)
        buffer[size:] = per_rank[:, :-2].sum(0, dtype=np.float64)
        if not np.isfinite(per_rank[:, -2]).all() or buffer[-1]:
            pieces.error[...] = 0  # the step is an error on all ranks: nothing to keep
            return
        self._exchange(buffer, pieces, per_rank[self.levels.members, -2:])
        if self.levels.shared:
            from mpi4py import MPI

            node = self.levels.node
            with trace.collective("allreduce", exchange=Exchange("allgather", 4 * size)):
                if node.size > 1:
                    node.Allgatherv(MPI.IN_PLACE, (buffer[:size], self.levels.counts(size)))

    def _sum_within_node(self, gradients: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Return the node's sums of this rank's piece."""
        node, nbytes = self.levels.node, gradients.nbytes
        if self.levels.shared:  # by all: ledgers compare the arrivals of all ranks
            with trace.collective("allreduce", exchange=Exchange("reduce-scatter", nbytes)):
                if node.size > 1:
                    node.Reduce_scatter(gradients, sums, self.levels.counts(gradients.size))
        return sums if node.size > 1 else gradients

    def _exchange(self, buffer: np.ndarray, pieces: Pieces, largest: np.ndarray) -> None:
        """Sum this rank's piece over the nodes. largest (members, 2): what each found in its
        numbers, and in its owner_error.
        """
        from ...kernels.cpu.half import pack, unpack

        form, across, mine = self.form, self.levels.across, pieces.own[self.levels.across.rank]
        scales = [self._scale(each) for each in largest[:, 0]]
        total_scale = self._scale(largest[:, 0].sum() + largest[:, 1].max())
        if form == "fp16":
            with trace.span("pack"):
                pack(pieces.error, pieces.own, form, scales[across.rank], keep=True)
        with trace.collective("allreduce", exchange=Exchange("alltoall", pieces.own.nbytes)):
            across.Alltoall(pieces.own, pieces.received)
        with trace.span("pack"):
            for part, scale in zip(pieces.received, scales):
                unpack(part, pieces.owner_error, form, scale, add=True)
            pack(pieces.owner_error, mine, form, total_scale, keep=True)
        everything = pieces.received
        with trace.collective("allreduce", exchange=Exchange("allgather", everything.nbytes)):
            across.Allgather(mine, everything)
        with trace.span("pack"):
            first, end = pieces.first, pieces.first + pieces.length
            packed = everything.reshape(-1)[: pieces.length]
            unpack(packed, buffer[first:end], form, total_scale)

    def _new_pieces(self, size: int) -> Pieces:
        """Return the pieces of this rank, without errors."""
        levels = self.levels
        counts, members = levels.counts(size), len(levels.members)
        count = counts[levels.node.rank]
        shape = members, -(-count // members)
        return Pieces(
            sum(counts[: levels.node.rank]),
            count,
            np.zeros(count if levels.node.size > 1 else 0, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape[1], np.float32),
            *np.zeros((2, *shape), np.uint16),
        )

    def state(self, model: Any) -> dict[str, np.ndarray]:
        """Return what rounding has taken away so far, of this rank's piece of the buffer and of its
        part of the sums, each at its place in a vector of all gradients.
        """
        pieces, size = self.pieces, model.parameters.size
        if pieces is None:
            return self.alone
        error, owner_error = np.zeros((2, size), np.float32)
        error[pieces.first :][: pieces.length] = pieces.error.reshape(-1)[: pieces.length]
        self._part(owner_error)[:] = pieces.owner_error[: self._part(owner_error).size]
        return {"error": error, "owner_error": owner_error}

    def _part(self, vector: np.ndarray) -> np.ndarray:
        """Return this rank's own part of its piece of a vector of all gradients."""
        pieces, across = self.pieces, self.levels.across
        assert pieces is not None
        piece, part = vector[pieces.first :][: pieces.length], len(pieces.owner_error)
        return piece[part * across.rank : part * (across.rank + 1)]

    def set_state(self, model: Any, arrays: dict[str, np.ndarray]) -> None:
        """Carry on with what rounding took away before, on all ranks together. Where it does not
        belong to these pieces, as on other nodes, its sum goes on with the first owner of each.
        """
        size, names = model.parameters.size, ("error", "owner_error")
        carried = np.zeros((2, size), np.float32)
        for to, name in zip(carried, names):
            if name in arrays:
                to[:] = in_whole(arrays[name], size, self.comm.rank)
        if self.size == 1:
            self.alone = dict(zip(names, carried)) if arrays else {}
            return
        from mpi4py import MPI

        if not self.comm.allreduce(int(carried.any()), MPI.MAX):
            return
        self.pieces = pieces = self._new_pieces(size)
        error, owner_error = carried
        own = error[pieces.first :][: pieces.length]
        other = np.count_nonzero(carried) - np.count_nonzero(own)
        other -= np.count_nonzero(self._part(owner_error))
        if self.comm.allreduce(other, MPI.MAX):
            total = carried.sum(0)
            self.comm.Allreduce(MPI.IN_PLACE, total, MPI.SUM)
            error[:], owner_error[:] = total, 0
            if self.levels.across.rank:
                own[:] = 0
        pieces.error.reshape(-1)[: pieces.length] = own
        pieces.owner_error[: self._part(owner_error).size] = self._part(owner_error)

    def _scale(self, largest: float) -> float:
        """Return the power of two that brings ``largest`` to at most FP16_MOST; 1 for bf16."""
        if self.form == "bf16" or largest == 0:
            return 1.0
        return float(2.0 ** np.clip(np.floor(np.log2(FP16_MOST / float(largest))), -100, 100))


def in_whole(array: np.ndarray, size: int, rank: int) -> np.ndarray:
    """Return an array of a rank's ``state`` as it is now, at its place among ``size`` gradients:
    steps that were saved earlier have (ranks, part), and the rank's own part of the sums alone.
    """
    if array.ndim == 2:
        return array.reshape(-1)[:size]
    if len(array) == size:
        return array
    whole = np.zeros(max(size, len(array) * (rank + 1)), array.dtype)
    whole[len(array) * rank :][: len(array)] = array
    return whole[:size]

"""NodeStore: the events of all ranks of a node, each kept once and in reach of all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..parallel import agree
from ..parallel.shared import NodeMemory
from .balance import SCALES, equal_batches, equal_shares, relative_costs
from .event import EventError
from .store import CompressedEvent, EventStore, no_targets

#: What is known of an event beside its bytes.
ENTRY = np.dtype(
    [
        ("rank", "i4"),
        ("start", "i8"),
        ("size", "i8"),
        ("digest", "u4"),
        ("pixels", "i8"),
        ("background", "f8"),
        ("source", "i4"),
        ("number", "i8"),
        ("label", "i8"),
        ("cells", "i4", (SCALES,)),
    ]
)


class SharedEvents:
    """{index: CompressedEvent} of a node: a row of ``table`` each, because Python objects for all
    events in every rank would outweigh the data.
    """

    def __init__(self, pieces: list[Any], table: np.ndarray, sources: list[list[str]]) -> None:
        self.pieces, self.table, self.sources = pieces, table, sources

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> CompressedEvent:
        rank, start, size, digest, pixels, background, source, number, *_ = self.table[index].item()
        return CompressedEvent(
            self.pieces[rank][start : start + size],
            digest,
            pixels,
            background,
            self.sources[rank][source],
            number,
        )


class NodeStore(EventStore):
    """The compressed events of a node's ranks in memory that they share.

    store: this rank's EventStore, filled with its shard; its events move into the shared memory and
    leave it empty. comm: all ranks. Events 0 to ``len`` - 1 are this rank's own, as before; events
    ``len`` to ``node_events`` - 1 are those of the node's other ranks, next one first. ``labels``,
    ``targets``, ``weights`` and ``file_indices`` (node_events, ...) are in this order.

    ``order`` gives this rank's events of an epoch. It mixes all events of the node anew and deals
    them so that all batches of all its ranks have about equal costs (data.balance); over the ranks
    of a node each event still comes exactly once per epoch. Raises MemoryError on all ranks where a
    node has too little shared memory, EventError where their targets differ.
    """

    def __init__(self, store: EventStore, comm: Any) -> None:
        super().__init__(store.codec, store.level, store.form, store.target, store.weight_of)
        self.image_shape, self.class_names = store.image_shape, store.class_names
        self.seconds, self.dense_bytes = store.seconds, store.dense_bytes
        self.memory = NodeMemory(comm, store.nbytes)
        node, own_piece = self.memory.node, self.memory.pieces[self.memory.node.rank]
        entries, offset = np.zeros(len(store), ENTRY), 0
        sources: dict[str, int] = {}
        for i in range(len(store)):
            # An event is given back as soon as it is copied: memory never holds all of them twice.
            packed = store.events.pop(i)
            size = len(packed.data)
            own_piece[offset : offset + size] = packed.data
            entries[i] = (
                node.rank,
                offset,
                size,
                packed.digest,
                packed.pixels,
                packed.background,
                sources.setdefault(packed.source, len(sources)),
                packed.number,
                store.labels[i],
                store.cells[i],
            )
            offset += size
        self.memory.seal()
        # NodeMemory is what needs a communicator; parallel.collective takes None as well.
        part = (entries, list(sources), comm.rank, store.kind, store.targets, store.weights)
        parts = node.allgather(part)
        self.ranks, self.rank = node.size, node.rank
        self.number = min(first_rank for _, _, first_rank, *_ in parts)
        self.own, self.first = len(entries), sum(len(p[0]) for p in parts[: node.rank])
        ordered = parts[node.rank :] + parts[: node.rank]
        table = np.concatenate([p[0] for p in ordered])
        self.events = SharedEvents(self.memory.pieces, table, [p[1] for p in parts])
        self.labels, self.file_indices = table["label"], table["number"]
        self.cells = table["cells"]
        self.kind, self.targets = _joined_targets(ordered, comm)
        if self.weights is not None:
            self.weights = np.concatenate([p[5] for p in ordered])

    def __len__(self) -> int:
        return self.own

    @property
    def costs(self) -> np.ndarray:
        """What each event in reach costs, 1 in the mean of the node: float64 (node_events,)."""
        return relative_costs(self.cells)

    @property
    def node_events(self) -> int:
        """Number of events of the node: what ``batch`` can fetch."""
        return len(self.events)

    @property
    def reach(self) -> int:
        """The former name of ``node_events``."""
        return self.node_events

    def load(self, *args: Any, **options: Any) -> EventStore:
        """Refused with any ``args`` and ``options``: a shared store is complete when it is made."""
        raise TypeError(
            "a NodeStore cannot take more events: load them into the EventStore that it is made of"
        )

    #: What ``order`` does, for checkpoints.
    order_name = "permutation of the node's events, batches of equal work"

    def order(self, seed: int, epoch: int, batch_size: int) -> np.ndarray:
        """Return the indices of this rank's events in an epoch, batch by batch of ``batch_size``.

        The node's events are dealt, as (seed, epoch, node) say, to batches of equal cost; each step
        takes one for each rank, and the last step's events are shared evenly.
        """
        # In the node's numbering, which is the same on all of its ranks: rank 0's events first.
        costs = np.roll(self.costs, self.first)
        generator = np.random.default_rng([seed, epoch, self.number])
        left = len(costs) % (batch_size * self.ranks)
        dealt = equal_batches(costs, batch_size, generator, left)
        whole, last = np.split(dealt, [len(dealt) - left])
        shared = equal_shares(costs[last], self.ranks, generator) == self.rank
        own = whole.reshape(-1, self.ranks, batch_size)[:, self.rank].reshape(-1)
        return (np.concatenate([own, last[shared]]) - self.first) % self.node_events

    @property
    def nbytes(self) -> int:
        """Bytes of this rank's own compressed events."""
        return int(self.events.table["size"][: self.own].sum())

    def close(self) -> None:
        """Give the memory back; all ranks of the node call it together, when none of them needs
        events any more.
        """
        self.memory.pieces.clear()
        self.memory.window.Free()
        self.memory.node.Free()


def _joined_targets(parts: list[Any], comm: Any) -> tuple[str | None, np.ndarray | None]:
    """Return (kind, targets) of the ranks' (entries, _, _, kind, targets, _); ranks without events
    count for nothing. EventError on all ranks of ``comm`` where they differ within a node.
    """
    filled = [(kind, targets) for entries, _, _, kind, targets, _ in parts if len(entries)]
    kinds = {
        f"{kind} of {targets.shape[1]}" if kind == "vector" else kind for kind, targets in filled
    }
    problem = None
    if len(kinds) > 1:
        problem = (
            f"the ranks of a node have targets of different kinds, {' and '.join(sorted(kinds))}: "
            "load all stores with the same target"
        )
    agree(comm, problem, error=EventError)
    if not filled:
        kind = parts[0][3]
        return kind, no_targets(kind)
    kind = filled[0][0]
    return kind, None if kind == "pixels" else np.concatenate([t for _, t in filled])

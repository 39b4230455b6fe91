"""NodeStore: the events of all ranks of a node, each kept once and in reach of all of them."""

import numpy as np

from ..parallel.shared import NodeMemory
from .store import EventStore, Packed

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
    ]
)


class SharedEvents:
    """{index: Packed} of a node: a row of ``table`` each, because Python objects for all events in
    every rank would outweigh the data.
    """

    def __init__(self, pieces, table, sources):
        self.pieces, self.table, self.sources = pieces, table, sources

    def __len__(self):
        return len(self.table)

    def __getitem__(self, i):
        rank, start, size, digest, pixels, background, source, number, _ = self.table[i].item()
        return Packed(
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
    ``len`` to ``reach`` - 1 are those of the node's other ranks, next one first. ``numbers`` and
    ``labels`` (reach,) are in this order.

    ``order`` gives this rank's events of an epoch. It mixes all events of the node anew and deals
    every step's batch so that the ranks have about equally many lit pixels, hence equal work; over
    the ranks of a node each event still comes exactly once per epoch. Raises MemoryError on all
    ranks where a node has too little shared memory.
    """

    def __init__(self, store, comm):
        super().__init__(store.codec, store.level, store.form)
        self.image_shape, self.class_names = store.image_shape, store.class_names
        self.seconds, self.dense_bytes = store.seconds, store.dense_bytes
        self.memory = NodeMemory(comm, store.nbytes)
        node, mine = self.memory.node, self.memory.pieces[self.memory.node.rank]
        entries, sources, at = np.zeros(len(store), ENTRY), {}, 0
        for i in range(len(store)):
            packed = store.events.pop(
                i
            )  # given back at once, so that memory holds no second copy of all
            size = len(packed.data)
            mine[at : at + size] = packed.data
            entries[i] = (
                node.rank,
                at,
                size,
                packed.digest,
                packed.pixels,
                packed.background,
                sources.setdefault(packed.source, len(sources)),
                packed.number,
                store.labels[i],
            )
            at += size
        self.memory.seal()
        parts = node.allgather((entries, list(sources), comm.rank))
        self.ranks, self.rank, self.number = (
            node.size,
            node.rank,
            min(first_rank for _, _, first_rank in parts),
        )
        self.own, self.first = len(entries), sum(len(part[0]) for part in parts[: node.rank])
        table = np.concatenate([part[0] for part in parts[node.rank :] + parts[: node.rank]])
        self.events = SharedEvents(self.memory.pieces, table, [part[1] for part in parts])
        self.labels, self.numbers = table["label"], table["number"]

    def __len__(self):
        return self.own

    @property
    def reach(self):
        """Number of events of the node."""
        return len(self.events)

    def load(self, source, indices=None, progress=None):
        """Refused: a shared store is complete when it is made."""
        raise TypeError(
            "a NodeStore cannot take more events: load them into the EventStore that it is made of"
        )

    def order(self, seed, epoch, batch_size):
        """Return the indices of this rank's events in an epoch, batch by batch.

        A permutation of the node's events, given by (seed, epoch, node), is cut into the node's
        batches of ranks * batch_size events. Each is sorted by lit pixels and dealt to and fro (0 1
        2 2 1 0 0 ...): the same events make up the step, evenly spread.
        """
        pixels = np.roll(
            self.events.table["pixels"], self.first
        )  # from here on the node's numbering
        shuffled = np.random.default_rng([seed, epoch, self.number]).permutation(self.reach)
        places = np.arange(batch_size * self.ranks)
        back, place = np.divmod(places, self.ranks)
        receiver = np.where(back % 2, self.ranks - 1 - place, place)
        mine = []
        for start in range(0, self.reach, len(places)):
            batch = shuffled[start : start + len(places)]
            batch = batch[np.argsort(-pixels[batch], kind="stable")]
            mine.append(batch[receiver[: len(batch)] == self.rank])
        return (np.concatenate(mine) - self.first) % self.reach

    @property
    def nbytes(self):
        """Bytes of this rank's own compressed events."""
        return int(self.events.table["size"][: self.own].sum())

    def close(self):
        """Give the memory back; all ranks of the node call it together, when none of them needs
        events any more.
        """
        self.memory.pieces.clear()
        self.memory.window.Free()
        self.memory.node.Free()

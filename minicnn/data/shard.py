"""Which rank gets which events: shares of equal work where it is known, else consecutive pieces of
one seeded permutation of all of them.
"""

from __future__ import annotations

import numpy as np

from .balance import equal_shares


def shard(
    events: int, ranks: int, rank: int, seed: int = 0, costs: np.ndarray | None = None
) -> np.ndarray:
    """Return the event numbers (int64) of ``rank``, as ``seed`` mixes them: every event belongs to
    one rank, sizes differ by at most one.

    costs: of each event, float (events,), in any unit, as the counts of lit pixels; all ranks then
    have about equal sums of them, see data.balance. Without costs a permutation mixes a file that
    is sorted by class. Raises ValueError where there are fewer events than ranks.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank {rank} is not one of {ranks} ranks")
    if events < ranks:
        raise ValueError(
            f"{events} events cannot be shared by {ranks} ranks: every rank needs at least one"
        )
    generator = np.random.default_rng([seed, events])
    if costs is not None:
        if len(costs) != events:
            raise ValueError(f"{len(costs)} costs of {events} events: each event has one")
        return np.flatnonzero(equal_shares(costs, ranks, generator) == rank)
    order = generator.permutation(events)
    return order[events * rank // ranks : events * (rank + 1) // ranks]


def split(events: int, train: int, validation: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (training, validation) event numbers, ``train`` and ``validation`` many: disjoint
    pieces of one permutation, given by ``seed``, of all events.

    Raises ValueError where the file has fewer events than both together.
    """
    if train < 1 or validation < 0 or train + validation > events:
        raise ValueError(
            f"{train} training and {validation} validation events cannot be taken from {events} "
            "events"
        )
    order = np.random.default_rng([seed, events, 1]).permutation(events)
    return order[:train], order[train : train + validation]

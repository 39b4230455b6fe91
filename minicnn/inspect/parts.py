"""The parts of a step, and what an epoch of all ranks took in each of them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from .exchanges import Exchanges, OfRank, Straggler, added, find_straggler

#: {(part, layer): seconds}.
Books: TypeAlias = dict[tuple[str, str], float]
WAIT, OTHER = "wait for the slowest rank", "other"
#: Parts in the order of a step; the layers of a part come in the order in which they ran.
ORDER = (
    "wait for data",
    "read",
    "decompress",
    "augment",
    "transfer",
    "clear gradients",
    "pack weights",
    "forward",
    "loss",
    "backward",
    "forward+backward",
    "between layers",
    "check finite",
    "pack",
    WAIT,
    "allreduce",
    "exposed communication",
    "update",
    "callbacks",
    OTHER,
)
COMMUNICATION = ("allreduce", "exposed communication")


@dataclass
class Summary:
    """An epoch of all ``ranks``, of so many ``steps``, in seconds per step.

    mean, hidden: {(part, layer): seconds} of the main thread and of work beside it, the mean over
    ranks. slowest: the rank that worked longest, without waiting and communication; parts_slowest
    and hidden_slowest are its books. wall and wall_slowest: the step's duration by the clock, in
    the mean and of that rank. exchanges: of the whole epoch, on a rank. straggler: None of one
    rank."""

    ranks: int
    steps: int
    wall: float
    mean: Books
    hidden: Books
    slowest: int
    wall_slowest: float
    parts_slowest: Books
    hidden_slowest: Books
    exchanges: Exchanges = field(default_factory=dict)
    straggler: Straggler | None = None

    def logs(self) -> dict[str, float]:
        """Return the flat figures of the history, in seconds of the whole epoch: mean over ranks,
        slowest rank, hidden work (mean).
        """
        columns = {"seconds": self.mean, "slowest rank": self.parts_slowest, "hidden": self.hidden}
        return {
            f"{title}: {' '.join(part).strip()}": s * self.steps
            for title, parts in columns.items()
            for part, s in parts.items()
        }


class Epoch(NamedTuple):
    """What a rank has on its books at the end of an epoch: steps, their seconds (wall), seconds by
    part, and of hidden work; exchanges, what was exchanged; its host; arrivals, (collectives at
    which it came last, of so many).
    """

    steps: int
    wall: float
    seconds: Books
    hidden: Books
    exchanges: Exchanges
    host: str
    arrivals: tuple[int, int]


def summarize(comm: Any, own: Epoch) -> Summary:
    """Return the Summary over all ranks of ``comm``, of which this one has ``own`` on its books,
    made on rank 0 and sent to all.
    """
    from ..parallel.comm import as_comm

    comm = as_comm(comm)
    per_rank = comm.gather(own)
    return comm.bcast(_summary(per_rank) if per_rank else None)


def _summary(per_rank: list[Epoch]) -> Summary:
    """Return the Summary of the epoch of all ranks."""
    step_counts, walls, seconds, hidden, exchanges, hosts, arrivals = zip(*per_rank)
    steps = max(step_counts[0], 1)
    own = [
        {part: s / steps for part, s in book.items() if part[0] not in (WAIT, *COMMUNICATION)}
        for book in seconds
    ]
    totals = [sum(work.values()) for work in own]
    slowest = totals.index(max(totals))
    wall = statistics.fmean(walls) / steps
    ranks = [OfRank(host, work, *came) for host, work, came in zip(hosts, own, arrivals)]

    def mean_per_step(books: Sequence[Books], parts: list[tuple[str, str]]) -> Books:
        """Return {part: mean over the books, per step}."""
        return {
            part: sum(book.get(part, 0.0) for book in books) / len(books) / steps for part in parts
        }

    parts, hidden_parts = _ordered_parts(seconds), _ordered_parts(hidden)
    return Summary(
        len(per_rank),
        step_counts[0],
        wall,
        mean_per_step(seconds, parts),
        mean_per_step(hidden, hidden_parts),
        slowest,
        walls[slowest] / steps,
        mean_per_step([seconds[slowest]], parts),
        mean_per_step([hidden[slowest]], hidden_parts),
        added(exchanges),
        find_straggler(ranks, wall),
    )


def _ordered_parts(books: Sequence[Books]) -> list[tuple[str, str]]:
    """Return the parts in the books of all ranks in the order of a step; those that ORDER does not
    name come before "other".
    """
    order = {name: number for number, name in enumerate(ORDER)}
    unnamed = order[OTHER] - 0.5
    parts = dict.fromkeys(part for book in books for part in book)
    return sorted(parts, key=lambda part: order.get(part[0], unnamed))

"""The parts of a step, and what an epoch of all ranks took in each of them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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
    """An epoch of all ranks, in seconds per step: {(part, layer): seconds}. ``slowest`` is the rank
    that worked longest, without waiting and communication; ``wall`` and ``wall_slowest`` are the
    step's duration by the clock."""

    ranks: int
    steps: int
    wall: float
    mean: Books
    hidden: Books
    slowest: int
    wall_slowest: float
    parts_slowest: Books
    hidden_slowest: Books

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


def summarize(comm: Any, steps: int, wall: float, seconds: Books, hidden: Books) -> Summary:
    """Return the Summary over all ranks, made on rank 0 and sent to all."""
    mine = (steps, wall, seconds, hidden)
    per_rank = comm.gather(mine) if comm else None
    if not comm:
        return _summary([mine])
    return comm.bcast(_summary(per_rank) if per_rank else None)


def _summary(per_rank: list[tuple[int, float, Books, Books]]) -> Summary:
    """Return the Summary of [(steps, wall time, seconds, hidden)] of all ranks."""
    step_counts, walls, seconds, hidden = zip(*per_rank)
    steps = max(step_counts[0], 1)
    own = [
        sum(s for (name, _), s in book.items() if name not in (WAIT, *COMMUNICATION))
        for book in seconds
    ]
    slowest = own.index(max(own))

    def mean_per_step(books: Sequence[Books], parts: list[tuple[str, str]]) -> Books:
        """Return {part: mean over the books, per step}."""
        return {
            part: sum(book.get(part, 0.0) for book in books) / len(books) / steps for part in parts
        }

    parts, hidden_parts = _ordered_parts(seconds), _ordered_parts(hidden)
    return Summary(
        len(per_rank),
        step_counts[0],
        statistics.fmean(walls) / steps,
        mean_per_step(seconds, parts),
        mean_per_step(hidden, hidden_parts),
        slowest,
        walls[slowest] / steps,
        mean_per_step([seconds[slowest]], parts),
        mean_per_step([hidden[slowest]], hidden_parts),
    )


def _ordered_parts(books: Sequence[Books]) -> list[tuple[str, str]]:
    """Return the parts in the books of all ranks in the order of a step; those that ORDER does not
    name come before "other".
    """
    place = {name: number for number, name in enumerate(ORDER)}
    unnamed = place[OTHER] - 0.5
    parts = dict.fromkeys(part for book in books for part in book)
    return sorted(parts, key=lambda part: place.get(part[0], unnamed))

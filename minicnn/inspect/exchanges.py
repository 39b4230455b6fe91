"""What is exchanged between ranks, and who keeps the others waiting.

The bus bandwidth of a collective is what each rank's link must carry at least, per second: of an
Allreduce of n bytes 2 (N - 1) / N n (it is a reduce-scatter and an allgather), of an Allgather or
Alltoall of n bytes in all (N - 1) / N n. It can be held against the link's bandwidth whatever the
number of ranks, as in NVIDIA's nccl-tests.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

#: Share of a collective's bytes that each rank's link must carry, times N / (N - 1).
BUS_FACTOR = {"allreduce": 2.0, "allgather": 1.0, "alltoall": 1.0}


class Exchange(NamedTuple):
    """A collective: its kind, a key of BUS_FACTOR, and the bytes of the whole buffer on a rank."""

    kind: str
    bytes: int


class Traffic(NamedTuple):
    """Collectives of one kind and place in the ledger, added up: how many ``calls``, their bytes,
    and the seconds from the last rank's arrival to the end.
    """

    calls: int = 0
    bytes: float = 0.0
    seconds: float = 0.0

    def plus(self, nbytes: float, seconds: float) -> "Traffic":
        """Return it with one more collective, of ``nbytes``."""
        return Traffic(self.calls + 1, self.bytes + nbytes, self.seconds + seconds)

    def bus_bandwidth(self, kind: str, ranks: int) -> float:
        """Return bytes per second that the link of each of ``ranks`` carried, for a collective of
        this ``kind``; nan where no time was measured.
        """
        carried = BUS_FACTOR[kind] * self.bytes * (ranks - 1) / ranks
        return carried / self.seconds if self.seconds > 0 else float("nan")


#: {(part of the ledger, kind of collective): what was exchanged}.
Exchanges: TypeAlias = dict[tuple[str, str], Traffic]


def added(per_rank: Sequence[Exchanges]) -> Exchanges:
    """Return the exchanges of an epoch: counts and bytes of the first rank, seconds the mean over
    ranks.
    """
    total = {}
    for key, first in per_rank[0].items():
        seconds = statistics.fmean(exchanges.get(key, Traffic()).seconds for exchanges in per_rank)
        total[key] = first._replace(seconds=seconds)
    return total


@dataclass(frozen=True)
class Straggler:
    """The rank that works longest. excess: seconds per step that it works longer than the others do
    in the mean, ``share`` of the step; part: (part, layer) where it is behind the others most, by
    part_excess seconds. last: in how many of ``arrivals`` collectives it came last.
    """

    rank: int
    host: str
    excess: float
    share: float
    part: tuple[str, str]
    part_excess: float
    last: int
    arrivals: int

    def text(self) -> str:
        """Return it in a sentence or two."""
        where = " ".join(self.part).strip()
        often = f"last to arrive in {self.last} of {self.arrivals} collectives"
        return (
            f"rank {self.rank} on {self.host} works longest: {1e3 * self.excess:.2f} ms "
            f"({100 * self.share:.1f} % of the step) more than the others in the mean, most of all "
            f"in {where} ({1e3 * self.part_excess:+.2f} ms); {often}"
        )


class OfRank(NamedTuple):
    """What ``find_straggler`` looks at: a rank's host, {(part, layer): seconds per step} without
    waiting and communication, and in how many of so many collectives it came last.
    """

    host: str
    work: dict[tuple[str, str], float]
    last: int
    arrivals: int


def find_straggler(ranks: Sequence[OfRank], wall: float) -> Straggler | None:
    """Return the Straggler of several ranks, None of one; ``wall``: seconds of a step."""
    if len(ranks) < 2:
        return None
    totals = [sum(rank.work.values()) for rank in ranks]
    slowest = totals.index(max(totals))
    straggler, others = ranks[slowest], [rank for r, rank in enumerate(ranks) if r != slowest]
    excess = {
        part: seconds - statistics.fmean(other.work.get(part, 0.0) for other in others)
        for part, seconds in straggler.work.items()
    }
    part = max(excess, key=lambda name: excess[name], default=("nothing", ""))
    more = totals[slowest] - statistics.fmean(sum(other.work.values()) for other in others)
    share = more / wall if wall > 0 else 0.0
    part_excess = excess.get(part, 0.0)
    return Straggler(
        slowest, straggler.host, more, share, part, part_excess, straggler.last, straggler.arrivals
    )

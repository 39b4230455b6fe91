"""What tests/inspect/test_trace.py runs on several ranks: clocks and the ledger. The clocks are
made up and stand still but where a case lets them go on, so every figure is known to the last bit.
"""

import numpy as np

import minicnn as mc
from helpers.mpi_cases import run
from minicnn.parallel import make_sync


class Clock:
    """The clock of a rank: ``ahead`` of the true time and ``rate`` times as fast."""

    def __init__(self, ahead, rate=1.0):
        self.true, self.ahead, self.rate = 0.0, ahead, rate

    def __call__(self):
        return (self.true + self.ahead) * self.rate


class OneTime:
    """The communicator. An Allreduce ends at one time for all ranks: ``seconds`` after the last of
    them has come.
    """

    def __init__(self, comm, clock, seconds):
        self.comm, self.clock, self.seconds = comm, clock, seconds

    def __getattr__(self, name):
        return getattr(self.comm, name)

    def Allreduce(self, *arguments):
        self.comm.Allreduce(*arguments)
        self.clock.true = max(self.comm.allgather(self.clock.true)) + self.seconds


def case_clock(comm):
    """Clocks an hour apart, one of them fast, are found to be so."""
    clock = Clock(3600.0 * comm.rank, 1 + 1e-4 * (comm.rank == 1))
    ledger = mc.trace.Ledger(True, clock=clock)
    truth = []
    for _ in range(2):
        ledger.align(comm)
        truth.append((clock(), clock.true))
        clock.true += 0.2
    for own, true in truth:
        assert abs(ledger.aligned(own) - true) < 1e-9, (comm.rank, ledger.aligned(own) - true)
    assert ledger.uncertainty == 0


def case_ledger(comm):
    """Waiting for a rank that is late is told from reducing, with clocks that differ; every rank
    gets the same summary.
    """
    late, work, longer, reducing = comm.size - 1, 1 / 32, 1 / 8, 1 / 128
    clock = Clock(1024.0 * comm.rank)
    ledger = mc.trace.Ledger(True, clock=clock)
    sync = make_sync("gradients", OneTime(comm, clock, reducing))
    ledger.align(comm)
    with ledger:
        for _ in range(3):
            with ledger.span("forward"):
                clock.true += longer if comm.rank == late else work
            sync.allreduce(np.ones(1000, np.float32))
            ledger.step()
    books = ledger.epoch.seconds
    logs = ledger.close(comm)
    known = comm.allgather(repr(sorted(logs.items())))
    waited = 0.0 if comm.rank == late else 3 * (longer - work)
    assert books.get((mc.trace.WAIT, ""), 0.0) == waited, (comm.rank, books)
    assert books["allreduce", ""] == 3 * reducing and all(s >= 0 for s in books.values())
    (summary,) = ledger.summaries
    assert summary.wall == longer + reducing and sum(books.values()) == 3 * summary.wall
    assert summary.slowest == late and summary.ranks == comm.size and len(set(known)) == 1
    found, traffic = summary.straggler, summary.exchanges["allreduce", "allreduce"]
    assert (found.rank, found.part, found.last, found.arrivals) == (late, ("forward", ""), 3, 3)
    assert abs(found.excess - (longer - work)) < 1e-12
    assert traffic == (3, 12000, 3 * reducing), "waiting is among the seconds of reducing"
    waits = [piece for piece in ledger.timeline if piece.name == mc.trace.WAIT]
    assert len(waits) == (0 if comm.rank == late else 3)
    steps = [(piece.start, piece.end) for piece in ledger.timeline if piece.name == "step"]
    assert len(steps) == 3 and len(set(comm.allgather(tuple(steps)))) == 1


if __name__ == "__main__":
    run(globals())

"""What tests/inspect/test_trace.py runs on several ranks: clocks and the ledger."""

import time

import numpy as np

import minicnn as mc
from helpers.mpi_cases import run
from minicnn.parallel import make_sync


def undisturbed(case):
    """The case, again where other processes may have taken the cores from it: clocks are read.
    Collectives of a case come before its assertions.
    """

    def patient(comm):
        for left in reversed(range(4)):
            problem = None
            try:
                case(comm)
            except AssertionError as failure:
                problem = failure
            failed = comm.allgather(problem is not None)
            if not any(failed):
                return
            if problem and not left:
                raise problem
        comm.Barrier()  # for the rank that failed to end all

    return patient


@undisturbed
def case_clock(comm):
    """Clocks an hour apart, one of them fast, are found to be so."""
    ledger = mc.trace.Ledger(
        True, clock=lambda: (time.perf_counter() + 3600 * comm.rank) * (1 + 1e-4 * (comm.rank == 1))
    )
    truth = []
    for _ in range(2):
        ledger.align(comm)
        truth.append((ledger.clock(), time.perf_counter()))
        time.sleep(0.2)
    for mine, true in truth:
        assert abs(ledger.aligned(mine) - true) < 0.02, (comm.rank, ledger.aligned(mine) - true)
    assert ledger.uncertainty < 0.02


@undisturbed
def case_ledger(comm):
    """Waiting for a rank that is late is told from reducing, with clocks that differ; every rank
    gets the same summary.
    """
    late = comm.size - 1
    ledger = mc.trace.Ledger(True, clock=lambda: time.perf_counter() + 1000 * comm.rank)
    sync = make_sync("gradients", comm)
    ledger.align(comm)
    with ledger:
        for _ in range(3):
            with ledger.span("forward"):
                time.sleep(0.1 if comm.rank == late else 0.0)
            sync.allreduce(np.ones(1000, np.float32))
            ledger.step()
    books = ledger.epoch.seconds
    logs = ledger.close(comm)
    known = comm.allgather(repr(sorted(logs.items())))
    steps = comm.allgather([(p.start, p.end) for p in ledger.timeline if p.name == "step"])
    waited = books.get((mc.trace.WAIT, ""), 0.0)
    assert (waited > 0.25) if comm.rank != late else (waited < 0.15), (comm.rank, books)
    assert abs(sum(books.values()) - 3 * ledger.summaries[0].wall) < 0.1
    assert all(s >= 0 for s in books.values())
    summary = ledger.summaries[0]
    assert summary.slowest == late and summary.ranks == comm.size and len(set(known)) == 1
    found, traffic = summary.straggler, summary.exchanges["allreduce", "allreduce"]
    assert (found.rank, found.part, found.arrivals) == (late, ("forward", ""), 3)
    assert found.last > 1 and found.excess > 0 and (traffic.calls, traffic.bytes) == (3, 12000)
    assert traffic.seconds < 0.15 + books["allreduce", ""], "waiting is among them"
    waits = [p for p in ledger.timeline if p.name == mc.trace.WAIT]
    assert len(waits) == (3 if comm.rank != late else len(waits))
    for ends in zip(*steps):  # the late rank's 0.1 s are the same 0.1 s for all
        assert max(e for _, e in ends) - min(e for _, e in ends) < 0.09, ends


if __name__ == "__main__":
    run(globals())

"""Bandwidths of collectives, and the rank that works longest, by name and node."""

import math

import pytest

from minicnn.inspect import report, trace
from minicnn.inspect.exchanges import Exchange, OfRank, Traffic, added, find_straggler


def test_bus_bandwidth():
    # 10 Allreduces of 4 MB on 4 ranks in 0.1 s: 2 * 3/4 of 40 MB through each link
    traffic = Traffic()
    for _ in range(10):
        traffic = traffic.plus(4e6, 0.01)
    assert traffic.calls == 10 and math.isclose(traffic.bus_bandwidth("allreduce", 4), 600e6)
    assert math.isclose(traffic.bus_bandwidth("alltoall", 4), 300e6)
    assert math.isclose(traffic.bus_bandwidth("allgather", 2), 200e6)
    assert math.isnan(Traffic().bus_bandwidth("allreduce", 2))
    key = ("allreduce", "allreduce")
    both = added([{key: Traffic(2, 8.0, 1.0)}, {key: Traffic(2, 8.0, 3.0)}])
    assert both == {key: Traffic(2, 8.0, 2.0)}


def test_the_straggler_has_a_name_a_node_and_a_reason():
    def rank(host, forward, backward, last):
        return OfRank(host, {("forward", "a"): forward, ("backward", "a"): backward}, last, 10)

    ranks = [rank("n0", 0.04, 0.05, 1), rank("n1", 0.05, 0.09, 8), rank("n0", 0.04, 0.05, 1)]
    found = find_straggler(ranks, 0.2)
    assert (found.rank, found.host, found.part) == (1, "n1", ("backward", "a"))
    assert math.isclose(found.excess, 0.05) and math.isclose(found.part_excess, 0.04)
    assert found.text() == (
        "rank 1 on n1 works longest: 50.00 ms (25.0 % of the step) more than the others in the "
        "mean, most of all in backward a (+40.00 ms); last to arrive in 8 of 10 collectives"
    )
    assert find_straggler(ranks[:1], 0.2) is None
    assert find_straggler([OfRank("a", {}, 0, 0)] * 2, 0.0).part == ("nothing", "")


def test_both_are_in_the_table():
    now = [0.0]
    ledger = trace.Ledger(True, clock=lambda: now[0])
    with ledger:
        with trace.collective("allreduce", exchange=Exchange("allreduce", 1000)):
            now[0] += 0.002
        start = trace.now()
        now[0] += 0.004
        trace.hidden("allreduce", start, trace.now(), exchange=Exchange("allreduce", 8000))
        ledger.step()
    books = ledger.books(None)
    again = trace.Ledger(True, clock=lambda: now[0])
    again.reopen(books)
    assert again.epoch.exchanges == ledger.epoch.exchanges and again.epoch.arrivals == 1
    ledger.close(None)
    summary = ledger.summaries[0]
    assert summary.exchanges == {
        ("allreduce", "allreduce"): Traffic(1, 1000, pytest.approx(0.002)),
        ("allreduce, hidden", "allreduce"): Traffic(1, 8000, pytest.approx(0.004)),
    }
    summary.ranks = 2
    summary.straggler = find_straggler([OfRank("n", {("forward", ""): t}, 0, 1) for t in (1, 2)], 2)
    text = " ".join(report.ledger_table(summary, "epoch 1").split())
    assert "allreduce (allreduce): 1 a step of 1 kB, 2.000 ms each once all" in text
    assert "ranks are there, bus bandwidth 0.00 GB/s" in text
    assert "rank 1 on n works longest: 1000.00 ms (50.0 % of the step) more than" in text

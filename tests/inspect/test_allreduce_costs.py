"""What an Allreduce takes: the formulas' exact cases, limits and order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.inspect.allreduce_costs import ALGORITHMS, Link, allreduce, link_of

LINK, NODE = Link(2e-6, 1e-9, 1e-10), Link(1e-7, 1e-10, 1e-10)
ranks, sizes = st.integers(2, 5000), st.floats(4, 1e9)


def test_two_ranks_by_hand():
    """Two ranks: one exchange of everything with recursive doubling, twice one half with the
    others.
    """
    n, (a, b, g) = 1e6, (LINK.alpha, LINK.beta, LINK.gamma)
    assert allreduce("recursive doubling", 2, n, LINK) == pytest.approx(a + n * b + n * g)
    for name in ("ring", "rabenseifner"):
        assert allreduce(name, 2, n, LINK) == pytest.approx(2 * a + n * b + n / 2 * g)


def test_the_published_formulas_at_powers_of_two():
    """Thakur, Rabenseifner, Gropp 2005, sections 4.5 and 3; Patarasuk, Yuan 2009."""
    n, (a, b, g) = 5e6, (LINK.alpha, LINK.beta, LINK.gamma)
    for k in range(1, 13):
        p = 2**k
        assert allreduce("recursive doubling", p, n, LINK) == pytest.approx(k * (a + n * b + n * g))
        assert allreduce("rabenseifner", p, n, LINK) == pytest.approx(
            2 * k * a + 2 * (p - 1) / p * n * b + (p - 1) / p * n * g
        )
        assert allreduce("ring", p, n, LINK) == pytest.approx(
            2 * (p - 1) * a + 2 * (p - 1) / p * n * b + (p - 1) / p * n * g
        )


def test_hierarchical_by_hand():
    n = 1e6
    within = 2 * (
        2 * (NODE.alpha + n * NODE.beta) + n * NODE.gamma
    )  # 4 ranks: two levels, there and back
    assert allreduce("hierarchical", 8, n, LINK, NODE, 4) == pytest.approx(
        within + allreduce("ring", 2, n, LINK)
    )
    assert allreduce("hierarchical", 4, n, LINK, NODE, 4) == allreduce(
        "rabenseifner", 4, n, NODE
    )  # one node: nothing to divide


@settings(max_examples=60, deadline=None)
@given(ranks, sizes, st.sampled_from((*ALGORITHMS, "best")), st.integers(1, 64))
def test_order(p, n, name, per_node):
    cost = allreduce(name, p, n, LINK, NODE, per_node)
    assert cost > 0 and allreduce(name, p, 2 * n, LINK, NODE, per_node) > cost
    assert allreduce(name, 1, n, LINK, NODE, per_node) == 0
    for better in (
        Link(LINK.alpha / 2, LINK.beta, LINK.gamma),
        Link(LINK.alpha, LINK.beta / 2, LINK.gamma),
    ):
        assert allreduce(name, p, n, better, NODE, per_node) <= cost
    assert allreduce("best", p, n, LINK, NODE, per_node) <= cost
    power = 1 << (p - 1).bit_length()  # a power of two, for which no fold is due
    assert allreduce(name, 4 * power, n, LINK, NODE, 1) > allreduce(name, power, n, LINK, NODE, 1)


def test_limits():
    assert allreduce("ring", 4096, 1e9, Link(0, 1e-9)) == pytest.approx(
        2.0, rel=1e-3
    )  # bandwidth-optimal: twice the buffer
    assert allreduce("rabenseifner", 4096, 1e9, Link(0, 1e-9)) == pytest.approx(2.0, rel=1e-3)
    assert allreduce("best", 4096, 4, LINK) == pytest.approx(
        allreduce("recursive doubling", 4096, 4, LINK)
    )  # latency: log p
    assert allreduce("best", 64, 1e9, LINK) < allreduce("recursive doubling", 64, 1e9, LINK) / 2
    same = [
        allreduce(name, 64, 1e6, LINK, LINK, 1)
        for name in ("ring", "rabenseifner", "recursive doubling")
    ]
    assert same == [
        allreduce(name, 64, 1e6, LINK) for name in ("ring", "rabenseifner", "recursive doubling")
    ]
    shared = allreduce("recursive doubling", 64, 1e6, LINK, NODE, 8)
    assert shared == pytest.approx(
        3 * (NODE.alpha + 1e6 * NODE.beta)
        + 3 * (LINK.alpha + 8e6 * LINK.beta)
        + 6 * 1e6 * LINK.gamma
    )
    n = 1e6  # Rabenseifner's: the large, near exchanges stay on the node
    messages = [(NODE, 1, n / 2), (LINK, 2, n / 4), (LINK, 2, n / 8)]
    by_hand = sum(
        2 * (link.alpha + share * m * link.beta) + m * link.gamma for link, share, m in messages
    )
    assert allreduce("rabenseifner", 8, n, LINK, NODE, 2) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="algorithm must be one of ring"):
        allreduce("tree", 4, 1, LINK)


def test_a_slow_node_does_not_slow_a_ring_of_single_ranks():
    slow = Link(1e-3, 1e-6)
    assert allreduce("ring", 8, 1e6, LINK, slow, 1) == allreduce("ring", 8, 1e6, LINK)
    assert allreduce("ring", 8, 1e6, LINK, slow, 2) > 100 * allreduce("ring", 8, 1e6, LINK)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-7, 1e-3), st.floats(1e-11, 1e-8))
def test_the_link_of_exchanges(alpha, beta):
    points = [(n, alpha + n * beta) for n in (4, 4096, 1 << 20, 5_000_000)]
    found = link_of(points, 5_000_000, 1e-10)
    assert found.alpha == pytest.approx(alpha + 4 * beta) and found.gamma == 1e-10
    assert found.beta == pytest.approx(beta, rel=1e-5)

"""Batches and shares of equal work: every event once, as likely here as there, and even."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn as mc
from helpers import Source
from minicnn.data import Planes
from minicnn.data.balance import (
    equal_batches,
    equal_shares,
    lit_cells,
    relative_costs,
    unevenness,
)
from minicnn.data.dataset import EQUAL_WORK, PERMUTATION, epoch_order, order_name
from minicnn.train.identity import differences

any_costs = st.lists(st.floats(0, 1e6), max_size=60).map(np.array)


def drawn(seed, n):
    """Costs as those of isotropic events: from next to nothing to four times the mean."""
    return 1 + np.random.default_rng(seed).gamma(2, 0.5, n).clip(0, 4)


@given(any_costs, st.integers(1, 9), st.integers(1, 7), st.integers(0, 99))
@settings(deadline=None)
def test_every_event_comes_once(costs, size, parts, seed):
    order = equal_batches(costs, size, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(costs)))
    assert np.array_equal(order, equal_batches(costs, size, np.random.default_rng(seed)))
    owner = equal_shares(costs, parts, np.random.default_rng(seed))
    counts = np.bincount(owner, minlength=parts)
    assert counts.sum() == len(costs) and counts.max() - counts.min() <= 1 and len(counts) == parts


@given(st.integers(8, 40), st.integers(2, 50), st.integers(0, 10**6))
@settings(deadline=None, max_examples=50)
def test_batches_are_even(size, count, seed):
    costs = drawn(seed, size * count)
    order = equal_batches(costs, size, np.random.default_rng(seed))
    even = costs[order].reshape(count, size).sum(1)
    random = costs.reshape(count, size).sum(1)
    assert unevenness(even) < 0.03 and even.std() <= 0.2 * random.std()


@given(st.integers(2, 8), st.integers(0, 10**6))
@settings(deadline=None, max_examples=50)
def test_shares_are_even(parts, seed):
    costs = drawn(seed, 400 * parts + seed % parts)
    owner = equal_shares(costs, parts, np.random.default_rng(seed))
    means = np.bincount(owner, costs) / np.bincount(owner)
    assert unevenness(means) < 0.01
    own = [mc.data.shard(len(costs), parts, rank, 3, costs) for rank in range(parts)]
    assert sorted(np.concatenate(own)) == list(range(len(costs)))
    with pytest.raises(ValueError, match=r"1 costs of \d+ events"):
        mc.data.shard(len(costs), parts, 0, 3, costs[:1])


@pytest.mark.parametrize("events", (12, 14))
def test_an_event_is_as_likely_in_each_batch(events):
    """Also in the short last one, in proportion to its size: gradients are unbiased."""
    costs = np.array([1.0, 1, 2, 2, 3, 3, 5, 8, 13, 21, 34, 55, 55, 1][:events])
    generator, draws, size = np.random.default_rng(0), 4000, 4
    places = np.zeros((events, -(-events // size)))
    shares = np.zeros((events, 3))
    for _ in range(draws):
        order = equal_batches(costs, size, generator)
        places[order, np.arange(events) // size] += 1
        shares[np.arange(events), equal_shares(costs, 3, generator)] += 1
    for counts, chance in (
        (places, np.bincount(np.arange(events) // size) / events),
        (shares, np.full(3, 1 / 3)),
    ):
        scatter = np.sqrt(draws * chance * (1 - chance))
        assert (np.abs(counts - draws * chance) < 4.5 * scatter).all()


def test_balanced_batches_scatter_less_where_gradients_go_with_brightness():
    """Of what has nothing to do with the cost, batch means scatter as they do without balance."""
    costs, generator = drawn(1, 320), np.random.default_rng(1)
    other = generator.normal(size=320)
    random, even = [], []
    for _ in range(60):
        orders = generator.permutation(320), equal_batches(costs, 16, generator)
        for order, scatter in zip(orders, (random, even)):
            scatter.append([x[order].reshape(20, 16).mean(1).std() for x in (costs**1.5, other)])
    (of_cost, of_other), (even_cost, even_other) = np.mean(random, 0), np.mean(even, 0)
    assert even_cost < 0.5 * of_cost and abs(even_other / of_other - 1) < 0.05


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 99))
@settings(max_examples=20)
def test_lit_cells_are_those_of_dilated_and_pooled_maps(height, width, seed):
    rng = np.random.default_rng(seed)
    lit = rng.random((height, width)) < rng.choice([0.001, 0.02, 0.5])
    found = lit_cells(mc.data.SparseImage(np.argwhere(lit), np.ones(lit.sum()), (*lit.shape, 1)))
    expected = [lit.sum()]
    for _ in range(3):
        around = np.zeros_like(lit)
        for row, column in np.argwhere(lit):
            around[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = True
        edge = [(0, -side % 5) for side in around.shape]
        rows, columns = (side // 5 for side in np.pad(around, edge).shape)
        lit = np.pad(around, edge).reshape(rows, 5, columns, 5).any((1, 3))
        expected.append(lit.sum())
    assert found.tolist() == expected


def test_costs_are_relative_to_the_mean_on_every_scale():
    cells = np.array([[10, 4, 2, 1], [30, 4, 6, 1]])
    assert np.allclose(relative_costs(cells), [(0.5 + 1 + 0.5 + 1) / 4, (1.5 + 1 + 1.5 + 1) / 4])
    assert relative_costs(np.zeros((2, 4))).tolist() == [0, 0] and not len(relative_costs([]))


def test_orders_of_an_epoch():
    images = [
        mc.data.SparseImage(np.argwhere(np.ones((1 + 25 * i, 3))), np.ones(3 + 75 * i), (200, 3, 1))
        for i in range(8)
    ]
    events = Source([mc.data.Event(image, 0) for image in images], (200, 3, 1))
    store = mc.data.EventStore().load(events)
    assert np.isclose(store.costs.mean(), 1) and (np.diff(store.costs) > 0).all()
    assert np.array_equal(Planes(store).costs, store.costs)
    orders = [epoch_order(store, 7, epoch, 0, 4) for epoch in range(20)]
    for order in orders:
        assert sorted(order) == list(range(8))
        assert np.ptp(store.costs[order].reshape(2, 4).sum(1)) < 0.25
    assert len({tuple(sorted(order[:4])) for order in orders}) > 4, "epochs are alike"
    plain = epoch_order(store, 7, 0, 1, 4, balance=False)
    assert np.array_equal(plain, np.random.default_rng([7, 0, 1]).permutation(8))
    assert order_name(store) == EQUAL_WORK and order_name(store, False) == PERMUTATION
    assert order_name(mc.data.ArrayDataset(np.zeros((2, 3, 3, 1)), [0, 1])) == PERMUTATION


def test_checkpoints_of_before_go_on_in_their_order_only():
    before = {"seed": 0}
    assert not differences(
        before, {"seed": 0, "order of events": PERMUTATION, "balance": False}, True
    )
    (found,) = differences(before, {"seed": 0, "order of events": EQUAL_WORK}, True)
    assert "balance=False, --no-balance, goes on" in found

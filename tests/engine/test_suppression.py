"""Zero suppression is exact: the numbers of the dense network up to rounding, whatever is lit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn as mc
from helpers.suppression import CASES, SHAPE, compare, event, network

BACKENDS = ("reference", "cpu")


@pytest.mark.parametrize("device", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_case(case, device):
    compare(device, SHAPE, [event(SHAPE, p, seed=i) for i, p in enumerate(CASES[case])])


@pytest.mark.parametrize("device", BACKENDS)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 3, "pools": (2, 2, 2), "channels": (3, 5, 4)},
        {"kernel": 4, "pools": (3, 2)},
        {"kernel": 1, "pools": (2, 4)},
        {"activation": mc.ReLU},
        {"pools": ((2, 5), (3, 2))},
        {"channels": (1, 1)},
        {"channels": (33, 17)},
        {"input_scale": 0.125},
        {"input_scale": 3.0, "input_knee": 1.5},
    ],
    ids=str,
)
def test_networks(options, device):
    shape = (47, 50, 1)
    compare(
        device,
        shape,
        [
            event(shape, [(20 + t, 7 + 2 * t) for t in range(15)]),
            event(shape, [(0, 3), (46, 49)], 1),
        ],
        **options,
    )


@pytest.mark.parametrize("device", BACKENDS)
def test_planes_and_pedestal(device):
    shape = (41, 38, 3)
    compare(device, shape, [event(shape, [(9, 9), (10, 9), (11, 10)], i) for i in range(2)])
    compare(device, shape, [event(shape, [(9, 9), (0, 37)], i, background=0.75) for i in range(2)])


@pytest.mark.parametrize("device", BACKENDS)
def test_zero_biases_keep_the_ring_active(device):
    shape = (41, 38, 1)
    dense, sparse = (network(device, shape, mode) for mode in ("never", "always"))
    for model in (dense, sparse):
        for name, w in model.weights.items():
            if name.endswith("/b"):
                w[...] = 0
        model.weights_changed()
    e = event(shape, [(20, 20)])
    (_, ga), (_, gb) = (
        dense.loss_and_gradients([e.to_dense()], np.array([1])),
        sparse.loss_and_gradients([e], np.array([1])),
    )
    for name in ga:
        assert np.allclose(ga[name], gb[name], rtol=1e-4, atol=1e-6), name


@given(
    st.integers(1, 6),
    st.integers(1, 5),
    st.tuples(st.integers(25, 48), st.integers(25, 48)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.01, 0.2]),
)
@settings(max_examples=25, deadline=None)
def test_random_networks_on_the_cpu(kernel, pool, size, seed, lit):
    shape = (*size, 1)
    rng = np.random.default_rng(seed)
    events = [event(shape, np.argwhere(rng.random(size) < lit), seed)]
    compare(
        "cpu",
        shape,
        events,
        kernel=kernel,
        pools=(pool, 2),
        channels=(int(rng.integers(1, 20)), int(rng.integers(1, 40))),
        seed=seed,
    )


def test_auto_goes_dense_where_most_is_lit_and_the_numbers_stay():
    full, track = event(SHAPE, CASES["full"][0]), event(SHAPE, CASES["one pixel"][0])
    auto, dense = network("cpu", SHAPE, "auto"), network("cpu", SHAPE, "never")
    for e in (track, full, track):
        assert np.allclose(auto.predict([e]), dense.predict([e]), rtol=1e-6)
        assert np.allclose(auto.predict([e.to_dense()]), dense.predict([e]), rtol=1e-6)
        for (name, a), b in zip(
            auto.loss_and_gradients([e], np.array([1]))[1].items(),
            dense.loss_and_gradients([e], np.array([1]))[1].values(),
        ):
            assert np.allclose(a, b, rtol=1e-4, atol=1e-5), name
    assert "fused, lit" in str(auto.plan()) and "fused, lit" not in str(dense.plan())


def test_a_block_goes_dense_where_most_of_its_inputs_are_lit_and_the_numbers_stay():
    """A few pixels light most cells of the first block, and the second one takes arrays."""
    spread = event(SHAPE, [(r, c) for r in range(2, 61, 9) for c in range(2, 53, 9)])
    auto, dense, always = (network("cpu", SHAPE, mode) for mode in ("auto", "never", "always"))
    (la, ga), (lb, gb) = (m.loss_and_gradients([spread], np.array([1])) for m in (auto, dense))
    assert la == pytest.approx(lb, rel=1e-5)
    for name in ga:
        assert np.allclose(ga[name], gb[name], rtol=1e-4, atol=1e-5), name
    always.loss_and_gradients([spread], np.array([1]))
    assert "dense for 100% of the events" in str(auto.plan())
    assert "dense for" not in str(always.plan())


@pytest.mark.parametrize("device", BACKENDS)
def test_backgrounds_may_differ_within_a_batch(device):
    shape = (41, 38, 1)
    compare(
        device,
        shape,
        [event(shape, [(9, 9)], i, background=b) for i, b in enumerate((0.0, 0.75, 0.75, 0.0))],
    )


def test_a_batch_that_an_error_cuts_short_leaves_nothing_behind():
    shape = (41, 38, 1)
    model, images = network("cpu", shape, "always"), [event(shape, [(9, 9)], i) for i in range(2)]
    want = model.loss_and_gradients(images, np.array([0, 1]))[1]
    with pytest.raises(ValueError, match="event 1 of the batch has the shape"):
        model.loss_and_gradients([images[0], event((41, 39, 1), [])], np.array([0, 1]))
    for name, g in model.loss_and_gradients(images, np.array([0, 1]))[1].items():
        assert np.array_equal(g, want[name]), name

"""Zero suppression is exact: the numbers of the dense network, whatever is lit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn as mc
from helpers.suppression import CASES, SHAPE, compare, event, network
from minicnn.engine.suppression import DeferredWeightGradient, axis_classes, first_positions
from minicnn.kernels import get_backend
from minicnn.kernels.cpu.positions import changed_positions

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
        assert np.array_equal(auto.predict([e]), dense.predict([e]))
        assert np.array_equal(auto.predict([e.to_dense()]), dense.predict([e]))
        for (name, a), b in zip(
            auto.loss_and_gradients([e], np.array([1]))[1].items(),
            dense.loss_and_gradients([e], np.array([1]))[1].values(),
        ):
            assert np.allclose(a, b, rtol=1e-4, atol=1e-5), name
    assert "zero-suppressed" in str(auto.plan()) and "cells computed per event so far" in str(
        auto.plan()
    )
    assert "zero-suppressed" not in str(dense.plan())


def test_classes_at_rest_are_few_and_right():
    """Behind every block of the talk's network: inner cells, and one or two kinds along each
    border.
    """
    stage = mc.models.microboone(device="reference").plan().suppressed[0]
    assert all(2 <= max(t.pairs) <= 4 for t in stage.tables)
    patterns, classes = axis_classes(np.zeros(20, int), 5, 5, 2, 4)
    assert patterns.tolist() == [[-1, -1] + 7 * [0], 7 * [0] + [-1, -1], 9 * [0]]
    assert classes.tolist() == [0, 2, 2, 1]


@pytest.mark.parametrize("device", BACKENDS)
def test_backgrounds_may_differ_within_a_batch(device):
    shape = (41, 38, 1)
    compare(
        device,
        shape,
        [event(shape, [(9, 9)], i, background=b) for i, b in enumerate((0.0, 0.75, 0.75, 0.0))],
    )


@pytest.mark.parametrize("device", BACKENDS)
def test_weight_gradients_that_wait_are_those_of_the_dense_network(device, monkeypatch):
    """As in deep blocks: flushed by a full room within the batch, by another background, and at its
    end.
    """
    flushed, flush = [], DeferredWeightGradient.flush
    monkeypatch.setattr(
        DeferredWeightGradient, "make_if_worthwhile", lambda *args: DeferredWeightGradient(*args)
    )
    monkeypatch.setattr(
        DeferredWeightGradient, "capacity", 120
    )  # the first block's grid is 12 x 10
    monkeypatch.setattr(
        DeferredWeightGradient,
        "flush",
        lambda self, *args: (flushed.append(self.count), flush(self, *args)),
    )
    events = [
        event(SHAPE, p, i)
        for i, p in enumerate(
            CASES["full"] + CASES["track"] + CASES["full"] + CASES["corners"] + [[]]
        )
    ]
    compare(device, SHAPE, [*events, event(SHAPE, [(9, 9)], 9, background=0.75)])
    assert sum(n == 120 for n in flushed) >= 2, flushed


@pytest.mark.parametrize("waits", [True, False])
def test_a_block_that_waits_keeps_its_list_where_all_is_lit(waits, monkeypatch):
    def make(kernels, block, channels, grid, dtype):
        waits_here = waits and channels > 1
        return DeferredWeightGradient(kernels, block, channels, grid, dtype) if waits_here else None

    monkeypatch.setattr(DeferredWeightGradient, "make_if_worthwhile", make)
    monkeypatch.setattr(DeferredWeightGradient, "capacity", 12)
    spread = event(SHAPE, [(r, c) for r in range(7, 61, 15) for c in range(7, 53, 15)])
    auto, dense = network("cpu", SHAPE, "auto"), network("cpu", SHAPE, "never")
    _, lit, cells = auto.run_forward([[spread]])[1].saved[0].lit
    assert len(lit) < 0.95 * 120 and (cells is None) != waits and (not waits or len(cells) == 12)
    assert np.array_equal(auto.predict([spread]), dense.predict([spread]))
    for (name, g), want in zip(
        auto.loss_and_gradients([spread], [1])[1].items(),
        dense.loss_and_gradients([spread], [1])[1].values(),
    ):
        assert np.allclose(g, want, rtol=1e-4, atol=1e-5), name


def test_a_batch_that_an_error_cuts_short_leaves_nothing_behind():
    shape = (41, 38, 1)
    model, images = network("cpu", shape, "always"), [event(shape, [(9, 9)], i) for i in range(2)]
    want = model.loss_and_gradients(images, np.array([0, 1]))[1]
    with pytest.raises(ValueError, match="event 1 of the batch has the shape"):
        model.loss_and_gradients([images[0], event((41, 39, 1), [])], np.array([0, 1]))
    for name, g in model.loss_and_gradients(images, np.array([0, 1]))[1].items():
        assert np.array_equal(g, want[name]), name


def test_positions_of_a_window_that_see_something_new():
    patterns = np.array([[-1, -1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, -1, -1], [0, 1, 0, 1, 0]])
    assert first_positions(patterns, 3).tolist() == [[0, 1, 2], [0, 0, 0], [0, 1, 2], [0, 1, 0]]
    assert not first_positions(patterns, 5).any()
    assert first_positions(patterns, 1).tolist() == [
        [0, 0, 2, 2, 2],
        [0] * 5,
        [0, 0, 0, 3, 3],
        [0, 1, 0, 1, 0],
    ]


@given(
    st.tuples(st.integers(12, 40), st.integers(12, 40)),
    st.integers(1, 3),
    st.sampled_from([12, 16, 40, 64]),
    st.integers(1, 6),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from(["same", "valid"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_sums_that_see_nothing_of_an_event_are_computed_once(
    size, ci, co, kernel, pool, padding, seed
):
    """The block's output is that of all positions, bit for bit; the list of positions is complete,
    and as short as can be.
    """
    rng = np.random.default_rng(seed)
    k, model = (
        get_backend("cpu"),
        mc.Sequential(
            [
                mc.Conv2D(co, kernel, padding=padding),
                mc.ELU(),
                mc.MaxPooling2D(pool),
                mc.Flatten(),
                mc.Dense(2),
            ],
            (*size, ci),
            device="cpu",
            zero_suppression="always",
        ),
    )
    (same,) = [table.first_equal_position for table in model._plan.suppressed[0].tables]
    lit = np.argwhere(rng.random(size) < rng.choice([0.002, 0.02, 0.3])).astype(np.int32)
    x = np.full((1, *size, ci), 0.5, np.float32)
    x[0, lit[:, 0], lit[:, 1]] = rng.integers(-2, 3, (len(lit), ci))
    w, b = (rng.standard_normal(s).astype(np.float32) for s in ((kernel, kernel, ci, co), (co,)))
    cells, changed = k.active_cells(lit, x.shape, (kernel, kernel), pool, padding), (lit, *same)
    for got, want in zip(
        k.conv2d_block_cells(x, cells, w, b, pool, 1.0, padding, changed),
        k.conv2d_block(x, w, b, pool, 1.0, padding),
    ):
        assert np.array_equal(got, want[0, cells[:, 0], cells[:, 1]])
    first, where = changed_positions(changed, cells, x.shape, (kernel, kernel), pool, padding, None)
    mask = np.zeros((1, *size, 1), np.float32)
    mask[0, lit[:, 0], lit[:, 1]] = 1
    z = (
        k.conv2d(
            mask, np.ones((kernel, kernel, 1, 1), np.float32), np.zeros(1, np.float32), 1, padding
        )[0, :, :, 0]
        > 0
    )
    for t, (i, j) in enumerate(cells):
        seen = z[i * pool[0] : (i + 1) * pool[0], j * pool[1] : (j + 1) * pool[1]].reshape(-1)
        kinds = (same[0][i][:, None] * pool[1] + same[1][j]).reshape(-1)
        wanted = [
            a for a in range(len(seen)) if seen[a] or not (~seen & (kinds == kinds[a]))[:a].any()
        ]
        assert where[first[t] : first[t + 1]].tolist() == wanted


def test_what_is_known_of_an_image_at_rest_must_fit_it():
    x, w, b = (
        np.zeros((1, 20, 25, 1), np.float32),
        np.ones((5, 5, 1, 16), np.float32),
        np.zeros(16, np.float32),
    )
    at, cells, rows, columns = (
        np.array([[3, 3]]),
        np.array([[0, 0]]),
        np.zeros((4, 5), np.uint8),
        np.zeros((5, 5), np.uint8),
    )
    with pytest.raises(ValueError, match=r"changed columns as uint8 \(5, 5\), got uint8 \(4, 5\)"):
        get_backend("cpu").conv2d_block_cells(x, cells, w, b, 5, changed=(at, rows, columns[:4]))
    with pytest.raises(ValueError, match=r"changed rows as uint8 \(4, 5\), got int64"):
        get_backend("cpu").conv2d_block_cells(
            x, cells, w, b, 5, changed=(at, rows.astype(int), columns)
        )

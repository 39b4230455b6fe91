"""Gradient accumulation, LARS, the linear scaling rule, and when gradients are complete: on one
rank.
"""

import math

import numpy as np
import pytest

import minicnn as mc
from helpers import random_batch, small_model
from minicnn.parallel import make_sync
from minicnn.train.fit import train_step

PLANS = [
    {},
    {"device": "cpu"},
    {"device": "cpu", "zero_suppression": "always"},
    {"device": "cpu", "zero_suppression": "never"},
    {"fuse": False},
]


def sparse_batch(n, background=0.0):
    x, y = random_batch(n)
    return [
        mc.data.SparseImage.from_dense(
            np.where(image > 3, image, np.float32(background)), background
        )
        for image in x
    ], y


@pytest.mark.parametrize("options", PLANS, ids=str)
def test_accumulated_batches_are_one_batch(options):
    """k batches of b give the gradients of one of k * b: the same bits where events run one at a
    time, else up to rounding.
    """
    x, y = sparse_batch(7)
    whole, parts = small_model(**options), small_model(**options)
    o, p = mc.SGD(0.05, 0.9), mc.SGD(0.05, 0.9)
    for _ in range(3):
        tail = train_step(whole, [(x, y)], o)
        pieces = ((x[cut], y[cut]) for cut in (slice(0, 3), slice(3, 5), slice(5, 7)))
        assert tail == pytest.approx(train_step(parts, pieces, p), rel=1e-6)
        assert tail["events"] == 7
    same = (
        np.array_equal
        if whole.plan().microbatch == 1 and not whole.plan().lit
        else lambda a, b: np.allclose(a, b, rtol=1e-5, atol=1e-7)
    )
    assert same(whole.parameters, parts.parameters) and o.steps == p.steps == 3


def test_fit_accumulates():
    x, y = sparse_batch(22)
    a, b = small_model("cpu"), small_model("cpu")
    ha = a.fit((x, y), epochs=2, batch_size=6, optimizer=mc.SGD(0.05))
    hb = b.fit((x, y), epochs=2, batch_size=2, accumulate=3, optimizer=mc.SGD(0.05))
    assert np.allclose(a.parameters, b.parameters, rtol=1e-5, atol=1e-7)
    assert ha["loss"] == pytest.approx(hb["loss"], rel=1e-5) and a.updates == b.updates == 8
    with pytest.raises(
        ValueError, match=r"batch size 8, 3 of them per step, is larger than the 22 events"
    ):
        a.fit((x, y), batch_size=8, accumulate=3)
    with pytest.raises(ValueError, match="0 of them per step"):
        a.fit((x, y), accumulate=0)


@pytest.mark.parametrize("options", PLANS, ids=str)
@pytest.mark.parametrize("background", (0.0, 0.5))
def test_gradients_are_complete_when_they_are_said_to_be(options, background):
    """What ``progress`` hands over no longer changes, and it comes from the last layer to the
    first.
    """
    model = small_model(**options)
    x, y = sparse_batch(4, background)
    x[1] = np.array(x[1].to_dense())  # another background within the batch
    kept, size = [], model.parameters.size
    model.clear_gradients()

    def progress(start):
        kept.append((start, model.gradients[start:size].copy()))

    model.accumulate(x[:2], y[:2], more=True, progress=progress)
    assert {start for start, _ in kept} == {size}
    model.accumulate(x[2:], y[2:], progress=progress)
    starts = [start for start, _ in kept]
    assert starts == sorted(starts, reverse=True) and starts[-1] == 0 and len(set(starts)) >= 5
    for start, piece in kept:
        assert np.array_equal(piece, model.gradients[start:size]), start
    once = small_model(**options)
    once.clear_gradients()
    once.accumulate(x, y)
    assert np.allclose(once.gradients, model.gradients, rtol=1e-4, atol=1e-5)


def test_an_empty_batch_completes_its_gradients_too():
    calls = []
    small_model("cpu").accumulate([], np.zeros(0, int), progress=calls.append)
    assert calls == [0]


def test_lars_is_the_papers():
    rng = np.random.default_rng(0)
    model = small_model(dtype="float64", optimizer=mc.LARS(2.0, 0.9, weight_decay=0.1, trust=0.01))
    layers = [slice(0, 40), slice(40, 646), slice(646, 646 + 440), slice(1086, 1113)]
    assert [s for s in model.layer_slices.values() if s.stop > s.start] == layers
    w, v = model.parameters.copy(), np.zeros(model.parameters.size)
    for _ in range(3):
        g = rng.standard_normal(w.size)
        model.gradients[: w.size] = 4 * g
        model.optimizer.update(model, 4)
        for layer in layers:
            size, slope = np.linalg.norm(w[layer]), np.linalg.norm(g[layer])
            v[layer] = 0.9 * v[layer] + 0.01 * size / (slope + 0.1 * size) * (
                g[layer] + 0.1 * w[layer]
            )
        w = w - 2.0 * v
        assert np.allclose(model.parameters, w, rtol=1e-12, atol=0)


def test_lars_moves_layers_without_a_gradient_or_weights_like_sgd():
    model = small_model(dtype="float64", optimizer=mc.LARS(0.5, 0.0))
    model.parameters[:40], model.gradients[...] = 0, 1
    before = model.parameters.copy()
    model.gradients[646:1086] = 0
    model.optimizer.update(model, 1)
    assert np.allclose(model.parameters[:40], -0.5) and np.array_equal(
        model.parameters[646:1086], before[646:1086]
    )
    assert np.isfinite(model.parameters).all()


def test_lars_learns_and_does_not_mind_the_size_of_the_gradient(tmp_path):
    x, y = random_batch(40)
    model = small_model(optimizer=mc.LARS(1.0, 0.9, trust=0.003))
    history = model.fit((x, y), epochs=12, batch_size=8)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    model.save(tmp_path / "m.safetensors")
    again = mc.load_model(tmp_path / "m.safetensors", device="reference")
    assert isinstance(again.optimizer, mc.LARS) and np.array_equal(
        again.optimizer.state["velocity"], model.optimizer.state["velocity"]
    )
    with pytest.raises(ValueError, match="trust must be > 0"):
        mc.LARS(trust=0)


def test_linear_scaling():
    rate = mc.optim.linear_scaling(0.1, 8, 4)
    assert [rate(step) for step in range(6)] == pytest.approx(
        [0.1 * f for f in (2.75, 4.5, 6.25, 8, 8, 8)]
    )
    decayed = mc.optim.linear_scaling(mc.optim.step_decay(0.1, 2), 3, 0)
    assert [decayed(step) for step in range(3)] == pytest.approx([0.3, 0.3, 0.03])
    assert all(mc.optim.linear_scaling(0.1, 1, 5)(step) == pytest.approx(0.1) for step in range(9))


@pytest.mark.parametrize("mode", mc.parallel.MODES)
def test_every_sync_works_on_one_rank(mode):
    model = small_model()
    history = model.fit(
        random_batch(40), epochs=6, batch_size=8, sync=mode, optimizer=mc.SGD(0.02, 0.5)
    )
    assert history["loss"][-1] < 0.9 * history["loss"][0] and math.isfinite(history["loss"][-1])
    assert model.optimizer.steps == model.updates == 30


def test_syncs_refuse_what_they_would_ignore():
    for arguments, text in (
        (("both", None), "sync must be one of gradients, overlap"),
        (("overlap", None, 3), 'goes with sync="weights"'),
        (("gradients", None, 1, 100), 'goes with sync="overlap"'),
        (("overlap", None, 1, 3), "at least one float32"),
        (("weights", None, 0), "every k >= 1 steps"),
    ):
        with pytest.raises(ValueError, match=text):
            make_sync(*arguments)
    with pytest.raises(ValueError, match="give fit the same comm, and no sync_every"):
        small_model().fit(random_batch(4), sync=make_sync("overlap", None), sync_every=2)

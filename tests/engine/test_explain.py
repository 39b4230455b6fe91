"""Activations, gradients with respect to pixels, occlusion."""

import numpy as np
import pytest

import minicnn as mc
from helpers import random_batch, small_model
from helpers.suppression import event, network


def test_activations_are_those_of_the_layers():
    model = small_model("cpu")
    x, _ = random_batch(3)
    found = model.activations(x, ["conv2d_1", "max_pooling2d_2", "dense_2"])
    assert [found[n].shape for n in found] == [(3, 22, 19, 4), (3, 3, 3, 6), (3, 3)]
    kernels = model.kernels
    by_hand = kernels.conv2d(x, model.weights["conv2d_1/w"], model.weights["conv2d_1/b"])
    assert np.allclose(found["conv2d_1"], by_hand, atol=1e-6)
    scores = np.exp(found["dense_2"]) / np.exp(found["dense_2"]).sum(1, keepdims=True)
    assert np.allclose(scores, model.predict(x), atol=1e-6)
    assert np.array_equal(model.activations(x, "input_1")["input_1"], x)
    with pytest.raises(ValueError, match="no layer 'conv': there are input_1, conv2d_1"):
        model.activations(x, "conv")


def test_input_gradient_is_the_derivative_of_the_score():
    options = {"input_scale": 0.5, "input_knee": 2.0}
    model = small_model("reference", dtype="float64", **options)
    x = random_batch(2)[0].astype(np.float64)
    gradient = model.input_gradient(x, [1, 2])
    rng, step = np.random.default_rng(0), 1e-6
    for _ in range(20):
        at = (rng.integers(2), rng.integers(22), rng.integers(19), 0)
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[at] += sign * step
            values.append(model.activations(moved, "dense_2")["dense_2"][at[0], [1, 2][at[0]]])
        numeric = (values[0] - values[1]) / (2 * step)
        assert gradient[at] == pytest.approx(numeric, rel=1e-5, abs=1e-8)
    with pytest.raises(ValueError, match="outputs 0 to 2"):
        model.input_gradient(x, 3)


def test_looking_at_pixels_leaves_training_as_it_was():
    shape = (61, 53, 1)
    watched, plain = (network("cpu", shape, "always", optimizer=mc.SGD(0.01)) for _ in range(2))
    events = [event(shape, [(9, 9), (30, 40)], i) for i in range(2)]
    for _ in range(2):
        dense = watched.input_gradient(events, 1)
        assert dense.shape == (2, *shape) and np.abs(dense).max() > 0
        assert watched.train_on_batch(events, [0, 1]) == plain.train_on_batch(events, [0, 1])
    assert np.array_equal(watched.parameters, plain.parameters)


def test_occlusion_finds_what_the_score_hangs_on():
    inputs = mc.Input((20, 20, 1))
    model = mc.Model(inputs, mc.Dense(2)(mc.Flatten()(inputs)), device="reference")
    weights = np.zeros((20, 20, 2))
    weights[5, 6, 1] = 3  # one pixel counts
    model.set_weights({"dense_1/w": weights.reshape(400, 2), "dense_1/b": np.zeros(2)})
    image = event((20, 20, 1), [(5, 6), (5, 7), (15, 15)])
    fall = model.occlusion_map(image, 1, size=4)
    assert fall.shape == (5, 5) and np.argwhere(fall > 1e-6).tolist() == [[1, 1]]
    overlapping = model.occlusion_map(image.to_dense(), 1, size=4, stride=2)
    assert np.argwhere(overlapping > 1e-6).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_a_picture_of_what_a_score_hangs_on(tmp_path):
    from minicnn.inspect.report.explain import draw_saliency

    model = network("cpu", (61, 53, 1), "auto", class_names=("a", "b", "c"))
    for i, positions in enumerate([[(9, 9), (30, 40), (31, 41)], []]):
        path = tmp_path / f"{i}.png"
        assert draw_saliency(model, event((61, 53, 1), positions), path, window=5) == path
        assert path.read_bytes()[:4] == b"\x89PNG"

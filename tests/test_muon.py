"""Muon: orthogonal steps, one array of weights at a time."""
import numpy as np
import pytest
from conftest import random_batch, small_model

import minicnn as mc
from minicnn.optim import at_positions, orthogonal


@pytest.mark.parametrize("shape", [(40, 40), (250, 64), (7, 1)])
def test_orthogonal_keeps_singular_vectors_and_evens_out_singular_values(shape):
    rng = np.random.default_rng(0)
    u, s, v = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    s = np.geomspace(1, 0.02, len(s))                  # of the size 0.01 of the norm and more
    got = orthogonal((u * s @ v).astype(np.float32))
    diagonal = u.T @ got @ v.T
    assert got.dtype == np.float32 and np.allclose(diagonal, np.diag(np.diag(diagonal)), atol=2e-3)
    assert 0.6 < np.diag(diagonal).min() and np.diag(diagonal).max() < 1.3


def test_orthogonal_of_nothing_is_nothing():
    assert not orthogonal(np.zeros((5, 3), np.float32)).any()


def test_muon_is_its_formula():
    """Each array as a matrix of inputs times outputs, wide ones too; a bias is one row."""
    rng = np.random.default_rng(0)
    layers = [mc.Conv2D(20, 2, padding="same"), mc.ELU(), mc.MaxPooling2D(3), mc.Flatten(), mc.Dense(3)]
    model = mc.Sequential(layers, (6, 6, 1), device="reference", dtype="float64", optimizer=mc.Muon(0.1, 0.9, weight_decay=0.5))
    w, m = {name: a.copy() for name, a in model.weights.items()}, dict.fromkeys(model.weights, 0.0)
    shapes = {name: (a.size // a.shape[-1], a.shape[-1]) for name, a in w.items()}
    assert any(rows < columns for rows, columns in shapes.values() if rows > 1)
    for _ in range(3):
        g = {name: rng.standard_normal(a.shape) for name, a in w.items()}
        for name in w:
            model.weight_gradients[name][...] = 4 * g[name]
        model.optimizer.update(model, 4)
        for name in w:
            m[name] = 0.9 * m[name] + 0.1 * g[name]
            u = (0.9 * m[name] + 0.1 * g[name]).reshape(shapes[name])
            u = orthogonal(u) if u.shape[0] >= u.shape[1] else orthogonal(u.T).T
            w[name] = w[name] - 0.1 * (0.2 * max(u.shape) ** 0.5 * u.reshape(w[name].shape) + 0.5 * w[name])
            assert np.allclose(model.weights[name], w[name], rtol=1e-9, atol=1e-12), name


def test_muon_learns_whatever_the_size_of_the_loss_and_is_saved(tmp_path):
    x, y = random_batch(40)
    model = small_model(optimizer=mc.Muon(0.02))
    history = model.fit((x, y), epochs=6, batch_size=8)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    model.save(tmp_path / "m.safetensors")
    again = mc.load_model(tmp_path / "m.safetensors", device="reference")
    assert isinstance(again.optimizer, mc.Muon) and np.array_equal(again.optimizer.state["mean"], model.optimizer.state["mean"])
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\)"):
        mc.Muon(momentum=1)


def test_weights_that_are_shared_stay_shared():
    x, y = random_batch(16)
    model = small_model(optimizer=mc.Muon(0.02).share("dense_1", 3))
    for step in range(4):
        model.train_on_batch(x, y)
        w = at_positions(model, "dense_1", model.parameters)
        assert np.allclose(w, w[:1], atol=1e-6) == (step < 3)

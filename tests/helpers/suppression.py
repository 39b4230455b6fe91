"""A small network, events, and the comparison of the zero-suppressed network with the dense one."""

import numpy as np
import pytest

import minicnn as mc
from minicnn.data import SparseImage


def network(
    device,
    shape,
    mode,
    kernel=5,
    pools=(5, 3),
    channels=(4, 6),
    seed=0,
    activation=mc.ELU,
    **options,
):
    layers = []
    for pool, filters in zip(pools, channels):
        layers += [mc.Conv2D(filters, kernel, padding="same"), activation(), mc.MaxPooling2D(pool)]
    model = mc.Sequential(
        [*layers, mc.Flatten(), mc.Dense(3)],
        shape,
        device=device,
        seed=seed,
        zero_suppression=mode,
        **options,
    )
    rng = np.random.default_rng(seed)
    for name, w in model.weights.items():
        if name.endswith("/b"):
            w[...] = model.kernels.asarray((0.3 * rng.standard_normal(w.shape)).astype(np.float32))
    model.weights_changed()
    return model


def event(shape, positions, seed=0, background=0.0):
    positions = np.unique(np.array(positions, int).reshape(-1, 2), axis=0)
    values = np.random.default_rng(seed).uniform(0.5, 2, (len(positions), shape[2]))
    return SparseImage(positions, values, shape, background)


def compare(device, shape, events, dtype_tolerance=3e-5, **options):
    """Scores and gradients equal up to rounding, for events one after the other and for updates in
    between.
    """
    dense, sparse = (
        network(device, shape, mode, optimizer=mc.SGD(0.01), **options)
        for mode in ("never", "always")
    )
    images = [e.to_dense() for e in events]
    labels = np.arange(len(events)) % 3
    for _ in range(2):
        for image, e in zip(images, events):
            assert np.allclose(dense.predict([image]), sparse.predict([e]), rtol=1e-5)
        (la, ga), (lb, gb) = (
            dense.loss_and_gradients(images, labels),
            sparse.loss_and_gradients(events, labels),
        )
        assert la == pytest.approx(lb, rel=5e-6)
        for name in ga:
            error = np.linalg.norm(ga[name] - gb[name])
            assert error <= dtype_tolerance * np.linalg.norm(ga[name]) + 1e-7, (
                f"{name}: {error} of {np.linalg.norm(ga[name])}"
            )
        dense.train_on_batch(images, labels)
        sparse.set_weights(dense.get_weights())


SHAPE = (61, 53, 1)
CASES = {
    "empty": [[]],
    "one pixel": [[(30, 20)]],
    "corners": [[(0, 0)], [(0, 52)], [(60, 0)], [(60, 52)], [(0, 0), (60, 52)]],
    "borders": [
        [(0, c) for c in range(53)],
        [(r, 52) for r in range(61)],
        [(60, c) for c in range(53)],
    ],
    "track": [[(5 + t, 3 + t // 2 + d) for t in range(50) for d in (0, 1)]],
    "full": [[(r, c) for r in range(61) for c in range(53)]],
    "one after the other": [[(10, 10)], [(10, 11), (40, 40)], [], [(10, 10)]],
}

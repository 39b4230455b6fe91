"""Losses: values by hand, gradients by differences, targets that are wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicnn as mc
from minicnn.data import SparseImage
from minicnn.kernels import get_backend
from minicnn.nn.gradcheck import numerical_gradient
from minicnn.nn.losses import IGNORED, loss_from_config

REFERENCE = get_backend("reference")
LOSSES = {
    "plain": mc.SoftmaxCrossEntropy(),
    "weights": mc.SoftmaxCrossEntropy(class_weights=[1, 0.2, 3]),
    "smooth": mc.SoftmaxCrossEntropy(label_smoothing=0.1),
    "focal": mc.SoftmaxCrossEntropy(focal=2),
    "little focal": mc.SoftmaxCrossEntropy(focal=0.5, class_weights=[2, 1, 1]),
    "squared": mc.MeanSquaredError(scale=3),
    "huber": mc.Huber(delta=0.7, scale=2),
}


def targets_of(loss, rng, n=4, outputs=3):
    if isinstance(loss, mc.SoftmaxCrossEntropy):
        return rng.integers(0, outputs, n)
    return rng.normal(0, 3, (n, outputs))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_the_derivative_of_the_sum(name, weighted):
    loss, rng = LOSSES[name], np.random.default_rng(3)
    outputs = rng.standard_normal((4, 3))
    weights = rng.uniform(0, 2, 4) if weighted else None
    targets = loss.check_targets(targets_of(loss, rng), 4, (3,))
    result = loss.weighted(REFERENCE, outputs, targets, weights)

    def total():
        return float(loss.weighted(REFERENCE, outputs, targets, weights).losses.sum())

    numeric = numerical_gradient(total, outputs)
    assert np.abs(result.gradient - numeric).max() <= 1e-8 * max(np.abs(numeric).max(), 1)
    assert (
        loss_from_config({"type": type(loss).__name__, **loss.config()}).config() == loss.config()
    )


def test_values_by_hand():
    outputs, labels = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])), np.array([0, 2])
    value = lambda loss: loss.forward(REFERENCE, outputs, labels).losses  # noqa: E731
    p = np.array([0.5, 0.1])
    assert np.allclose(value(LOSSES["plain"]), -np.log(p))
    assert np.allclose(value(LOSSES["weights"]), -np.log(p) * [1, 3])
    assert np.allclose(value(LOSSES["focal"]), -((1 - p) ** 2) * np.log(p))
    everywhere = 0.1 / 3 * -np.log(np.array([0.5 * 0.25 * 0.25, 0.1 * 0.8 * 0.1]))
    assert np.allclose(value(LOSSES["smooth"]), -0.9 * np.log(p) + everywhere)
    d = np.array([[0.5], [-4.0]])
    assert np.allclose(mc.MeanSquaredError().of_difference(d)[0], d**2)
    assert np.allclose(mc.Huber(1).of_difference(d)[0], [[0.125], [3.5]])


def test_a_score_of_one_has_a_finite_focal_gradient():
    outputs = np.array([[800.0, 0, 0]])
    result = LOSSES["little focal"].forward(REFERENCE, outputs, np.array([0]))
    assert np.isfinite(result.gradient).all() and result.losses[0] == 0


def pixel_model(device, **options):
    inputs = mc.Input((10, 9, 1))
    x = mc.ELU()(mc.Conv2D(4, 3, padding="same")(inputs))
    return mc.Model(
        inputs, mc.Conv2D(2, 1)(x), loss=mc.PixelCrossEntropy(), device=device, **options
    )


def tracks(n, seed=0):
    """Events of a bright row and a dark column, and the class of every listed pixel."""
    rng, events, labels = np.random.default_rng(seed), [], []
    for _ in range(n):
        row, column = rng.integers(1, 9), rng.integers(1, 8)
        coords = {(row, c): 0 for c in range(9)} | {(r, column): 1 for r in range(10) if r != row}
        places = sorted(coords)
        kinds = np.array([coords[p] for p in places])
        values = np.where(kinds == 0, 2.0, -1.0)[:, None]
        events.append(SparseImage(np.array(places), values, (10, 9, 1)))
        labels.append(kinds.astype(np.uint8))
    return events, labels


def test_pixel_loss_counts_labelled_pixels_alone():
    model = pixel_model("reference", dtype="float64")
    events, labels = tracks(3)
    labels[1][:4] = IGNORED
    labels[2][:] = IGNORED
    _, gradients = model.loss_and_gradients(events, labels)
    for name, w in model.weights.items():
        numeric = numerical_gradient(lambda: model.test_on_batch(events, labels), w)
        assert np.abs(gradients[name] - numeric).max() <= 1e-7 * np.abs(numeric).max(), name
    scores = model.predict(events)
    chosen = [s[lab != IGNORED, lab[lab != IGNORED]] for s, lab in zip(scores, labels)]
    by_hand = [float(-np.log(p).mean()) if len(p) else 0.0 for p in chosen]
    assert model.test_on_batch(events, labels) == pytest.approx(np.mean(by_hand))
    images = [e.to_dense() for e in events]
    maps = [np.full((10, 9), IGNORED) for _ in events]
    for image, coords, kinds in zip(maps, (e.coords for e in events), labels):
        image[coords[:, 0], coords[:, 1]] = kinds
    assert model.test_on_batch(images, maps) == pytest.approx(np.mean(by_hand))
    assert model.predict(images)[0].shape == (10, 9, 2)


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_pixels_are_learned(device):
    model = pixel_model(device, optimizer=mc.Adam(0.02))
    events, labels = tracks(24)
    history = model.fit([(events[i : i + 8], labels[i : i + 8]) for i in (0, 8, 16)], epochs=8)
    assert history["accuracy"][-1] > 0.95 > history["accuracy"][0]
    result = model.evaluate(_Pixels(*tracks(6, seed=1)), batch_size=4)
    assert result.accuracy > 0.95 and result.confusion.sum() == 6 * 18
    reference = pixel_model("reference")
    reference.set_weights(model.get_weights())
    (la, ga), (lb, gb) = (m.loss_and_gradients(events, labels) for m in (model, reference))
    assert la == pytest.approx(lb, rel=1e-5)
    assert all(np.allclose(ga[n], gb[n], rtol=1e-3, atol=1e-6) for n in ga)


class _Pixels:
    """Events and their pixel labels as a data set."""

    def __init__(self, events, labels):
        self.events, self.labels = events, labels

    def __len__(self):
        return len(self.events)

    def batch(self, indices):
        return [self.events[i] for i in indices], [self.labels[i] for i in indices]


def test_regression_learns_and_reports_in_the_units_of_the_targets():
    rng = np.random.default_rng(0)
    size = rng.uniform(100, 900, 64)
    x = np.zeros((64, 8, 8, 1), np.float32)
    x[:, 2:5, 2:5] = (size / 1000)[:, None, None, None]
    model = mc.Sequential(
        [mc.Flatten(), mc.Dense(8), mc.ELU(), mc.Dense(1)],
        (8, 8, 1),
        device="reference",
        loss=mc.MeanSquaredError(scale=1000),
        optimizer=mc.Adam(0.01),
    )
    history = model.fit((x, size), validation_data=(x, size), epochs=30, batch_size=8)
    assert history["val_mean_absolute_error"][-1] < 20 < history["mean_absolute_error"][0]
    result = model.evaluate((x, size))
    error = model.predict(x)[:, 0] - size
    assert result.events == 64 and result.bias[0] == pytest.approx(error.mean(), abs=1e-3)
    assert result.root_mean_squared_error[0] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert history["val_root_mean_squared_error"][-1] == pytest.approx(
        result.root_mean_squared_error[0], rel=1e-4
    )


@given(st.integers(1, 5), st.integers(0, 99))
def test_sample_weights_are_repetitions(n, seed):
    """A weight of 2 is the event twice, a weight of 0 its absence, in the summed gradients."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 6, 5, 1)), rng.integers(0, 3, n)
    repeats = rng.integers(0, 3, n)
    model = mc.Sequential(
        [mc.Conv2D(2, 3), mc.ReLU(), mc.Flatten(), mc.Dense(3)],
        (6, 5, 1),
        device="reference",
        dtype="float64",
    )
    _, weighted = model.loss_and_gradients(x, y, sample_weights=repeats)
    _, repeated = model.loss_and_gradients(np.repeat(x, repeats, 0), np.repeat(y, repeats))
    for name in weighted:
        assert np.allclose(weighted[name] * n, repeated[name] * max(repeats.sum(), 1), atol=1e-12)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: mc.SoftmaxCrossEntropy(focal=-1), "focal must be >= 0"),
        (lambda: mc.SoftmaxCrossEntropy(label_smoothing=1), "label_smoothing"),
        (lambda: mc.MeanSquaredError(scale=0), "scale must be a finite number"),
        (lambda: LOSSES["plain"].check_targets([0, 7], 2, (3,)), "event 1 .* label 7"),
        (lambda: LOSSES["weights"].check_output((4,)), "3 class_weights for a network of 4"),
        (lambda: LOSSES["squared"].check_targets([[1.0, np.nan]], 1, (2,)), "event 0 .* target"),
        (lambda: LOSSES["squared"].check_targets([1.0], 1, (2,)), r"shape \(1, 2\).* got \(1,\)"),
        (lambda: mc.PixelCrossEntropy().check_output((3,)), "must give .height, width, classes"),
        (lambda: mc.PixelCrossEntropy().check_targets([[9]], 1, (3, 3, 2)), "pixel of label 9"),
        (lambda: pixel_model("reference").test_on_batch(tracks(1)[0], [[0, 1]]), "listed pixels"),
        (lambda: loss_from_config({"type": "Hinge"}), "no loss class named Hinge"),
    ],
)
def test_wrong_targets_and_settings_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_weights_of_samples_are_checked():
    model = pixel_model("reference")
    events, labels = tracks(2)
    for wrong in ([1.0], [1.0, -1.0], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="sample weights must be 2 finite numbers"):
            model.train_on_batch(events, labels, sample_weights=wrong)

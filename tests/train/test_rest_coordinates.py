"""Weights and biases as (w, c), c the output at rest: the same networks, other steps."""

import numpy as np
import pytest

import minicnn as mc
from minicnn.train.rest_coordinates import RestCoordinates


def small_model(padding="same", **options):
    return mc.Sequential(
        [
            mc.Conv2D(3, 3, padding=padding, name="first"),
            mc.ELU(),
            mc.MaxPooling2D(2),
            mc.Dropout(0.0),
            mc.Conv2D(4, 3, padding=padding, name="second"),
            mc.Activation("tanh"),
            mc.AveragePooling2D(2),
            mc.Flatten(),
            mc.Dense(5, name="third"),
            mc.GELU(),
            mc.Dense(2, name="last"),
        ],
        input_shape=(14, 14, 1),
        seed=3,
        **{"device": "reference", "dtype": "float64", **options},
    )


def with_biases(model):
    rng = np.random.default_rng(1)
    model.parameters += 0.3 * rng.standard_normal(model.parameters.size)
    model.weights_changed()
    return model


def events(rng, count=3):
    x = np.zeros((count, 14, 14, 1))
    x[rng.random(x.shape) < 0.2] = 1.5
    return x, rng.integers(0, 2, count)


def loss_of(model, x, y):
    model.clear_gradients()
    model.accumulate(x, y, np.random.default_rng(0), False, None)
    return model.tail()["loss"]


def test_gradients_are_those_of_the_coordinates():
    model, rng = with_biases(small_model()), np.random.default_rng(5)
    x, y = events(rng)
    before = model.parameters.copy()
    loss_of(model, x, y)
    with RestCoordinates(model).moving():
        gradients = model.gradients.copy()
    np.testing.assert_allclose(model.parameters, before, atol=1e-14)

    def loss_beside(index, step):
        model.parameters[...] = before
        with RestCoordinates(model).moving():
            model.parameters[index] += step
        model.weights_changed()
        return loss_of(model, x, y)

    biases = [entry.offset for entry in model.buffers.entries if entry.key == "b"]
    for index in [*biases, *rng.integers(0, before.size, 40)]:
        slope = (loss_beside(index, 1e-5) - loss_beside(index, -1e-5)) / 2e-5
        assert gradients[index] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_devices_move_alike(device):
    model, wanted = small_model(device=device, dtype="float32"), small_model()
    x, y = events(np.random.default_rng(5))
    with_biases(wanted)
    model.parameters[...] = model.kernels.asarray(wanted.parameters.astype(np.float32))
    model.weights_changed()
    for each in (model, wanted):
        loss_of(each, x.astype(np.float32), y)
    size = wanted.parameters.size
    with RestCoordinates(model).moving(), RestCoordinates(wanted).moving():
        for found, right in (
            (model.parameters, wanted.parameters),
            (model.gradients[:size], wanted.gradients[:size]),
        ):
            off = np.abs(model.kernels.to_host(found) - right).max()
            assert off < 3e-6 * np.abs(right).max()


def test_a_step_that_fails_leaves_the_network_as_it_was():
    model = with_biases(small_model())
    before = model.parameters.copy()
    with pytest.raises(MemoryError), RestCoordinates(model).moving():
        raise MemoryError
    np.testing.assert_allclose(model.parameters, before, atol=1e-14)


def test_weights_do_not_move_the_output_of_an_empty_image():
    model, empty = with_biases(small_model("valid")), np.zeros((1, 14, 14, 1))
    before = model.predict(empty)
    rng = np.random.default_rng(2)
    with RestCoordinates(model).moving():
        for name, w in model.weights.items():
            if name.endswith("/w"):
                w += rng.standard_normal(w.shape)
    model.weights_changed()
    np.testing.assert_allclose(model.predict(empty), before, atol=1e-13)
    model.weights["first/w"][...] += 1.0
    model.weights["last/w"][:, 0] += 1.0
    model.weights_changed()
    assert np.abs(model.predict(empty) - before).max() > 1e-3  # as usual, it does


def test_layers_behind_others_stay_as_they_are():
    inputs = mc.Input((8, 8, 1))
    twice = mc.Conv2D(2, 3, padding="same", name="twice")
    x = mc.ReLU()(mc.Conv2D(2, 3, padding="same", name="frozen", trainable=False)(inputs))
    behind = mc.Conv2D(2, 1, name="behind")(x)
    y = mc.Conv2D(2, 3, padding="same", name="open")(inputs)
    z = mc.Add()([behind, twice(twice(mc.Conv2D(2, 1, name="next")(mc.ReLU()(y))))])
    out = mc.Dense(2, name="last")(mc.Flatten()(z))
    model = mc.Model(inputs, out, device="reference")
    found = RestCoordinates(model).places
    assert [place.before is not None for place in found] == [False, True]
    assert np.shares_memory(found[0].b, model.weights["open/b"])
    assert np.shares_memory(found[1].b, model.weights["next/b"])


def test_planes_behind_one_trunk():
    planes = [mc.Input((6, 6, 1)) for _ in range(2)]
    trunk = [mc.Conv2D(3, 3, padding="same", name="first"), mc.ReLU(), mc.MaxPooling2D(2)]
    ends = []
    for plane in planes:
        for layer in trunk:
            plane = layer(plane)
        ends.append(plane)
    out = mc.Dense(2, name="last")(mc.Flatten()(mc.Concatenate()(ends)))
    model = with_biases(mc.Model(planes, out, device="reference", dtype="float64"))
    empty = (np.zeros((1, 6, 6, 1)),) * 2
    first, last = RestCoordinates(model).places
    assert last.before is first and last.w.shape == (2 * 9, 3, 2)
    before = model.predict(empty)
    with RestCoordinates(model).moving():
        last.w += np.random.default_rng(3).standard_normal(last.w.shape)
    model.weights_changed()
    np.testing.assert_allclose(model.predict(empty), before, atol=1e-13)


@pytest.mark.parametrize("make", [mc.SGD, mc.Adam, mc.LARS])
def test_training_goes_on_from_a_file_to_the_same_bits(make, tmp_path):
    rng = np.random.default_rng(7)
    x, y = events(rng, 8)
    model = small_model(optimizer=make(0.01).keep_rest())
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save(tmp_path / "model.safetensors")
    again = mc.load_model(tmp_path / "model.safetensors", device="reference")
    assert again.optimizer.at_rest
    for each in (model, again):
        each.train_on_batch(x, y)
    np.testing.assert_array_equal(model.parameters, again.parameters)

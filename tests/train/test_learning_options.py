"""What fit takes and what it leaves behind: data of any kind, frozen layers, rates, statistics."""

import copy
import pickle

import numpy as np
import pytest

import minicnn as mc
from helpers import random_batch, small_model
from minicnn.train import schedules

# --------------------------------------------------------------------------------------- optimizers
OPTIMIZERS = [
    mc.SGD(0.003, momentum=0.9, nesterov=True, weight_decay=0.1),
    mc.Adam(mc.optim.Warmup(mc.optim.Cosine(0.003, 50, 1e-4), 5), beta2=0.99, weight_decay=0.1),
    mc.LARS(mc.optim.LinearScaling(mc.optim.StepDecay(0.1, 30), 4, 10), trust=0.01),
    mc.SGD(mc.optim.PerEpoch([0.1, 0.01], 7)),
    mc.SGD(0.01).share("fc", 3),
    mc.SGD(0.01, momentum=0.5).keep_rest().clip(0.1).average(30),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_settings_of_optimizers_and_schedules_come_back(optimizer, tmp_path):
    layers = [mc.Flatten(), mc.Dense(4, name="fc"), mc.ELU(), mc.Dense(3)]
    make = lambda o: mc.Sequential(layers, (22, 19, 1), device="reference", optimizer=o)  # noqa: E731
    model = make(mc.optim.optimizer_from_config(optimizer.config()))
    x, y = random_batch(4)
    model.train_on_batch(x, y)
    model.save(tmp_path / "m.safetensors")
    other = mc.load_model(tmp_path / "m.safetensors", "reference")
    assert other.optimizer.config() == optimizer.config() == model.optimizer.config()
    assert other.optimizer.rate() == model.optimizer.rate()
    for _ in range(3):
        assert other.train_on_batch(x, y) == model.train_on_batch(x, y)
    assert np.array_equal(other.parameters, model.parameters)


def test_long_gradients_are_shortened():
    """The step of SGD is the rate times the gradient, of the norm that is asked for at most."""
    x, y = random_batch(4)
    steps = {}
    for longest in (None, 1e6, 0.01):
        model = small_model(optimizer=mc.SGD(0.5))
        if longest:
            model.optimizer.clip(longest)
        before = model.parameters.copy()
        model.train_on_batch(x, y)
        steps[longest] = model.parameters - before
    norm = np.linalg.norm(steps[None])
    np.testing.assert_array_equal(steps[1e6], steps[None])
    assert norm > 0.5 * 0.01
    np.testing.assert_allclose(steps[0.01], steps[None] * (0.5 * 0.01 / norm), rtol=1e-3, atol=1e-7)
    with pytest.raises(ValueError, match="norm > 0"):
        mc.SGD().clip(0)


def test_weights_are_averaged_over_the_last_updates():
    """The mean of all samples first, the exponential one as soon as it spans the horizon."""
    horizon, every = 40, 8
    model = small_model(optimizer=mc.Adam(0.01).average(horizon))
    x, y = random_batch(4)
    samples = []
    for update in range(1, 97):
        model.train_on_batch(x, y)
        if update % every == 0:
            samples.append(model.parameters.copy())
    expected = samples[0]
    for number, sample in enumerate(samples[1:], 2):
        share = max(1 / number, 1 - np.exp(-every / horizon))
        expected = expected + share * (sample - expected)
    average = model.optimizer.state["average"]
    np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(average, model.parameters)
    with pytest.raises(ValueError, match="more than 0 updates"):
        mc.SGD().average(0)


def test_a_short_training_does_not_end_with_the_weights_that_it_began_with():
    x, y = random_batch(4)
    model, plain = (small_model(optimizer=mc.Adam(0.01)) for _ in range(2))
    model.optimizer.average(100)
    before = model.parameters.copy()
    for each in (model, plain):
        each.fit((x, y), epochs=3, batch_size=4)
    assert not np.array_equal(model.parameters, before)
    np.testing.assert_array_equal(model.parameters, plain.parameters)


def test_fit_validates_and_saves_with_the_averaged_weights(tmp_path):
    x, y = random_batch(16)
    model = small_model(optimizer=mc.Adam(0.02).average(16))
    path, seen = tmp_path / "m.safetensors", []

    class Look(mc.callbacks.Callback):
        def on_batch_end(self, step, logs):
            self.own = self.model.parameters.copy()

        def on_epoch_end(self, epoch, logs):
            average = self.model.optimizer.state["average"]
            assert np.array_equal(self.model.parameters, average)
            assert not np.array_equal(self.own, average)
            seen.append((logs["val_loss"], self.model.evaluate((x, y)).loss))

        def on_epoch_begin(self, epoch):
            assert not epoch or np.array_equal(self.model.parameters, self.own)

    chosen = [mc.callbacks.ModelCheckpoint(path), Look()]
    model.fit((x, y), validation_data=(x, y), epochs=3, batch_size=1, callbacks=chosen)
    assert len(seen) == 3 and all(a == pytest.approx(b, rel=1e-6) for a, b in seen)
    saved = mc.load_model(path, "reference")
    assert np.array_equal(saved.parameters, model.optimizer.state["average"])
    assert np.array_equal(model.parameters, saved.parameters)


def test_a_bare_function_as_rate_trains_and_says_what_a_file_cannot_hold(tmp_path):
    model = small_model(optimizer=mc.SGD(lambda step: 0.01))
    model.train_on_batch(*random_batch(2))
    model.save(tmp_path / "m.safetensors")
    other = mc.load_model(tmp_path / "m.safetensors", "reference")
    with pytest.raises(ValueError, match="which no file can hold: give load_model an optimizer"):
        other.train_on_batch(*random_batch(2))
    another = mc.load_model(tmp_path / "m.safetensors", "reference", mc.SGD(0.1))
    another.train_on_batch(*random_batch(2))
    assert another.optimizer.steps == 2


def test_the_optimizer_given_to_fit_is_the_one_that_is_saved(tmp_path):
    model = small_model()
    path = tmp_path / "m.safetensors"
    model.fit(
        random_batch(8),
        optimizer=mc.Adam(0.02),
        batch_size=4,
        callbacks=[mc.callbacks.ModelCheckpoint(path)],
    )
    other = mc.load_model(path, "reference")
    assert isinstance(other.optimizer, mc.Adam) and other.optimizer.learning_rate == 0.02
    assert other.optimizer.steps == 2
    assert np.array_equal(other.optimizer.state["mean"], model.optimizer.state["mean"])


def test_options_belong_to_the_file_and_can_be_replaced(tmp_path):
    path = tmp_path / "m.safetensors"
    small_model(
        dtype="float64",
        zero_suppression="always",
        fuse=False,
        class_names=["a", "b", "c"],
        loss=mc.SoftmaxCrossEntropy(label_smoothing=0.1),
    ).save(path)
    model = mc.load_model(path, "reference")
    assert model.dtype == np.float64 and not model.options.fuse
    assert model.options.zero_suppression == "always" and model.class_names == ("a", "b", "c")
    assert model.loss.label_smoothing == 0.1
    other = mc.load_model(path, "cpu", dtype="float32", zero_suppression="never")
    assert other.dtype == np.float32 and other.options.zero_suppression == "never"
    with pytest.raises(mc.CheckpointError, match="no option colour"):
        mc.load_model(path, colour="red")


# ---------------------------------------------------------------------------------- what is learned
def test_frozen_layers_and_factors_of_the_rate():
    model = small_model(optimizer=mc.SGD(0.1))
    first, last = model.layers[0], model.layers[-1]
    before = model.get_weights()
    first.trainable, last.learning_rate_factor = False, 0.5
    _, gradients = model.loss_and_gradients(*random_batch(4))
    model.train_on_batch(*random_batch(4))
    after = model.get_weights()
    for name in before:
        layer = model.layer(name.split("/")[0])
        factor = 0 if layer is first else 0.5 if layer is last else 1
        assert np.allclose(after[name], before[name] - 0.1 * factor * gradients[name], atol=1e-7)
    assert "260" not in model.summary_text() and "Trainable params" in model.summary_text()
    first.trainable = True
    model.train_on_batch(*random_batch(4))
    assert not np.array_equal(model.get_weights()["conv2d_1/w"], after["conv2d_1/w"])


def test_what_lies_before_the_first_layer_that_learns_has_no_backward_pass(monkeypatch):
    model = small_model("cpu", zero_suppression="never")
    for layer in model.layers[:6]:
        layer.trainable = False
    calls = []
    for stage in model.plan().stages:
        backward = stage.backward
        monkeypatch.setattr(
            stage, "backward", lambda *a, s=stage, b=backward: calls.append(s.name) or b(*a)
        )
    model.train_on_batch(*random_batch(2))
    assert calls == ["dense_2", "elu_2", "dense_1"] * 2


def test_transfer_to_another_number_of_classes():
    source = small_model(seed=1)
    layers = [*source.layers[:-1], mc.Dense(7, name="kinds")]
    target = mc.Sequential(layers, (22, 19, 1), device="reference", seed=2)
    left = target.set_weights(source.get_weights(), transfer=True)
    assert left == ["kinds/b", "kinds/w"]
    assert np.array_equal(target.weights["conv2d_1/w"], source.weights["conv2d_1/w"])
    with pytest.raises(ValueError, match="none of these weights"):
        target.set_weights({"other/w": np.zeros(3)}, transfer=True)
    with pytest.raises(ValueError, match=r"missing \['kinds/b', 'kinds/w'\]"):
        target.set_weights(source.get_weights())


def test_rates_per_epoch_and_on_a_plateau():
    rates = []

    class Watch(mc.callbacks.Callback):
        def on_batch_end(self, step, logs):
            rates.append(self.model.optimizer.rate())

    model = small_model()
    model.fit(
        random_batch(8),
        optimizer=mc.SGD(mc.optim.PerEpoch([0.1, 0.01])),
        epochs=3,
        batch_size=4,
        callbacks=[Watch()],
    )
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.01, 0.01, 0.01])
    assert schedules.PerEpoch(schedules.StepDecay(1, 2), 10)(25) == pytest.approx(0.1)
    plateau = mc.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2, min_delta=10)
    model = small_model()
    model.fit(random_batch(8), optimizer=mc.SGD(0.1), epochs=6, batch_size=4, callbacks=[plateau])
    assert model.optimizer.rate() == pytest.approx(0.1 * 0.5**2)
    with pytest.raises(ValueError, match="needs steps_per_epoch"):
        mc.optim.PerEpoch([0.1])(0)


def test_statistics_of_layers():
    statistics = mc.callbacks.LayerStatistics(every=2)
    model = small_model()
    model.fit(random_batch(8), epochs=2, batch_size=2, callbacks=[statistics])
    rows = statistics.norms["conv2d_1/w"]
    assert [step for step, *_ in rows] == [0, 2, 4, 6] and all(g > 0 for *_, g in rows)
    assert rows[-1][1] == pytest.approx(np.linalg.norm(model.weights["conv2d_1/w"]), rel=0.01)
    counts, _ = statistics.histograms["dense_1/w"][1]
    assert len(statistics.histograms["dense_1/w"]) == 2
    assert counts.sum() == model.weights["dense_1/w"].size


# ----------------------------------------------------------------------------------------- the data
def generated(x, y, batch=4):
    for i in range(0, len(y), batch):
        yield x[i : i + batch], y[i : i + batch]


class Tensor:
    """What a torch tensor looks like to somebody who does not know torch."""

    def __init__(self, a):
        self.a = a

    def detach(self):
        return self

    cpu = detach

    def __array__(self, dtype=None, copy=None):
        return self.a if dtype is None else self.a.astype(dtype)

    def __len__(self):
        return len(self.a)

    def __getitem__(self, i):
        return Tensor(self.a[i])


class Loader:
    """What a torch DataLoader looks like."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return 3

    def __iter__(self):
        return ((Tensor(a), Tensor(b)) for a, b in generated(self.x, self.y))


def test_fit_on_arrays_lists_generators_and_loaders():
    x, y = random_batch(12)
    want = small_model()
    for _ in range(2):
        for batch in generated(x, y):
            want.train_on_batch(*batch)
    endless = (batch for _ in range(9) for batch in generated(x, y))
    for data, options in (
        (list(generated(x, y)), {}),
        (Loader(x, y), {"validation_data": Loader(x, y)}),
        (endless, {"steps_per_epoch": 3, "validation_data": list(generated(x, y))}),
    ):
        model = small_model()
        history = model.fit(data, epochs=2, **options)
        assert np.array_equal(model.parameters, want.parameters), data
        assert len(history.rows) == 2 and ("val_loss" in history) == ("validation_data" in options)
    model = small_model()
    model.fit(x, y, batch_size=4, epochs=2)  # shuffled, so other weights
    assert model.updates == 6
    model.fit((x, y, np.ones(12)), batch_size=4)
    model.fit(generated(x, y))
    assert model.updates == 12
    running = generated(x, y)
    with pytest.raises(ValueError, match="ended after 0 of this epoch's first batches"):
        model.fit(running, epochs=2)
    with pytest.raises(ValueError, match="ended after 3 of this epoch's 5 batches"):
        model.fit(generated(x, y), steps_per_epoch=5)
    with pytest.raises(ValueError, match="ended after 0"):
        model.fit((x, y), batch_size=4, validation_data=iter([]))
    with pytest.raises(ValueError, match="got a tuple of 1"):
        model.fit(iter([(x,)]))
    with pytest.raises(TypeError, match="fit has no option epoch; there are"):
        model.fit((x, y), epoch=3)


def test_integer_images_are_scaled_not_emptied():
    """Integers times 0.01 are no integers: they were zeros once, without a word."""
    x, _ = random_batch(6)
    whole = np.round(100 * x).astype(np.int16)
    models = [small_model(device, input_scale=0.01) for device in ("cpu", "reference")]
    for model in models:
        assert np.allclose(model.predict(whole), model.predict(whole.astype(np.float32)))
        assert len({tuple(row) for row in model.predict(whole)}) == 6


def test_what_is_open_is_closed_when_training_is_interrupted():
    class Interrupting(mc.callbacks.Callback):
        closed = False

        def on_batch_end(self, step, logs):
            raise KeyboardInterrupt

        def close(self):
            self.closed = True

    interrupting, progress = Interrupting(), mc.callbacks.Progress()
    with pytest.raises(KeyboardInterrupt):
        small_model().fit(random_batch(4), callbacks=[progress, interrupting])
    assert interrupting.closed and progress.meter is None


def test_what_training_leaves_can_be_pickled():
    model = small_model(optimizer=mc.Adam(mc.optim.Warmup(0.01, 3)))
    history = model.fit(random_batch(4), batch_size=2)
    for copied in (pickle.loads(pickle.dumps(history)), copy.deepcopy(history)):
        assert copied.rows == history.rows
    optimizer = pickle.loads(pickle.dumps(model.optimizer))
    assert optimizer.config() == model.optimizer.config() and optimizer.steps == 2


def test_repr_of_what_a_notebook_shows():
    model = small_model()
    history = model.fit(random_batch(4), batch_size=2)
    assert "10 layers: 22 x 19 x 1 -> 3" in repr(model) and "reference" in repr(model)
    assert "History of 1 epochs: loss" in repr(history)
    assert (
        repr(mc.Conv2D(3, 5, padding="same")) == "Conv2D(filters=3, kernel_size=5, padding='same')"
    )
    assert repr(mc.Adam(0.1)).startswith("Adam(learning_rate=0.1, beta1=0.9")

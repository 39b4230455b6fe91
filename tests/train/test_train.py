"""fit, evaluate, callbacks, schedules, checkpoints: on one rank."""

import csv
import io
import json
import math

import numpy as np
import pytest

import minicnn as mc
from helpers import random_batch, small_model
from minicnn import callbacks, optim


def test_fit_learns_and_reports():
    model, data, other = (
        small_model(optimizer=mc.SGD(0.01, 0.9)),
        random_batch(40),
        random_batch(20, seed=1),
    )
    history = model.fit(data, validation_data=other, epochs=12, batch_size=8)
    assert history["epoch"] == list(range(1, 13))
    assert history["loss"][-1] < 0.5 * history["loss"][0] and history["val_accuracy"][-1] > 0.8
    result = model.evaluate(other)
    assert result.events == 20 and result.loss == pytest.approx(history["val_loss"][-1])
    assert result.confusion.sum() == 20 and np.allclose(result.score_sums.sum(1), result.counts)
    assert result.accuracy == (model.predict(other[0]).argmax(1) == other[1]).mean()


def test_same_seed_same_bits():
    def run(seed):
        model = small_model(seed=1)
        model.fit(random_batch(20), epochs=2, batch_size=3, optimizer=mc.SGD(0.01, 0.9), seed=seed)
        return model.parameters

    assert np.array_equal(run(0), run(0)) and not np.array_equal(run(0), run(1))


@pytest.mark.parametrize("make", [lambda: mc.SGD(0.02, 0.9), lambda: mc.Adam(0.01)])
def test_resuming_equals_going_on(tmp_path, make):
    data = random_batch(20)
    whole, first = small_model(optimizer=make()), small_model(optimizer=make())
    whole.fit(data, epochs=4, batch_size=3)
    first.fit(data, epochs=2, batch_size=3)
    first.save(tmp_path / "m.safetensors")
    second = mc.load_model(tmp_path / "m.safetensors", device="reference", optimizer=make())
    second.fit(data, epochs=4, initial_epoch=2, batch_size=3)
    assert np.array_equal(whole.parameters, second.parameters)


def test_a_checkpoint_knows_its_optimizer(tmp_path):
    model = small_model(optimizer=mc.Adam(0.01))
    model.train_on_batch(*random_batch(4))
    model.save(tmp_path / "m.safetensors")
    same, other = (
        mc.load_model(tmp_path / "m.safetensors", device="reference", optimizer=o)
        for o in (None, mc.SGD())
    )
    assert isinstance(same.optimizer, mc.Adam) and same.optimizer.steps == 1
    assert all(
        np.array_equal(v, model.optimizer.state[name]) for name, v in same.optimizer.state.items()
    )
    assert other.optimizer.steps == 0 and not other.optimizer.state


def decays(model):
    """1 where a parameter decays, as weights do, 0 where not, as biases."""
    return np.concatenate(
        [np.full(w.size, name.endswith("/w"), float) for name, w in model.weights.items()]
    )


def test_sgd_is_the_textbook():
    rng = np.random.default_rng(0)
    for momentum, nesterov, decay in ((0, False, 0), (0.9, False, 0.01), (0.9, True, 0.1)):
        model = small_model(dtype="float64", optimizer=mc.SGD(0.1, momentum, nesterov, decay))
        w, v, decay = model.parameters.copy(), 0, decay * decays(model)
        for _ in range(3):
            x, y = random_batch(4, seed=int(rng.integers(99)))
            g = (
                np.concatenate([g.ravel() for g in model.loss_and_gradients(x, y)[1].values()])
                + decay * w
            )
            v = momentum * v + g
            w = w - 0.1 * (g + momentum * v if nesterov else v)
            model.train_on_batch(x, y)
            assert np.allclose(model.parameters, w, rtol=1e-12)


def test_adam_is_the_textbook():
    model = small_model(dtype="float64", optimizer=mc.Adam(0.1, 0.8, 0.9, 1e-3, 0.05))
    w, m, v, decay = model.parameters.copy(), 0, 0, 0.05 * decays(model)
    for t in (1, 2, 3):
        x, y = random_batch(4, seed=t)
        g = np.concatenate([g.ravel() for g in model.loss_and_gradients(x, y)[1].values()])
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        w = w - 0.1 * (m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3) + decay * w)
        model.train_on_batch(x, y)
        assert np.allclose(model.parameters, w, rtol=1e-12)
    with pytest.raises(ValueError, match="beta1 and beta2"):
        mc.Adam(beta2=1.0)


def test_schedules():
    decay, wave, ramp = optim.step_decay(1, 10), optim.cosine(1, 100, 0.1), optim.warmup(0.8, 4)
    assert [decay(s) for s in (0, 9, 10, 25)] == pytest.approx([1, 1, 0.1, 0.01])
    assert [wave(s) for s in (0, 50, 100, 200)] == pytest.approx([1, 0.55, 0.1, 0.1])
    assert [ramp(s) for s in (0, 1, 3, 9)] == pytest.approx([0.2, 0.4, 0.8, 0.8])
    optimizer = mc.SGD(decay)
    model = small_model(optimizer=optimizer)
    for _ in range(11):
        model.train_on_batch(*random_batch(2))
    assert optimizer.rate() == pytest.approx(0.1)


def test_json_lines_and_tensorboard(tmp_path):
    path = tmp_path / "log.jsonl"
    model = small_model()
    for _ in range(2):  # a second training appends
        model.fit(random_batch(8), epochs=2, batch_size=4, callbacks=[callbacks.JSONLines(path, 2)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["step", "epoch"] * 4
    assert [row["update"] for row in rows[::2]] == [2, 4, 6, 8] and rows[0]["step"] == 2
    assert rows[3]["epoch"] == 2 and rows[3]["loss"] > 0 and "events_per_second" in rows[3]
    logger = callbacks.JSONLines(path)
    logger.on_train_begin(model, {"rank": 0, "comm": None})
    logger.on_epoch_end(0, {"loss": float("nan")})
    assert json.loads(path.read_text().splitlines()[-1])["loss"] is None
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"minicnn\[tensorboard\]"):
            callbacks.TensorBoard(tmp_path / "board")
        return
    board = callbacks.TensorBoard(tmp_path / "board", every=1)
    model.fit(random_batch(8), epochs=1, batch_size=4, callbacks=[board])
    written = b"".join(file.read_bytes() for file in (tmp_path / "board").iterdir())
    for name in (b"loss", b"accuracy", b"step/loss", b"seconds/update", b"events_per_second"):
        assert name in written, name


def test_callbacks(tmp_path):
    model, data = small_model(), random_batch(12)
    text = io.StringIO()
    stopper = callbacks.EarlyStopping("loss", patience=2, min_delta=10)
    history = model.fit(
        data,
        validation_data=data,
        epochs=9,
        batch_size=4,
        callbacks=[
            callbacks.CSVLogger(tmp_path / "h.csv"),
            callbacks.ModelCheckpoint(tmp_path / "m.safetensors", "val_accuracy", "max"),
            callbacks.Progress(text),
            stopper,
        ],
    )
    assert len(history.rows) == 3  # the first, and two without improvement
    with open(tmp_path / "h.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["loss"]) for r in rows] == history["loss"]
    assert len(text.getvalue().splitlines()) == 3 and "validation loss" in text.getvalue()
    best = mc.load_model(tmp_path / "m.safetensors", device="reference").evaluate(data)
    assert best.accuracy == pytest.approx(max(history["val_accuracy"]))
    with pytest.raises(ValueError, match="no figure named 'val_loss' to monitor"):
        model.fit(data, epochs=1, batch_size=4, callbacks=[callbacks.EarlyStopping()])


def test_progress_says_when_a_network_has_died():
    model, text = small_model(), io.StringIO()
    progress, figures = (
        callbacks.Progress(text),
        {"accuracy": 0.5, "seconds": 1.0, "events_per_second": 1.0},
    )
    progress.on_train_begin(model, {"epochs": 3, "steps": 1, "rank": 0, "comm": None})
    for epoch, part in enumerate((1, 0.9, 0.999)):
        progress.on_epoch_begin(epoch)
        progress.on_epoch_end(epoch, {"loss": part * np.log(model.classes), **figures})
    assert [
        line.startswith("the loss is back at that of equal scores")
        for line in text.getvalue().splitlines()
    ] == [False] * 3 + [True]


def test_a_loss_that_is_not_finite_stops_before_the_update():
    model = small_model(optimizer=mc.SGD(0.1))
    model.parameters[:3] = np.nan
    before = model.parameters.copy()
    with (
        np.errstate(all="ignore"),
        pytest.raises(mc.NotFiniteError, match=r"on 1 of 1 ranks at update 1"),
    ):
        model.fit(random_batch(4), batch_size=2)
    assert np.array_equal(model.parameters, before, equal_nan=True)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"batch_size": 5}, "batch size 5 is larger than the 4 events of rank 0"),
        ({"batch_size": 0}, "at least 1"),
        ({"sync": "hope"}, "gradients, overlap"),
        ({"sync": "weights", "sync_every": 0}, "k >= 1"),
    ],
)
def test_fit_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        small_model().fit(random_batch(4), **options)


def test_fit_refuses_an_empty_data_set_and_unequal_lengths():
    x, y = random_batch(4)
    with pytest.raises(ValueError, match="rank 0 has no events"):
        small_model().fit((x[:0], y[:0]))
    with pytest.raises(ValueError, match="4 images, but 3 labels"):
        small_model().fit((x, y[:3]))


def test_an_empty_evaluation_has_no_loss():
    x, y = random_batch(1)
    result = small_model().evaluate((x[:0], y[:0]))
    assert result.events == 0 and math.isnan(result.loss) and math.isnan(result.accuracy)


def test_checkpoint_keeps_everything(tmp_path):
    model = small_model(optimizer=mc.SGD(0.01, 0.9), input_scale=0.5, seed=3)
    x, y = random_batch(4)
    model.train_on_batch(x, y)
    model.save(tmp_path / "m.safetensors")
    again = mc.load_model(
        tmp_path / "m.safetensors", device="reference", optimizer=mc.SGD(0.01, 0.9)
    )
    assert again.config() == model.config() and again.updates == 1
    assert [model.train_on_batch(x, y) for _ in range(3)] == [
        again.train_on_batch(x, y) for _ in range(3)
    ]
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_checkpoint_is_found(tmp_path):
    path = tmp_path / "m.safetensors"
    small_model().save(path)
    sound = path.read_bytes()
    for change in (
        sound[:-5],
        sound[:-1] + bytes([sound[-1] ^ 4]),
        b"rubbish",
        b"",
        sound.replace(b"minicnn-model-3", b"minicnn-model-7"),
    ):
        path.write_bytes(change)
        with pytest.raises(mc.CheckpointError, match="safetensors"):
            mc.load_model(path, device="reference")
    with pytest.raises(mc.CheckpointError, match="nothing"):
        mc.load_model(tmp_path / "nothing.safetensors", device="reference")


def test_an_optimizer_belongs_to_one_model():
    optimizer = mc.SGD(0.1)
    small_model(optimizer=optimizer).train_on_batch(*random_batch(2))
    with pytest.raises(ValueError, match="belongs to a model of"):
        mc.Sequential(
            [mc.Flatten(), mc.Dense(3)], (22, 19, 1), device="reference", optimizer=optimizer
        ).train_on_batch(*random_batch(2))


def test_weights_that_are_shared_by_all_positions_are_equal_and_then_part():
    """fc1 sees 3 x 3 positions of 4 channels: their weights are one set for two updates, which is
    the mean gradient's update.
    """

    def model(shared):
        layers = [
            mc.Conv2D(4, 3, padding="same"),
            mc.ELU(),
            mc.MaxPooling2D(4),
            mc.Flatten(),
            mc.Dense(5, name="fc"),
        ]
        optimizer = mc.SGD(0.1)
        return mc.Sequential(
            layers,
            (12, 12, 1),
            device="reference",
            optimizer=optimizer.share("fc", 2) if shared else optimizer,
        )

    x, y = (
        np.random.default_rng(0).standard_normal((6, 12, 12, 1)).astype(np.float32),
        np.arange(6) % 5,
    )
    m, free = model(True), model(False)
    m.optimizer.prepare(m)
    w = m.weights["fc/w"].reshape(9, 4, 5)
    assert (w == w[:1]).all() and (w[0] == free.weights["fc/w"].reshape(9, 4, 5)[0]).all()
    free.set_weights(m.get_weights())
    before, gradients = w[0].copy(), free.loss_and_gradients(x, y)[1]
    m.train_on_batch(x, y)
    np.testing.assert_allclose(
        w[0], before - 0.1 * gradients["fc/w"].reshape(9, 4, 5).mean(0), rtol=1e-5, atol=1e-7
    )
    m.train_on_batch(x, y)
    assert (w == w[:1]).all() and (w[0] != before).any()
    m.train_on_batch(x, y)
    assert (w != w[:1]).any()
    with pytest.raises(
        ValueError, match="'conv' is not a Dense layer behind Flatten; the layers are conv2d_1"
    ):
        m.optimizer.share("conv", 5)
        m.train_on_batch(x, y)

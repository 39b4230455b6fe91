"""Sequential: the talk's network, the flat buffers, the public calls, bad input."""

import subprocess
import sys

import numpy as np
import pytest

import minicnn as mc
from helpers import random_batch, small_model

TALK = """\
block1_conv1 (Conv2D) (None, 3600, 3600, 10) 260
elu_1 (ELU) (None, 3600, 3600, 10) 0
block1_pool (MaxPooling2D) (None, 720, 720, 10) 0
block2_conv1 (Conv2D) (None, 720, 720, 64) 16064
elu_2 (ELU) (None, 720, 720, 64) 0
block2_pool (MaxPooling2D) (None, 144, 144, 64) 0
block3_conv1 (Conv2D) (None, 144, 144, 128) 204928
elu_3 (ELU) (None, 144, 144, 128) 0
block3_pool (MaxPooling2D) (None, 28, 28, 128) 0
block4_conv1 (Conv2D) (None, 28, 28, 256) 819456
elu_4 (ELU) (None, 28, 28, 256) 0
block4_pool (MaxPooling2D) (None, 5, 5, 256) 0
flatten (Flatten) (None, 6400) 0
fc1 (Dense) (None, 32) 204832
elu_5 (ELU) (None, 32) 0
predictions (Dense) (None, 5) 165"""


def test_summary_is_the_talks_table(capsys):
    model = mc.models.microboone(device="reference")
    model.summary()
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in lines[1:17]] == TALK.splitlines()
    assert lines[-1] == "Total params: 1,245,705"
    assert model.parameters.size == 1_245_705 and model.gradients.size == 1_245_705 + 4


def test_weights_are_views_of_one_buffer_in_layer_order():
    model = small_model()
    at = 0
    for name, w in model.weights.items():
        assert np.shares_memory(w, model.parameters)
        assert np.array_equal(model.parameters[at : at + w.size], w.ravel()), name
        at += w.size
    assert at == model.parameters.size
    model.parameters[...] = 0
    assert all((w == 0).all() for w in model.get_weights().values())


def test_initial_weights_are_glorot_uniform_and_depend_on_the_seed_alone():
    a, b, c = small_model(seed=1), small_model(seed=1), small_model(seed=2)
    assert np.array_equal(a.parameters, b.parameters) and not np.array_equal(
        a.parameters, c.parameters
    )
    w = mc.models.microboone(size=625, device="reference").weights["block3_conv1/w"]
    limit = np.sqrt(6 / (25 * (64 + 128)))
    assert np.abs(w).max() <= limit and abs(w.std() - limit / np.sqrt(3)) < 0.01 * limit


def test_loss_and_gradients_are_means_over_events():
    model, (x, y) = small_model(dtype="float64"), random_batch(3)
    loss, grads = model.loss_and_gradients(x, y)
    single = [model.loss_and_gradients(x[i : i + 1], y[i : i + 1]) for i in range(3)]
    assert loss == pytest.approx(np.mean([s[0] for s in single]))
    for name, g in grads.items():
        assert np.allclose(g, np.mean([s[1][name] for s in single], 0), atol=1e-12), name


def test_gradients_of_the_whole_model_are_numerically_right():
    model, (x, y) = small_model(dtype="float64"), random_batch(2)
    _, grads = model.loss_and_gradients(x, y)
    rng = np.random.default_rng(0)
    for name, w in model.weights.items():
        for i in rng.choice(w.size, min(w.size, 5), replace=False):
            old, h = w.flat[i], 1e-6
            w.flat[i] = old + h
            up = model.test_on_batch(x, y)
            w.flat[i] = old - h
            numeric = (up - model.test_on_batch(x, y)) / (2 * h)
            w.flat[i] = old
            assert grads[name].flat[i] == pytest.approx(numeric, rel=1e-4, abs=1e-8), (name, i)


def test_train_on_batch_learns_and_fused_equals_unfused():
    x, y = random_batch(12)
    # at a rate of 0.05 the loss jumps, and rounding, which is each processor's own, decides where
    # to
    fused, plain = (
        small_model(fuse=f, optimizer=mc.SGD(0.02, momentum=0.9)) for f in (True, False)
    )
    losses = [(fused.train_on_batch(x, y), plain.train_on_batch(x, y)) for _ in range(25)]
    assert losses[-1][0] < 0.3 * losses[0][0]
    assert np.allclose(*zip(*losses), rtol=1e-4)
    assert "fused" in str(fused.plan()) and "fused" not in str(plain.plan())


def test_sparse_images_and_arrays_give_the_same():
    model, (x, y) = small_model(input_scale=0.25), random_batch(3)
    x[np.abs(x) < 1] = 0
    sparse = [mc.data.SparseImage.from_dense(image) for image in x]
    assert np.array_equal(model.predict(x), model.predict(sparse))
    assert model.train_on_batch(x, y) == model.__class__(
        [mc.layers.REGISTRY[type(layer).__name__](**layer.config()) for layer in model.layers],
        model.input_shape,
        device="reference",
        input_scale=0.25,
    ).train_on_batch(sparse, y)


def test_predict_returns_scores():
    model, (x, _) = small_model(), random_batch(4)
    scores = model.predict(x)
    assert scores.shape == (4, 3) and np.allclose(scores.sum(1), 1) and (scores > 0).all()
    assert model.predict(x[:0]).shape == (0, 3)
    with pytest.raises(TypeError, match=r"a batch is a list of images or an array .* got Sparse"):
        model.predict(mc.data.SparseImage.from_dense(x[0]))


@pytest.mark.parametrize("batch_size", (1, 3, 32))
def test_predict_takes_a_data_set(batch_size):
    x, y = random_batch(7)
    images = [mc.data.SparseImage.from_dense(image) for image in x]
    for model in (small_model(), small_model("cpu")):
        scores = model.predict(images)
        found = model.predict(mc.data.ArrayDataset(images, y), batch_size)
        np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-7)
    assert model.predict(mc.data.ArrayDataset([], [])).shape == (0, 3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        model.predict(mc.data.ArrayDataset(images, y), 0)


def test_dropout_acts_in_training_only_and_is_reproducible():
    def make():
        return mc.Sequential(
            [mc.Flatten(), mc.Dropout(0.5), mc.Dense(3)], (4, 4, 1), device="reference"
        )

    x, y = random_batch(8, (4, 4, 1))
    a, b = make(), make()
    assert np.array_equal(a.predict(x), a.predict(x))
    assert a.train_on_batch(x, y) == b.train_on_batch(x, y) != a.test_on_batch(x, y)
    assert np.array_equal(a.parameters, b.parameters)


@pytest.mark.parametrize(
    "change, text",
    [
        (
            lambda x, y: (x[:, :-1], y),
            r"event 0 .* shape \(21, 19, 1\), the network takes \(22, 19, 1\)",
        ),
        (
            lambda x, y: (x, y + 3),
            r"event 0 of the batch has the label \d; the network has the classes 0 to 2",
        ),
        (lambda x, y: (x, -1 - y), "label -"),
        (lambda x, y: (x, y.astype(float)), "integers"),
        (lambda x, y: (x, y[:-1]), "labels must be 3 integers"),
        (
            lambda x, y: (np.where(np.arange(3).reshape(3, 1, 1, 1) == 1, np.nan, x), y),
            r"event 1 of the batch: pixel \(0, 0, 0\) is nan",
        ),
        (
            lambda x, y: (np.where(np.arange(3).reshape(3, 1, 1, 1) == 2, np.inf, x), y),
            r"event 2 of the batch: pixel \(0, 0, 0\) is inf",
        ),
    ],
)
def test_bad_batches_name_the_event(change, text):
    with pytest.raises(ValueError, match=text):
        small_model().train_on_batch(*change(*random_batch(3)))


def test_set_weights_checks_everything_before_it_changes_anything():
    model = small_model()
    before, w = model.parameters.copy(), model.get_weights()
    for bad in (
        {**w, "conv2d_1/w": np.zeros((1, 2))},
        {k: w[k] for k in list(w)[1:]},
        {**w, "x/w": np.zeros(1)},
    ):
        with pytest.raises(ValueError, match=r"conv2d_1/w|x/w"):
            model.set_weights({k: v + 1 if np.ndim(v) == 1 else v for k, v in bad.items()})
        assert np.array_equal(model.parameters, before)


def test_devices_are_explicit(no_gpu):
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        small_model(device="tpu")
    with pytest.raises(RuntimeError, match='device "cuda"'):
        small_model(device="cuda")
    with pytest.raises(ValueError, match="float64"):
        small_model(device="cpu", dtype="float64")


def test_plan_says_why_a_block_is_not_fused():
    layers = [
        mc.Conv2D(2, 3, strides=2),
        mc.ELU(),
        mc.MaxPooling2D(2),
        mc.Conv2D(2, 3, padding="same"),
        mc.ELU(),
        mc.MaxPooling2D(3, 2),
        mc.Flatten(),
        mc.Dense(2),
    ]
    text = str(mc.Sequential(layers, (40, 40, 1), device="reference").plan())
    assert (
        "not fused: stride (2, 2)" in text and "not fused: pool stride is not the pool size" in text
    )


def test_input_map_is_linear_below_the_knee_and_logarithmic_above():
    from minicnn.engine.input_map import InputMap

    v = np.array([0, 1e-3, 5, -5, 5000], np.float32)
    assert InputMap()(v) is v and np.array_equal(InputMap(0.5)(v), v / 2)
    knee = InputMap(0.5, 100)
    assert knee(v).dtype == np.float32 and knee(v)[0] == 0 and knee(v)[2] == -knee(v)[3]
    assert knee(v)[1] == pytest.approx(5e-4, rel=1e-4) and knee(v)[4] == pytest.approx(
        50 * np.log(51), rel=1e-5
    )
    for bad in ({"input_scale": 0}, {"input_scale": np.nan}, {"input_knee": -1}):
        with pytest.raises(ValueError, match="must be a finite number above 0"):
            small_model(**bad)


def test_a_forked_process_says_that_it_has_no_threads():
    """GNU's OpenMP would end it without a word, and a Pool waits for ever for its worker."""
    code = (
        "import os, numpy as np, minicnn as mc\n"
        "m = mc.models.microboone(size=25, classes=2, device='cpu')\n"
        "m.kernels.set_threads(2)\n"
        "x = np.ones((2, 25, 25, 1), 'f4')\n"
        "m.predict(x)\n"
        "import numba; numba.np.ufunc.parallel._launch_threads()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    try:\n"
        "        m.predict(x)\n"
        "    except RuntimeError as problem:\n"
        "        print(problem, flush=True)\n"
        "    os._exit(0)\n"
        "print(os.waitpid(child, 0)[1], numba.threading_layer())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    if "omp" not in done.stdout:
        pytest.skip("another threading layer")
    assert 'get_context("spawn")' in done.stdout and done.stdout.split()[-2] == "0", done.stderr

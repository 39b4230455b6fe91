"""Graphs: branches, shared layers, several inputs and outputs compute what they say."""

import copy
import pickle

import numpy as np
import pytest

import minicnn as mc
from helpers import random_batch, small_model
from helpers.suppression import event
from minicnn.nn.gradcheck import numerical_gradient
from minicnn.nn.graph import Graph


def residual(device="reference", **options):
    inputs = mc.Input((12, 11, 2))
    x = mc.ELU()(mc.Conv2D(4, 3, padding="same")(inputs))
    y = mc.Add()([mc.Conv2D(4, 3, padding="same")(x), x])
    z = mc.Concatenate()([y, mc.Conv2D(2, 1, padding="same")(x)])
    outputs = mc.Dense(3)(mc.Flatten()(mc.MaxPooling2D(3)(z)))
    return mc.Model(inputs, outputs, device=device, **options)


def images(n=5, shape=(12, 11, 2), seed=0):
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def check_against_differences(model, x, y, tolerance=2e-7):
    """Every weight's gradient is the derivative of the mean loss, in float64."""
    assert model.dtype == np.float64
    _, gradients = model.loss_and_gradients(x, y)
    for name, w in model.weights.items():

        def loss():
            model.weights_changed()
            return model.test_on_batch(x, y)

        numeric = numerical_gradient(loss, w)
        scale = max(np.abs(numeric).max(), 1e-3)
        assert np.abs(gradients[name] - numeric).max() <= tolerance * scale, name


def test_branches_are_added_up_in_the_backward_pass():
    model = residual(dtype="float64", seed=2)
    x = images().astype(np.float64)
    check_against_differences(model, x, np.array([0, 2, 1, 1, 0]))


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_a_graph_gives_the_same_on_every_backend(device):
    reference, other = residual(), residual(device)
    x, y = images(), np.array([0, 2, 1, 1, 0])
    (la, ga), (lb, gb) = reference.loss_and_gradients(x, y), other.loss_and_gradients(x, y)
    assert la == pytest.approx(lb, rel=1e-5)
    for name in ga:
        assert np.linalg.norm(ga[name] - gb[name]) <= 1e-4 * np.linalg.norm(ga[name]) + 1e-6, name


def test_a_shared_layer_has_one_set_of_parameters_and_the_sum_of_the_gradients():
    trunk = [mc.Conv2D(3, 3, padding="same", name="trunk"), mc.ELU(), mc.MaxPooling2D(4)]
    planes = [mc.Input((12, 8, 1), name=f"plane{i}") for i in range(3)]
    features = []
    for plane in planes:
        x = plane
        for layer in trunk:
            x = layer(x)
        features.append(x)
    outputs = mc.Dense(2)(mc.Flatten()(mc.Concatenate()(features)))
    model = mc.Model(planes, outputs, device="reference", dtype="float64")
    assert [name for name in model.weights if "trunk" in name] == ["trunk/w", "trunk/b"]
    assert "trunk#2" in model.summary_text() and model.summary_text().count(" 30 ") == 1
    x = tuple(images(4, (12, 8, 1), seed).astype(np.float64) for seed in range(3))
    check_against_differences(model, x, np.array([0, 1, 1, 0]))


def test_three_planes_share_a_trunk_on_lit_maps():
    def network(mode):
        block = [mc.Conv2D(4, 5, padding="same", name="block"), mc.ELU(), mc.MaxPooling2D(5)]
        planes, features = [mc.Input((41, 38, 1)) for _ in range(3)], []
        for plane in planes:
            x = plane
            for layer in block:
                x = layer(x)
            features.append(mc.Flatten()(x))
        outputs = mc.Dense(3)(mc.Concatenate()(features))
        return mc.Model(planes, outputs, device="cpu", zero_suppression=mode)

    sparse, dense = network("always"), network("never")
    assert sparse.plan().lit and not dense.plan().lit
    events = tuple(
        [event((41, 38, 1), [(5 + i, 7 * k), (20, 30)], seed=i) for i in range(3)] for k in range(3)
    )
    assert np.allclose(sparse.predict(events), dense.predict(events), rtol=1e-5, atol=1e-7)
    (la, ga), (lb, gb) = (m.loss_and_gradients(events, [0, 1, 2]) for m in (sparse, dense))
    assert la == pytest.approx(lb, rel=1e-6)
    for name in ga:
        assert np.allclose(ga[name], gb[name], rtol=1e-4, atol=1e-6), name
    with pytest.raises(ValueError, match="3 inputs: a batch is a tuple of 3"):
        sparse.predict(events[:2])


def test_several_outputs_have_a_loss_each():
    inputs = mc.Input((9, 9, 1))
    x = mc.Flatten()(mc.ELU()(mc.Conv2D(2, 3)(inputs)))
    model = mc.Model(
        inputs,
        [mc.Dense(3, name="kind")(x), mc.Dense(1, name="momentum")(x)],
        loss=[mc.SoftmaxCrossEntropy(), mc.MeanSquaredError(scale=100)],
        device="reference",
        dtype="float64",
    )
    x, kinds, momenta = images(6, (9, 9, 1)), np.arange(6) % 3, np.linspace(0, 300, 6)
    check_against_differences(model, x.astype(np.float64), (kinds, momenta))
    history = model.fit([(x, (kinds, momenta))] * 2, epochs=2)
    assert {"loss", "kind/loss", "kind/accuracy", "momentum/mean_absolute_error"} <= set(
        history.rows[0]
    )
    scores, values = model.predict(x)
    assert scores.shape == (6, 3) and values.shape == (6, 1)


def test_a_sequential_is_the_same_graph():
    inputs = mc.Input((22, 19, 1))
    x = inputs
    chain = small_model()
    for layer in chain.layers:
        x = layer(x)
    model = mc.Model(inputs, x, device="reference")
    images_, labels = random_batch(4)
    assert model.train_on_batch(images_, labels) == chain.train_on_batch(images_, labels)
    assert np.array_equal(model.parameters, chain.parameters)
    assert model.summary_text() == chain.summary_text()


def test_a_layer_object_can_be_in_two_models_and_twice_in_one():
    layer = mc.ELU()
    make = lambda: mc.Sequential(  # noqa: E731
        [mc.Flatten(), mc.Dense(4), layer, mc.Dense(3), layer], (5, 4, 1), device="reference"
    )
    a, b = make(), make()
    assert np.array_equal(a.predict(images(2, (5, 4, 1))), b.predict(images(2, (5, 4, 1))))
    assert layer.name is None and "elu_1#2" in a.summary_text()


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda i: mc.Model(i, mc.Dense(2)(i)), ValueError, "put a Flatten"),
        (lambda i: mc.Model(mc.Input((3, 3, 1)), _end(i)), ValueError, "not among the model's"),
        (lambda i: mc.Model([i, mc.Input((3, 3, 1))], _end(i)), ValueError, "no output depends"),
        (lambda i: mc.Model(_end(i), _end(i)), ValueError, "is not an Input"),
        (lambda i: mc.Add()([i, mc.Input((5, 5, 1))]), ValueError, "two inputs of one shape"),
        (lambda i: mc.ELU()([i, i]), TypeError, "does not take 2 inputs"),
        (lambda i: mc.Conv2D(2, 3)(np.zeros((4, 4, 1))), TypeError, "arrays go to model.predict"),
        (lambda i: mc.Model(i, mc.Conv2D(2, 3)(i)), ValueError, "add Flatten and Dense"),
        (lambda i: mc.Model(i, _end(i), loss=[mc.Huber()] * 2), ValueError, "as many losses"),
        (lambda i: mc.Model(i, _end(i), sead=3), TypeError, "no option sead; there are device"),
        (lambda i: mc.Model(i, _end(i), class_names=["a"]), ValueError, "2 outputs need"),
        (lambda i: mc.Sequential([mc.ReLU], (4, 4, 1)), ValueError, r"did you mean ReLU\(\)"),
        (lambda i: mc.Input((0, 4, 1)), ValueError, "height, width, channels"),
    ],
)
def test_errors_say_what_was_received(make, error, text):
    with pytest.raises(error, match=text):
        make(mc.Input((4, 4, 1)))


def _end(node):
    return mc.Dense(2)(mc.Flatten()(node))


def test_graphs_survive_a_file_a_pickle_and_a_copy(tmp_path):
    options = {"seed": 4, "class_names": ("a", "b", "c"), "input_scale": 0.5}
    model = residual("cpu", optimizer=mc.Adam(mc.optim.Cosine(0.01, 9)), **options)
    x, y = images(), np.array([0, 2, 1, 1, 0])
    model.train_on_batch(x, y)
    model.save(tmp_path / "m.safetensors")
    copies = [
        mc.load_model(tmp_path / "m.safetensors", "cpu"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ]
    scores, loss = model.predict(x), model.train_on_batch(x, y)
    for other in copies:
        assert other.class_names == model.class_names and other.config() == model.config()
        assert np.array_equal(other.predict(x), scores)
        assert other.train_on_batch(x, y) == loss
        assert np.array_equal(other.parameters, model.parameters)


def test_a_graph_is_its_config():
    graph = residual().graph
    again = Graph.from_config(graph.config())
    assert again.config() == graph.config() and again.sources == graph.sources


def test_backward_after_another_forward_is_refused():
    model = small_model("cpu")
    x, _ = random_batch(1)
    _, _, values = next(model.pieces(x))
    (output,), first = model.run_forward(values)
    model.run_forward(values)
    with pytest.raises(RuntimeError, match="a later forward pass has overwritten"):
        model.run_backward([np.ones_like(output)], first)


def test_the_summary_of_a_graph_says_what_each_node_is_connected_to():
    model = residual()
    header, *rows = model.summary_text().splitlines()
    assert header.endswith("Connected to")
    for node in model.graph.nodes:
        (row,) = [row for row in rows if row.startswith(f"{model.graph.node_name(node)} (")]
        assert row.endswith(", ".join(map(model.graph.node_name, node.inputs)))
    assert "Connected to" not in small_model().summary_text()
    long = mc.Sequential([mc.Flatten(name="f" * 60), mc.Dense(2)], (4, 4, 1), device="reference")
    assert f"{'f' * 60} (Flatten)  (None, 16)" in long.summary_text()


def test_a_picture_of_the_graph(tmp_path):
    residual().draw(tmp_path / "graph.png")
    assert (tmp_path / "graph.png").read_bytes()[:4] == b"\x89PNG"

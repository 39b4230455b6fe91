"""Exported networks give the model's own scores, and come back as they went."""

import json
import sys
import zipfile

import numpy as np
import pytest

import minicnn as mc
from helpers.cli import run
from helpers.exchange import NAMES, NETWORKS, made, same, talk
from minicnn import exchange
from minicnn.exchange.steps import sample_events

# Keras on torch, and TorchScript, warn of what they themselves do.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ENDS = {
    ".onnx": "onnxruntime",
    ".keras": "keras",
    ".weights.h5": "keras",
    ".py": "torch",
    ".pt": "torch",
}


def needs(library):
    """Skip the test where the library is not here; Keras has to have a backend as well."""
    if library != "keras":
        return pytest.importorskip(library)
    from minicnn.exchange.to_keras import keras_library

    try:
        return keras_library()
    except exchange.ExchangeError as problem:
        pytest.skip(str(problem))


def test_every_layer_has_a_rule_in_every_format():
    """The layers of the product; those that tests define are their own affair."""
    product = {cls for cls in vars(mc.layers).values() if isinstance(cls, type)}
    product = {cls for cls in product if issubclass(cls, mc.Layer) and cls is not mc.Layer}
    for table in (exchange.to_onnx.RULES, exchange.to_torch.RULES, exchange.keras_rules.RULES):
        assert not product - table.keys()


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_all_layers_and_graphs_give_the_models_scores(end, tmp_path):
    needs(ENDS[end])
    for network in NETWORKS:
        model, path = made(network), tmp_path / f"{network.__name__}{end}"
        assert exchange.export_model(model, path) < 2e-5, network.__name__
        if end in (".weights.h5", ".keras", ".py"):  # and weights come back, by name or by order
            other = network(device="reference", seed=9)
            exchange.import_weights(
                other, path.with_suffix(".safetensors") if end == ".py" else path
            )
            same(other.get_weights(), model.get_weights())
    if end == ".keras":
        for network in NETWORKS:
            model = made(network)
            other = exchange.import_keras(
                tmp_path / f"{network.__name__}.keras", device="reference"
            )
            assert other.options.class_names == model.options.class_names
            assert other.options.input_knee == model.options.input_knee
            assert [repr(loss) for loss in other.targets.losses] == [
                repr(loss) for loss in model.targets.losses
            ]
            events = tuple(sample_events(model))
            events = events if len(events) > 1 else events[0]
            for ours, theirs in zip(model.predict(events), other.predict(events)):
                assert np.allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
def test_names_of_classes_travel_along(tmp_path):
    onnx, torch = needs("onnx"), needs("torch")
    model = made(talk)
    for end in (".onnx", ".py", ".pt"):
        exchange.export_model(model, tmp_path / f"talk{end}", check=False)
    about = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "talk.onnx").metadata_props}
    assert about["class_names"] == NAMES and about["input_scale"] == 0.01
    assert f"CLASS_NAMES = {NAMES}" in (tmp_path / "talk.py").read_text()
    extra = {"minicnn.json": ""}
    torch.jit.load(str(tmp_path / "talk.pt"), _extra_files=extra)
    assert json.loads(extra["minicnn.json"])["class_names"] == NAMES


@pytest.mark.slow
def test_a_network_as_users_of_keras_write_it(tmp_path):
    keras = needs("keras")
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((None, None, 2)),
            layers.Rescaling(0.02),
            layers.Conv2D(4, 3, activation="elu", padding="same"),
            layers.BatchNormalization(scale=False),
            layers.MaxPooling2D(2),
            layers.Conv2D(5, 3, activation="leaky_relu", use_bias=False),
            layers.ReLU(negative_slope=0.1),
            layers.GlobalAveragePooling2D(),
            layers.Dense(6, activation="swish"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(0)
    network.set_weights(
        [rng.uniform(0.1, 1, w.shape) - 0.3 * (w.ndim > 1) for w in network.weights]
    )
    events = rng.random((2, 16, 16, 2), np.float32) * 50
    network.save(tmp_path / "theirs.keras")
    network.save(tmp_path / "theirs.h5")
    for name in ("theirs.keras", "theirs.h5"):
        model = exchange.import_keras(tmp_path / name, 16, device="reference")
        wanted = network.predict(events, verbose=0)
        assert np.allclose(model.predict(events), wanted, atol=1e-6) and wanted.std() > 0.01
    with pytest.raises(exchange.ExchangeError, match=r"theirs.keras: its input .* left open"):
        exchange.import_keras(tmp_path / "theirs.keras")


# ------------------------------------------------------------------------- files made by hand here
def conv(**settings):
    return {
        "class_name": "Conv2D",
        "config": {"name": "c", "filters": 2, "kernel_size": [3, 3], **settings},
    }


def dense(**settings):
    return {"class_name": "Dense", "config": {"name": "d", "units": 3, **settings}}


FLAT = {"class_name": "Flatten", "config": {"name": "f"}}


def keras_2(path, entries, weights, config=True):
    """Write an .h5 as Keras 2 does."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        if config:
            network = {"class_name": "Sequential", "config": {"layers": entries}}
            file.attrs["model_config"] = json.dumps(network)
        root = file.create_group("model_weights") if config else file
        root.attrs["layer_names"] = [np.bytes_(name) for name in weights]
        for layer, arrays in weights.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [np.bytes_(f"{layer}/{key}:0") for key in arrays]
            for key, array in arrays.items():
                group.create_dataset(f"{layer}/{key}:0", data=array)
    return path


def arrays():
    rng = np.random.default_rng(1)
    shapes = {"c": {"kernel": (3, 3, 1, 2), "bias": (2,)}, "d": {"kernel": (32, 3), "bias": (3,)}}
    return {
        layer: {key: rng.standard_normal(shape).astype("f4") for key, shape in keys.items()}
        for layer, keys in shapes.items()
    }


def test_a_network_and_weights_of_keras_2(tmp_path):
    first = conv(activation="relu", batch_input_shape=[None, 6, 6, 1])
    entries, weights = [first, FLAT, dense(activation="softmax")], arrays()
    model = exchange.import_keras(
        keras_2(tmp_path / "a.h5", entries, weights), device="reference", class_names=NAMES
    )
    x = np.random.default_rng(2).random((2, 6, 6, 1), np.float32)
    y = sum(
        x[:, ky : ky + 4, kx : kx + 4] @ weights["c"]["kernel"][ky, kx]
        for ky in range(3)
        for kx in range(3)
    )
    y = np.maximum(y + weights["c"]["bias"], 0).reshape(2, -1) @ weights["d"]["kernel"]
    scores = np.exp(y + weights["d"]["bias"])
    assert np.allclose(model.predict(x), scores / scores.sum(1, keepdims=True), atol=1e-6)
    wanted = model.get_weights()
    renamed = {"conv_of_theirs": weights["c"], "dense_of_theirs": weights["d"]}
    keras_2(tmp_path / "weights.h5", [], renamed, config=False)
    model.set_weights({name: 0 * w for name, w in wanted.items()})
    exchange.import_weights(model, tmp_path / "weights.h5")
    same(model.get_weights(), wanted)


FIRST = {"batch_input_shape": [None, 6, 6, 1]}


@pytest.mark.parametrize(
    "entries, message",
    [
        (
            [conv(**FIRST), {"class_name": "LSTM", "config": {"name": "l"}}],
            "l: .* no rule for LSTM",
        ),
        ([conv(**FIRST, data_format="channels_first")], "c has data_format='channels_first'"),
        ([conv(**FIRST, groups=2)], "c has groups=2"),
        ([conv(**FIRST, activation="mish"), FLAT, dense()], "no activation 'mish'"),
        ([conv(**FIRST)], "an image .* without a softmax"),
        (
            [conv(**FIRST), FLAT, dense(units=4)],
            r"d: w has the shape \(32, 3\), expected \(32, 4\)",
        ),
        ([conv(**FIRST), FLAT, dense(units=10**12, use_bias=False)], "d: w has the shape"),
        ([conv(**FIRST, filters="many"), FLAT, dense()], "many"),
        ([conv(batch_input_shape=[None, 3, None, 1])], "give the size of the images"),
        (
            [
                conv(**FIRST),
                {"class_name": "BatchNormalization", "config": {"name": "b", "axis": [1]}},
            ],
            "b has axis=1",
        ),
        (
            [
                conv(**FIRST),
                {"class_name": "Rescaling", "config": {"name": "r", "scale": 2.0}},
                FLAT,
                dense(),
            ],
            "r rescales what is neither",
        ),
    ],
)
def test_what_has_no_counterpart_is_said(entries, message, tmp_path):
    path = keras_2(tmp_path / "a.h5", entries, arrays())
    with pytest.raises(exchange.ExchangeError, match=f"a.h5: .*{message}"):
        exchange.import_keras(path)


def test_files_that_are_no_keras_files(tmp_path):
    h5py = pytest.importorskip("h5py")
    bad = {name: tmp_path / name for name in ("text.h5", "zip.keras", "linked.h5", "empty.h5")}
    bad["text.h5"].write_text("no")
    with zipfile.ZipFile(bad["zip.keras"], "w") as file:
        file.writestr("config.json", "[]")
    with h5py.File(bad["linked.h5"], "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/passwd", "/")
    h5py.File(bad["empty.h5"], "w").close()
    model = made(talk)
    for path in (*bad.values(), tmp_path, tmp_path / "missing.h5"):
        for read in (exchange.import_keras, lambda p: exchange.import_weights(model, p)):
            with pytest.raises(exchange.ExchangeError, match=f"{path.name}: no readable"):
                read(path)
    (tmp_path / "x.safetensors").write_bytes(b"{}")
    with pytest.raises(exchange.ExchangeError, match="no readable safetensors"):
        exchange.import_weights(model, tmp_path / "x.safetensors")


# --------------------------------------------------------------------------- errors, command line
class Doubled(mc.ReLU):
    """A layer of a user's own; a rule of the class that it derives from would be wrong."""


def test_a_layer_without_a_rule_and_a_library_that_is_missing(tmp_path, monkeypatch):
    model = mc.Sequential([mc.Flatten(), Doubled(name="mine"), mc.Dense(2)], (3, 3, 1))
    with pytest.raises(exchange.ExchangeError, match="mine: there is no rule for Doubled"):
        exchange.export_model(model, tmp_path / "a.py", check=False)
    with pytest.raises(exchange.ExchangeError, match=r"a.txt: the end .* \.onnx"):
        exchange.export_model(model, tmp_path / "a.txt")
    for module, name in (("onnx", "a.onnx"), ("torch", "a.pt"), ("keras", "a.keras")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(exchange.ExchangeError, match=rf'pip install "minicnn\[{module}\]"'):
            exchange.export_model(made(talk), tmp_path / name)
    with pytest.raises(
        exchange.ExchangeError, match=r"minicnn\[torch\].*; --no-check, check=False"
    ):
        exchange.export_model(made(talk), tmp_path / "a.py")
    assert not list(tmp_path.iterdir())


def test_predictions_that_differ_are_not_written(tmp_path, monkeypatch):
    needs("torch")
    wrong = dict(exchange.to_torch.RULES)
    wrong[mc.Flatten] = lambda step: exchange.to_torch.Row("{x}.flatten(1)")  # channels first
    monkeypatch.setattr(exchange.to_torch, "RULES", wrong)
    with pytest.raises(exchange.ExchangeError, match=r"a.py: not written: .* differ"):
        exchange.export_model(made(talk), tmp_path / "a.py")
    assert not list(tmp_path.iterdir())


def test_the_commands(tmp_path, capsys):
    model, saved = made(talk), tmp_path / "model.safetensors"
    model.save(saved)
    status, out, _ = run(capsys, "export", saved, tmp_path / "net.py", "--no-check")
    assert status == 0 and "as torch" in out and (tmp_path / "net.safetensors").exists()
    status, _, error = run(capsys, "export", saved, tmp_path / "net.py", "--no-check")
    assert status == 2 and "exists already" in error
    status, _, error = run(capsys, "export", saved, tmp_path / "model.py", "--overwrite")
    assert status == 2 and "replace" in error and mc.load_model(saved, "reference")
    status, _, error = run(capsys, "export", saved, tmp_path / "other.py", "--to", "onnx")
    assert status == 2 and "ends in .onnx" in error
    back = tmp_path / "back.safetensors"
    status, out, _ = run(capsys, "import", tmp_path / "net.safetensors", back, "--into", saved)
    assert status == 0 and "back.safetensors" in out
    same(mc.load_model(back, "reference").get_weights(), model.get_weights())
    entries = [conv(**FIRST, activation="elu"), FLAT, dense(activation="softmax")]
    theirs, options = keras_2(tmp_path / "t.h5", entries, arrays()), ("--class-names", *NAMES)
    status, out, _ = run(capsys, "import", theirs, tmp_path / "t.safetensors", *options)
    assert status == 0 and "SoftmaxCrossEntropy" in out
    assert mc.load_model(tmp_path / "t.safetensors", "reference").options.class_names == NAMES

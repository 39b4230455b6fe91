"""LitMaps give the numbers of the dense network, whatever is lit: every rule beside its layer over
random maps, and random graphs beside their dense plan.
"""

import importlib.util
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn as mc
from helpers import ROOT
from helpers.lit import close, compare_rule, random_map
from helpers.lit_networks import LAYERS, batches, compare, networks, randomize
from minicnn.data import SparseImage
from minicnn.engine.lit import RULES, LitMap
from minicnn.kernels import get_backend
from minicnn.nn.layers import REGISTRY

TOLERANCE = {"reference": 1e-12, "cpu": 3e-5, "emulated": 3e-5}
DTYPE = {"reference": np.float64, "cpu": np.float32, "emulated": np.float32}
EXAMPLES = {"reference": 60, "cpu": 20, "emulated": 10}
DEVICES = [
    "reference",
    "cpu",
    pytest.param(
        "emulated",
        marks=pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++"),
    ),
]
#: Layers that end a map by what they are: everything before them may run on LitMaps.
WITHOUT_A_RULE = {
    mc.Dense: "takes vectors, no maps",
    mc.Flatten: "its output is every position",
}
#: Layers that LAYERS does not draw, with the shapes of their inputs.
OTHERS = {
    "add": (mc.Add(), 3),
    "concatenate": (mc.Concatenate(), 2),
    "global average": (mc.GlobalAveragePooling2D(), 1),
    "global maximum": (mc.GlobalMaxPooling2D(), 1),
    "dropout": (mc.Dropout(0.5), 1),
    "spatial dropout": (mc.SpatialDropout2D(0.5), 1),
    "frozen": (mc.BatchNormalization(trainable=False), 1),
}
seeds = st.integers(0, 2**32 - 1)
some_lit = st.sampled_from([0.0, 0.1, 0.5, 1.0, "border"])


def test_every_layer_has_a_rule_or_says_why_not():
    public = {value for value in vars(mc).values() if isinstance(value, type)}
    layers = {cls for cls in public if issubclass(cls, mc.Layer) and cls is not mc.Layer}
    assert layers - set(RULES) == set(WITHOUT_A_RULE)


def examples(device, strategies, test, share=1.0):
    """Run ``test`` on as many examples as suit the device."""
    count = max(2, int(EXAMPLES[device] * share))
    settings(max_examples=count, deadline=None)(given(**strategies)(test))()


@pytest.mark.parametrize("device", DEVICES)
def test_rules_are_their_layers(device):
    kernels = get_backend(device)

    def test(layer, seed, lit, training):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(2, 10)), int(rng.integers(2, 10)), int(rng.integers(1, 4)))
        try:
            layer.output_shape(shape)
        except ValueError:
            return  # a window that does not fit
        x = random_map(kernels, rng, shape, int(rng.integers(1, 4)), lit, DTYPE[device])
        assert compare_rule(layer, [x], rng, TOLERANCE[device], training)

    strategies = {"layer": LAYERS, "seed": seeds, "lit": some_lit, "training": st.booleans()}
    examples(device, strategies, test, share=3)


@pytest.mark.parametrize("device", DEVICES)
def test_taps_apart_at_the_border(device):
    """The first output sees padding and input 1, the second one inputs 0 and 2: the inputs of rows
    of outputs do not ascend.
    """
    kernels, rng = get_backend(device), np.random.default_rng(0)
    layer = mc.Conv2D(1, (2, 1), padding="same", dilation=(2, 1))
    x = random_map(kernels, rng, (3, 3, 1), 1, 1.0, DTYPE[device])
    keep = kernels.asarray(np.array([2, 3]))  # (0, 2) and (1, 0)
    x = LitMap(x.grid, 1, x.positions[keep], x.values[keep], x.rest)
    assert compare_rule(layer, [x], rng, TOLERANCE[device])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("row", OTHERS)
def test_rules_of_merges_and_ends(device, row):
    layer, count = OTHERS[row]
    kernels = get_backend(device)

    def test(seed, lit):
        rng = np.random.default_rng(seed)
        size, events = (int(rng.integers(2, 9)), int(rng.integers(2, 9))), int(rng.integers(1, 4))
        many = [3] * count if row == "add" else list(rng.integers(1, 4, count))
        maps = [
            random_map(kernels, rng, (*size, int(channels)), events, lit, DTYPE[device])
            for channels in many
        ]
        for training in (False, True):
            taken = compare_rule(layer, maps, rng, TOLERANCE[device], training)
            assert taken == (not training or "dropout" not in row)

    examples(device, {"seed": seeds, "lit": some_lit}, test, share=0.4)


@pytest.mark.parametrize("device", DEVICES)
def test_random_networks(device):
    def test(network, data):
        make, shape, pixels = network
        events, targets = data.draw(batches(shape, pixels))
        dtype = "float64" if device == "reference" else "float32"
        compare(make, events, targets, TOLERANCE[device], device=device, dtype=dtype)

    examples(device, {"network": networks(), "data": st.data()}, test)


def example(name):
    """Return the module examples/<name>.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def maker(network, *arguments):
    """Return make(**options) for a function that returns a Model."""

    def make(**options):
        known = network(*arguments)
        return mc.Model(
            known.graph.inputs, known.graph.outputs, loss=known.loss, input_scale=0.01, **options
        )

    return make


def simulated(size, count=3):
    simulator = mc.data.Simulator(
        seed=1, shape=(size, size, 1), classes=("e+-", "mu+-"), pixel_truth=True, sample="isotropic"
    )
    return [simulator.read(i) for i in range(count)]


NETWORKS = {
    "residual": lambda: (maker(example("residual").network, 32, ("e+-", "mu+-")), False),
    "unet": lambda: (maker(example("unet").network, 16), True),
    "models.resnet": lambda: (maker(mc.models.resnet, 24, 1, 5, (4, 8)), False),
    "batch normalisation": lambda: (
        maker(mc.models.resnet, 24, 1, 5, (4, 8), mc.BatchNormalization),
        False,
    ),
    "models.unet": lambda: (maker(mc.models.unet, 16, 1, 2, (4, 8)), True),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_the_examples(name, device, monkeypatch):
    make, pixels = NETWORKS[name]()
    events = simulated(make(device=device).input_shape[0])
    targets = [e.pixel_labels for e in events] if pixels else [e.label for e in events]
    if pixels:  # neither the loss nor its gradient nor a prediction makes an array of all positions
        monkeypatch.setattr(LitMap, "dense", None)
        monkeypatch.setattr(LitMap, "gradient_of", None)
    dtype = "float64" if device == "reference" else "float32"
    images = [e.image for e in events]
    lit, _ = compare(make, images, targets, TOLERANCE[device], device=device, dtype=dtype)
    assert "an array" not in str(lit.plan()).replace("gives an array", "")


def test_the_plan_says_where_maps_end_and_why():
    class Turned(mc.Layer):
        """Rows in the other order: a layer of somebody's, who knows nothing of maps."""

        def forward(self, ctx, x):
            return x[:, ::-1].copy(), None

        def backward(self, ctx, dy, saved):
            return dy[:, ::-1].copy()

    try:
        inputs = mc.Input((12, 10, 1))
        x = mc.Dropout(0.5)(mc.Conv2D(2, 3, padding="same")(inputs))
        turned = Turned()(x)
        y = mc.Add()([turned, x])

        def make(**options):
            return mc.Model(inputs, mc.Dense(3)(mc.Flatten()(mc.ReLU()(y))), **options)

        events = [SparseImage([[3, 4]], [[1.0]], (12, 10, 1)), SparseImage([], [], (12, 10, 1))]
        lit, dense = compare(make, events, np.array([0, 1]), device="reference", dtype="float64")
    finally:
        REGISTRY.pop("Turned")
    notes = [row.text() for row in lit.plan().rows]
    assert notes[0].startswith("lit 3.")  # 9 of 240 positions
    assert notes[1].startswith("lit (an array while training) ")
    assert "dense for" in notes[1]
    assert notes[2] == "an array from here on: no rule for Turned"
    assert notes[3] == f"an array from here on: {lit.graph.node_name(turned)} is one"
    assert notes[4:] == ["", "", ""]
    assert "lit: only what an event changes" in str(lit.plan())
    assert not any("lit" in row.text() for row in dense.plan().rows)


def pixel_model(**options):
    inputs = mc.Input((9, 8, 1))
    x = mc.ReLU()(mc.Conv2D(3, 3, padding="same")(inputs))
    loss = mc.PixelCrossEntropy(class_weights=[1.0, 2.5])
    return mc.Model(inputs, mc.Conv2D(2, 3, padding="same")(x), loss=loss, **options)


def test_pixel_losses_of_maps_know_weights_ignored_pixels_and_whole_images():
    options = {"device": "reference", "dtype": "float64"}
    lit, dense = (pixel_model(zero_suppression=mode, **options) for mode in ("always", "never"))
    for model in (lit, dense):
        randomize(model)
    rng = np.random.default_rng(2)
    image = np.zeros((9, 8, 1), np.float32)
    image[4, 3:6] = 1
    events = [
        SparseImage([[0, 0], [5, 5]], [[1.0], [2.0]], (9, 8, 1)),
        SparseImage.from_dense(image),
    ]
    # Of the array every pixel has a label, most of them where the output is at rest.
    targets = [np.array([1, 255]), rng.integers(0, 2, (9, 8))]
    for weights in (None, np.array([0.5, 3.0])):
        (la, ga), (lb, gb) = (
            m.loss_and_gradients(events, targets, sample_weights=weights) for m in (lit, dense)
        )
        close(la, lb, 1e-12)
        for name, want in gb.items():
            close(ga[name], want, 1e-12, name)
    each = [lit.loss_and_gradients(events[i : i + 1], targets[i : i + 1])[1] for i in (0, 1)]
    for name, g in lit.loss_and_gradients(events, targets, sample_weights=[0.5, 3.0])[1].items():
        close(g, (0.5 * each[0][name] + 3 * each[1][name]) / 2, 1e-12, name)
    for batch in (events, [image, image]):
        for got, want in zip(lit.predict(batch), dense.predict(batch), strict=True):
            close(got, want, 1e-12)
    assert lit.predict([image])[0].shape == (9, 8, 2)


def test_several_inputs_and_outputs_run_on_maps():
    planes = [mc.Input((10, 8, 1)) for _ in range(2)]
    conv = mc.Conv2D(3, 3, padding="same")
    x = mc.Concatenate()([mc.ELU()(conv(plane)) for plane in planes])
    pixels = mc.Conv2D(2, 1, name="pixels")(x)
    kind = mc.Dense(3, name="kind")(mc.GlobalMaxPooling2D()(x))

    def make(**options):
        losses = [mc.PixelCrossEntropy(), mc.SoftmaxCrossEntropy(), mc.PixelCrossEntropy()]
        return mc.Model(planes, [pixels, kind, pixels], loss=losses, **options)

    rng = np.random.default_rng(4)
    positions = [[[2, 2], [3, 3]], [[9, 7]], [[0, 0], [1, 1], [9, 0]]]
    first = [SparseImage(p, rng.standard_normal((len(p), 1)), (10, 8, 1)) for p in positions]
    second = [
        SparseImage(p, rng.standard_normal((len(p), 1)), (10, 8, 1), 0.5) for p in positions[::-1]
    ]
    labels = [rng.integers(0, 2, len(p)) for p in positions]
    lit = make(device="reference", dtype="float64")
    assert lit.plan().lit
    events, targets = (first, second), (labels, np.array([0, 2, 1]), labels)
    (la, ga), (lb, gb) = (
        make(device="reference", dtype="float64", zero_suppression=mode).loss_and_gradients(
            events, targets
        )
        for mode in ("always", "never")
    )
    close(la, lb, 1e-12)
    for name, want in gb.items():
        close(ga[name], want, 1e-12, name)

"""LitMaps give the numbers of the dense network, whatever is lit: every rule beside its layer over
random maps, and random graphs beside their dense plan.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn as mc
from helpers.lit import compare_rule, random_map
from helpers.lit_networks import LAYERS, batches, compare, networks
from minicnn.engine.lit import RULES
from minicnn.kernels import get_backend

TOLERANCE = {"reference": 1e-12, "cpu": 3e-5}
DTYPE = {"reference": np.float64, "cpu": np.float32}
DEVICES = [
    "reference",
    pytest.param(
        "cpu",
        marks=pytest.mark.skipif(
            not hasattr(get_backend("cpu"), "lit_block"), reason="the cpu has no lit_block yet"
        ),
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
some_lit = st.sampled_from([0.0, 0.1, 0.5, 1.0, "border"])


def test_every_layer_has_a_rule_or_says_why_not():
    public = {value for value in vars(mc).values() if isinstance(value, type)}
    layers = {cls for cls in public if issubclass(cls, mc.Layer) and cls is not mc.Layer}
    assert layers - set(RULES) == set(WITHOUT_A_RULE)


@pytest.mark.parametrize("device", DEVICES)
@given(layer=LAYERS, seed=st.integers(0, 2**32 - 1), lit=some_lit, training=st.booleans())
@settings(max_examples=150, deadline=None)
def test_rules_are_their_layers(device, layer, seed, lit, training):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 10)), int(rng.integers(2, 10)), int(rng.integers(1, 4)))
    try:
        layer.output_shape(shape)
    except ValueError:
        return  # a window that does not fit
    x = random_map(get_backend(device), rng, shape, int(rng.integers(1, 4)), lit, DTYPE[device])
    assert compare_rule(layer, [x], rng, TOLERANCE[device], training)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("row", OTHERS)
@given(seed=st.integers(0, 2**32 - 1), lit=some_lit)
@settings(max_examples=25, deadline=None)
def test_rules_of_merges_and_ends(device, row, seed, lit):
    layer, count = OTHERS[row]
    rng, kernels = np.random.default_rng(seed), get_backend(device)
    size, events = (int(rng.integers(2, 9)), int(rng.integers(2, 9))), int(rng.integers(1, 4))
    many = [3] * count if row == "add" else list(rng.integers(1, 4, count))
    maps = [
        random_map(kernels, rng, (*size, int(channels)), events, lit, DTYPE[device])
        for channels in many
    ]
    for training in (False, True):
        taken = compare_rule(layer, maps, rng, TOLERANCE[device], training)
        assert taken == (not training or "dropout" not in row)


@pytest.mark.parametrize("device", DEVICES)
@given(network=networks(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_random_networks(device, network, data):
    make, shape, pixels = network
    events, targets = data.draw(batches(shape, pixels))
    dtype = "float64" if device == "reference" else "float32"
    compare(make, events, targets, TOLERANCE[device], device=device, dtype=dtype)

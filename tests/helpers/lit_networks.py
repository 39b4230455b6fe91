"""Random networks and events, and a network on LitMaps beside the same one on arrays."""

import numpy as np
from hypothesis import currently_in_test_context, note
from hypothesis import strategies as st

import minicnn as mc
from helpers.lit import close
from minicnn.data import SparseImage

small, pairs = st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))
channels = st.integers(1, 4)
padding = st.sampled_from(["same", "valid"])
border = st.integers(0, 2)
four = st.tuples(st.tuples(border, border), st.tuples(border, border))
activations = [mc.ELU, mc.ReLU, mc.LeakyReLU, mc.GELU, mc.SiLU, mc.Sigmoid, mc.Tanh, mc.Softplus]

#: Layers of one input with random settings. A node that a layer does not fit stays as it is.
LAYERS = st.one_of(
    st.builds(mc.Conv2D, channels, pairs, strides=pairs, padding=padding, dilation=st.just(1)),
    st.builds(mc.Conv2D, channels, pairs, padding=padding, dilation=pairs),
    st.builds(mc.DepthwiseConv2D, pairs, pairs, padding, small),
    st.builds(mc.DepthwiseConv2D, pairs, padding=padding, dilation=pairs),
    st.builds(mc.Conv2DTranspose, channels, pairs, strides=pairs, padding=padding),
    st.builds(mc.MaxPooling2D, pairs, pairs),
    st.builds(mc.AveragePooling2D, pairs, pairs),
    st.builds(mc.UpSampling2D, pairs),
    st.builds(mc.ZeroPadding2D, four),
    st.builds(mc.Cropping2D, four),
    st.sampled_from([*activations, mc.Softmax, mc.LayerNormalization]).map(lambda cls: cls()),
    st.builds(mc.BatchNormalization, momentum=st.just(0.7)),
)


def applied(layer, node):
    """Return the layer's node, or the one given where it does not fit or makes a large one."""
    try:
        result = layer(node)
    except ValueError:
        return node
    return result if max(result.shape[:2]) <= 30 and result.shape[2] <= 12 else node


@st.composite
def networks(draw):
    """Return (make(**options) -> Model, (H, W, C), whether its output is a map)."""
    shape = draw(st.integers(3, 14)), draw(st.integers(3, 14)), draw(st.integers(1, 2))
    inputs = x = mc.Input(shape)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["layer", "layer", "block", "residual", "skip"]))
        if kind == "layer":
            x = applied(draw(LAYERS), x)
        elif kind == "block":
            y = mc.Conv2D(draw(channels), draw(pairs), padding=draw(padding))
            pool = draw(pairs)
            x = applied(y, x)
            x = mc.ELU(draw(st.sampled_from([1.0, 0.3, 0.0])))(x)
            x = applied(mc.MaxPooling2D(pool), x)
        elif kind == "residual":
            y = mc.Conv2D(x.shape[2], draw(pairs), padding="same", dilation=draw(pairs))(x)
            others = [x, y, mc.ReLU()(y)]
            x = mc.Add()(others[: draw(st.integers(2, 3))])
        else:
            y = mc.Conv2D(draw(channels), draw(pairs), padding="same")(x)
            z = mc.DepthwiseConv2D(draw(pairs), padding="same")(x)
            x = applied_to([y, x, z], mc.Concatenate())
    head = draw(st.sampled_from(["flatten", "average", "maximum", "pixels"]))
    if head == "pixels":
        outputs = mc.Conv2D(3, 1)(x)
        outputs = resized(outputs, shape)
    else:
        ends = {
            "flatten": mc.Flatten,
            "average": mc.GlobalAveragePooling2D,
            "maximum": mc.GlobalMaxPooling2D,
        }
        outputs = mc.Dense(3)(ends[head]()(x))
    loss = mc.PixelCrossEntropy if head == "pixels" else mc.SoftmaxCrossEntropy

    def make(**options):
        return mc.Model(inputs, outputs, loss=loss(), **options)

    return make, shape, head == "pixels"


def applied_to(nodes, layer):
    result = layer(nodes)
    return result if result.shape[2] <= 12 else nodes[0]


def resized(node, shape):
    """Return the node with the height and width of ``shape``: padded, cropped."""
    more = [max(n - m, 0) for n, m in zip(shape[:2], node.shape)]
    less = [max(m - n, 0) for n, m in zip(shape[:2], node.shape)]
    if any(more):
        node = mc.ZeroPadding2D(tuple((n // 2, n - n // 2) for n in more))(node)
    return mc.Cropping2D(tuple((n // 2, n - n // 2) for n in less))(node) if any(less) else node


@st.composite
def batches(draw, shape, pixels, classes=3):
    """Return (SparseImages, targets): with little, everything or nothing lit, the border or the
    corners, and one background or two.
    """
    height, width, count = shape
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    backgrounds = draw(st.sampled_from([(0.0,), (0.0,), (0.5,), (0.0, 0.5)]))
    events, targets = [], []
    for i in range(draw(st.integers(1, 3))):
        mask = np.zeros((height, width), bool)
        kind = draw(st.sampled_from(["few", "some", "none", "all", "border", "corners"]))
        if kind in ("few", "some"):
            mask = rng.random(mask.shape) < (0.05 if kind == "few" else 0.3)
        elif kind == "border":
            mask[[0, -1]] = mask[:, [0, -1]] = True
        elif kind == "corners":
            mask[[0, 0, -1, -1], [0, -1, 0, -1]] = True
        elif kind == "all":
            mask[:] = True
        at = np.argwhere(mask)
        values = rng.standard_normal((len(at), count))
        events.append(SparseImage(at, values, shape, backgrounds[i % len(backgrounds)]))
        targets.append(rng.integers(0, classes, len(at)) if pixels else rng.integers(classes))
    return events, targets if pixels else np.array(targets)


def randomize(model, seed=0):
    """Set all weights and states at random, so that no bias is 0 and no scale 1."""
    rng, arrays = np.random.default_rng(seed), {}
    for name, w in model.get_weights().items():
        arrays[name] = rng.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else w
        if name.endswith(("/b", "/beta", "/mean")):
            arrays[name] = 0.3 * rng.standard_normal(w.shape)
    model.set_weights(arrays)


def step(model, events, targets):
    """Return {name: array} of a training step: gradients, figures, states."""
    model.clear_gradients()
    model.accumulate(events, targets, rng=np.random.default_rng(3))
    host = model.kernels.to_host
    found = {"all gradients": np.array(host(model.gradients))}
    return found | {name: np.array(host(state)) for name, state in model.states.items()}


def compare(make, events, targets, tolerance=1e-12, **options):
    """Predictions, losses, gradients and states of the network on LitMaps are those of the same
    network on arrays, evaluated and trained. Returns the two models.
    """
    lit = make(zero_suppression="always", **options)
    dense = make(zero_suppression="never", **options)
    assert lit.plan().lit and not dense.plan().lit
    if currently_in_test_context():
        note("\n".join(repr(node.layer) for node in lit.graph.nodes))
    for model in (lit, dense):
        randomize(model)
    for _ in range(2):
        for got, want in zip(listed(lit.predict(events)), listed(dense.predict(events))):
            close(got, want, tolerance, "prediction")
        (la, ga), (lb, gb) = (m.loss_and_gradients(events, targets) for m in (lit, dense))
        close(la, lb, tolerance, "loss")
        for name, want in gb.items():
            close(ga[name], want, tolerance, name)
        got, want = step(lit, events, targets), step(dense, events, targets)
        for name in want:
            close(got[name], want[name], tolerance, f"in training, {name}")
        weights = dense.get_weights()  # and once more behind an update
        some = {
            name: w + 0.1 * np.cos(np.arange(w.size)).reshape(w.shape) ** 2
            for name, w in weights.items()
        }
        for model in (lit, dense):
            model.set_weights(some)
    return lit, dense


def listed(predictions):
    return predictions if isinstance(predictions, list) else [predictions]

"""Every layer's backward is the derivative of its forward: one row per layer, in float64 with a
random upstream gradient.
"""

import numpy as np
import pytest

import minicnn as mc
from minicnn.kernels import get_backend
from minicnn.nn.gradcheck import check_gradients

ROWS = {
    "conv same": (mc.Conv2D(3, 5, padding="same"), (7, 8, 2)),
    "conv valid": (mc.Conv2D(2, (3, 2)), (6, 5, 3)),
    "conv stride": (mc.Conv2D(3, 3, strides=(2, 3), padding="same"), (8, 7, 2)),
    "conv even kernel": (mc.Conv2D(2, 4, padding="same"), (7, 7, 1)),
    "conv 1 x 1 image": (mc.Conv2D(2, 5, padding="same"), (1, 1, 1)),
    "elu": (mc.ELU(), (5, 4, 2)),
    "elu alpha": (mc.ELU(0.3), (7,)),
    "relu": (mc.ReLU(), (5, 4, 2)),
    "pool floor": (mc.MaxPooling2D(3), (8, 7, 2)),
    "pool overlapping": (mc.MaxPooling2D(3, 2), (8, 9, 2)),
    "pool with gaps": (mc.MaxPooling2D(2, 3), (8, 9, 1)),
    "flatten": (mc.Flatten(), (3, 4, 2)),
    "dense": (mc.Dense(4), (6,)),
    "dropout": (mc.Dropout(0.4), (6, 5, 1)),
    "spatial dropout": (mc.SpatialDropout2D(0.4), (3, 2, 4)),
    "conv dilated": (mc.Conv2D(2, 3, padding="same", dilation=(2, 3)), (7, 8, 2)),
    "conv dilated stride": (mc.Conv2D(2, (2, 3), strides=2, dilation=2), (8, 9, 1)),
    "depthwise": (mc.DepthwiseConv2D(3, padding="same", depth_multiplier=2), (5, 6, 3)),
    "depthwise stride": (mc.DepthwiseConv2D((3, 2), strides=2, dilation=(1, 2)), (7, 8, 2)),
    "transpose same": (mc.Conv2DTranspose(2, 3, strides=2, padding="same"), (4, 3, 3)),
    "transpose valid": (mc.Conv2DTranspose(3, (2, 3), strides=(3, 2)), (3, 4, 2)),
    "average pool": (mc.AveragePooling2D(3), (8, 7, 2)),
    "average pool overlapping": (mc.AveragePooling2D((3, 2), 2), (8, 9, 2)),
    "global average": (mc.GlobalAveragePooling2D(), (5, 4, 3)),
    "global max": (mc.GlobalMaxPooling2D(), (5, 4, 3)),
    "upsampling": (mc.UpSampling2D((2, 3)), (3, 2, 2)),
    "leaky relu": (mc.LeakyReLU(0.2), (5, 4, 2)),
    "gelu": (mc.GELU(), (5, 4, 2)),
    "silu": (mc.SiLU(), (9,)),
    "sigmoid": (mc.Sigmoid(), (5, 4, 2)),
    "tanh": (mc.Tanh(), (5, 4, 2)),
    "softplus": (mc.Softplus(), (5, 4, 2)),
    "softmax": (mc.Softmax(), (4, 3, 5)),
    "batch norm": (mc.BatchNormalization(), (4, 3, 2)),
    "batch norm flat": (mc.BatchNormalization(epsilon=0.1), (5,)),
    "layer norm": (mc.LayerNormalization(), (4, 3, 5)),
    "add": (mc.Add(), [(4, 3, 2)] * 3),
    "concatenate": (mc.Concatenate(), [(4, 3, 2), (4, 3, 1), (4, 3, 3)]),
    "zero padding": (mc.ZeroPadding2D(((1, 0), (2, 3))), (3, 4, 2)),
    "cropping": (mc.Cropping2D((1, 2)), (5, 6, 2)),
}
BLOCKS = {
    "elu": ([mc.Conv2D(3, 5, padding="same"), mc.ELU(), mc.MaxPooling2D(5)], (13, 11, 2)),
    "relu valid": ([mc.Conv2D(2, 3), mc.ReLU(), mc.MaxPooling2D(2)], (9, 8, 1)),
    "even kernel, oblong pool": (
        [mc.Conv2D(2, 4, padding="same"), mc.ELU(0.5), mc.MaxPooling2D((2, 3))],
        (7, 10, 3),
    ),
}


@pytest.mark.parametrize("batch", (1, 2))
@pytest.mark.parametrize("row", ROWS)
def test_layer(row, batch):
    if row == "batch norm flat" and batch == 1:
        pytest.skip("one number has no variance: its normalised value is beta, its gradient 0")
    report = check_gradients(*ROWS[row], batch=batch)
    assert report.ok, f"\n{report}"


@pytest.mark.parametrize("row", ("batch norm", "batch norm flat", "dropout", "spatial dropout"))
def test_layers_that_train_otherwise_than_they_evaluate(row):
    report = check_gradients(*ROWS[row], training=False)
    assert report.ok, f"\n{report}"


def test_every_layer_has_a_row():
    tried = {type(layer) for layer, _ in ROWS.values()}
    public = {value for value in vars(mc).values() if isinstance(value, type)}
    assert {c for c in public if issubclass(c, mc.Layer) and c is not mc.Layer} == tried


@pytest.mark.parametrize("device", ("cpu", "emulated"))
@pytest.mark.parametrize("row", ROWS)
def test_backends_agree_with_the_reference(row, device):
    """Forward, gradients and state of every layer in float32; the ops are compared one by one, over
    random shapes, in tests/kernels.
    """
    layer, shapes = ROWS[row]
    shapes = [shapes] if isinstance(shapes[0], int) else shapes
    results = []
    for name in ("reference", device):
        kernels, rng = get_backend(name), np.random.default_rng(1)
        parameters, state = layer.parameters(*shapes), layer.state(*shapes)
        params = {k: rng.standard_normal(p.shape).astype("f4") for k, p in parameters.items()}
        arrays = {k: rng.uniform(0.5, 2, p.shape).astype("f4") for k, p in state.items()}
        grads = {k: np.ones(p.shape, "f4") for k, p in parameters.items()}
        params, arrays, grads = (
            {k: kernels.asarray(v) for k, v in d.items()} for d in (params, arrays, grads)
        )
        ctx = mc.layers.Context(kernels, params, grads, arrays)
        ctx.training, ctx.rng = True, np.random.default_rng(2)
        xs = [kernels.asarray(rng.standard_normal((3, *s)).astype("f4")) for s in shapes]
        y, saved = layer.forward(ctx, *xs)
        assert y.shape == (3, *layer.output_shape(*shapes)) and y.dtype == np.float32
        dxs = layer.backward(ctx, kernels.asarray(rng.standard_normal(y.shape).astype("f4")), saved)
        dxs = dxs if isinstance(dxs, tuple) else (dxs,)
        found = [y, *dxs, *grads.values(), *arrays.values()]
        results.append([np.array(kernels.to_host(a)) for a in found])
    for want, got in zip(*results):
        scale = max(np.linalg.norm(want), 1e-3)
        assert got.shape == want.shape and np.linalg.norm(got - want) <= 3e-6 * scale


@pytest.mark.parametrize("fuse", (False, True))
@pytest.mark.parametrize("block", BLOCKS)
def test_block(block, fuse):
    report = check_gradients(*BLOCKS[block], fuse=fuse)
    assert report.ok, f"\n{report}"


def test_check_finds_a_wrong_gradient(monkeypatch):
    from minicnn.kernels import reference

    right = reference.conv2d_backward

    def wrong(dy, x, w, *rest, **options):
        return right(dy * 1.001, x, w, *rest, **options)

    monkeypatch.setattr(reference, "conv2d_backward", wrong)
    report = check_gradients(mc.Conv2D(2, 3), (5, 5, 1))
    gradients = [report.errors[name] for name in ("x", "conv2d_1/w", "conv2d_1/b")]
    assert not report.ok and min(gradients) > 1e-4


def test_float32_gradients_agree_with_float64_on_the_reference():
    x = np.random.default_rng(0).standard_normal((2, 22, 19, 1))
    from helpers import small_model

    a, b = small_model(dtype="float64"), small_model()
    la, ga = a.loss_and_gradients(x, np.array([0, 2]))
    b.set_weights(a.get_weights())
    lb, gb = b.loss_and_gradients(x.astype(np.float32), np.array([0, 2]))
    assert abs(la - lb) < 1e-5
    for name in ga:
        assert np.linalg.norm(ga[name] - gb[name]) <= 1e-4 * np.linalg.norm(ga[name]) + 1e-7, name


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: mc.Conv2D(0, 3), "filters must be a positive integer, got 0"),
        (lambda: mc.Conv2D(3, (3, 0)), "kernel_size"),
        (lambda: mc.Conv2D(3, 3, padding="full"), '"same" or "valid"'),
        (lambda: mc.MaxPooling2D(-1), "pool_size"),
        (lambda: mc.Dropout(1.0), r"\[0, 1\)"),
        (lambda: mc.Sequential([mc.Dense(3)], (4, 4, 1), device="reference"), "put a Flatten"),
        (lambda: mc.Sequential([mc.Conv2D(3, 9)], (4, 4, 1), device="reference"), "does not fit"),
        (
            lambda: mc.Sequential([mc.MaxPooling2D(5)], (4, 4, 1), device="reference"),
            "does not fit",
        ),
    ],
)
def test_errors_say_what_was_received(make, text):
    with pytest.raises(ValueError, match=text):
        make()

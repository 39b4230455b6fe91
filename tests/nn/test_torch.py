"""The same networks in torch: the same loss and the same gradients, whatever the graph."""

import numpy as np
import pytest

import minicnn as mc

torch = pytest.importorskip("torch")
F = torch.nn.functional


def padded(x, layer, dilation=(1, 1)):
    """Return x (N, C, H, W) with the zeros that "same" adds: more behind than before, as Keras."""
    pads = []
    for size, kernel, stride, step in zip(
        x.shape[:1:-1], layer.kernel_size[::-1], layer.strides[::-1], dilation[::-1]
    ):
        reach = (kernel - 1) * step + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        pads += [total // 2, total - total // 2] if layer.padding == "same" else [0, 0]
    return F.pad(x, pads)


def transposed(layer, p, x):
    y = F.conv_transpose2d(x, p["w"].permute(3, 2, 0, 1), None, layer.strides)
    h, w, _ = layer.output_shape((*x.shape[2:], x.shape[1]))
    if layer.padding == "same":
        top, left = (max(k - s, 0) // 2 for k, s in zip(layer.kernel_size, layer.strides))
        y = y[:, :, top : top + h, left : left + w]
    return F.pad(y, (0, w - y.shape[3], 0, h - y.shape[2])) + p["b"][None, :, None, None]


def batch_norm(layer, p, x):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    axes = [0, *range(2, x.ndim)]
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)
    normal = (x - mean) / torch.sqrt(variance + layer.epsilon)
    return normal * p["gamma"].reshape(shape) + p["beta"].reshape(shape)


def layer_norm(layer, p, x):
    y = F.layer_norm(x.movedim(1, -1), x.shape[1:2], p["gamma"], p["beta"], layer.epsilon)
    return y.movedim(-1, 1)


OPS = {
    mc.Conv2D: lambda layer, p, x: F.conv2d(
        padded(x, layer, layer.dilation),
        p["w"].permute(3, 2, 0, 1),
        p["b"],
        layer.strides,
        dilation=layer.dilation,
    ),
    mc.DepthwiseConv2D: lambda layer, p, x: F.conv2d(
        padded(x, layer, layer.dilation),
        p["w"].permute(2, 3, 0, 1).reshape(-1, 1, *layer.kernel_size),
        p["b"],
        layer.strides,
        dilation=layer.dilation,
        groups=x.shape[1],
    ),
    mc.Conv2DTranspose: transposed,
    mc.ELU: lambda layer, p, x: F.elu(x, layer.alpha),
    mc.ReLU: lambda layer, p, x: F.relu(x),
    mc.LeakyReLU: lambda layer, p, x: F.leaky_relu(x, layer.alpha),
    mc.GELU: lambda layer, p, x: F.gelu(x),
    mc.SiLU: lambda layer, p, x: F.silu(x),
    mc.Sigmoid: lambda layer, p, x: torch.sigmoid(x),
    mc.Tanh: lambda layer, p, x: torch.tanh(x),
    mc.Softplus: lambda layer, p, x: F.softplus(x),
    mc.Softmax: lambda layer, p, x: F.softmax(x, 1),
    mc.MaxPooling2D: lambda layer, p, x: F.max_pool2d(x, layer.pool_size, layer.strides),
    mc.AveragePooling2D: lambda layer, p, x: F.avg_pool2d(x, layer.pool_size, layer.strides),
    mc.GlobalAveragePooling2D: lambda layer, p, x: x.mean((2, 3)),
    mc.GlobalMaxPooling2D: lambda layer, p, x: x.amax((2, 3)),
    mc.UpSampling2D: lambda layer, p, x: x.repeat_interleave(layer.size[0], 2).repeat_interleave(
        layer.size[1], 3
    ),
    mc.BatchNormalization: batch_norm,
    mc.LayerNormalization: layer_norm,
    mc.Add: lambda layer, p, *xs: sum(xs),
    mc.Concatenate: lambda layer, p, *xs: torch.cat(xs, 1),
    mc.ZeroPadding2D: lambda layer, p, x: F.pad(x, (*layer.padding[1], *layer.padding[0])),
    mc.Cropping2D: lambda layer, p, x: F.pad(
        x, [-n for n in (*layer.cropping[1], *layer.cropping[0])]
    ),
    mc.Flatten: lambda layer, p, x: x.movedim(1, -1).reshape(len(x), -1),
    mc.Dense: lambda layer, p, x: x @ p["w"] + p["b"],
}


def run(model, x, y):
    """Return (loss, {weight: gradient}) of the model's graph in torch, float64."""
    weights = {
        name: torch.tensor(np.asarray(w, np.float64), requires_grad=True)
        for name, w in model.weights.items()
    }
    values = [torch.tensor(np.asarray(x, np.float64)).movedim(-1, 1)]
    graph = model.graph
    for node, sources in list(zip(graph.nodes, graph.sources))[1:]:
        start = graph.names[node.layer] + "/"
        params = {k[len(start) :]: w for k, w in weights.items() if k.startswith(start)}
        values.append(OPS[type(node.layer)](node.layer, params, *(values[s] for s in sources)))
    output, target = values[-1], torch.tensor(np.asarray(y, np.int64))
    loss = F.cross_entropy(output, target)
    loss.backward()
    return float(loss.detach()), {name: w.grad.numpy() for name, w in weights.items()}


def everything():
    """A network with every layer that computes something, each of them mattering."""
    inputs = mc.Input((24, 20, 2))
    x = mc.LayerNormalization()(mc.Conv2D(6, 3, strides=2, padding="same")(inputs))
    a = mc.GELU()(mc.DepthwiseConv2D(3, padding="same", depth_multiplier=2, dilation=2)(x))
    b = mc.SiLU()(mc.Conv2D(12, 3, padding="same", dilation=(1, 2))(x))
    x = mc.BatchNormalization()(mc.Add()([a, b]))
    c = mc.Tanh()(mc.AveragePooling2D(3, 2)(mc.ZeroPadding2D(((1, 0), (0, 1)))(x)))
    d = mc.Sigmoid()(
        mc.MaxPooling2D(3, 2)(
            mc.Cropping2D(((0, 0), (1, 0)))(
                mc.LeakyReLU(0.1)(mc.ZeroPadding2D(((1, 0), (1, 1)))(x))
            )
        )
    )
    x = mc.Concatenate()([c, d])
    up = mc.Softplus()(mc.Conv2DTranspose(5, 3, strides=2, padding="same")(x))
    more = mc.UpSampling2D(2)(mc.Conv2DTranspose(5, (2, 3))(mc.Cropping2D(((0, 1), (1, 1)))(x)))
    x = mc.Softmax()(mc.Add()([up, more]))
    x = mc.Concatenate()([mc.GlobalAveragePooling2D()(x), mc.GlobalMaxPooling2D()(x)])
    return inputs, mc.Dense(3)(mc.ELU()(mc.Dense(8)(x)))


def talk(**options):
    return mc.models.microboone(150, 1, 3, **options), (150, 150, 1)


def resnet(**options):
    return mc.models.resnet(32, 1, 3, (4, 8), mc.BatchNormalization, **options), (32, 32, 1)


def unet(**options):
    return mc.models.unet(16, 1, 2, (3, 4), loss=mc.PixelCrossEntropy(), **options), (16, 16, 1)


def all_layers(**options):
    return mc.Model(*everything(), **options), (24, 20, 2)


@pytest.mark.parametrize("network", [talk, resnet, unet, all_layers])
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_loss_and_gradients_are_those_of_torch(network, device):
    wide = device == "reference"
    options = {"dtype": "float64"} if wide else {}
    model, shape = network(device=device, seed=3, **options)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, *shape)).astype(model.dtype)
    y = rng.integers(0, 2, (3, *shape[:2])) if network is unet else np.array([0, 2, 1])
    model.clear_gradients()
    model.accumulate(x, y, np.random.default_rng(0))  # as in training: batch statistics
    loss, gradients = model.tail()["loss"] / 3, model.weight_gradients
    want, wanted = run(model, x, y)
    assert loss == pytest.approx(want, rel=1e-10 if wide else 1e-5)
    for name in wanted:
        # What a normalisation behind it takes away again has a gradient of rounding errors.
        scale = max(np.linalg.norm(wanted[name]), 1e-3)
        error = np.linalg.norm(gradients[name] / 3 - wanted[name])
        assert error <= (1e-9 if wide else 3e-4) * scale, (name, error, scale)


@pytest.mark.parametrize("network", [resnet, unet])
@pytest.mark.parametrize("device", ["reference", "cpu", "emulated"])
def test_they_train(network, device):
    """A residual network and a U-Net lower their loss, on every backend by the same amount."""
    losses = []
    for where in dict.fromkeys(("reference", device)):
        model, shape = network(device=where, seed=3, optimizer=mc.Adam(0.03))
        rng = np.random.default_rng(4)
        x = rng.standard_normal((4, *shape)).astype(np.float32)
        y = (x[..., 0] > 0).astype(int) if network is unet else np.array([0, 2, 1, 1])
        losses.append([model.train_on_batch(x, y) for _ in range(12)])
    assert losses[0][-1] < 0.7 * losses[0][0]
    assert np.allclose(losses[0], losses[-1], rtol=5e-3)

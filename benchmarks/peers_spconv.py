"""The peer that computes another function: a submanifold network of the same layers in spconv.

spconv (2.3) is what this field takes for sparse images. Its SubMConv2d gives an output only where
the input is lit, and sees only lit inputs: away from the event there is no bias and no rest, and
the event does not spread. A convolution followed by SparseMaxPool2d takes the maximum over the lit
positions of each window, and windows without one do not exist. So it does much less than the dense
network, and gives other scores; weights of the same shapes, copied, do not make it the same
function. tests/test_benchmark_peers.py holds it against its definition in dense torch.

What its CPU wheel needs: algo=Native, the only one that it has; indices as a contiguous int32 array
(others are read as if they were, without a word); and three repairs (``repair``), without which
there is no backward pass, results with several threads are wrong, and maxima start from 0. Where
several lit positions share the maximum, each gets the whole gradient; that is left as it is.

Chosen for speed: a batch is one sparse tensor; the maximum comes before the ELU, which increases;
the threads are those of the other engines. Lists of pairs (indice_key) have nothing to share, as no
two layers have the same lit positions and window.
"""

import warnings

import numpy as np
from common import MOMENTUM, RATE, compared_scale


def load_spconv(threads):
    """Return (torch, spconv.pytorch), made fit for the CPU."""
    import torch

    warnings.filterwarnings("ignore", category=UserWarning, module="spconv")
    import spconv.pytorch as spconv

    torch.set_num_threads(threads)  # of both: spconv takes its threads from torch's OpenMP
    if not hasattr(spconv.ops, "repaired"):
        repair(torch, spconv.ops)
    return torch, spconv


def repair(torch, ops):
    """Replace what is wrong in spconv's ops on the CPU.

    get_current_stream: the backward pass asks CUDA for it. scatter_add_cpu: its threads share the
    pointers to what they add, so that with two of them outputs and gradients were wrong by up to
    20 % of their norm, and others in every run; it gets one thread. indice_maxpool: the maximum
    starts from 0 (on GPUs from the least number), so that negative maxima become 0 and have no
    gradient.
    """
    theirs, to_tv = ops.SpconvOps, ops.torch_tensor_to_tv

    class Serial(theirs):
        @staticmethod
        def scatter_add_cpu(*arguments):
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                theirs.scatter_add_cpu(*arguments)
            finally:
                torch.set_num_threads(threads)

    def indice_maxpool(features, pairs, numbers, count):
        out = torch.full((count, features.shape[1]), -torch.inf, dtype=features.dtype)
        features = features.contiguous()
        to, source, pairs = map(to_tv, (out, features, pairs))
        for tap, number in enumerate(numbers.tolist()):
            if number:
                inputs, outputs = (pairs[i][tap].slice_first_axis(0, number) for i in (0, 1))
                theirs.maxpool_forward_cpu(to, source, outputs, inputs)
        return out

    ops.get_current_stream = lambda: 0
    ops.SpconvOps, ops.indice_maxpool, ops.repaired = Serial, indice_maxpool, True


def convolution(modules, w, bias):
    """Return a SubMConv2d with the weights w (KH, KW, C_in, C_out) and the bias (C_out,).
    modules: what load_spconv returned.
    """
    torch, spconv = modules
    height, width, inputs, outputs = w.shape
    made = spconv.SubMConv2d(
        inputs,
        outputs,
        (height, width),
        padding=(height // 2, width // 2),
        algo=spconv.ConvAlgo.Native,
    )
    with torch.no_grad():
        made.weight.copy_(torch.tensor(w).permute(3, 0, 1, 2))
        made.bias.copy_(torch.tensor(bias))
    return made


def places(coords):
    """Return int32 (m, 3): event, row and column of the lit positions of a list of coords."""
    return np.concatenate(
        [np.insert(positions, 0, event, axis=1) for event, positions in enumerate(coords)]
    ).astype(np.int32, order="C")


class TorchSteps:
    """The steps of an engine on torch, which has ``loss_of(x, y)`` and ``optimizer``."""

    def _backward(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss_of(x, y)
        loss.backward()
        return loss.item()

    def step(self, x, y):
        loss = self._backward(x, y)
        self.optimizer.step()
        return loss


class Spconv(TorchSteps):
    """The submanifold network; the methods of an engine (peers_engines.py)."""

    def __init__(self, size, weights, threads):
        self.torch, self.spconv = load_spconv(threads)
        self.size = size
        self.names = [name[:-2] for name in weights if name.endswith("/w")]
        self.layers = {name: self._layer(weights, name) for name in self.names}
        self.pool = self.spconv.SparseMaxPool2d(5, algo=self.spconv.ConvAlgo.Native)
        self.optimizer = self.torch.optim.SGD(
            [p for layer in self.layers.values() for p in layer.parameters()],
            RATE,
            MOMENTUM,
            fused=True,
        )

    def _layer(self, weights, name):
        w, bias = weights[f"{name}/w"], weights[f"{name}/b"]
        if w.ndim == 4:
            return convolution((self.torch, self.spconv), w, bias)
        made = self.torch.nn.Linear(*w.shape)
        with self.torch.no_grad():
            made.weight.copy_(self.torch.tensor(w.T))
            made.bias.copy_(self.torch.tensor(bias))
        return made

    def batch(self, images, labels):
        factor = np.float32(compared_scale(self.size))
        values = np.concatenate([image.values for image in images]) * factor
        positions = places([image.coords for image in images])
        return tuple(map(self.torch.from_numpy, (values, positions))), self.torch.tensor(labels)

    def loss_of(self, x, y):
        functional = self.torch.nn.functional
        features, positions = x
        x = self.spconv.SparseConvTensor(features, positions, [self.size] * 2, len(y))
        for name in self.names[:-2]:
            x = self.pool(self.layers[name](x))
            x = x.replace_feature(functional.elu(x.features))
        x = functional.elu(self.layers["fc1"](x.dense(channels_first=False).flatten(1)))
        return functional.cross_entropy(self.layers["predictions"](x), y)

    def _named(self, value_of):
        """Return {name: array} of what ``value_of`` gives of a parameter, with minicnn's axes."""
        out = {}
        for name, layer in self.layers.items():
            w = value_of(layer.weight)
            w = w.permute(1, 2, 3, 0) if w.ndim == 4 else w.T
            out[f"{name}/w"], out[f"{name}/b"] = (
                w.numpy().copy(),
                value_of(layer.bias).numpy().copy(),
            )
        return out

    def gradients(self, x, y):
        return self._backward(x, y), self._named(lambda p: p.grad)

    def weights(self):
        return self._named(lambda p: p.detach())

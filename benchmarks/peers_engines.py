"""The engines that peers.py and ddp.py compare, with the same methods; peers_spconv.py has one
more, peers_workers.py the process that each of them gets.

An engine is made of (size of the images, weights {name: array}, threads). ``batch(images, labels)``
makes x and y of events; ``step(x, y)`` trains and returns the loss, ``gradients(x, y)`` returns
(loss, {name: array}), ``weights()`` {name: array}: names and axes are minicnn's. Where the first
dense layer has weights for several planes (``planes_of``), an image is a tuple of as many and the
network has as many inputs: each goes through the same trunk, and the features of all lie side by
side before that layer.
"""

import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import llvmlite.binding
import numpy as np
from common import MOMENTUM, RATE, compared_scale
from peers_spconv import Spconv, TorchSteps

import minicnn as mc
from minicnn.parallel.machine import peak_memory_bytes


class Minicnn:
    """Our engine; ``mode`` as Sequential's zero_suppression, ``precision`` as its precision."""

    def __init__(self, size, weights, threads, mode, precision="float32"):
        self.planes = planes_of(size, weights)
        self.model = our_network(
            size,
            self.planes,
            device="cpu",
            optimizer=mc.SGD(RATE, MOMENTUM),
            zero_suppression=mode,
            precision=precision,
            input_scale=compared_scale(size),
        )
        self.model.kernels.set_threads(threads)
        self.model.set_weights(weights)

    def batch(self, images, labels):
        if self.planes > 1:
            images = tuple(map(list, zip(*images)))
        return images, np.asarray(labels)

    def step(self, x, y):
        return self.model.train_on_batch(x, y)

    def gradients(self, x, y):
        return self.model.loss_and_gradients(x, y)

    def weights(self):
        return self.model.get_weights()


class Keras:
    """Keras on TensorFlow, the step compiled with tf.function; channels last, oneDNN. ``bf16``:
    Keras' policy mixed_bfloat16, with the last layer and the loss in float32 as Keras advises.
    """

    def __init__(self, size, weights, threads, pool_first=False, bf16=False):
        os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["KERAS_BACKEND"] = "3", "tensorflow"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        import keras

        policy = "mixed_bfloat16" if bf16 else "float32"
        keras.config.set_dtype_policy(policy)
        self.tf, self.planes = tf, planes_of(size, weights)
        self.model = self._network(keras, size, weights, pool_first)
        for name, w in kernels(weights):
            self.model.get_layer(name).set_weights([w, weights[f"{name}/b"]])
        loss_of, optimizer = (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            keras.optimizers.SGD(RATE, MOMENTUM),
        )
        optimizer.build(self.model.trainable_variables)

        def gradients(x, y):
            with tf.GradientTape() as tape:
                loss = loss_of(y, self.model(x, training=True))
            return loss, tape.gradient(loss, self.model.trainable_variables)

        def step(x, y):
            loss, g = gradients(x, y)
            optimizer.apply(g, self.model.trainable_variables)
            return loss

        self._gradients, self._step = tf.function(gradients), tf.function(step)

    def _network(self, keras, size, weights, pool_first):
        """Return the model: one input per plane, the layers of the trunk called on each."""
        trunk, head = [], []
        for name, w in kernels(weights):
            if w.ndim == 4:
                elu, pool = keras.layers.ELU(), keras.layers.MaxPooling2D(5)
                trunk += [
                    keras.layers.Conv2D(w.shape[3], 5, padding="same", name=name),
                    *((pool, elu) if pool_first else (elu, pool)),
                ]
            elif name == "fc1":
                head += [keras.layers.Dense(w.shape[1], name=name), keras.layers.ELU()]
            else:
                head += [keras.layers.Dense(w.shape[1], name=name, dtype="float32")]
        inputs = [keras.layers.Input((size, size, 1)) for _ in range(self.planes)]
        features = []
        for x in inputs:
            for layer in [*trunk, keras.layers.Flatten()]:
                x = layer(x)
            features.append(x)
        x = keras.layers.Concatenate()(features) if self.planes > 1 else features[0]
        for layer in head:
            x = layer(x)
        return keras.Model(inputs if self.planes > 1 else inputs[0], x)

    def batch(self, images, labels):
        x = [self.tf.constant(array) for array in np.split(dense(images), self.planes)]
        return x if self.planes > 1 else x[0], self.tf.constant(np.asarray(labels))

    def step(self, x, y):
        return float(self._step(x, y))

    def _named(self, values):
        names = [
            "/".join((v.path.split("/")[-2], "w" if v.path.endswith("kernel") else "b"))
            for v in self.model.trainable_variables
        ]
        return {name: np.asarray(value) for name, value in zip(names, values)}

    def gradients(self, x, y):
        loss, g = self._gradients(x, y)
        return float(loss), self._named(g)

    def weights(self):
        return self._named(self.model.trainable_variables)


class Torch(TorchSteps):
    """PyTorch with images and weights in the channels-last layout, oneDNN; ``compiled`` by
    torch.compile, which needs a C++ compiler. ``bf16``: under autocast, with the loss in float32.
    Several planes go through the trunk as one batch of all images, which gives the same.
    """

    def __init__(self, size, weights, threads, pool_first=False, compiled=False, bf16=False):
        import torch
        from torch.nn import functional as f

        torch.set_num_threads(threads)
        self.torch, self.p = torch, {}
        for name, w in weights.items():
            value = torch.tensor(w)
            if w.ndim == 4:
                value = value.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            self.p[name] = (value.T.contiguous() if w.ndim == 2 else value).requires_grad_()
        convolutions = [name for name, w in kernels(weights) if w.ndim == 4]
        planes = planes_of(size, weights)
        self.optimizer = torch.optim.SGD(self.p.values(), RATE, MOMENTUM, fused=True)

        def scores_of(x):
            for name in convolutions:
                x = f.conv2d(x, self.p[name + "/w"], self.p[name + "/b"], padding=2)
                x = (
                    f.elu(f.max_pool2d(x, 5), inplace=True)
                    if pool_first
                    else f.max_pool2d(f.elu(x, inplace=True), 5)
                )
            x = x.permute(0, 2, 3, 1).flatten(1)
            if planes > 1:
                x = x.unflatten(0, (planes, -1)).transpose(0, 1).flatten(1)
            x = f.elu(f.linear(x, self.p["fc1/w"], self.p["fc1/b"]))
            return f.linear(x, self.p["predictions/w"], self.p["predictions/b"])

        def loss_of(x, y):
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                scores = scores_of(x)
            return f.cross_entropy(scores.float(), y)

        self.loss_of = torch.compile(loss_of) if compiled else loss_of

    def batch(self, images, labels):
        return self.torch.from_numpy(dense(images)).permute(0, 3, 1, 2), self.torch.tensor(labels)

    def _ours(self, array):
        array = array.detach()
        if array.ndim == 4:
            array = array.permute(2, 3, 1, 0)
        elif array.ndim == 2:
            array = array.T
        return array.numpy().copy()

    def gradients(self, x, y):
        return self._backward(x, y), {name: self._ours(w.grad) for name, w in self.p.items()}

    def weights(self):
        return {name: self._ours(w) for name, w in self.p.items()}


@dataclass(frozen=True)
class Kind:
    """An engine of the table. make, options: its class and further arguments. modules: what it
    needs. mark: why it is no peer that computes the same in float32, "" where it is one. lit: its
    time depends on what is lit, so it is measured on all events at every batch size. planes: it is
    measured on three planes, too.
    """

    make: Any
    options: dict[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    mark: str = ""
    lit: bool = False
    planes: bool = False


BF16 = "bf16: another rounding"
SUBMANIFOLD = "another function: lit positions alone"
#: TensorFlow without XLA, which is many times slower here. On three planes the fastest of each
#: peer.
ENGINES = {
    "minicnn dense": Kind(Minicnn, {"mode": "never"}, lit=True, planes=True),
    "minicnn zero-suppressed": Kind(Minicnn, {"mode": "auto"}, lit=True, planes=True),
    "keras": Kind(Keras, {}, ("keras", "tensorflow")),
    "keras pool first": Kind(Keras, {"pool_first": True}, ("keras", "tensorflow"), planes=True),
    "torch": Kind(Torch, {}, ("torch",)),
    "torch pool first": Kind(Torch, {"pool_first": True}, ("torch",), planes=True),
    "torch compiled": Kind(Torch, {"pool_first": True, "compiled": True}, ("torch",)),
    "spconv": Kind(Spconv, {}, ("torch", "spconv"), SUBMANIFOLD, lit=True),
    "keras bf16": Kind(Keras, {"pool_first": True, "bf16": True}, ("keras", "tensorflow"), BF16),
    "minicnn dense bf16": Kind(
        Minicnn, {"mode": "never", "precision": "bf16"}, mark=BF16, lit=True
    ),
    "torch bf16": Kind(Torch, {"pool_first": True, "bf16": True}, ("torch",), BF16),
}
OURS = "minicnn dense", "minicnn zero-suppressed", "minicnn dense bf16"
#: Not among the engines unless named: it compiles for minutes and is then several times slower than
#: what it compiles.
SLOW = ("torch compiled",)


def fp32_peer(name):
    """Return whether an engine is a peer that computes what minicnn does, in float32."""
    return name not in OURS and not ENGINES[name].mark


def has_bf16():
    """Return whether this CPU multiplies bf16 numbers; where it does not, they are emulated."""
    features = llvmlite.binding.get_host_cpu_features()
    return any(features.get(name) for name in ("avx512bf16", "amx-bf16", "bf16"))


def kernels(weights):
    """Return [(layer, its weights without the bias)] in layer order."""
    return [(name[:-2], w) for name, w in weights.items() if name.endswith("/w")]


def planes_of(size, weights):
    """Return how many planes the first dense layer sees, by the number of its inputs."""
    convolutions = [w for _, w in kernels(weights) if w.ndim == 4]
    side = size // 5 ** len(convolutions)
    return len(weights["fc1/w"]) // (side * side * convolutions[-1].shape[3])


def dense(images):
    """Return images (sparse or not) as one scaled array (N, H, W, 1); of several planes the images
    of the first plane come first.
    """
    if isinstance(images[0], tuple):
        images = [image for plane in zip(*images) for image in plane]
    factor = np.float32(compared_scale(images[0].shape[0]))
    out = np.empty((len(images), *images[0].shape), np.float32)
    for row, image in zip(out, images):
        np.multiply(image if isinstance(image, np.ndarray) else image.to_dense(), factor, row)
    return out


def our_network(size, planes=1, **options):
    """Return the talk's network in minicnn; of several planes each is an input of its own."""
    if planes == 1:
        return mc.models.microboone(size, **options)
    layers = mc.models.microboone(size, device="reference").layers
    end = next(i for i, layer in enumerate(layers) if isinstance(layer, mc.Flatten))
    inputs, features = [mc.Input((size, size, 1)) for _ in range(planes)], []
    for x in inputs:
        for layer in layers[: end + 1]:
            x = layer(x)
        features.append(x)
    x = mc.Concatenate()(features)
    for layer in layers[end + 1 :]:
        x = layer(x)
    return mc.Model(inputs, x, **options)


def initial_weights(size, seed=0, planes=1):
    """The network's own initial weights, with biases that are not 0."""
    model = our_network(size, planes, device="reference", seed=seed)
    rng = np.random.default_rng(seed)
    return {
        name: w if name.endswith("/w") else rng.normal(0, 0.05, w.shape).astype(np.float32)
        for name, w in model.get_weights().items()
    }


def peak_memory():
    """Return the largest resident size of this process in MB."""
    return peak_memory_bytes() / 2**20

"""The engines that peers.py and ddp.py compare, with the same methods, and the process that each of
them gets.

An engine is made of (size of the images, weights {name: array}, threads). ``batch(images, labels)``
makes x and y of events; ``step(x, y)`` trains and returns the loss, ``gradients(x, y)`` returns
(loss, {name: array}), ``weights()`` {name: array}: names and axes are minicnn's.
"""

import multiprocessing
import os
import tempfile
import time
from contextlib import suppress

import numpy as np
from common import MOMENTUM, RATE, compared_scale

import minicnn as mc
from minicnn.parallel.machine import peak_memory_bytes


class Minicnn:
    """Our engine; ``mode`` as Sequential's zero_suppression."""

    def __init__(self, size, weights, threads, mode):
        self.model = mc.models.microboone(
            size,
            device="cpu",
            optimizer=mc.SGD(RATE, MOMENTUM),
            zero_suppression=mode,
            input_scale=compared_scale(size),
        )
        self.model.kernels.set_threads(threads)
        self.model.set_weights(weights)

    def batch(self, images, labels):
        return images, np.asarray(labels)

    def step(self, x, y):
        return self.model.train_on_batch(x, y)

    def gradients(self, x, y):
        return self.model.loss_and_gradients(x, y)

    def weights(self):
        return self.model.get_weights()


class Keras:
    """Keras on TensorFlow, the step compiled with tf.function; channels last, oneDNN."""

    def __init__(self, size, weights, threads, pool_first=False, jit=False):
        os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["KERAS_BACKEND"] = "3", "tensorflow"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        import keras

        layers = [keras.layers.Input((size, size, 1))]
        for name, w in kernels(weights):
            if w.ndim == 4:
                elu, pool = keras.layers.ELU(), keras.layers.MaxPooling2D(5)
                layers += [
                    keras.layers.Conv2D(w.shape[3], 5, padding="same", name=name),
                    *((pool, elu) if pool_first else (elu, pool)),
                ]
            elif name == "fc1":
                layers += [
                    keras.layers.Flatten(),
                    keras.layers.Dense(w.shape[1], name=name),
                    keras.layers.ELU(),
                ]
            else:
                layers += [keras.layers.Dense(w.shape[1], name=name)]
        self.tf, self.model = tf, keras.Sequential(layers)
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

        self._gradients, self._step = (tf.function(f, jit_compile=jit) for f in (gradients, step))

    def batch(self, images, labels):
        return self.tf.constant(dense(images)), self.tf.constant(np.asarray(labels))

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


class Torch:
    """PyTorch with images and weights in the channels-last layout, oneDNN; ``compiled`` by
    torch.compile, which needs a C++ compiler.
    """

    def __init__(self, size, weights, threads, pool_first=False, compiled=False):
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
        self.optimizer = torch.optim.SGD(self.p.values(), RATE, MOMENTUM, fused=True)

        def loss_of(x, y):
            for name in convolutions:
                x = f.conv2d(x, self.p[name + "/w"], self.p[name + "/b"], padding=2)
                x = (
                    f.elu(f.max_pool2d(x, 5), inplace=True)
                    if pool_first
                    else f.max_pool2d(f.elu(x, inplace=True), 5)
                )
            x = f.elu(f.linear(x.permute(0, 2, 3, 1).flatten(1), self.p["fc1/w"], self.p["fc1/b"]))
            return f.cross_entropy(f.linear(x, self.p["predictions/w"], self.p["predictions/b"]), y)

        self.loss_of = torch.compile(loss_of) if compiled else loss_of

    def batch(self, images, labels):
        return self.torch.from_numpy(dense(images)).permute(0, 3, 1, 2), self.torch.tensor(labels)

    def _backward(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss_of(x, y)
        loss.backward()
        return loss.item()

    def step(self, x, y):
        loss = self._backward(x, y)
        self.optimizer.step()
        return loss

    def _ours(self, a):
        a = a.detach()
        return (a.permute(2, 3, 1, 0) if a.ndim == 4 else a.T if a.ndim == 2 else a).numpy().copy()

    def gradients(self, x, y):
        return self._backward(x, y), {name: self._ours(w.grad) for name, w in self.p.items()}

    def weights(self):
        return {name: self._ours(w) for name, w in self.p.items()}


#: name: (class, options, modules that it needs). TensorFlow without XLA, which is many times slower
#: here.
ENGINES = {
    "minicnn dense": (Minicnn, {"mode": "never"}, ()),
    "minicnn zero-suppressed": (Minicnn, {"mode": "auto"}, ()),
    "keras": (Keras, {}, ("keras", "tensorflow")),
    "keras pool first": (Keras, {"pool_first": True}, ("keras", "tensorflow")),
    "torch": (Torch, {}, ("torch",)),
    "torch pool first": (Torch, {"pool_first": True}, ("torch",)),
    "torch compiled": (Torch, {"pool_first": True, "compiled": True}, ("torch",)),
}
OURS = "minicnn dense", "minicnn zero-suppressed"
#: Not among the engines unless named: it compiles for minutes and is then several times slower than
#: what it compiles.
SLOW = ("torch compiled",)


def kernels(weights):
    """Return [(layer, its weights without the bias)] in layer order."""
    return [(name[:-2], w) for name, w in weights.items() if name.endswith("/w")]


def dense(images):
    """Return images (sparse or not) as one scaled array (N, H, W, 1)."""
    factor = np.float32(compared_scale(images[0].shape[0]))
    out = np.empty((len(images), *images[0].shape), np.float32)
    for row, image in zip(out, images):
        np.multiply(image if isinstance(image, np.ndarray) else image.to_dense(), factor, row)
    return out


def initial_weights(size, seed=0):
    """The network's own initial weights, with biases that are not 0."""
    model = mc.models.microboone(size, device="reference", seed=seed)
    rng = np.random.default_rng(seed)
    return {
        name: w if name.endswith("/w") else rng.normal(0, 0.05, w.shape).astype(np.float32)
        for name, w in model.get_weights().items()
    }


# ------------------------------------------------------------------------------------------ workers
def serve(connection, log, engine, size, weights, threads):
    """A process with one engine: answers (command, arguments) until told to stop; an exception is
    the answer where one occurs.

    What it writes goes into the file ``log``: TensorFlow says a lot that has no bearing here.
    """
    with open(log, "a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out this process goes, not another one
    try:
        kind, options, _ = ENGINES[engine]
        job = Job(kind(size, weights, threads, **options))
        connection.send(peak_memory())
        while (message := connection.recv())[0] != "stop":
            connection.send(getattr(job, message[0])(*message[1:]))
    except Exception as problem:
        with suppress(OSError):
            connection.send(RuntimeError(f"{type(problem).__name__}: {str(problem).strip()[:300]}"))


class Job:
    """The commands of a worker."""

    def __init__(self, engine):
        self.engine = engine

    def check(self, images, labels):
        """Return (loss, gradients, change of the weights by two steps)."""
        batch = self.engine.batch(images, labels)
        loss, gradients = self.engine.gradients(*batch)
        gradients = {name: np.array(g) for name, g in gradients.items()}
        before = {name: np.array(w) for name, w in self.engine.weights().items()}
        for _ in range(2):
            self.engine.step(*batch)
        return (
            loss,
            gradients,
            {name: w - before[name] for name, w in self.engine.weights().items()},
        )

    def events(self, images, labels, size):
        """Take a set of events for batches of ``size``, and make one step that is not timed."""
        self.images, self.labels, self.size, self.next = images, labels, size, 0
        return self.turn(0)

    def turn(self, seconds):
        """Return (seconds per event of one turn, peak memory in MB)."""
        total = count = 0
        while count == 0 or (total < seconds and count < len(self.images)):
            some = [(self.next + i) % len(self.images) for i in range(self.size)]
            batch = self.engine.batch(
                [self.images[i] for i in some], [self.labels[i] for i in some]
            )
            start = time.perf_counter()
            loss = self.engine.step(*batch)
            total += time.perf_counter() - start
            if not np.isfinite(loss):
                raise ArithmeticError(f"the loss is {loss}")
            self.next, count = self.next + self.size, count + self.size
        return total / count, peak_memory()


def peak_memory():
    """Return the largest resident size of this process in MB."""
    return peak_memory_bytes() / 2**20


class Worker:
    """The parent's side of a process with one engine; ``problem`` says why it ended."""

    def __init__(self, engine, size, weights, threads):
        context = multiprocessing.get_context("spawn")
        self.engine, self.problem = engine, None
        self.connection, theirs = context.Pipe()
        descriptor, self.log = tempfile.mkstemp(suffix=".log")
        os.close(descriptor)
        self.process = context.Process(
            target=serve, args=(theirs, self.log, engine, size, weights, threads), daemon=True
        )
        self.process.start()
        theirs.close()
        self.idle = self._answer()  # memory before the first step

    def _answer(self):
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            with open(self.log, errors="replace") as file:
                said = " ".join(file.read().split())[-300:]
            answer = RuntimeError(
                f"the process ended with exit code {self.process.exitcode}"
                + (" (out of memory?)" if self.process.exitcode == -9 else f": {said}")
            )
        if isinstance(answer, RuntimeError):
            self.problem = str(answer)
            return None
        return answer

    def ask(self, *message):
        """Return the worker's answer, None if it has ended."""
        if self.problem:
            return None
        try:
            self.connection.send(message)
        except OSError:
            pass
        return self._answer()

    def stop(self):
        with suppress(OSError):
            self.connection.send(("stop",))
        self.process.join(10)
        if self.process.is_alive():
            self.process.terminate()
        os.unlink(self.log)

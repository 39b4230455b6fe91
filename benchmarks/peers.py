"""One training step of the talk's network in minicnn, Keras/TensorFlow and PyTorch: the same events, the same weights, one run.

    pip install minicnn[peers]       # keras, tensorflow-cpu and torch (its CPU wheel: --index-url https://download.pytorch.org/whl/cpu)
    python benchmarks/peers.py [--batch-size 1 8] [--events FILE] [--real FILE] [--noise] [--engines NAME ...] [--repeats 5]
                               [--threads 2] [--size 3600] [--json FILE] [--plot PNG]

A step is forward, backward and the update (SGD, momentum 0.9), with the packing of weights; all in float32. Peers get their batch as a
dense, scaled array that is ready before the clock starts; minicnn gets sparse events, as its store gives them, and what it does with them
is inside the time. Of events with noise in every pixel minicnn gets dense images. "pool first" is the same network with the pooling
before the ELU, which increases: the same numbers with 1/25 of the ELUs.

First loss, gradients of all weights and the change of all weights by two steps are compared on two simulated events. Then each engine
gets a process of its own, one set per batch size, with the same number of threads; only one of them works at a time, and they
take turns, so that a change of the machine's speed meets all. A turn is one pass over all events, cut off after a second, at least one
step; its time per event is one sample. Peak memory is that of an engine's process up to the end of its turns on the set of events.
Larger batches than the smallest are measured with peers that are within SLOWER of the fastest, and on the first set of events: what a
peer needs does not depend on what is lit. What is left out, or not installed, is named.

Sets of events: simulated single particles (or those of --events); --real: a real event with its cosmics, and its mirror images;
--noise: Gaussian noise in every pixel, where no engine can save anything.
"""
import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import suppress

import numpy as np

import minicnn as mc
from minicnn.parallel import threads_per_rank

RATE, MOMENTUM = 1e-3, 0.9
#: Largest difference between engines, relative in norm; float32 rounding decides near ties in max-pooling, which moves single gradients.
TOLERANCE = {"loss": 1e-5, "gradients": 1e-3, "two steps": 1e-3}
INSTALL = {"keras": "pip install keras tensorflow-cpu", "tensorflow": "pip install tensorflow-cpu", "torch": "pip install torch"}


# ------------------------------------------------------------------------------------------------ engines
class Minicnn:
    """Our engine; ``mode`` as Sequential's zero_suppression."""

    def __init__(self, size, weights, threads, mode):
        self.model = mc.models.microboone(size, device="cpu", optimizer=mc.SGD(RATE, MOMENTUM), zero_suppression=mode,
                                          input_scale=scale(size))
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
                layers += [keras.layers.Conv2D(w.shape[3], 5, padding="same", name=name), *((pool, elu) if pool_first else (elu, pool))]
            elif name == "fc1":
                layers += [keras.layers.Flatten(), keras.layers.Dense(w.shape[1], name=name), keras.layers.ELU()]
            else:
                layers += [keras.layers.Dense(w.shape[1], name=name)]
        self.tf, self.model = tf, keras.Sequential(layers)
        for name, w in kernels(weights):
            self.model.get_layer(name).set_weights([w, weights[f"{name}/b"]])
        loss_of, optimizer = keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.optimizers.SGD(RATE, MOMENTUM)
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
        names = ["/".join((v.path.split("/")[-2], "w" if v.path.endswith("kernel") else "b")) for v in self.model.trainable_variables]
        return {name: np.asarray(value) for name, value in zip(names, values)}

    def gradients(self, x, y):
        loss, g = self._gradients(x, y)
        return float(loss), self._named(g)

    def weights(self):
        return self._named(self.model.trainable_variables)


class Torch:
    """PyTorch with images and weights in the channels-last layout, oneDNN; ``compiled`` by torch.compile, which needs a C++ compiler."""

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
                x = f.elu(f.max_pool2d(x, 5), inplace=True) if pool_first else f.max_pool2d(f.elu(x, inplace=True), 5)
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


#: name: (class, options, modules that it needs). TensorFlow without XLA, which is many times slower here.
ENGINES = {
    "minicnn dense": (Minicnn, {"mode": "never"}, ()),
    "minicnn zero-suppressed": (Minicnn, {"mode": "auto"}, ()),
    "keras": (Keras, {}, ("keras", "tensorflow")),
    "keras pool first": (Keras, {"pool_first": True}, ("keras", "tensorflow")),
    "torch": (Torch, {}, ("torch",)),
    "torch pool first": (Torch, {"pool_first": True}, ("torch",)),
    "torch compiled": (Torch, {"pool_first": True, "compiled": True}, ("torch",)),
}
SLOWER = 1.4
OURS = "minicnn dense", "minicnn zero-suppressed"
#: Not among the engines unless named: it compiles for minutes and is then several times slower than what it compiles.
SLOW = ("torch compiled",)


def scale(size):
    """What pixels are multiplied by."""
    return 0.01 * size / 3600


def kernels(weights):
    """Return [(layer, its weights without the bias)] in layer order."""
    return [(name[:-2], w) for name, w in weights.items() if name.endswith("/w")]


def dense(images):
    """Return images (sparse or not) as one scaled array (N, H, W, 1)."""
    factor = np.float32(scale(images[0].shape[0]))
    out = np.empty((len(images), *images[0].shape), np.float32)
    for row, image in zip(out, images):
        np.multiply(image if isinstance(image, np.ndarray) else image.to_dense(), factor, row)
    return out


# ------------------------------------------------------------------------------------------------ workers
def serve(connection, log, engine, size, weights, threads):
    """A process with one engine: answers (command, arguments) until told to stop; an exception is the answer where one occurs.

    What it writes goes into the file ``log``: TensorFlow says a lot that has no bearing here.
    """
    with open(log, "a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")                                            # where memory runs out this process goes, not another one
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
        return loss, gradients, {name: w - before[name] for name, w in self.engine.weights().items()}

    def events(self, images, labels, size):
        """Take a set of events for batches of ``size``, and make one step that is not timed."""
        self.images, self.labels, self.size, self.next = images, labels, size, 0
        return self.turn(0)

    def turn(self, seconds):
        """Return (seconds per event of one turn, peak memory in MB)."""
        total = count = 0
        while count == 0 or (total < seconds and count < len(self.images)):
            some = [(self.next + i) % len(self.images) for i in range(self.size)]
            batch = self.engine.batch([self.images[i] for i in some], [self.labels[i] for i in some])
            start = time.perf_counter()
            loss = self.engine.step(*batch)
            total += time.perf_counter() - start
            if not np.isfinite(loss):
                raise ArithmeticError(f"the loss is {loss}")
            self.next, count = self.next + self.size, count + self.size
        return total / count, peak_memory()


def peak_memory():
    """Return the largest resident size of this process in MB."""
    try:                                                              # getrusage would also count the parent's pages before exec
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)


class Worker:
    """The parent's side of a process with one engine; ``problem`` says why it ended."""

    def __init__(self, engine, size, weights, threads):
        context = multiprocessing.get_context("spawn")
        self.engine, self.problem = engine, None
        self.connection, theirs = context.Pipe()
        descriptor, self.log = tempfile.mkstemp(suffix=".log")
        os.close(descriptor)
        self.process = context.Process(target=serve, args=(theirs, self.log, engine, size, weights, threads), daemon=True)
        self.process.start()
        theirs.close()
        self.idle = self._answer()                                    # memory before the first step

    def _answer(self):
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            with open(self.log, errors="replace") as file:
                said = " ".join(file.read().split())[-300:]
            answer = RuntimeError(f"the process ended with exit code {self.process.exitcode}"
                                  + (" (out of memory?)" if self.process.exitcode == -9 else f": {said}"))
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


# ------------------------------------------------------------------------------------------------ events
def event_sets(args):
    """Return {name: (images, labels)}."""
    count = max(args.batch_size) * -(-args.number // max(args.batch_size))
    if args.events:
        with mc.data.open_events(args.events, size=args.size) as reader:
            events = [reader.read(i % len(reader)) for i in range(count)]
    else:
        simulator = mc.data.Simulator(seed=args.seed, shape=(args.size, args.size, 1))
        events = [simulator.read(i) for i in range(count)]
    sets = {"simulated" if not args.events else "events": ([e.image for e in events], [max(int(e.label), 0) for e in events])}
    if args.real:
        with mc.data.open_events(args.real, size=args.size) as reader:
            image = reader.read(0).image
        sets["real"] = [mirrored(image, k) for k in range(8)], [k % 5 for k in range(8)]
    if args.noise:
        rng = np.random.default_rng(args.seed)
        images = [10 * rng.standard_normal((args.size, args.size, 1), np.float32) for _ in range(2)]
        sets["noise"] = images, [1, 2]
    return sets


def mirrored(image, k):
    """Return one of the eight mirror images of a square SparseImage."""
    at, last = image.coords, image.shape[0] - 1
    at = at[:, ::-1] if k & 4 else at
    at = np.stack([last - at[:, 0] if k & 2 else at[:, 0], last - at[:, 1] if k & 1 else at[:, 1]], 1)
    return mc.data.SparseImage.from_pixels(at[:, 0], at[:, 1], image.values, image.shape, image.background)


def initial_weights(size, seed=0):
    """The network's own initial weights, with biases that are not 0."""
    model = mc.models.microboone(size, device="reference", seed=seed)
    rng = np.random.default_rng(seed)
    return {name: w if name.endswith("/w") else rng.normal(0, 0.05, w.shape).astype(np.float32)
            for name, w in model.get_weights().items()}


# ------------------------------------------------------------------------------------------------ the run
def installed(engines):
    """Return those of ``engines`` that can run here, and say how to get the others."""
    able = []
    for name in engines:
        missing = [module for module in ENGINES[name][2] if importlib.util.find_spec(module) is None]
        if missing:
            print(f"{name}: left out, {INSTALL[missing[0]]} (all peers: pip install minicnn[peers])")
        else:
            able.append(name)
    return able


def check(engines, args, weights, images, labels):
    """Compare all engines with the first one; returns those that work, and {engine: {what: (difference, where)}}."""
    results, able = {}, []
    for name in engines:
        worker = Worker(name, args.size, weights, args.threads)
        results[name] = worker.ask("check", images, labels)
        worker.stop()
        if worker.problem:
            print(f"{name}: left out, {worker.problem}")
        else:
            able.append(name)
    first, differences = able[0], {}
    print(f"\ncheck on {len(images)} events against {first}: loss {results[first][0]:.6f}; differences relative in norm, the worst layer")
    print(f"{'engine':<26}" + "".join(f"{what:>30}" for what in TOLERANCE))
    for name in able[1:]:
        loss, *arrays = results[name]
        row = differences[name] = {"loss": (abs(loss / results[first][0] - 1), "")}
        for what, got, want in zip(("gradients", "two steps"), arrays, results[first][1:]):
            if got.keys() != want.keys():
                raise SystemExit(f"{name} has the weights {sorted(got)}, {first} {sorted(want)}")
            row[what] = max((float(np.linalg.norm(got[key] - want[key]) / np.linalg.norm(want[key])), key) for key in want)
        print(f"{name:<26}" + "".join(f"{f'{d:.1e} {where}':>30}" for d, where in row.values()))
    print(f"{'tolerance':<26}" + "".join(f"{t:>30.0e}" for t in TOLERANCE.values()))
    wrong = [f"{name}: {what} {row[what][0]:.1e}" for name, row in differences.items() for what in TOLERANCE
             if not row[what][0] <= TOLERANCE[what]]
    if wrong:
        raise SystemExit("the engines do not agree, so nothing is timed: " + "; ".join(wrong))
    return able, differences


def free_memory():
    """Return the memory that is free, in MB."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable")) / 1024
    except OSError:
        return float("inf")


def choose(engines, rows, first, size):
    """Return the engines to measure at batch ``size``: with rows of a smaller batch only peers that are fast and fit into memory.

    Idle peers keep their memory, so they have to fit together; the fastest come first, and a third of what is free is left alone.
    """
    best, left, chosen = fastest_peer(rows, first), 0.7 * free_memory(), [name for name in engines if name in OURS]
    known = {r["engine"]: r for r in reversed(rows) if r["events"] == first and r["engine"] not in OURS}
    for name in sorted((name for name in engines if name not in OURS), key=lambda name: known[name]["median"] if name in known else 0):
        if name not in known:
            if not rows:
                chosen.append(name)
            continue
        r = known[name]
        needed = r["idle"] + (r["memory"] - r["idle"]) * size / r["batch"]
        if r["median"] > SLOWER * best["median"]:
            print(f"{name}: batch {size} left out, {r['median'] / best['median']:.1f} times slower than {best['engine']}")
        elif needed > left:
            print(f"{name}: batch {size} left out, it would need about {needed / 1024:.0f} GB, {left / 1024:.0f} GB are left for it")
        else:
            chosen.append(name)
            left -= needed
    return [name for name in engines if name in chosen]


def measure(engines, args, weights, sets):
    """Return the rows of the table."""
    rows, first, smallest = [], next(iter(sets)), min(args.batch_size)
    for size in sorted(args.batch_size):
        chosen = choose(engines, rows, first, size)
        everyone = [Worker(name, args.size, weights, args.threads) for name in chosen]
        for events, (images, labels) in sets.items():
            workers = [w for w in everyone if w.engine in OURS or events == first or size == smallest]
            samples = {name: [] for name in chosen}
            for repeat in range(-1, args.repeats):
                for worker in workers:
                    answer = worker.ask("events", images, labels, size) if repeat < 0 else worker.ask("turn", args.seconds)
                    if answer and repeat >= 0:
                        samples[worker.engine].append(answer)
                    time.sleep(args.pause)                            # threads of this engine stop spinning
            for worker in workers:
                if worker.problem:
                    print(f"{worker.engine}, batch {size}, {events}: {worker.problem}")
                    continue
                seconds, peaks = zip(*samples[worker.engine])
                rows.append({"events": events, "engine": worker.engine, "batch": size, "median": statistics.median(seconds),
                             "min": min(seconds), "max": max(seconds), "memory": max(peaks), "idle": worker.idle, "samples": seconds})
        for worker in everyone:
            worker.stop()
    return rows


def fastest_peer(rows, events):
    """Return the row of the peer with the least time per event, None without peers; from the first set what this one lacks."""
    peers = [r for r in rows if r["engine"] not in OURS]
    here = [r for r in peers if r["events"] == events]
    known = {(r["engine"], r["batch"]) for r in here}
    here += [r for r in peers if r["events"] == rows[0]["events"] and (r["engine"], r["batch"]) not in known]
    return min(here, key=lambda r: r["median"], default=None)


def print_table(rows, sets):
    for events, (images, _) in sets.items():
        lit = np.mean([np.count_nonzero(image) / image.size if isinstance(image, np.ndarray) else image.nnz / np.prod(image.shape[:2])
                       for image in images])
        peer = fastest_peer(rows, events)
        print(f"\n{events}: {len(images)} events, {100 * lit:.3g} % of the pixels lit")
        print(f"{'engine':<26}{'batch':>6}{'ms per event':>14}{'min':>9}{'max':>9}{'peak MB':>9}{'times faster than the fastest peer':>36}")
        for r in sorted((r for r in rows if r["events"] == events), key=lambda r: (r["batch"], -r["median"])):
            ratio = f"{peer['median'] / r['median']:.2f}" if peer else "-"
            print(f"{r['engine']:<26}{r['batch']:>6}{1e3 * r['median']:>14.1f}{1e3 * r['min']:>9.1f}{1e3 * r['max']:>9.1f}"
                  f"{r['memory']:>9.0f}{ratio:>36}")


def goals(rows):
    """Return [(what, required, measured, reached)] of the figures that minicnn must reach."""
    out = []

    def row(engine, batch, events):
        return next((r for r in rows if (r["engine"], r["batch"], r["events"]) == (engine, batch, events)), None)

    def faster(engine, batch, events, required):
        r, peer = row(engine, batch, events), fastest_peer(rows, events)
        if r and peer:
            ratio, least = peer["median"] / r["median"], peer["min"] / r["min"]
            out.append((f"{engine}, {events}, batch {batch}: times faster than {peer['engine']} (batch {peer['batch']})",
                        f">= {required}, by the least times {least:.1f}", f"{ratio:.2f}", ratio >= required))
    first = rows[0]["events"] if rows else ""
    dense_, sparse = OURS
    batches = sorted({r["batch"] for r in rows})
    for batch in batches:
        faster(dense_, batch, first, 5)
    for batch in batches:
        faster(sparse, batch, first, 40 if batch == 1 else 50)
    for batch in batches:
        faster(sparse, batch, "real", 15)
    for batch in batches:
        a, b = row(sparse, batch, "noise"), row(dense_, batch, "noise")
        if a and b:
            # Both take their turns one after the other, so each pair of turns has a ratio.
            ratio = statistics.median(x / y for x, y in zip(a["samples"], b["samples"]))
            out.append((f"{sparse}, noise, batch {batch}: time relative to {dense_}", "<= 1.05", f"{ratio:.3f}", ratio <= 1.05))
    for engine, limit in ((sparse, 400), (dense_, 600)):
        r = row(engine, batches[-1] if batches else 0, first)
        if r:
            out.append((f"{engine}, {first}, batch {r['batch']}: peak memory in MB", f"<= {limit}", f"{r['memory']:.0f}",
                        r["memory"] <= limit))
    return out


def draw(rows, path):
    """Write a picture of time and memory per engine; time on a logarithmic axis."""
    from matplotlib.figure import Figure
    sets = list(dict.fromkeys(r["events"] for r in rows))
    figure = Figure(figsize=(11, 1.2 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots(len(sets), 2, squeeze=False, sharex="col")
    for (left, right), events in zip(axes, sets):
        some = sorted((r for r in rows if r["events"] == events), key=lambda r: -r["median"])
        names = [f"{r['engine']}, batch {r['batch']}" for r in some]
        colors = ["tab:green" if r["engine"] in OURS else "tab:gray" for r in some]
        for axis, values, text in ((left, [1e3 * r["median"] for r in some], "ms per event"),
                                   (right, [r["memory"] for r in some], "peak memory, MB")):
            bars = axis.barh(names, values, color=colors)
            axis.bar_label(bars, [f"{v:,.0f}" if v >= 100 else f"{v:.1f}" for v in values], padding=2, fontsize=7)
            axis.set_xscale("log")
            axis.set_xlabel(text)
            axis.margins(x=0.15)
        left.set_title(events, loc="left", fontsize=10)
        left.tick_params(labelsize=8)
        right.set_yticks([])
    figure.savefig(path, dpi=120)


def versions(engines):
    """Return the versions of what is compared."""
    from importlib.metadata import version
    wanted = ["minicnn", "numpy", "numba", *dict.fromkeys(m for name in engines for m in ENGINES[name][2])]
    out = {}
    for name in wanted:
        for package in (name, name + "-cpu", name + "_cpu"):
            with suppress(importlib.metadata.PackageNotFoundError):
                out.setdefault(name, version(package))
    return out


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    p.add_argument("--events", help="take events of this file instead of simulated ones")
    p.add_argument("--real", metavar="FILE", help="measure on the first event of this file too")
    p.add_argument("--noise", action="store_true", help="measure on events with noise in every pixel too")
    p.add_argument("--engines", nargs="+", choices=ENGINES, default=[name for name in ENGINES if name not in SLOW], metavar="NAME",
                   help="which ones: " + ", ".join(ENGINES))
    p.add_argument("--repeats", type=int, default=5, help="turns of each engine")
    p.add_argument("--seconds", type=float, default=1.0, help="a turn ends after so long, or after all events")
    p.add_argument("--pause", type=float, default=0.3, help="seconds between two turns")
    p.add_argument("--number", type=int, default=16, help="events")
    p.add_argument("--size", type=int, default=3600)
    p.add_argument("--seed", type=int, default=0, help="of the simulated events")
    p.add_argument("--threads", type=int, default=threads_per_rank(None), help="of each engine")
    p.add_argument("--json", help="write the figures to this file")
    p.add_argument("--plot", metavar="PNG", help="draw the figures into this file")
    args = p.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)      # of all processes started below
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    engines = installed(args.engines)
    if not engines:
        raise SystemExit("none of these engines is installed")
    found = ", ".join(f"{name} {number}" for name, number in versions(engines).items())
    print(f"training step at {args.size} x {args.size}, float32, {args.threads} threads of {os.cpu_count()} cores, {platform.machine()}; "
          f"{found}\nmedian, least and most of {args.repeats} turns; load average before: {', '.join(f'{x:.2f}' for x in load)}")
    weights, sets = initial_weights(args.size), event_sets(args)
    images, labels = next(iter(sets.values()))
    engines, differences = check(engines, args, weights, images[:2], labels[:2])
    rows = measure(engines, args, weights, sets)
    print_table(rows, sets)
    reached = goals(rows)
    if reached:
        print("\nmust reach (on 2 cores, at size 3600)")
        for what, required, measured, ok in reached:
            print(f"{'yes' if ok else 'NO':<5}{what:<96}{measured:>9}   {required}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"size": args.size, "threads": args.threads, "cores": os.cpu_count(), "versions": versions(engines), "load": load,
                       "differences": differences, "rows": rows, "goals": reached}, file, indent=1)
            file.write("\n")
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()

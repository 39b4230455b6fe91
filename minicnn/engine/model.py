"""Sequential: a stack of layers over two flat buffers, one of parameters and one of gradients."""

import math
from contextlib import contextmanager
from functools import partial

import numpy as np

from ..data.sparse import SparseImage
from ..inspect import trace
from ..kernels.workspace import Workspace
from ..nn import losses
from ..nn.layers import Layer
from ..train.optim import SGD
from .input_map import InputMap
from .plan import Plan
from .suppression import background_of, listed

#: Slots behind the gradients in the one buffer that ranks add up: with them one Allreduce also
#: gives exact averages and metrics.
TAIL = ("events", "loss", "correct", "not_finite")


class Sequential:
    """A network whose layers run one after the other.

    layers: list of Layer. input_shape: (H, W, C). device: "auto", "cpu", "cuda", "cuda:K",
    "reference" or "emulated", see plan.resolve_device. seed: of the weights and of dropout.
    optimizer: for ``train_on_batch`` and ``fit``. fuse: run Conv2D-ELU-MaxPooling2D as one kernel
    where possible. dtype: "float32", or "float64" on the reference for checks. input_scale,
    input_knee: pixels are multiplied by the scale as they enter and compressed above the knee, see
    InputMap; saved with the model. zero_suppression: "auto" runs the blocks at the input at a cost
    that follows the lit pixels where few are lit, "always" everywhere, "never" nowhere; the numbers
    are the same. precision: "tf32" runs the blocks' forward pass on a GPU's tensor cores, see
    docs/gpu.md.

    ``parameters`` (P,) holds every weight in layer order and ``gradients`` (P + 4,) every gradient,
    *summed* over events, and behind them the number of events, the summed loss, the number correct
    and a not-finite flag. ``weights["<layer>/w"]`` are views.
    """

    def __init__(
        self,
        layers,
        input_shape,
        device="auto",
        seed=0,
        optimizer=None,
        fuse=True,
        dtype="float32",
        input_scale=1.0,
        input_knee=None,
        zero_suppression="auto",
        precision="float32",
    ):
        self.layers, self.input_shape, self.seed, self.dtype = (
            list(layers),
            tuple(input_shape),
            int(seed),
            np.dtype(dtype),
        )
        if not self.layers or not all(isinstance(layer, Layer) for layer in self.layers):
            raise ValueError("Sequential needs a list of at least one layer")
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise ValueError(
                f"input_shape must be (height, width, channels), got {self.input_shape}"
            )
        if self.dtype != np.float32 and device != "reference":
            raise ValueError(f'{self.dtype} works on device="reference" only')
        self.input_map = InputMap(input_scale, input_knee)
        self.optimizer = optimizer or SGD()
        self._name_layers()
        self.shapes = [self.input_shape]  # shapes[i] goes into layer i
        for layer in self.layers:
            self.shapes.append(layer.output_shape(self.shapes[-1]))
        self._plan = Plan(
            self.layers, self.input_shape, device, fuse, zero_suppression, self.input_map, precision
        )
        self.kernels = self._plan.kernels
        self._make_buffers()
        self._dense = Workspace()
        self.updates = 0

    def _name_layers(self):
        counts = {}
        for layer in self.layers:
            counts[layer.prefix] = counts.get(layer.prefix, 0) + 1
            layer.name = layer.name or f"{layer.prefix}_{counts[layer.prefix]}"
        names = [layer.name for layer in self.layers]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"layer names must differ; given twice: {', '.join(sorted(twice))}")

    def _make_buffers(self):
        host, places, offset, self.layer_slices = [], {}, 0, {}
        for index, (layer, shape) in enumerate(zip(self.layers, self.shapes)):
            p = {key: np.zeros(s, self.dtype) for key, s in layer.parameter_shapes(shape).items()}
            layer.initialize(p, np.random.default_rng([self.seed, index]))
            self.layer_slices[layer.name] = slice(
                offset, offset + sum(value.size for value in p.values())
            )
            for key, value in p.items():
                places[f"{layer.name}/{key}"] = (offset, value.shape)
                offset += value.size
                host.append(value.ravel())
        flat = np.concatenate(host) if host else np.zeros(0, self.dtype)
        self.parameters = self.kernels.asarray(flat)
        self.gradients = self.kernels.zeros((offset + len(TAIL),), self.dtype)

        def views(flat):
            return {
                name: flat[at : at + math.prod(s)].reshape(s) for name, (at, s) in places.items()
            }

        self.weights, self.weight_gradients = views(self.parameters), views(self.gradients)

        def of_stage(stage, make):  # of several blocks that run as one stage a list
            return (
                [make(block) for block in stage.blocks]
                if stage is self._plan.suppressed
                else make(stage)
            )

        def named(arrays):
            return lambda layer: {
                key: arrays[f"{layer.name}/{key}"]
                for key in ("w", "b")
                if f"{layer.name}/{key}" in arrays
            }

        self._starts = [
            of_stage(stage, lambda layer: self.layer_slices[layer.name].start)
            for stage in self._plan.stages
        ]
        self._p, self._g, self._work = (
            [of_stage(stage, make) for stage in self._plan.stages]
            for make in (
                named(self.weights),
                named(self.weight_gradients),
                lambda layer: Workspace(partial(trace.span, "pack weights", layer.name)),
            )
        )

    # ---------------------------------------------------------------------------- forward, backward
    @property
    def classes(self):
        """Number of outputs of the last layer."""
        return self.shapes[-1][0]

    def weights_changed(self):
        """Tell the kernels that packed copies of the weights are stale; call it after writing to
        ``parameters`` by hand.
        """
        for work in self._work:
            for one in work if isinstance(work, list) else [work]:
                one.expire()
        if self._plan.suppressed:
            self._plan.suppressed.weights_changed()

    def forward(self, x, rng=None):
        """Return (logits (N, classes), saved) for one piece x of ``microbatches``; ``rng`` is given
        while training.
        """
        saved = []
        with self._enough_memory(len(x)):
            for stage, p, work in zip(self._plan.stages, self._p, self._work):
                with trace.span("forward", stage.name):
                    x, kept = stage.forward(self.kernels, x, p, work, rng)
                saved.append(kept)
        return x, saved

    def backward(self, dlogits, saved, progress=None):
        """Add the gradients of all weights into ``gradients`` for the gradient of the logits;
        progress: see ``accumulate``.
        """
        dy = dlogits
        with self._enough_memory(len(dlogits)):
            for i in reversed(range(len(saved))):
                stage = self._plan.stages[i]
                with trace.span("backward", stage.name):
                    dy = stage.backward(
                        self.kernels, dy, saved[i], self._p[i], self._g[i], i > 0, self._work[i]
                    )
                if progress and stage is not self._plan.suppressed:
                    progress(self._starts[i])

    @contextmanager
    def _enough_memory(self, events):
        """Where memory does not suffice inside, raise the MemoryError that says how many events at
        a time would fit.
        """
        try:
            yield
        except MemoryError as problem:
            raise self._plan.out_of_memory(events, problem) from problem

    def microbatches(self, x):
        """Yield (slice, images) over the batch x in the pieces that run at once: a device array (n,
        H, W, C), or the events themselves where the plan suppresses zeros.

        x is a float array (N, H, W, C) or a list of SparseImage or (H, W, C) arrays. Raises
        ValueError naming the event for a wrong shape or a pixel that is not finite.
        """
        size, start = self._plan.microbatch or max(len(x), 1), 0
        while start < len(x):
            part = slice(start, min(start + size, len(x)))
            if self._plan.suppressed:  # together only where one background rests under all
                first = background_of(x[start])
                part = slice(
                    start,
                    next(
                        (i for i in range(start + 1, part.stop) if background_of(x[i]) != first),
                        part.stop,
                    ),
                )
            start = part.stop
            with trace.span("transfer"), self._enough_memory(part.stop - part.start):
                for i, event in enumerate(x[part], part.start):
                    self._check_event(event, i)
                images = x[part] if self._plan.suppressed else self._to_device(x[part])
            yield part, images

    def _check_event(self, event, i):
        if tuple(event.shape) != self.input_shape:
            raise ValueError(
                f"event {i} of the batch has the shape {tuple(event.shape)}, the network takes {self.input_shape}"
            )
        if not isinstance(event, SparseImage) and not np.isfinite(
            np.add.reduce(event, None)
        ):  # one pass; locate if it fails
            where = np.argwhere(~np.isfinite(event))
            if len(where):
                raise ValueError(
                    f"event {i} of the batch: pixel {tuple(where[0].tolist())} is {event[tuple(where[0])]}"
                    f" ({len(where)} in all are not finite)"
                )

    def _to_device(self, events):
        """Return the events as one array (n, H, W, C) on the device, mapped; of SparseImages only
        the listed pixels go there.
        """
        k = self.kernels
        if not hasattr(k, "pinned") or not all(isinstance(e, SparseImage) for e in events):
            return k.asarray(self._to_dense(events), self.dtype)
        batch = k.empty((len(events), *self.input_shape), self.dtype)
        for image, event in zip(batch, events):
            image[...] = float(self.input_map(np.float32(event.background)))
        k.put_pixels(batch, *listed(k, events, self.input_map))
        return batch

    def _to_dense(self, events):
        """Return the events as one array (n, H, W, C), mapped by input_map, in a buffer that the
        next call overwrites.
        """
        if self.input_map.identity and isinstance(events, np.ndarray):
            return events
        batch = self._dense.buffer("batch", (len(events), *self.input_shape), self.dtype)
        for out, event in zip(batch, events):
            if isinstance(event, SparseImage):
                event.to_dense(out, self.input_map)
            else:
                out[...] = self.input_map(event)
        return batch

    def clear_gradients(self):
        """Begin a step: set ``gradients`` and its tail to 0."""
        self.gradients[...] = 0
        if self._plan.suppressed:
            self._plan.suppressed.begin()

    def accumulate(self, x, y, rng=None, more=False, progress=None):
        """Run forward, loss and backward event by event, adding to ``gradients`` and its tail;
        returns scores (N, classes).

        ``clear_gradients`` comes before, once per step. more: further batches of the same step
        follow; what zero suppression keeps as sums is added by the last one. ``progress(start)`` is
        called between stages and events: gradients[start:P] are complete, all of them (0) at the
        end. Until the last event's backward pass none are (P); resting cells are added after it,
        block by block.
        """
        y = losses.check_labels(y, len(x), self.classes)
        scores = np.zeros((len(x), self.classes), self.dtype)
        for part, images in self.microbatches(x):
            labels = self.kernels.asarray(y[part])
            logits, saved = self.forward(images, rng)
            with trace.span("loss"):
                loss, p, dlogits = losses.softmax_cross_entropy(self.kernels, logits, labels)
            last = part.stop == len(x) and not more
            self.backward(dlogits, saved, progress if last else None)
            scores[part] = self.kernels.to_host(p)
            self.add_to_tail(
                y[part], float(self.kernels.to_host(loss).sum(dtype=np.float64)), scores[part]
            )
            if progress and not last:
                progress(self.parameters.size)
        if self._plan.suppressed and not more:
            with trace.span("backward", "resting tables"):
                done = (lambda block: progress(self._starts[0][block])) if progress else None
                self._plan.suppressed.finish(
                    self.kernels, self._p[0], self._g[0], self._work[0], done
                )
        if progress and not more:
            progress(0)
        return scores

    def add_to_tail(self, y, loss, scores):
        """Count ``len(y)`` events with their summed loss and scores in the slots behind the
        gradients.
        """
        self.gradients[-4:] += self.kernels.asarray(
            np.array(
                [len(y), loss, (scores.argmax(1) == y).sum(), not np.isfinite(loss)], self.dtype
            )
        )

    def tail(self):
        """Return {"events": ..., "loss": summed, "correct": ..., "not_finite": ...} from behind the
        gradients.
        """
        return dict(zip(TAIL, map(float, self.kernels.to_host(self.gradients[-4:]))))

    # ----------------------------------------------------------------------------- the public calls
    def loss_and_gradients(self, x, y):
        """Return (mean loss, {"<layer>/w": array, ...}) for a batch, gradients averaged over
        events; weights stay as they are.
        """
        self.clear_gradients()
        self.accumulate(x, y)
        tail = self.tail()
        n = max(tail["events"], 1)
        return tail["loss"] / n, {
            name: self.kernels.to_host(g) / self.dtype.type(n)
            for name, g in self.weight_gradients.items()
        }

    def train_on_batch(self, x, y):
        """Apply one optimizer step on a batch and return its mean loss (before the step)."""
        from ..train.fit import train_step

        tail = train_step(self, x, y, self.optimizer)
        return tail["loss"] / max(tail["events"], 1)

    def test_on_batch(self, x, y):
        """Return the mean loss of a batch without changing anything."""
        y = losses.check_labels(y, len(x), self.classes)
        total = 0.0
        for part, images in self.microbatches(x):
            logits, _ = self.forward(images)
            total += float(
                self.kernels.to_host(
                    self.kernels.softmax_cross_entropy(logits, self.kernels.asarray(y[part]))[0]
                ).sum()
            )
        return total / max(len(y), 1)

    def predict(self, x):
        """Return softmax scores (N, classes) for a batch of images."""
        scores = np.zeros((len(x), self.classes), self.dtype)
        for part, images in self.microbatches(x):
            scores[part] = self.kernels.to_host(
                losses.softmax(self.kernels, self.forward(images)[0])
            )
        return scores

    def evaluate(self, data, batch_size=1, comm=None):
        """Return the metrics.Evaluation (loss, accuracy, confusion, scores per class) of a data
        set; see train.evaluate.
        """
        from ..train.fit import evaluate

        return evaluate(self, data, batch_size, comm)

    def fit(self, train, **options):
        """Train on this rank's events; see train.fit for all options. Returns the History."""
        from ..train.fit import fit

        return fit(self, train, **options)

    # ------------------------------------------------------------------------- weights, description
    def get_weights(self):
        """Return {"<layer>/w": copy, ...} as NumPy arrays."""
        return {name: np.array(self.kernels.to_host(w)) for name, w in self.weights.items()}

    def set_weights(self, weights):
        """Set all weights from a dictionary; raises ValueError for a name or shape that does not
        fit, and changes nothing then.
        """
        missing, extra = self.weights.keys() - weights.keys(), weights.keys() - self.weights.keys()
        if missing or extra:
            raise ValueError(
                f"weights do not fit this network: missing {sorted(missing)}, unknown {sorted(extra)}"
            )
        for name, w in self.weights.items():
            if np.shape(weights[name]) != w.shape:
                raise ValueError(
                    f"{name} must have the shape {w.shape}, got {np.shape(weights[name])}"
                )
        for name, w in self.weights.items():
            w[...] = self.kernels.asarray(np.asarray(weights[name], self.dtype))
        self.weights_changed()

    def save(self, path):
        """Write architecture, weights and optimizer state to ``path`` (safetensors); see
        checkpoint.save.
        """
        from ..train.checkpoint import save

        save(self, path)

    def config(self):
        """Return the architecture as a JSON-ready dictionary."""
        return {
            "input_shape": list(self.input_shape),
            "seed": self.seed,
            "input_scale": self.input_map.scale,
            "input_knee": self.input_map.knee,
            "layers": [{"type": type(layer).__name__, **layer.config()} for layer in self.layers],
        }

    def plan(self):
        """Return what will run: fused blocks, backend, work and memory; print it."""
        return self._plan

    def summary(self):
        """Print the table of layers, output shapes and parameter counts."""
        print(self.summary_text())

    def summary_text(self):
        """Return what ``summary`` prints."""

        def line(*cells):
            return "".join(f"{cell:<{width}}" for cell, width in zip(cells, (34, 28, 10))).rstrip()

        rows = [line("Layer (type)", "Output Shape", "Param #")]
        for layer, before, after in zip(self.layers, self.shapes, self.shapes[1:]):
            count = sum(math.prod(s) for s in layer.parameter_shapes(before).values())
            rows.append(
                line(
                    f"{layer.name} ({type(layer).__name__})",
                    f"(None, {', '.join(map(str, after))})",
                    str(count),
                )
            )
        return "\n".join([*rows, "", f"Total params: {self.parameters.size:,}"])

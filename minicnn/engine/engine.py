"""The engine of a model: a graph over flat buffers, and the passes of a batch through it.

model.py has the calls that users make; this is what they are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np

from ..inspect import trace
from ..kernels.forks import check_fork
from ..kernels.types import Array, Shape
from ..nn.graph import Graph, Node
from ..nn.layers import Layer
from ..nn.losses import Loss
from ..train.optim import SGD
from .buffers import Buffers, Group
from .device import in_precision, resolve_device
from .ingest import PIECE_PIXELS, DenseInput, LitInput, LitPixels, check_event
from .input_map import InputMap
from .lit import LitGradient, LitMap
from .options import Options
from .passes import GradientProgress, Pass, Targets
from .plan import Plan


class Engine:
    """A graph on a device: buffers, the plan, forward and backward; see Model for the arguments and
    attributes.
    """

    def __init__(
        self, inputs: Node | Sequence[Node], outputs: Node | Sequence[Node], **options: Any
    ) -> None:
        unknown = options.keys() - {f.name for f in fields(Options)}
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no option {', '.join(sorted(unknown))}; there are "
                + ", ".join(f.name for f in fields(Options))
            )
        self.options = Options(**options)
        self.graph = Graph(_listed(inputs), _listed(outputs))
        self.seed, self.dtype = int(self.options.seed), np.dtype(self.options.dtype)
        if self.dtype != np.float32 and self.options.device != "reference":
            raise ValueError(f'{self.dtype} works on device="reference" only')
        self.input_map = InputMap(self.options.input_scale, self.options.input_knee)
        self.optimizer = self.options.optimizer or SGD()
        self.targets = Targets(
            self.options.loss,
            [node.shape for node in self.graph.outputs],
            [self.graph.names[node.layer] for node in self.graph.outputs],
        )
        self.class_names = self._checked_class_names()
        backend = in_precision(self.options.precision, *resolve_device(self.options.device))
        self.kernels = backend[0]
        self.buffers = Buffers(self.graph, self.kernels, self.dtype, self.seed, self.targets.tail)
        self.parameters, self.gradients = self.buffers.parameters, self.buffers.gradients
        self.weights, self.states = self.buffers.weights, self.buffers.states
        self.weight_gradients = self.buffers.weight_gradients
        self.layer_slices = self.buffers.layer_slices
        self._plan = self._make_plan(backend, self.options.zero_suppression, self.options.fuse)
        self._other_plans: dict[tuple[str, bool], Plan] = {}
        self._dense_inputs = [
            DenseInput(self.kernels, node.shape, self.dtype, self.input_map)
            for node in self.graph.inputs
        ]
        self._lit_inputs = [
            LitInput(self.kernels, node.shape, self.dtype, self.input_map, self._plan.most_lit)
            for node in self.graph.inputs
        ]
        self._passes = 0
        self._figures = np.zeros(len(self.targets.tail))
        #: The train.not_finite.Suspect of the last step of this rank that was not finite.
        self.suspect: Any = None
        self.updates = 0

    def _checked_class_names(self) -> tuple[str, ...] | None:
        names = self.options.class_names
        if names is None:
            return None
        count = self.graph.outputs[0].shape[-1]
        if len(names) != count or len(set(names)) != count:
            raise ValueError(
                f"{count} outputs need as many different class_names, got {list(names)}"
            )
        return tuple(map(str, names))

    def _make_plan(self, backend: tuple[Any, str], mode: str, fuse: bool) -> Plan:
        return Plan(self.graph, self.buffers, backend).build(mode, fuse)

    def dense_plan(self, fuse: bool = True) -> Plan:
        """Return a plan of the same model without zero suppression, unfused if asked for; it is
        kept, and shares the weights.
        """
        key = ("never", fuse)
        if key not in self._other_plans:
            backend = self._plan.kernels, self._plan.device
            self._other_plans[key] = self._make_plan(backend, *key)
        return self._other_plans[key]

    # --------------------------------------------------------------------------- what it looks like
    @property
    def layers(self) -> list[Layer]:
        """The layers, each once, in the order of their parameters."""
        return self.graph.layers

    def layer(self, name: str) -> Layer:
        """Return the layer of this name; ValueError where there is none."""
        for layer, its_name in self.graph.names.items():
            if its_name == name:
                return layer
        raise ValueError(f"no layer {name!r}: there are {', '.join(self.graph.names.values())}")

    def layer_name(self, layer: Layer) -> str:
        """Return the name that a layer has in this model."""
        return self.graph.names[layer]

    @property
    def input_shape(self) -> Shape:
        """(H, W, C) of the first input."""
        return self.graph.inputs[0].shape

    @property
    def output_shape(self) -> Shape:
        """Of one event's first output."""
        return self.graph.outputs[0].shape

    @property
    def classes(self) -> int:
        """Channels of the first output: of a classifier the number of classes."""
        return self.output_shape[-1]

    @property
    def loss(self) -> Loss:
        """The loss of the first output."""
        return self.targets.losses[0]

    # ---------------------------------------------------------------------------- forward, backward
    def weights_changed(self) -> None:
        """Tell the kernels that packed copies of the weights are stale; call it after writing to
        ``parameters`` by hand.
        """
        for plan in (self._plan, *self._other_plans.values()):
            for stage in plan.stages:
                stage.weights_changed()

    def pieces(self, x: Any, plan: Plan | None = None) -> Iterator[tuple[slice, Any, list[Any]]]:
        """Yield (slice, events, values) over the batch x in the pieces that run at once: the events
        of each input, and the same as a device array (n, H, W, C), or as a LitMap where few pixels
        are lit.

        x: a float array (N, H, W, C), or a list of SparseImage or (H, W, C) arrays; for a model of
        several inputs a tuple of these. Raises ValueError naming the event for a wrong shape or a
        pixel that is not finite.
        """
        plan = plan or self._plan
        if plan.device.startswith("cpu"):
            check_fork()
        batches = self._per_input(x)
        count, start = len(batches[0]), 0
        ahead: list[list[LitPixels] | None] = []  # the event that did not join the last piece
        while start < count:
            with trace.span("transfer"):
                found: list[list[LitPixels] | None] = []
                while start + len(found) < count:
                    number = start + len(found)
                    event = ahead.pop() if ahead else self._lit_pixels(batches, number, plan)
                    if found and not _joins(event, found, plan):
                        ahead.append(event)
                        break
                    found.append(event)
                if plan.whole_batch and len(found) < count:
                    found = [None] * count
                part = slice(start, start + len(found))
                events = [batch[part] for batch in batches]
                with self._enough_memory(plan, len(found)):
                    values = [
                        self._dense_inputs[i](piece)
                        if found[0] is None
                        else self._lit_inputs[i]([event[i] for event in found if event])
                        for i, piece in enumerate(events)
                    ]
            yield part, events, values
            start = part.stop

    def _lit_pixels(self, batches: list[Any], number: int, plan: Plan) -> list[LitPixels] | None:
        """Check an event and return the lit pixels of its image for each input, None where one has
        too many.
        """
        for node, batch in zip(self.graph.inputs, batches):
            check_event(batch[number], number, node.shape)
        if not plan.lit:
            return None
        found = [each.lit_pixels(batch[number]) for each, batch in zip(self._lit_inputs, batches)]
        lit = [pixels for pixels in found if pixels is not None]
        return lit if len(lit) == len(found) else None

    def _per_input(self, x: Any) -> list[Any]:
        inputs = len(self.graph.inputs)
        if not hasattr(x, "__len__"):
            raise TypeError(f"a batch is a list of images or an array (N, H, W, C), got {x!r}")
        batches = [x] if inputs == 1 else list(x)
        if len(batches) != inputs or len({len(batch) for batch in batches}) > 1:
            raise ValueError(
                f"this model has {inputs} inputs: a batch is a tuple of {inputs} lists or arrays "
                f"of equally many images, got {[len(batch) for batch in batches]}"
            )
        return batches

    def run_forward(
        self, values: list[Any], rng: np.random.Generator | None = None, plan: Plan | None = None
    ) -> tuple[list[Array], Pass]:
        """Return (outputs, what the backward pass needs) for one piece of ``pieces``; ``rng`` is
        given while training. The outputs are arrays, or LitMaps where their loss takes maps; they
        are valid until the next call.
        """
        plan = plan or self._plan
        self._passes += 1
        run = Pass(plan, self._passes, len(values[0]))
        nodes: list[Any] = [*values, *[None] * (len(self.graph.nodes) - len(values))]
        with self._enough_memory(plan, run.events):
            for stage in plan.stages:
                stage.context.training, stage.context.rng = rng is not None, rng
                with trace.span("forward", stage.name):
                    inputs = [nodes[source] for source in stage.sources]
                    nodes[stage.output], saved = stage.forward(*inputs)
                run.saved.append(saved)
                for number in stage.last_use_of:
                    nodes[number] = None
        outputs = [nodes[number] for number in self.graph.output_numbers]
        for i, (y, loss) in enumerate(zip(outputs, self.targets.losses)):
            as_array = isinstance(y, LitMap) and not loss.takes_maps
            run.lit_outputs.append(y if as_array else None)
            outputs[i] = y.dense() if as_array else y
        return outputs, run

    def run_backward(
        self,
        output_gradients: Sequence[Array],
        run: Pass,
        progress: Callable[[Any], None] | None = None,
        inputs: bool = False,
    ) -> list[Array | None]:
        """Add the gradients of all weights into ``gradients`` for those of the outputs (of a LitMap
        a LitGradient); returns the gradients of the inputs if asked for. progress(stage): called
        behind each stage.
        """
        if run.number != self._passes:
            raise RuntimeError(
                "a later forward pass has overwritten what this backward pass needs: run backward "
                "before the next forward"
            )
        plan = run.plan
        wanted = plan.gradient_demand(inputs)
        gradients: dict[int, Array] = {}
        for number, dy, lit in zip(self.graph.output_numbers, output_gradients, run.lit_outputs):
            if lit is not None:
                dy = lit.gradient_of(dy)
            gradients[number] = gradients[number] + dy if number in gradients else dy
        with self._enough_memory(plan, run.events):
            for stage, saved in zip(plan.stages[::-1], run.saved[::-1]):
                dy = gradients.pop(stage.output, None)
                if dy is not None and wanted[stage.output]:
                    ask = any(wanted[source] for source in stage.sources)
                    stage.context.need_input_gradient = ask
                    with trace.span("backward", stage.name):
                        dxs = stage.backward(dy, saved)
                    for source, dx in zip(stage.sources, dxs):
                        if dx is not None and wanted[source]:
                            known = gradients.get(source)
                            gradients[source] = dx if known is None else known + dx
                if progress:
                    progress(stage)
        found = [gradients.get(i) for i in range(len(self.graph.inputs))] if inputs else []
        if any(isinstance(dx, LitGradient) for dx in found):
            raise RuntimeError("gradients of the inputs need a dense plan")
        return found

    @contextmanager
    def _enough_memory(self, plan: Plan, events: int) -> Iterator[None]:
        """Where memory does not suffice inside, raise the MemoryError that says how many events at
        a time would fit.
        """
        try:
            yield
        except MemoryError as problem:
            raise plan.out_of_memory(events, problem) from problem

    # ------------------------------------------------------------------------------- a step's parts
    def clear_gradients(self) -> None:
        """Begin a step: set ``gradients`` and its tail to 0."""
        self.kernels.clear(self.gradients)
        self._figures[...] = 0

    def accumulate(
        self,
        x: Any,
        y: Any,
        rng: np.random.Generator | None = None,
        more: bool = False,
        progress: Callable[[int], None] | None = None,
        sample_weights: Any = None,
    ) -> list[Any]:
        """Run forward, loss and backward piece by piece, adding to ``gradients`` and its tail;
        returns the predictions of each output.

        ``clear_gradients`` comes before, once per step. more: the step continues with another
        batch. progress(start) reports that
        gradients[start:P] are final. It is called with P (nothing final) after every piece but the
        last, with falling offsets during the last backward pass, and with 0 at the end.
        """
        count = len(self._per_input(x)[0])
        targets, weights = self.targets.check(y, sample_weights, count)
        predictions: list[list[Any]] = [[] for _ in self.graph.outputs]
        last_pass = GradientProgress(self._plan, progress)
        for part, events, values in self.pieces(x):
            outputs, run = self.run_forward(values, rng)
            with trace.span("loss"):
                results = self.targets.values(
                    self.kernels,
                    outputs,
                    [t[part] for t in targets],
                    None if weights is None else weights[part],
                    events,
                )
            last = part.stop == count and not more
            slopes = [result.gradient for result in results]
            self.run_backward(slopes, run, last_pass.stage_done if last and progress else None)
            for each, result in zip(predictions, results):
                each.append(result.predictions)
            self._figures += self.targets.figures(results)
            if progress and not last:
                progress(self.parameters.size)
        if not more:
            self._write_tail()
            if progress:
                progress(0)
        return self.targets.join(predictions)

    def _write_tail(self) -> None:
        tail = np.array(self._figures, self.dtype)
        self.gradients[self.parameters.size :] = self.kernels.asarray(tail)

    def mark_not_finite(self) -> None:
        """Say behind the gradients that something of this rank's step is not finite."""
        self.gradients[-1] = 1

    def tail(self) -> dict[str, float]:
        """Return {"events": ..., "loss": summed, figures of the loss, "not_finite": ...} from
        behind the gradients.
        """
        slots = self.kernels.to_host(self.gradients[self.parameters.size :])
        return dict(zip(self.targets.tail, map(float, slots)))

    def parameter_groups(self) -> list[Group]:
        """Return the pieces of ``parameters`` that learn alike; see buffers.Group."""
        return self.buffers.groups()


def _listed(nodes: Node | Sequence[Node]) -> list[Node]:
    return [nodes] if isinstance(nodes, Node) else list(nodes)


def _joins(
    event: list[LitPixels] | None, piece: Sequence[list[LitPixels] | None], plan: Plan
) -> bool:
    """Return whether an event may run with those of a piece: as arrays as many as the backend
    likes, as LitMaps those of one background, up to PIECE_PIXELS.
    """
    first = piece[0]
    if event is None or first is None:
        room = plan.microbatch is None or len(piece) < plan.microbatch
        return event is first and room
    if any(a.background != b.background for a, b in zip(event, first)):
        return False
    total = sum(len(pixels.coords) for some in (*piece, event) for pixels in some or ())
    return plan.whole_batch or total <= PIECE_PIXELS

"""What will run: which layers are one fused kernel, on which backend, at what cost.

``print(model.plan())`` shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..inspect import trace
from ..kernels.types import Shape
from ..kernels.workspace import Workspace
from ..nn.graph import Graph, Node
from ..nn.layers import Context, Layer
from .buffers import Buffers
from .device import resolve_device
from .fused import FusedBlock
from .ingest import PIXEL_CROSSOVER
from .lit import rule_for
from .stages import Stage

__all__ = ["Plan", "Row", "resolve_device"]

#: Of zero_suppression: see engine.options.Options.
MODES = ("auto", "always", "never")


@dataclass
class Row:
    """A line of the plan's table: FLOP of one event, bytes that the backward pass needs."""

    layers: str
    output: Shape
    forward: float
    backward: float
    bytes: int
    note: str
    stage: Stage

    def text(self) -> str:
        """Return the note, and what the stage has seen of LitMaps."""
        return f"{self.note}{self.stage.lit_so_far()}"


class Plan:
    """The ``stages`` of a graph on one backend, in the order in which they run: layers and fused
    blocks.

    mode: zero_suppression, "auto", "always" or "never". fuse: Conv2D-ELU-MaxPooling2D as one
    kernel.
    """

    def __init__(self, graph: Graph, buffers: Buffers, backend: tuple[Any, str]) -> None:
        self.graph, self.buffers = graph, buffers
        self.kernels, self.device = backend
        self.stages: list[Stage] = []
        self.rows: list[Row] = []
        self._stop_of: dict[int, int] = {}
        self._with_parameters = {entry.layer for entry in buffers.entries}
        self._numbers = {node: i for i, node in enumerate(graph.nodes)}
        #: Nodes whose value is a LitMap, for events that enter as one.
        self._maps: set[int] = set()

    def build(self, mode: str, fuse: bool) -> Plan:
        """Make the stages; returns the plan. Raises ValueError for an unknown mode."""
        if mode not in MODES:
            raise ValueError(f"zero_suppression must be one of {', '.join(MODES)}, got {mode!r}")
        graph = self.graph
        self.whole_batch = any(layer.needs_whole_batch for layer in graph.layers)
        #: Whether feature maps may be LitMaps.
        self.lit = mode != "never"
        self.always = mode == "always"
        self.most_lit = 1.0 if self.always else PIXEL_CROSSOVER
        if self.lit:
            self._maps = {self._numbers[node] for node in graph.inputs}
        done: set[Node] = set()
        for node in graph.nodes:
            if node in done or not node.inputs:
                continue
            block, note = self._block(node)
            if block and fuse:
                done.update(block)
                self._add(block, self._fused(block), "fused")
            else:
                done.add(node)
                context = self._context(node.layer)
                self._add([node], self._stage(graph.node_name(node), node.layer, context), note)
        self._find_last_uses()
        return self

    # ----------------------------------------------------------------------------------- the stages
    def _context(self, layer: Layer) -> Context:
        name = self.graph.names[layer]
        workspace = Workspace(partial(trace.span, "pack weights", name))
        context = Context(self.kernels, *self.buffers.of(name), workspace)
        piece = self.buffers.layer_slices[name]
        self._stop_of[id(context)] = piece.stop if piece.stop > piece.start else 0
        return context

    def _fused(self, block: list[Node]) -> Stage:
        layers: list[Any] = [node.layer for node in block]
        name = self.graph.node_name(block[0])
        fused = FusedBlock(layers[0], layers[1], layers[2], name)
        return self._stage(name, fused, self._context(block[0].layer))

    def _stage(self, name: str, layer: Layer | FusedBlock, context: Context) -> Stage:
        rule = rule_for(layer, context) if self.lit else None
        if rule:
            rule.always = self.always
        return Stage(name, layer, context, rule)

    def _add(self, nodes: list[Node], stage: Stage, note: str) -> None:
        numbers = self._numbers
        stage.sources = [numbers[source] for source in nodes[0].inputs]
        stage.output = numbers[nodes[-1]]
        self.stages.append(stage)
        said = [note, self._on_maps(stage)]
        self._row(nodes, ", ".join(text for text in said if text), stage)

    def _on_maps(self, stage: Stage) -> str:
        """Return what is to be said of a stage with LitMaps among its inputs."""
        lit = [source in self._maps for source in stage.sources]
        if not any(lit):
            return ""
        kind = type(stage.layer).__name__
        if stage.rule is None:
            return f"an array from here on: no rule for {kind}"
        if not all(lit):
            array = self.graph.nodes[stage.sources[lit.index(False)]]
            return f"an array from here on: {self.graph.node_name(array)} is one"
        if stage.rule.ends:
            return "lit, gives an array"
        self._maps.add(stage.output)
        return f"lit ({stage.rule.remark})" if stage.rule.remark else "lit"

    def _next(self, node: Node) -> Node | None:
        """Return the one node that uses this one alone, None where that is not so."""
        number = self._numbers[node]
        if self.graph.consumers[number] != 1 or number in self.graph.output_numbers:
            return None
        return next((n for n in self.graph.nodes if n.inputs == (node,)), None)

    def _block(self, node: Node) -> tuple[list[Node], str]:
        """Return the nodes of the fused block that begins here, else ([], why not)."""
        nodes = [node]
        while len(nodes) < 3:
            following = self._next(nodes[-1])
            if following is None:
                return [], ""
            nodes.append(following)
        fits, reason = FusedBlock.matches([n.layer for n in nodes])
        return (nodes, "") if fits else ([], f"not fused: {reason}" if reason else "")

    def _find_last_uses(self) -> None:
        last: dict[int, Stage] = {}
        for stage in self.stages:
            last.update(dict.fromkeys(stage.sources, stage))
        for number, stage in last.items():
            if number not in self.graph.output_numbers:
                stage.last_use_of.append(number)

    # -------------------------------------------------------------------------------- batch, memory
    def fused_blocks(self) -> list[tuple[FusedBlock, Shape]]:
        """Return the fused blocks, each with the shape of its input."""
        found: list[tuple[FusedBlock, Shape]] = []
        for stage in self.stages:
            if isinstance(stage.layer, FusedBlock):
                found.append((stage.layer, self.graph.nodes[stage.sources[0]].shape))
        return found

    def gradient_demand(self, inputs: bool) -> list[bool]:
        """Return for every node whether its gradient is needed: something that learns, or an input
        whose gradient is asked for, lies at it or before it.
        """
        demand: list[bool] = []
        for node, sources in zip(self.graph.nodes, self.graph.sources):
            layer = node.layer
            learns = layer.trainable and layer in self._with_parameters
            before = any(demand[source] for source in sources)
            demand.append(before or learns or (inputs and not sources))
        return demand

    def stop_offset(self, context: Context) -> int:
        """Return where the parameters of a stage's layer end in the flat buffer, 0 without any."""
        return self._stop_of[id(context)]

    @property
    def microbatch(self) -> int | None:
        """Dense events that run at once, as the backend likes (None: the whole batch); all where a
        layer needs the statistics of the batch.
        """
        return None if self.whole_batch else self.kernels.microbatch

    def device_bytes(self, events: int) -> int:
        """Return about how many bytes of memory ``events`` dense events take at a time: images,
        what the backward pass needs, gradients.
        """
        inputs = sum(math.prod(node.shape) for node in self.graph.inputs)
        largest = max((math.prod(row.output) for row in self.rows), default=0)
        return events * (sum(row.bytes for row in self.rows) + 4 * inputs + 8 * largest)

    def out_of_memory(self, events: int, problem: Exception) -> MemoryError:
        """Return the MemoryError that says how many events fit at a time instead of ``events``."""
        free = self.kernels.memory_free() if self.kernels.on_device else None
        if free is None:
            return MemoryError(
                f"{self.device}: {events} events at a time do not fit into memory ({problem}): use "
                "a smaller batch"
            )
        fits = min(int(free // self.device_bytes(1)), events - 1)
        advice = (
            f"a batch_size of {fits} fits"
            if fits > 0
            else "not even one event fits: use smaller images or another device"
        )
        return MemoryError(
            f"{self.device}: out of memory with {events} events at a time, which need about "
            f"{self.device_bytes(events) / 2**30:.2f} GiB; {free / 2**30:.2f} GiB are free: "
            f"{advice} ({problem})"
        )

    # ------------------------------------------------------------------------------------ the table
    def _row(self, nodes: list[Node], note: str, stage: Stage) -> None:
        """Add a line to the table. Of a block only maxima have a gradient, so that each of its
        gradients costs 1 / pool^2 of its forward pass.
        """
        first, last = nodes[0], nodes[-1]
        shapes = [source.shape for source in first.inputs]
        flops = first.layer.flops(*shapes)
        fused = len(nodes) > 1
        share = 1 / math.prod(getattr(last.layer, "pool_size", (1,))) if fused else 1.0
        gradients = 1
        if first.layer.parameters(*shapes):
            gradients = 2 if any(source.inputs for source in first.inputs) else 1
        size = math.prod(last.shape)
        self.rows.append(
            Row(
                " + ".join(map(self.graph.node_name, nodes)),
                last.shape,
                flops,
                flops * share * gradients,
                4 * size + (size if fused else 0),
                note,
                stage,
            )
        )

    def __str__(self) -> str:
        width = max(len(row.layers) for row in self.rows) + 2
        count = self.microbatch
        pieces = f"{count} event{'s' * (count > 1)} at a time" if count else "a whole"
        lines = [
            f"Plan on {self.device}: batches run as {pieces}"
            + (", more of those that are lit in few pixels" if self.lit and count else ""),
            f"{'stage':<{width}}{'output':>18}{'fwd GFLOP':>11}{'bwd GFLOP':>11}{'saved MB':>10}"
            "  note",
        ]
        for row in self.rows:
            output = " x ".join(map(str, row.output))
            lines.append(
                f"{row.layers:<{width}}{output:>18}{row.forward / 1e9:>11.3f}"
                f"{row.backward / 1e9:>11.3f}{row.bytes / 1e6:>10.2f}  {row.text()}".rstrip()
            )
        total = [
            sum(values) for values in zip(*((r.forward, r.backward, r.bytes) for r in self.rows))
        ]
        lines.append(
            f"{'one event, dense':<{width}}{'':>18}{total[0] / 1e9:>11.3f}{total[1] / 1e9:>11.3f}"
            f"{total[2] / 1e6:>10.2f}"
        )
        if self.lit:
            lines.append(
                "lit: only what an event changes is computed, with the numbers of the dense "
                f"network (more than {self.most_lit:.0%} of the pixels lit: dense); % of the "
                "positions so far"
            )
        if self.whole_batch:
            lines.append(
                "a layer takes the statistics of the batch: its events run together"
                + (", dense" if not self.lit else "")
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from ..inspect.report.notebook import plan_html

        return plan_html(self)

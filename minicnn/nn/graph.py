"""A network as a graph: nodes are what layers give for their inputs.

    inputs = Input((3600, 3600, 1))
    x = Conv2D(16, 3, padding="same")(inputs)
    y = Add()([Conv2D(16, 3, padding="same")(x), x])        # x goes two ways: a residual connection

Every call of a layer makes a ``Node``; nothing is computed. A layer that is called twice is one
layer with one set of parameters in two places. ``Graph`` collects the nodes between inputs and
outputs in the order in which they were made, which is an order in which they can be computed.
"""

from __future__ import annotations

import inspect
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..kernels.types import Shape
from .layers.base import REGISTRY, Layer, label

_made = itertools.count()


class InputLayer(Layer):
    """Where images enter: (H, W, C)."""

    prefix = "input"

    def __init__(self, shape: Shape, **options: Any) -> None:
        super().__init__(**options)
        self.shape = tuple(int(n) for n in shape)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"input_shape must be (height, width, channels), got {tuple(shape)}")

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.shape

    def flops(self, *shapes: Shape) -> int:
        return 0


@dataclass(eq=False, frozen=True)
class Node:
    """What ``layer`` gives for ``inputs``; ``shape`` is that of one event, without the
    batch axis.
    """

    layer: Layer
    inputs: tuple[Node, ...]
    shape: Shape
    number: int = field(default_factory=lambda: next(_made))

    def __repr__(self) -> str:
        return f"<{label(self.layer)}: {' x '.join(map(str, self.shape))}>"


def Input(shape: Shape, name: str | None = None) -> Node:
    """Return the node where images of ``shape`` (height, width, channels) enter a Model; ValueError
    for any other shape. name: of the input, by default counted (input_1, ...).
    """
    layer = InputLayer(shape, name=name)
    return Node(layer, (), layer.shape)


def connect(layer: Layer, inputs: Node | Sequence[Node]) -> Node:
    """Return the node of ``layer`` applied to a node or to several; ``layer(inputs)`` is this.

    Raises ValueError where the shapes do not fit, TypeError for anything that is no node.
    """
    nodes = (inputs,) if isinstance(inputs, Node) else tuple(inputs) if _sequence(inputs) else None
    if nodes is None or not nodes or not all(isinstance(node, Node) for node in nodes):
        raise TypeError(
            f"{label(layer)} is called on what Input() or another layer returned, or on a list of "
            f"these, got {type(inputs).__name__}: arrays go to model.predict or model.activations"
        )
    shapes = [node.shape for node in nodes]
    try:
        inspect.signature(layer.forward).bind(None, *shapes)
        layer.parameters(*shapes)
        shape = layer.output_shape(*shapes)
    except TypeError as problem:
        raise TypeError(
            f"{label(layer)} does not take {len(nodes)} input{'s' * (len(nodes) > 1)}: {problem}"
        ) from problem
    return Node(layer, nodes, tuple(shape))


def _sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple))


class Graph:
    """The nodes between ``inputs`` and ``outputs``, in an order in which they can be computed.

    nodes: inputs first. layers: every layer once, inputs not among them, in the order of their
    first node: the order of the parameters in the flat buffer. names: {layer: name}, given or
    counted per kind (elu_1, elu_2, ...). sources: for every node the numbers of its inputs in
    ``nodes``. consumers: how many nodes, or outputs of the model, use each node.
    """

    def __init__(self, inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        found = self._reach()
        others = sorted((node for node in found if node.inputs), key=lambda node: node.number)
        self.nodes = (*self.inputs, *others)
        index = {node: i for i, node in enumerate(self.nodes)}
        self.sources = [[index[source] for source in node.inputs] for node in self.nodes]
        self.output_numbers = [index[node] for node in self.outputs]
        self.consumers = [0] * len(self.nodes)
        for number in itertools.chain(*self.sources, self.output_numbers):
            self.consumers[number] += 1
        self.layers = list(dict.fromkeys(node.layer for node in others))
        self.names = self._name()
        self.input_shapes = {  # of a layer's first place; others must agree
            node.layer: [source.shape for source in node.inputs] for node in reversed(others)
        }
        self._check_shared(others)

    def _reach(self) -> set[Node]:
        for node in self.inputs:
            if node.inputs:
                raise ValueError(f"{node} is not an Input(), so it cannot be an input of a model")
        found: set[Node] = set()
        ahead = list(self.outputs)
        while ahead:
            node = ahead.pop()
            if node not in found:
                found.add(node)
                ahead.extend(node.inputs)
        for node in found:
            if not node.inputs and node not in self.inputs:
                raise ValueError(
                    f"the outputs depend on the input {node}, which is not among the model's inputs"
                )
        for node in self.inputs:
            if node not in found:
                raise ValueError(f"no output depends on the input {node}")
        return found

    def _name(self) -> dict[Layer, str]:
        counts: dict[str, int] = {}
        names: dict[Layer, str] = {}
        for layer in (*(node.layer for node in self.inputs), *self.layers):
            counts[layer.prefix] = counts.get(layer.prefix, 0) + 1
            names[layer] = layer.name or f"{layer.prefix}_{counts[layer.prefix]}"
        twice = sorted(name for name, times in Counter(names.values()).items() if times > 1)
        if twice:
            raise ValueError(f"layer names must differ; given twice: {', '.join(twice)}")
        return names

    def _check_shared(self, nodes: list[Node]) -> None:
        for node in nodes:
            first = self.input_shapes[node.layer]
            wanted, found = (
                {name: p.shape for name, p in node.layer.parameters(*shapes).items()}
                for shapes in (first, [source.shape for source in node.inputs])
            )
            if wanted != found:
                raise ValueError(
                    f"{self.names[node.layer]} is used in two places, with parameters of the "
                    f"shapes {wanted} and {found}: a shared layer needs the same in all"
                )

    @property
    def is_chain(self) -> bool:
        """Whether the nodes follow each other, from one input to one output."""
        chain = all(source == [i] for i, source in enumerate(self.sources[1:]))
        return chain and self.output_numbers == [len(self.nodes) - 1]

    def node_name(self, node: Node) -> str:
        """Return the name of the node's layer, with "#2", "#3", ... at its second place and on."""
        places = [other for other in self.nodes if other.layer is node.layer]
        place = places.index(node) + 1
        return self.names[node.layer] + (f"#{place}" if place > 1 else "")

    # ----------------------------------------------------------------------------- to JSON and back
    def config(self) -> dict[str, Any]:
        """Return layers, nodes and ends as a JSON-ready dictionary; see ``from_config``."""
        layers = [*(node.layer for node in self.inputs), *self.layers]
        number = {layer: i for i, layer in enumerate(layers)}
        return {
            "layers": [
                {"type": type(layer).__name__, **layer.config(), "name": self.names[layer]}
                for layer in layers
            ],
            "nodes": [
                [number[node.layer], *sources] for node, sources in zip(self.nodes, self.sources)
            ],
            "outputs": self.output_numbers,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Graph:
        """Return the graph that ``config`` describes. Raises ValueError for an unknown layer."""
        layers = [layer_from_config(dict(entry)) for entry in config["layers"]]
        nodes: list[Node] = []
        for layer, *sources in config["nodes"]:
            if isinstance(layers[layer], InputLayer):
                nodes.append(Node(layers[layer], (), layers[layer].output_shape()))
            else:
                nodes.append(connect(layers[layer], [nodes[source] for source in sources]))
        inputs = [node for node in nodes if not node.inputs]
        return cls(inputs, [nodes[number] for number in config["outputs"]])


def layer_from_config(config: dict[str, Any]) -> Layer:
    """Return the layer {"type": class name, **arguments}; ValueError where the class is unknown or
    does not take these arguments.
    """
    kind = config.pop("type")
    if kind not in REGISTRY:
        raise ValueError(
            f"there is no layer class named {kind}: import the module that defines it first"
        )
    try:
        return REGISTRY[kind](**config)
    except TypeError as problem:
        raise ValueError(f"{kind} cannot be made of {config}: {problem}") from problem

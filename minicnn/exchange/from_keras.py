"""Networks and weights from Keras files, without Keras; keras_files.py reads them, keras_rules.py
has the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.types import Shape
from ..nn import layers, losses
from ..nn.graph import Graph, Input, Node
from .keras_files import Arrays, KerasFile, keys_of, kind_of, read_file
from .keras_rules import ACTIVATIONS, COMMON, RULES
from .steps import ExchangeError

if TYPE_CHECKING:
    from ..engine.model import Model

MOST_LAYERS = 20_000
#: The operations of a knee in files that minicnn wrote; Keras leaves out minicnn's description when
#: it writes a model anew, so that they are what they were.
PIXEL_OPERATIONS = {"Absolute", "Sign", "Log1p", "Divide", "TrueDivide", "Multiply"}
#: What arrays begin with that a layer of Keras may do without, by the setting that says so.
WITHOUT = {"b": ("use_bias", 0.0), "gamma": ("scale", 1.0), "beta": ("center", 0.0)}


def load(path: str | Path, size: int | None = None, **options: Any) -> Model:
    """Return the network of ``path``, a .keras or .h5 file, with its weights, as a Model.

    A softmax at the end becomes the loss SoftmaxCrossEntropy or PixelCrossEntropy, which has its
    own; with any other end the loss is MeanSquaredError, whose predictions are the outputs: in all
    cases ``predict`` gives what Keras gives. A Rescaling of the input becomes input_scale.
    size: edge of the images, where the file leaves it open. ``options``: see Options.

    Raises ExchangeError naming the file, and the layer where one has no counterpart.
    """
    file = read_file(path)
    try:
        if file.network is None:
            raise ExchangeError("it has weights alone: say into which model they go")
        return _Network(file, size).model(options)
    except (
        *(KeyError, TypeError, ValueError, AttributeError, IndexError),
        *(ArithmeticError, MemoryError, RecursionError),
    ) as problem:
        text = str(problem) if isinstance(problem, ValueError) else repr(problem)
        raise ExchangeError(f"{path}: {text}") from problem


def load_weights(model: Model, path: str | Path) -> None:
    """Set the model's weights from any Keras file: by the names of layers where they agree, else
    by kind and order. Layers without a bias get one of 0.

    Raises ExchangeError naming the file and the layer where something does not fit; the model is
    then as it was.
    """
    weights: dict[str, np.ndarray] = {}
    try:
        for name, found in _matched(model, read_file(path).weights):
            wanted = [key for key in model.get_weights() if key.startswith(f"{name}/")]
            arrays = list(found.arrays)
            if len(arrays) == 1 and wanted[1:] == [f"{name}/b"]:
                arrays.append(np.zeros(model.weights[wanted[1]].shape, np.float32))
            if len(arrays) != len(wanted):
                raise ValueError(f"{name} has {len(wanted)} arrays, in the file {len(arrays)}")
            weights |= dict(zip(wanted, arrays))
        model.set_weights(weights)
    except ExchangeError:
        raise
    except ValueError as problem:
        raise ExchangeError(f"{path}: {problem}") from problem


def _matched(model: Model, found: list[Arrays]) -> Iterator[tuple[str, Arrays]]:
    """Yield (name of a layer of the model that has weights, its arrays)."""
    graph = model.graph
    own = [layer for layer in graph.layers if layer.parameters(*graph.input_shapes[layer])]
    by_name = {arrays.name: arrays for arrays in found}
    if all(graph.names[layer] in by_name for layer in own):
        yield from ((graph.names[layer], by_name[graph.names[layer]]) for layer in own)
        return
    if len(own) != len(found):
        raise ValueError(f"it has weights of {len(found)} layers, the model of {len(own)}")
    ahead = list(found)
    for layer in own:
        fits = [array for array in ahead if not array.key or kind_of(array.key) == layer.prefix]
        if not fits:
            raise ValueError(f"it has no weights for {graph.names[layer]}")
        ahead.remove(fits[0])
        yield graph.names[layer], fits[0]


class _Network:
    """The network of a Keras file in the making."""

    def __init__(self, file: KerasFile, size: int | None) -> None:
        assert file.network is not None
        self.file, self.size, self.network = file, size, file.network
        self.about = file.about or {}
        self.knee = self.about.get("input_knee")
        self.entries = _entries(self.network)
        if len(self.entries) > MOST_LAYERS:
            raise ExchangeError(f"it has more than {MOST_LAYERS:,} layers")
        self.made: dict[str, list[layers.Layer]] = {}
        self.calls = [(e, i, called) for e in self.entries for i, called in enumerate(_calls(e))]
        self.scales: set[float] = set()  # of inputs
        self.factors: dict[str, float] = {}  # of a Rescaling behind the last layer, by its name
        self.inputs: dict[str, Node] = {}
        self.nodes: dict[tuple[str, int], Node] = {}

    def model(self, options: dict[str, Any]) -> Model:
        self._connect()
        outputs, found = [], []
        for end in _ends(self.network):
            node, loss = self._ending(end)
            outputs.append(node)
            found.append(loss)
        scale = {"input_scale": self.scales.pop()} if self.scales else {}
        if self.knee:
            scale = {"input_scale": self.about["input_scale"], "input_knee": self.knee}
        names = self.about.get("class_names")
        options = {"loss": found, "class_names": names, **scale, **options}
        inputs = [self.inputs[name] for name in _first(self.network, list(self.inputs))]
        graph = Graph(inputs, outputs)
        weights = self._weights(graph)  # before any memory is taken
        from ..engine.model import Model, Sequential

        if graph.is_chain:
            chain = [node.layer for node in graph.nodes[1:]]
            model: Model = Sequential(chain, inputs[0].shape, **options)
        else:
            model = Model(inputs, outputs, **options)
        model.set_weights(weights)
        return model

    def _connect(self) -> None:
        """Make the nodes, a layer as soon as all that it is called on is there."""
        ahead = self.calls
        while ahead:
            ready = [call for call in ahead if all(source in self.nodes for source in call[2])]
            if not ready:
                raise ExchangeError(f"what {ahead[0][0]['config']['name']} is called on is missing")
            for entry, number, sources in ready:
                call_site = (entry["config"]["name"], number)
                self.nodes[call_site] = self._call(entry, [self.nodes[s] for s in sources])
            ahead = [call for call in ahead if call not in ready]
        if self.scales:
            users = [e for e, _, called in self.calls if any(s[0] in self.inputs for s in called)]
            if len(self.scales) > 1 or any(e["class_name"] != "Rescaling" for e in users):
                raise ExchangeError("it rescales its input differently in places; minicnn does not")

    def _call(self, entry: dict[str, Any], sources: list[Node]) -> Node:
        kind, config = entry["class_name"], entry["config"]
        name = config["name"]
        if kind == "InputLayer":
            self.inputs[name] = Input(self._image(config), name=_name(config))
            return self.inputs[name]
        if kind == "Rescaling":
            self._rescale(config, sources[0])
            return sources[0]
        if not _is_layer(entry):
            inputs = set(self.inputs.values())
            if not self.knee or kind not in PIXEL_OPERATIONS or not inputs.issuperset(sources):
                raise ExchangeError(f"{name}: there is no rule for keras.ops' {kind}")
            return sources[0]
        if name not in self.made:
            self.made[name] = _layers(entry, axes=len(sources[0].shape) + 1)
        node: Node | list[Node] = sources if len(sources) > 1 else sources[0]
        for layer in self.made[name]:
            node = layer(node)
        assert isinstance(node, Node)
        return node

    def _rescale(self, config: dict[str, Any], source: Node) -> None:
        """Keep the scale: it is an option of the model, or of the loss where nothing follows."""
        name, scale = config["name"], float(config["scale"])
        if config.get("offset"):
            raise ExchangeError(
                f"{name} adds {config['offset']} to every pixel; minicnn keeps 0 at 0, so that an "
                "event stays as sparse as it is"
            )
        if source in self.inputs.values():
            self.scales.add(scale)
        elif any(name == source for _, _, called in self.calls for source, _ in called):
            raise ExchangeError(f"{name} rescales what is neither input nor output")
        else:
            self.factors[name] = scale

    def _ending(self, end: tuple[str, int]) -> tuple[Node, losses.Loss]:
        """Return (output of the model, loss) whose predictions are this output of Keras'."""
        node = self.nodes[end]
        if isinstance(node.layer, layers.Softmax) and end[0] not in self.factors:
            flat = len(node.shape) == 1
            loss = losses.SoftmaxCrossEntropy() if flat else losses.PixelCrossEntropy()
            return node.inputs[0], loss
        if len(node.shape) != 1:
            raise ExchangeError(f"its output {end[0]} is an image {node.shape} without a softmax")
        return node, losses.MeanSquaredError(self.factors.get(end[0], 1.0))

    def _image(self, config: dict[str, Any]) -> Shape:
        found = config.get("batch_shape") or config.get("batch_input_shape") or ()
        shape: list[Any] = [self.size if n is None else n for n in found[1:]]
        if None in shape or len(shape) != 3:
            raise ExchangeError(
                f"its input {config.get('name')} is {shape}, expected (height, width, channels): "
                "give the size of the images where it is left open"
            )
        return tuple(shape)

    def _weights(self, graph: Graph) -> dict[str, np.ndarray]:
        """Return the model's arrays by name; ExchangeError where those of the file do not fit."""
        named = {arrays.name: arrays for arrays in self.file.weights if arrays.name}
        keys = keys_of([entry["class_name"] for entry in self.entries if _is_layer(entry)])
        by_key = {arrays.key: arrays for arrays in self.file.weights if not arrays.name}
        weights = {}
        layer_entries = [entry for entry in self.entries if _is_layer(entry)]
        for entry, key in zip(layer_entries, keys):
            name = entry["config"]["name"]
            layer = self.made[name][0] if self.made.get(name) else None
            if layer not in graph.names or layer not in graph.input_shapes:
                continue
            shapes = graph.input_shapes[layer]
            wanted = {**layer.parameters(*shapes), **layer.state(*shapes)}
            found = named.get(name) or by_key.get(key)
            ahead = list(found.arrays) if found else []
            for own, parameter in wanted.items():
                setting, value = WITHOUT.get(own, ("", 0.0))
                if setting and entry["config"].get(setting, True) is False:
                    if math.prod(parameter.shape) > 1 << 24:
                        raise ExchangeError(f"{name} has {parameter.shape} outputs")
                    array = np.full(parameter.shape, value, np.float32)
                elif ahead:
                    array = ahead.pop(0)
                else:
                    raise ExchangeError(f"{name}: the file has no array for {own}")
                if array.shape != tuple(parameter.shape):
                    raise ExchangeError(
                        f"{name}: {own} has the shape {array.shape}, expected {parameter.shape}"
                    )
                weights[f"{graph.names[layer]}/{own}"] = array
            if ahead:
                raise ExchangeError(f"{name} has {len(ahead)} arrays more than {layer!r}")
        return weights


# ------------------------------------------------------------------------------ Keras' JSON, read
def _entries(network: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the layers, of a Sequential with its input and as calls of each other."""
    kind, config = network["class_name"], network["config"]  # a list in the first Keras 2
    if kind not in ("Sequential", "Functional", "Model"):
        raise ExchangeError(f"it is a {kind}: only Sequential and Functional say what they compute")
    found = config["layers"] if isinstance(config, dict) else config
    if kind != "Sequential":
        return found
    entries = [dict(entry) for entry in found]
    if entries[0]["class_name"] != "InputLayer":
        first = entries[0]["config"]
        shape = first.get("batch_input_shape")
        if shape is None and isinstance(config, dict):
            shape = config.get("build_input_shape")
        entries.insert(
            0, {"class_name": "InputLayer", "config": {"name": "input_1", "batch_shape": shape}}
        )
    for before, entry in pairwise(entries):
        entry["inbound_nodes"] = [[[before["config"]["name"], 0, 0, {}]]]
    entries[0]["inbound_nodes"] = []
    return entries


def _calls(entry: Mapping[str, Any]) -> list[list[tuple[str, int]]]:
    """Return for every call of a layer what it is called on: (name of a layer, number of its
    call).
    """
    if entry["class_name"] == "InputLayer":
        return [[]]
    calls = []
    for call in entry["inbound_nodes"]:
        if isinstance(call, dict):  # Keras 3
            given = call["args"]
            tensors = given[0] if isinstance(given[0], list) else given
            histories = [t["config"]["keras_history"] for t in tensors if isinstance(t, dict)]
            calls.append([(name, number) for name, number, *_ in histories])
        else:
            calls.append([(name, number) for name, number, *_ in call])
    return calls


def _ends(network: Mapping[str, Any]) -> list[tuple[str, int]]:
    config = network["config"]
    if network["class_name"] == "Sequential":
        last = (config["layers"] if isinstance(config, dict) else config)[-1]
        return [(last["config"]["name"], 0)]
    found = config["output_layers"]
    found = [found] if isinstance(found[0], str) else found
    return [(name, number) for name, number, *_ in found]


def _first(network: Mapping[str, Any], names: list[str]) -> list[str]:
    """Return the names of the inputs in their order."""
    found = () if network["class_name"] == "Sequential" else network["config"]["input_layers"]
    found = [found] if found and isinstance(found[0], str) else found
    return [name for name, *_ in found] or names


def _is_layer(entry: Mapping[str, Any]) -> bool:
    """Whether the entry is a layer: keras.ops have the same names, Add for example."""
    return str(entry.get("module") or "keras.layers").startswith("keras.layers")


def _name(config: Mapping[str, Any]) -> str:
    return str(config["name"]).replace("/", "_")


def _layers(entry: Mapping[str, Any], axes: int) -> list[layers.Layer]:
    """Return the layers that stand for one of Keras': itself, and its activation. axes: of its
    input, the batch among them.
    """
    kind, config = entry["class_name"], entry["config"]
    name, activation = _name(config), config.get("activation") or "linear"
    if not isinstance(activation, str):
        activation = activation.get("config") if "config" in activation else activation
    if activation != "linear" and activation not in ACTIVATIONS:
        raise ExchangeError(f"{name}: there is no activation {activation!r}")
    following = [] if activation == "linear" else [ACTIVATIONS[activation]()]
    for layer in following:
        layer.name = name if kind == "Activation" else f"{name}_{activation}"
    if kind == "Activation":
        return following
    row = next((row for row in RULES.items() if row[1].kind == kind), None)
    if row is None:
        raise ExchangeError(
            f"{name}: there is no rule for {kind}; enter one in minicnn.exchange.keras_rules.RULES"
        )
    ours, rule = row
    if kind == "ReLU" and config.get("negative_slope"):
        ours, rule = layers.LeakyReLU, RULES[layers.LeakyReLU]
    for setting, value in {**COMMON, **rule.fixed}.items():
        found = _plain(config.get(setting, value))
        if setting == "axis":  # the last one by its number, or [3] in Keras 2
            last = found[0] if isinstance(found, tuple) and len(found) == 1 else found
            found = -1 if last == axes - 1 else last
        if found != value and not (found in (None, 0) and value in (None, 0)):
            raise ExchangeError(f"{name} has {setting}={found!r}; minicnn's has {value!r}")
    renamed = {"negative_slope": "alpha"} if "alpha" in config else {}  # Keras 2
    settings = {
        own: _plain(config[renamed.get(theirs, theirs)])
        for own, theirs in rule.settings.items()
        if renamed.get(theirs, theirs) in config
    }
    if config.get("trainable") is False:
        settings["trainable"] = False
    return [ours(**settings, name=name), *following]


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list) else value

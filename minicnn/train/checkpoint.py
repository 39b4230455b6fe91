"""Models on disk: one safetensors file with the weights, the states of layers, the optimizer's
state and, as JSON, the architecture and all settings. Never a pickle.

The file is written beside its target, flushed to disk and renamed, so that a job killed at any
moment leaves the old file or the new one; a digest over everything is checked on loading. Files of
the format before (a chain of layers, no settings of optimizer and loss) are read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import atomic_write
from ..nn import losses
from ..nn.graph import Graph, Input, layer_from_config
from .optim import OPTIMIZERS, Optimizer, optimizer_from_config

if TYPE_CHECKING:
    from ..engine.model import Model

FORMAT, FORMAT_BEFORE = "minicnn-model-3", "minicnn-model-2"
#: Most characters of JSON, and most layers and places of layers, that a file may have: what larger
#: ones would take to rebuild is not a model's.
LONGEST_JSON, MOST_NODES = 1 << 26, 20_000
#: What settings that nobody has checked make layers, optimizers and Python's JSON raise.
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, MemoryError)


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or does not fit; the message names it."""


def save(model: Model, path: str | Path) -> None:
    """Write ``model`` with its optimizer to ``path``."""
    optimizer = model.optimizer
    arrays = {"weight:" + name: w for name, w in model.get_weights().items()}
    arrays |= {
        "optimizer:" + name: np.array(model.kernels.to_host(vector))
        for name, vector in optimizer.state.items()
    }
    state = {
        "format": FORMAT,
        "config": model.config(),
        "updates": model.updates,
        "steps": optimizer.steps,
        "optimizer": optimizer.config(),
    }
    write_arrays(path, arrays, state)


def write_arrays(path: str | Path, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
    """Write arrays and a JSON-ready ``state`` with its "format" to ``path``, with a digest over
    both.
    """
    from safetensors.numpy import save as serialize

    state = {**state, "digest": _digest(arrays, state)}
    # One key of metadata: the order of several is not reproducible.
    atomic_write(path, serialize(arrays, {"minicnn": json.dumps(state)}))


def load_model(
    path: str | Path, device: str = "auto", optimizer: Optimizer | None = None, **options: Any
) -> Model:
    """Return the model saved at ``path``, ready to predict or to go on training on ``device``
    ("auto", "cpu", "cuda", "reference"; "auto" takes a GPU where there is one).

    Its optimizer comes back with settings and state. ``optimizer``: another one; it takes over the
    saved state if it is of the same kind, and begins anew if not. ``options`` replace those of the
    file, as precision or zero_suppression; see engine.options.Options.

    Raises CheckpointError naming the file where it is missing, damaged or not a minicnn model.
    What its settings ask for is compared with the arrays that it has before any memory is taken.
    """
    arrays, state = read_arrays(path, (FORMAT, FORMAT_BEFORE))
    weights = {name[7:]: array for name, array in arrays.items() if name.startswith("weight:")}
    for key in ("updates", "steps"):
        number = state.get(key)
        if type(number) is not int or number < 0:
            raise CheckpointError(f"{path}: {key} must be a number of steps, got {number!r}")
    try:
        saved = _optimizer(state)
        config = {**state["config"], **options}
        _check_shapes(_graph(config), arrays, weights)
        model = model_from_config(config, device, optimizer or saved)
        model.set_weights(weights)
    except (*DAMAGE, RecursionError) as problem:
        raise CheckpointError(
            f"{path}: its architecture cannot be rebuilt ({problem!r})"
        ) from problem
    model.updates = state["updates"]
    if type(model.optimizer) is type(saved):
        model.optimizer.steps = state["steps"]
        model.optimizer.state = {
            name[10:]: model.kernels.asarray(vector)
            for name, vector in arrays.items()
            if name.startswith("optimizer:")
        }
    return model


def model_from_config(config: dict[str, Any], device: str, optimizer: Optimizer | None) -> Model:
    """Return the model that ``Model.config`` describes, with initial weights; a Sequential where
    the graph is a chain.
    """
    from ..engine.model import Model, Sequential

    graph, config = _graph(config), dict(config)
    for key in ("layers", "nodes", "outputs", "input_shape"):
        config.pop(key, None)
    loss = [losses.loss_from_config(entry) for entry in config.pop("losses", ())]
    config["loss"] = config.get("loss", loss or None)
    config |= {"device": device, "optimizer": optimizer}
    if graph.is_chain:
        return Sequential([n.layer for n in graph.nodes[1:]], graph.nodes[0].shape, **config)
    return Model(graph.inputs, graph.outputs, **config)


def _graph(config: Mapping[str, Any]) -> Graph:
    """Return the network that ``Model.config`` describes, which takes no memory yet."""
    places = max(len(config["layers"]), len(config.get("nodes", ())))
    if places > MOST_NODES:
        raise ValueError(f"it has {places:,} layers, this version reads {MOST_NODES:,}")
    if "nodes" in config:
        return Graph.from_config({key: config[key] for key in ("layers", "nodes", "outputs")})
    first = last = Input(config["input_shape"])  # a file of the format before: a chain
    for entry in config["layers"]:
        last = layer_from_config(dict(entry))(last)
    return Graph([first], [last])


def _check_shapes(
    graph: Graph, arrays: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]
) -> None:
    """Raise ValueError where the network's arrays are not those of the file."""
    wanted, trained = {}, 0
    for layer in graph.layers:
        shapes, name = graph.input_shapes[layer], graph.names[layer]
        parameters = layer.parameters(*shapes)
        trained += sum(math.prod(parameter.shape) for parameter in parameters.values())
        for key, parameter in {**parameters, **layer.state(*shapes)}.items():
            wanted[f"{name}/{key}"] = tuple(parameter.shape)
    found = {name: array.shape for name, array in weights.items()}
    if wanted != found:
        name = next(n for n in (*wanted, *found) if wanted.get(n) != found.get(n))
        raise ValueError(
            f"{name}: the architecture asks for the shape {wanted.get(name)}, the file has "
            f"{found.get(name)}"
        )
    for name, array in arrays.items():
        if name.startswith("optimizer:") and array.shape != (trained,):
            raise ValueError(f"{name} has the shape {array.shape}, expected ({trained},)")


def _optimizer(state: dict[str, Any]) -> Optimizer:
    saved = state["optimizer"]
    if isinstance(saved, dict):
        return optimizer_from_config(saved)
    if saved not in OPTIMIZERS:
        raise ValueError(f"there is no optimizer named {saved}")
    kind: Any = OPTIMIZERS[saved]
    return (
        kind()
    )  # the format before kept the kind alone; its kinds have defaults for all they take


def _is_of_keras(path: str | Path) -> bool:
    return Path(path).suffix in (".keras", ".h5") and Path(path).is_file()


def read_arrays(
    path: str | Path, formats: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the state that ``write_arrays`` wrote in one of these formats;
    CheckpointError where the file is missing, damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).exists() and not Path(path).is_file():
        raise CheckpointError(f"{path}: not a readable checkpoint (it is no regular file)")
    try:
        with safe_open(path, "np") as file:
            text = (file.metadata() or {}).get("minicnn", "{}")
            if len(text) > LONGEST_JSON:
                raise ValueError(f"{len(text):,} characters of settings")
            state = json.loads(text)
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, *DAMAGE, RecursionError, SafetensorError) as problem:
        theirs = "; mc.exchange.import_keras reads networks of Keras" * _is_of_keras(path)
        raise CheckpointError(f"{path}: not a readable checkpoint ({problem}){theirs}") from problem
    kind = state.get("format") if isinstance(state, dict) else None
    if kind not in formats:
        raise CheckpointError(
            f"{path}: its format is {kind!r}, this version reads {' and '.join(sorted(formats))}"
        )
    if state.pop("digest", None) != _digest(arrays, None if kind == FORMAT_BEFORE else state):
        raise CheckpointError(f"{path}: its digest differs from its contents: the file is damaged")
    return arrays, state


def _digest(arrays: dict[str, np.ndarray], state: dict[str, Any] | None) -> str:
    """Return the BLAKE2b digest of names, shapes, types and bytes of all arrays, and of the
    rest.
    """
    h = hashlib.blake2b(digest_size=16)
    if state is not None:
        h.update(json.dumps(state, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        h.update(f"{name}{array.shape}{array.dtype.str}".encode())
        h.update(array.data)
    return h.hexdigest()

"""Models on disk: one safetensors file with the weights, the states of layers, the optimizer's
state and, as JSON, the architecture and all settings. Never a pickle.

The file is written beside its target, flushed to disk and renamed, so that a job killed at any
moment leaves the old file or the new one; a digest over everything is checked on loading. Files of
the format before (a chain of layers, no settings of optimizer and loss) are read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import atomic_write
from ..nn import losses
from ..nn.graph import Graph, layer_from_config
from .optim import OPTIMIZERS, Optimizer, optimizer_from_config

if TYPE_CHECKING:
    from ..engine.model import Model

FORMAT, FORMAT_BEFORE = "minicnn-model-3", "minicnn-model-2"


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
    """Return the model saved at ``path``, ready to predict or to go on training.

    Its optimizer comes back with settings and state. ``optimizer``: another one; it takes over the
    saved state if it is of the same kind, and begins anew if not. ``options`` replace those of the
    file, as precision or zero_suppression; see engine.options.Options.

    Raises CheckpointError naming the file where it is missing, damaged or not a minicnn model.
    """
    arrays, state = read_arrays(path, (FORMAT, FORMAT_BEFORE))
    try:
        saved = _optimizer(state)
        config = {**state["config"], **options}
        model = model_from_config(config, device, optimizer or saved)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise CheckpointError(
            f"{path}: its architecture cannot be rebuilt ({problem!r})"
        ) from problem
    try:
        model.set_weights({name[7:]: a for name, a in arrays.items() if name.startswith("weight:")})
    except ValueError as problem:
        raise CheckpointError(f"{path}: {problem}") from problem
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

    config = dict(config)
    layers = config.pop("layers")
    if "nodes" not in config:  # a file of the format before
        shape = config.pop("input_shape")
        chain = [layer_from_config(dict(entry)) for entry in layers]
        return Sequential(chain, shape, device=device, optimizer=optimizer, **config)
    parts = {"layers": layers, "nodes": config.pop("nodes"), "outputs": config.pop("outputs")}
    loss = [losses.loss_from_config(entry) for entry in config.pop("losses")]
    loss = config.pop("loss", loss)
    config |= {"device": device, "optimizer": optimizer, "loss": loss}
    graph = Graph.from_config(parts)
    if graph.is_chain:
        return Sequential([n.layer for n in graph.nodes[1:]], graph.nodes[0].shape, **config)
    return Model(graph.inputs, graph.outputs, **config)


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


def read_arrays(
    path: str | Path, formats: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the state that ``write_arrays`` wrote in one of these formats;
    CheckpointError where the file is missing, damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            state = json.loads((file.metadata() or {}).get("minicnn", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, ValueError, SafetensorError) as problem:
        raise CheckpointError(f"{path}: not a readable checkpoint ({problem})") from problem
    kind = state.get("format")
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
        a = np.ascontiguousarray(arrays[name])
        h.update(f"{name}{a.shape}{a.dtype.str}".encode())
        h.update(a.data)
    return h.hexdigest()

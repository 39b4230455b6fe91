"""Models on disk: one safetensors file with the weights, the optimizer's state and, as JSON, the
architecture. Never a pickle.

The file is written beside its target, flushed to disk and renamed, so that a job killed at any
moment leaves the old file or the new one; a digest over all arrays is checked on loading.
"""

import hashlib
import json
import os

import numpy as np

FORMAT = "minicnn-model-2"


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or does not fit; the message names it."""


def save(model, path):
    """Write ``model`` with its optimizer state to ``path``."""
    from safetensors.numpy import save as serialize

    arrays = {"weight:" + name: w for name, w in model.get_weights().items()}
    arrays |= {
        "optimizer:" + name: np.array(model.kernels.to_host(v))
        for name, v in model.optimizer.state.items()
    }
    state = {
        "format": FORMAT,
        "config": model.config(),
        "updates": model.updates,
        "steps": model.optimizer.steps,
        "optimizer": type(model.optimizer).__name__,
    }
    state["digest"] = _digest(arrays)
    partial = f"{path}.partial"
    with open(partial, "wb") as file:
        file.write(
            serialize(arrays, {"minicnn": json.dumps(state)})
        )  # one key: the order of several is not reproducible
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_model(path, device="auto", optimizer=None):
    """Return the Sequential saved at ``path``, ready to predict or to go on training with
    ``optimizer``: its state is restored if it is of the kind that was saved (the default), and
    begins anew if it is of another.

    Raises CheckpointError naming the file where it is missing, damaged or not a minicnn model.
    """
    from ..engine.model import Sequential
    from ..nn import layers
    from . import optim

    arrays, state = _read(path)
    try:
        config = state["config"]
        config["layers"] = [layers.REGISTRY[c.pop("type")](**c) for c in config["layers"]]
        model = Sequential(
            **config, device=device, optimizer=optimizer or getattr(optim, state["optimizer"])()
        )
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(
            f"{path}: its architecture cannot be rebuilt ({problem!r})"
        ) from problem
    try:
        model.set_weights({name[7:]: a for name, a in arrays.items() if name.startswith("weight:")})
    except ValueError as problem:
        raise CheckpointError(f"{path}: {problem}") from problem
    model.updates = state["updates"]
    saved = {name[10:]: a for name, a in arrays.items() if name.startswith("optimizer:")}
    if type(model.optimizer).__name__ == state["optimizer"]:
        model.optimizer.steps = state["steps"]
        model.optimizer.state = {
            name: model.kernels.asarray(vector) for name, vector in saved.items()
        }
    return model


def _read(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            state = json.loads((file.metadata() or {}).get("minicnn", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, ValueError, SafetensorError) as problem:
        raise CheckpointError(f"{path}: not a readable checkpoint ({problem})") from problem
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: its format is {state.get('format')!r}, expected {FORMAT!r}")
    if state.get("digest") != _digest(arrays):
        raise CheckpointError(f"{path}: its digest differs from its contents: the file is damaged")
    return arrays, state


def _digest(arrays):
    """Return the BLAKE2b digest of names, shapes, types and bytes of all arrays."""
    h = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        h.update(f"{name}{a.shape}{a.dtype.str}".encode())
        h.update(a.data)
    return h.hexdigest()

"""Models on disk: one safetensors file with the weights, the optimizer's velocity and, as JSON, the architecture. Never a pickle.

The file is written beside its target, flushed to disk and renamed, so that a job killed at any moment leaves the old file or the new
one; a digest over all arrays is checked on loading.
"""
import hashlib
import json
import os

import numpy as np

FORMAT = "minicnn-model-1"


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or does not fit; the message names it."""


def save(model, path):
    """Write ``model`` with its optimizer state to ``path``."""
    from safetensors.numpy import save as serialize
    arrays = {"weight:" + name: w for name, w in model.get_weights().items()}
    state = {"format": FORMAT, "config": model.config(), "updates": model.updates, "steps": model.optimizer.steps}
    if model.optimizer.velocity is not None:
        arrays["velocity"] = np.array(model.kernels.to_host(model.optimizer.velocity))
    state["digest"] = _digest(arrays)
    partial = f"{path}.partial"
    with open(partial, "wb") as file:
        file.write(serialize(arrays, {"minicnn": json.dumps(state)}))      # one key: the order of several is not reproducible
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_model(path, device="auto", optimizer=None):
    """Return the Sequential saved at ``path``, ready to predict or to go on training with ``optimizer`` (its velocity is restored).

    Raises CheckpointError naming the file where it is missing, damaged or not a minicnn model.
    """
    from . import layers
    from .model import Sequential
    arrays, state = _read(path)
    try:
        config = state["config"]
        config["layers"] = [layers.REGISTRY[c.pop("type")](**c) for c in config["layers"]]
        model = Sequential(**config, device=device, optimizer=optimizer)
    except (KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(f"{path}: its architecture cannot be rebuilt ({problem!r})") from problem
    try:
        model.set_weights({name[7:]: a for name, a in arrays.items() if name.startswith("weight:")})
    except ValueError as problem:
        raise CheckpointError(f"{path}: {problem}") from problem
    model.updates, model.optimizer.steps = state["updates"], state["steps"]
    if "velocity" in arrays:
        model.optimizer.prepare(model)
        model.optimizer.velocity[...] = model.kernels.asarray(arrays["velocity"])
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

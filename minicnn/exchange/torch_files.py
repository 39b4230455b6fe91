"""PyTorch's files: a module in Python with its weights as safetensors, and TorchScript, which C++
runs without Python (LArSoft, Triton).
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import atomic_file, atomic_write
from .steps import ExchangeError, Step, description, identifiers, optional, rule_for, steps_of
from .to_torch import COUNTER, RESERVED, RULES, source_and_state

if TYPE_CHECKING:
    from ..engine.model import Model


def write(model: Model, path: str | Path) -> None:
    """Write the module to ``path`` (.py) and its weights beside it (.safetensors). ExchangeError
    for a layer without a rule. PyTorch is not needed.
    """
    from safetensors.numpy import save

    source, state = source_and_state(model)
    about = {"minicnn": json.dumps(description(model))}
    atomic_write(Path(path).with_suffix(".safetensors"), save(state, about))
    atomic_write(path, source)


def read_state(model: Model, path: str | Path) -> None:
    """Set the model's weights from the .safetensors of a module that was written from it, and
    trained further in PyTorch.

    ExchangeError where an array is missing, unknown or has another shape; the model is then as it
    was.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError, ValueError) as problem:
        raise ExchangeError(f"{path}: no readable safetensors file ({problem})") from problem
    steps, _ = steps_of(model)
    names, weights = identifiers(steps, RESERVED), {}
    for step in steps:
        if not step.arrays:
            continue
        row = rule_for(RULES, step, "minicnn.exchange.to_torch.RULES")(step)
        for key, weight in row.weights.items():
            key_of_theirs, ours = f"{names[step.name]}.{key}", step.arrays[weight.key]
            array, wanted = state.get(key_of_theirs), weight.there(ours).shape
            if array is None or array.shape != wanted:
                has = "is missing" if array is None else f"has the shape {array.shape}"
                raise ExchangeError(f"{path}: {key_of_theirs} {has}, expected {wanted}")
            weights[f"{step.name}/{weight.key}"] = weight.back(array, ours.shape)
    known = {f"{names[s.name]}.{key}" for s in steps if s.arrays for key in _keys(s)}
    unknown = sorted(state.keys() - known)
    if unknown:
        raise ExchangeError(f"{path}: the network has nothing named {', '.join(unknown)}")
    model.set_weights(weights)


def _keys(step: Step) -> list[str]:
    row = RULES[type(step.layer)](step)
    return [*row.weights, COUNTER]


def module_of(model: Model) -> Any:
    """Return the network as a torch.nn.Module, with its weights, in evaluation mode."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.py"
        write(model, path)
        return load_module(path)


def load_module(path: str | Path) -> Any:
    """Return the module of a file that ``write`` made: this runs the file."""
    optional("torch", "torch")
    name = f"minicnn_network_{len(sys.modules)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def write_script(model: Model, path: str | Path) -> None:
    """Write the network as TorchScript; its description is the extra file minicnn.json.
    ExchangeError for a layer without a rule, or without PyTorch.
    """
    torch = optional("torch", "torch")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # PyTorch says of TorchScript that torch.export is newer; C++ still loads TorchScript alone.
        warnings.simplefilter("ignore", DeprecationWarning)
        source = Path(folder) / "network.py"
        write(model, source)
        script = torch.jit.script(load_module(source))
        about = {"minicnn.json": json.dumps(description(model))}
        with atomic_file(path, "wb") as file:
            torch.jit.save(script, file, _extra_files=about)


def runner(path: str | Path) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Return a function that runs a written module or TorchScript by PyTorch."""
    torch = optional("torch", "torch")
    if Path(path).suffix == ".py":
        network = load_module(path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path))

    def run(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        first = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))) for x in images]
        with torch.no_grad():
            found = network(*first)
        found = [found] if isinstance(found, torch.Tensor) else list(found)
        return [np.moveaxis(y.numpy(), 1, -1) if y.ndim == 4 else y.numpy() for y in found]

    return run

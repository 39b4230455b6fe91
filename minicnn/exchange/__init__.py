"""Networks to and from other libraries: ONNX, Keras, PyTorch, TorchScript.

    mc.exchange.export_model(model, "model.onnx")         # also .keras, .weights.h5, .py, .pt
    model = mc.exchange.import_keras("theirs.keras")      # also .h5 of Keras 2
    mc.exchange.import_weights(model, "theirs.weights.h5")

What is written takes the pixels that minicnn takes and gives what ``Model.predict`` gives; it is
run once and compared. A layer of one's own is a row in the table of each format.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import atomic_write
from . import keras_rules, to_onnx, to_torch
from .from_keras import load as import_keras
from .steps import PREDICTIONS, ExchangeError, largest_difference

if TYPE_CHECKING:
    from ..engine.model import Model

#: Formats by the end of a file's name.
FORMATS = {
    ".onnx": "onnx",
    ".keras": "keras",
    ".weights.h5": "keras-weights",
    ".py": "torch",
    ".pt": "torchscript",
}
#: By how much predictions may differ, relative to the largest, until a file is refused.
TOLERANCE, TOLERANCE_OF_BF16 = 1e-3, 3e-2


def format_of(path: str | Path) -> str:
    """Return the format that the end of the file's name ``path`` says; ExchangeError for another
    one.
    """
    found = [kind for end, kind in FORMATS.items() if str(path).endswith(end)]
    if not found:
        ends = ", ".join(f"{end} ({kind})" for end, kind in FORMATS.items())
        raise ExchangeError(f"{path}: the end of a file's name says its format: {ends}")
    return found[0]


def export_model(model: Model, path: str | Path, check: bool = True) -> float | None:
    """Write ``model`` to ``path`` in the format that its name ends in (FORMATS): a .py with a
    .safetensors beside it is a PyTorch module.

    check: before, run what was written by its own library on events and compare the predictions.
    Returns by how much they differ at most, relative to the largest, or None without the check.
    ExchangeError for a layer that the format has no rule for, for predictions that differ, and,
    saying what to install, for a library that is missing; no file is written then.
    """
    kind, path = format_of(path), Path(path)
    write, runner = _functions(kind, model)
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder) / path.name
        write(model, beside)
        difference = largest_difference(model, _run(runner, beside)) if check else None
        exact = model.options.precision == "float32"
        if difference is not None and not difference <= (TOLERANCE if exact else TOLERANCE_OF_BF16):
            raise ExchangeError(
                f"{path}: not written: its predictions differ by {difference:.1e} from the model's"
            )
        for file in sorted(Path(folder).iterdir()):
            if file.is_file():
                atomic_write(path.with_name(file.name), file.read_bytes())
    return difference


def _run(runner: Any, path: Path) -> Any:
    """Return what runs a written file; where its library is missing, the error says that the check
    alone needs it.
    """
    try:
        return runner(path)
    except ExchangeError as problem:
        if isinstance(problem.__cause__, ImportError):
            raise ExchangeError(
                f"{problem}; --no-check, check=False, writes {path.name} without comparing it"
            ) from problem
        raise


def _functions(kind: str, model: Model) -> tuple[Any, Any]:
    """Return (write(model, path), runner(path)) of a format."""
    if kind == "onnx":
        return to_onnx.write, to_onnx.runner
    if kind.startswith("keras"):
        from . import to_keras

        return to_keras.write, to_keras.runner_for(model)
    from . import torch_files

    return (torch_files.write if kind == "torch" else torch_files.write_script), torch_files.runner


def import_weights(model: Model, path: str | Path) -> None:
    """Set the weights of ``model`` from ``path``, a Keras file, or the .safetensors of a PyTorch
    module that was exported from it and trained further there.

    ExchangeError naming the file where something does not fit; the model is then as it was.
    """
    from . import from_keras, torch_files

    if Path(path).suffix == ".safetensors":
        torch_files.read_state(model, path)
    else:
        from_keras.load_weights(model, path)


__all__ = [
    "FORMATS",
    "PREDICTIONS",
    "ExchangeError",
    "export_model",
    "format_of",
    "import_keras",
    "import_weights",
    "keras_rules",
    "to_onnx",
    "to_torch",
]

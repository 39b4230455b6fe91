"""What is in a Keras file: the network as JSON, and arrays by layer. Nothing in it is run, and
Keras is not needed.

Read are .keras (Keras 3, and 2.12 on), .weights.h5, and the .h5 files of Keras 2, whole models or
weights.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.event import EventError
from ..data.readers.hdf5 import dataset, is_hdf5, open_hdf5
from .steps import ExchangeError
from .to_keras import ABOUT

#: Most bytes of JSON, and of arrays, that a file may have.
LARGEST_JSON, LARGEST_WEIGHTS = 1 << 26, 1 << 33
#: Where Keras 3 and the last of Keras 2 keep layers in a weights file.
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


@dataclass(frozen=True)
class Arrays:
    """The arrays of a layer, in Keras' order. name: of the layer, "" where the file does not have
    it. key: what Keras 3 calls the place, counted per class: conv2d, conv2d_1, ...; "" in Keras 2.
    """

    name: str
    key: str
    arrays: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class KerasFile:
    """network: {"class_name", "config"} or None in a file of weights alone. about: what minicnn
    wrote beside it.
    """

    weights: list[Arrays]
    network: dict[str, Any] | None = None
    about: dict[str, Any] | None = None


def read_file(path: str | Path) -> KerasFile:
    """Return what a Keras file holds; ExchangeError naming it where it is none, or damaged."""
    path = Path(path)
    try:
        if path.is_dir():
            raise ValueError("this is a folder (a TensorFlow SavedModel?): save it as .keras there")
        if zipfile.is_zipfile(path):
            return _zipped(path)
        if path.exists() and not is_hdf5(path):
            raise ValueError("it is neither .keras (a zip file) nor .h5 (HDF5)")
        with open_hdf5(path) as file:
            text = file.attrs.get("model_config")
            return KerasFile(_weights(file), None if text is None else _json(text))
    except (
        *(OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError),
        *(zipfile.BadZipFile, EventError, NotImplementedError),
    ) as problem:
        text = str(problem).removeprefix(f"{path}: ")
        raise ExchangeError(f"{path}: no readable Keras file ({text})") from problem


def _zipped(path: Path) -> KerasFile:
    with zipfile.ZipFile(path) as file, tempfile.TemporaryDirectory() as folder:
        network = _json(_member(file, "config.json", LARGEST_JSON))
        written_by_minicnn = ABOUT in file.namelist()
        about = _json(_member(file, ABOUT, LARGEST_JSON)) if written_by_minicnn else None
        beside = Path(folder) / "model.weights.h5"
        beside.write_bytes(_member(file, "model.weights.h5", LARGEST_WEIGHTS))
        with open_hdf5(beside) as arrays:
            return KerasFile(_weights(arrays), network, about)


def _member(file: zipfile.ZipFile, name: str, limit: int) -> bytes:
    if name not in file.namelist():
        raise ValueError(f"there is no {name} in it")
    with file.open(name) as member:
        found = member.read(limit + 1)
    if len(found) > limit:
        raise ValueError(f"{name} has more than {limit:,} bytes")
    return found


def _json(text: str | bytes) -> dict[str, Any]:
    if len(text) > LARGEST_JSON:
        raise ValueError(f"{len(text):,} characters of settings")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("its settings are no JSON object")
    return found


def _weights(file: Any) -> list[Arrays]:
    """Return the arrays of every layer that has some, in the file's order."""
    if "model_weights" in file or "layer_names" in file.attrs or "layer_names0" in file.attrs:
        return _weights_of_keras_2(file["model_weights"] if "model_weights" in file else file)
    container = next((name for name in CONTAINERS if name in file), None)
    if container is None:
        raise ValueError(f"none of {', '.join(CONTAINERS)}, model_weights is in it")
    found = []
    for key in sorted(file[container], key=_counted):
        group = file[container][key].get("vars")
        if group is None or not len(group):
            continue
        arrays = tuple(_array(group, str(i)) for i in range(len(group)))
        name = group.attrs.get("name", "")
        found.append(Arrays(name.decode() if isinstance(name, bytes) else str(name), key, arrays))
    return found


def _weights_of_keras_2(root: Any) -> list[Arrays]:
    found = []
    for name in _names(root, "layer_names"):
        group = root[name]
        arrays = tuple(_array(group, weight) for weight in _names(group, "weight_names"))
        if arrays:
            found.append(Arrays(name, "", arrays))
    return found


def _names(group: Any, attribute: str) -> list[str]:
    """Return a list of names, which Keras 2 splits where HDF5's attributes are too short for it."""
    pieces = [group.attrs[attribute]] if attribute in group.attrs else []
    while not pieces or f"{attribute}{len(pieces)}" in group.attrs:
        if f"{attribute}{len(pieces)}" not in group.attrs:
            raise ValueError(f"{group.name} has no {attribute}")
        pieces.append(group.attrs[f"{attribute}{len(pieces)}"])
    names = [name for piece in pieces for name in piece]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _array(group: Any, name: str) -> np.ndarray:
    found = dataset(group, name)
    if found.dtype.kind not in "fiu":
        raise ValueError(f"{found.name} holds {found.dtype}, no numbers")
    return np.asarray(found[()], np.float32)


def _counted(key: str) -> tuple[str, int]:
    """Return (kind, number) of conv2d, conv2d_1, ..., for sorting."""
    match = re.fullmatch(r"(.+)_(\d+)", key)
    return (match[1], int(match[2])) if match else (key, 0)


def kind_of(key: str) -> str:
    """Return conv2d of conv2d, conv2d_1, ..."""
    return _counted(key)[0]


def keys_of(classes: list[str]) -> list[str]:
    """Return the places that Keras 3 gives layers of these classes: conv2d, conv2d_1, ..."""
    counts: dict[str, int] = {}
    keys = []
    for name in classes:
        snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
        snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
        keys.append(f"{snake}_{counts[snake]}" if snake in counts else snake)
        counts[snake] = counts.get(snake, 0) + 1
    return keys

"""Readers: one file per on-disk format. ``open_events(path)`` finds the one that knows the file.

A reader is looked up in READERS; a new format is a module with a Reader subclass and a line here.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any

from ..event import EventError

#: Module and class of every known format, asked in this order. Loaded when first used: h5py is not
#: imported before.
READERS = (
    ("minicnn_hdf5", "EventFile"),
    ("open_samples", "OpenSamples"),
    ("open_samples_hits", "OpenSamplesHits"),
    ("larcv3", "Larcv3"),
    ("larcv2_root", "Larcv2Root"),
    ("pilarnet", "Pilarnet"),
    ("kevlar", "Kevlar"),
    ("larnd_sim", "LarndSim"),
    ("flow", "Flow"),
    ("wirecell", "WireCell"),
    ("waveforms", "Waveforms"),
    ("numpy_images", "NumpyImages"),
)

__all__ = [
    "READERS",
    "EventFile",
    "EventWriter",
    "Flow",
    "Kevlar",
    "Larcv2Root",
    "Larcv3",
    "LarndSim",
    "NumpyImages",
    "OpenSamples",
    "OpenSamplesHits",
    "Pilarnet",
    "Waveforms",
    "WireCell",
    "find_reader",
    "open_events",
]
_HOME = {**{name: module for module, name in READERS}, "EventWriter": "event_writer"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def open_events(path: str | PathLike[str], **options: Any) -> Any:
    """Open ``path``, a file or folder of events, with the reader that recognises its content.

    ``options`` go to that reader; ``size`` (edge length of the images) is known to all of them.
    Raises EventError where there is no such file, where it is damaged, or where no reader knows it
    or the reader does not know an option.
    """
    reader = find_reader(path)
    known = [name for name in signature(reader).parameters if name != "path"]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise EventError(
            f"{path}: the format {reader.name} has no option {', '.join(unknown)}; it has "
            f"{', '.join(known)}"
        )
    return reader(path, **options)


def find_reader(path: str | PathLike[str]) -> Any:
    """Return the Reader class that recognises the content of a file or folder; EventError where
    none does.
    """
    from .hdf5 import is_hdf5, open_hdf5
    from .reader import naming

    path = Path(path)
    if not path.exists():
        raise EventError(f"{path}: no such file or folder")
    if not path.is_file() and not path.is_dir():  # a pipe would be waited for, for ever
        raise EventError(f"{path}: this is neither a regular file nor a folder")
    if path.is_file() and not path.stat().st_size:
        raise EventError(f"{path}: the file is empty")
    readers = [getattr(import_module(f".{module}", __name__), name) for module, name in READERS]
    problem = None
    for reader in readers:
        try:
            with naming(path):
                if reader.recognizes(path):
                    return reader
        except EventError as its_problem:  # damaged for this one; another may know better
            problem = problem or its_problem
    if problem:
        raise problem
    what, also = (
        "no event images are in this folder"
        if path.is_dir()
        else "the format of this file is not known",
        "",
    )
    if path.is_file() and is_hdf5(path):
        with open_hdf5(path) as file, naming(path):
            names = [str(name) for name in file]
            products = list(file["Data"]) if "Data" in names and "Events" in names else []
        if "pstep" in names:
            raise EventError(
                f"{path}: this file holds the steps of Geant4 particles, which are not event "
                "images; it can check the "
                "simulation, not train a network"
            )
        if products:
            raise EventError(
                f"{path}: this larcv3 file holds {', '.join(map(str, products[:12]))}, and no "
                "images (sparse2d_*, image2d_*, sparse3d_*)"
            )
        also = f"; this HDF5 file has {', '.join(names[:12]) or 'nothing in it'}"
    raise EventError(
        f"{path}: {what}; minicnn reads {'; '.join(reader.name for reader in readers)}{also}"
    )

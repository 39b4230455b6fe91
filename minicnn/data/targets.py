"""What a network learns of an event: its class, numbers, or a class for each lit pixel.

A target has one of three kinds, which its value shows:

    "class"    an integer                                        batches: int64 (N,)
    "vector"   a float, or floats (D,), as many for all events    batches: float32 (N, D)
    "pixels"   integers (n,) of 0 to 255, one per lit pixel in    batches: a list of N uint8 arrays
               the order of image.coords, 255 where not known
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .event import IGNORED, PIXEL_CLASSES, Event, EventError, check_pixel_labels

#: The name of a target, see TARGETS, or a function of an event.
Target: TypeAlias = str | Callable[[Event], Any]
#: Names of targets and their kinds. "momentum" is (1,) in MeV/c, "direction" the unit vector (3,).
TARGETS = {"label": "class", "momentum": "vector", "direction": "vector", "pixel_labels": "pixels"}


def check_target(target: Target) -> None:
    """Raise ValueError unless ``target`` is a name out of TARGETS or a function."""
    if not callable(target) and target not in TARGETS:
        raise ValueError(
            f"target is one of {', '.join(TARGETS)}, or a function of an Event, got {target!r}"
        )


def read_target(event: Event, target: Target, classes: int, origin: str) -> tuple[str, np.ndarray]:
    """Return (kind, value) of an event's target: int64 (), float32 (D,) or uint8 (n,).

    classes: how many there are. origin: file and event, for messages. Raises EventError for an
    event that does not have the target.
    """
    if callable(target):
        try:
            value = np.asarray(target(event))
        except Exception as problem:
            problem.add_note(f"in the target function, called for {origin}")
            raise
        return _kind_of(value, event, origin)
    if target == "label":
        if not 0 <= event.label < classes:
            raise EventError(
                f"{origin} has the label {event.label}, not one of the classes 0 to {classes - 1}: "
                "it cannot be trained on; leave such events out (python -m minicnn convert "
                "--select labelled), or choose another target"
            )
        return "class", np.asarray(event.label, np.int64)
    if target == "pixel_labels":
        if event.pixel_labels is None:
            raise EventError(
                f"{origin} has no pixel labels: Simulator(pixel_truth=True) makes them, event "
                "files of version 2 hold them, and PILArNet's with pixel_labels=True"
            )
        return "pixels", event.pixel_labels
    value = np.atleast_1d(np.asarray(getattr(event, str(target)), np.float32))
    if not np.isfinite(value).all():
        primaries = int((event.particles["parent"] < 0).sum())
        raise EventError(
            f"{origin} has no {target}: it has {primaries} primary particles, one is needed; leave "
            "it out, or choose another target"
        )
    return "vector", value


def _kind_of(value: np.ndarray, event: Event, origin: str) -> tuple[str, np.ndarray]:
    """Return (kind, value) of what a target function gave."""
    if value.dtype.kind in "biu" and value.ndim == 0:
        return "class", value.astype(np.int64)
    if value.dtype.kind in "iu" and value.ndim == 1:
        try:
            return "pixels", check_pixel_labels(value, event.image.nnz)
        except ValueError as problem:
            raise EventError(f"{origin}: the target function's {problem}") from None
    if value.dtype.kind == "f" and value.ndim <= 1:
        if not np.isfinite(value).all():
            raise EventError(f"{origin}: the target function gave {value.tolist()}")
        return "vector", np.atleast_1d(value).astype(np.float32)
    raise EventError(
        f"{origin}: a target function gives an integer, a float, floats (D,), or an integer for "
        f"each lit pixel, got {value.dtype} {value.shape}"
    )


def read_weight(event: Event, weights: Callable[[Event], float], origin: str) -> float:
    """Return the sample weight of an event; EventError where it is not a finite number >= 0."""
    weight = float(weights(event))
    if not 0 <= weight < np.inf:
        raise EventError(f"{origin} got the sample weight {weight}, must be a finite number >= 0")
    return weight


def class_weights(store: Any, comm: Any = None) -> dict[int, float]:
    """Return {class: weight} so that all classes that occur weigh the same in all, and an event, or
    a labelled pixel, weighs 1 on average: events / (classes that occur * events of the class).

    store: an EventStore or NodeStore with class or pixel labels as its target. comm: an mpi4py
    communicator whose ranks hold different events: all call it and get the same weights. Classes
    that do not occur have weight 0.

    >>> weights = class_weights(store)
    >>> loss = mc.SoftmaxCrossEntropy(class_weights=[weights[k] for k in sorted(weights)])
    """
    from ..parallel import agree

    names = PIXEL_CLASSES if store.kind == "pixels" else store.class_names
    counts = np.zeros(max(len(names), 1), np.int64)
    problem = None
    if store.kind == "pixels":
        for i in range(len(store)):
            found = np.bincount(store.pixel_labels(i).ravel(), minlength=IGNORED + 1)[:IGNORED]
            counts = _sum(counts, np.trim_zeros(found, "b"))
    elif store.kind == "class":
        counts = _sum(counts, np.bincount(store.targets[: len(store)]))
    elif store.kind is not None:
        problem = f"class weights are of classes, but the target of this store is {store.target!r}"
    total = counts[:0]
    for part in agree(comm, problem, counts):
        total = _sum(total, part)
    present = total > 0
    weights = np.zeros(len(total))
    weights[present] = total.sum() / (present.sum() * total[present])
    return {k: float(weight) for k, weight in enumerate(weights)}


def _sum(values: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return the sum of two lists of counts, the shorter one continued by zeros."""
    total = np.zeros(max(len(values), len(more)), np.int64)
    total[: len(values)] += values
    total[: len(more)] += more
    return total

"""What a training is: what all ranks must have alike, and what must be the same where it goes on.

``facts`` are JSON-ready values by names that users know; they are compared between ranks at the
start, and with those of a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ..data.dataset import PERMUTATION
from ..files import LIBRARIES
from ..parallel import agree, as_comm, everywhere

#: What may be another where a training goes on. With other epochs the schedule is that of so many;
#: with other ranks the events that the epoch still has are dealt anew, each once.
MAY_CHANGE = ("epochs", "ranks", "threads", "device", "sync")
#: Facts that those change.
_OF_RUN = ("epochs", "initial epoch", "ranks", "sync", "sync choice", "source")
#: Facts that checkpoints of before do not have, and what they stand for.
_BEFORE: dict[str, Any] = {
    "order of events": PERMUTATION,
    "balance": False,
    "keep rest": False,
    "clip": None,
    "average": None,
    "views": False,
    "mirror start": False,
    "mirror x": None,
}
#: Facts that follow from the number of ranks, and from that of epochs.
_OF_RANKS, _OF_EPOCHS = ("steps per epoch", "optimizer"), ("optimizer",)


def facts_of(model: Any, optimizer: Any, **others: Any) -> dict[str, Any]:
    """Return the facts of a training with this model and optimizer."""
    facts = {
        "version": versions(),
        "source": source_digest(),
        "model": model.config(),
        "optimizer": optimizer.config(),
        **others,
    }
    return json.loads(json.dumps(facts, default=str))


@cache
def versions() -> dict[str, str]:
    """Return the versions that numbers may depend on: of minicnn, Python and the libraries."""
    from .. import __version__

    found = {"minicnn": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def source_digest() -> str:
    """Return the digest of minicnn's own source files, as they are on this rank's disk."""
    from .. import kernels

    h = hashlib.blake2b(digest_size=8)
    for folder in (Path(__file__).parents[1], Path(kernels.__file__).parent):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.cu")]):
            h.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return h.hexdigest()


def facts_of_events(source: Any, looks: int = 16) -> dict[str, Any]:
    """Return what tells a file of events from another with the same path on another node: number,
    shape, classes, all labels, and the contents of ``looks`` events, evenly spread.
    """
    digest, events = hashlib.blake2b(digest_size=8), len(source)
    labels = getattr(source, "labels", None)
    if labels is not None:
        digest.update(labels.tobytes())
    for i in sorted({k * (events - 1) // max(looks - 1, 1) for k in range(looks if events else 0)}):
        try:
            image = source.read(i).image
        except ValueError as problem:  # a damaged event, the same on all ranks; loading says so
            digest.update(type(problem).__name__.encode())
        else:
            digest.update(image.coords.tobytes() + image.values.tobytes())
    return {
        "events": events,
        "shape": list(source.image_shape),
        "classes": list(source.class_names),
        "digest": digest.hexdigest(),
    }


def compare_ranks(comm: Any, facts: dict[str, Any]) -> None:
    """Raise ValueError on all ranks where any has other facts than rank 0, naming rank and fact."""
    comm = as_comm(comm)
    text = json.dumps(facts, sort_keys=True)
    digests = comm.allgather(hashlib.blake2b(text.encode(), digest_size=16).digest())
    if len(set(digests)) == 1:  # the rule, so that few bytes are exchanged
        return
    first = comm.bcast(facts)
    found = _changes(first, facts, ("rank 0 has", f"rank {comm.rank}"))
    agree(comm, "ranks differ in " + "; ".join(found) if found else None)


def compare_events(comm: Any, source: Any) -> None:
    """Raise ValueError on all ranks where any of them reads other events than rank 0."""
    if comm:
        facts = everywhere(comm, lambda: facts_of_events(source))
        compare_ranks(comm, {"the event file's": facts})


def differences(saved: dict[str, Any], now: dict[str, Any], same_ranks: bool) -> list[str]:
    """Return what differs of that which may not, as "batch size: 4 in the checkpoint, 2 now"."""
    may = set(_OF_RUN)
    if not same_ranks:
        may |= set(_OF_RANKS)
    if saved.get("epochs") != now.get("epochs"):
        may |= set(_OF_EPOCHS)

    def strict(facts: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in facts.items() if name not in may}

    found = _changes(strict(_BEFORE | saved), strict(_BEFORE | now), ("the checkpoint has", "now"))
    hint = " (balance=False, --no-balance, goes on in the order of before there was balancing)"
    return [
        line + hint * line.startswith('order of events: the checkpoint has "permutation",')
        for line in found
    ]


def _changes(first: Any, second: Any, who: tuple[str, str], name: str = "") -> list[str]:
    """Return a line for each innermost value that differs."""
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            line
            for key in dict.fromkeys([*first, *second])
            for line in _changes(first.get(key), second.get(key), who, f"{name} {key}".strip())
        ]
    if first == second:
        return []
    return [f"{name}: {who[0]} {_short(first)}, {who[1]} {_short(second)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} letters)"

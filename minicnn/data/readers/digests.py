"""Digests of events, of event files and of whatever files events came from: SHA-256, of event files
its first 16 bytes. They find what sums of single chunks do not: data that is whole, and another's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...files import StrPath
from ..event import IGNORED

DIGEST_BYTES = 16


def event_digest(
    coords: np.ndarray,
    values: np.ndarray,
    particles: np.ndarray,
    labels: tuple[int, np.ndarray | None],
    number: Any,
) -> bytes:
    """Return the digest of one event as it lies in a file: int32 (n, 2), float32 (n, C), PARTICLE
    (m,), (its label, labels of pixels uint8 (n,) or None), and run, subrun, event.

    Labels of pixels of which none is known are the same as none.
    """
    label, of_pixels = labels
    none = of_pixels is None or not (of_pixels != IGNORED).any()
    head = [len(coords), len(particles), label, *number, not none]
    total = hashlib.sha256(np.array(head, "<i8").data)
    for array in (coords, values, particles):
        total.update(np.ascontiguousarray(array).view(np.uint8).data)
    if of_pixels is not None and not none:
        total.update(np.ascontiguousarray(of_pixels).data)
    return total.digest()[:DIGEST_BYTES]


class FileDigest:
    """The digest of an event file, event by event: of all that is not in one of its events, and of
    all their digests and labels in order.
    """

    def __init__(self) -> None:
        self._events, self._count = hashlib.sha256(), 0

    def add(self, digests: bytes, labels: Any) -> None:
        """Count events in: uint8 (n, 16) and int32 (n,)."""
        rows = np.zeros(len(labels), [("digest", "u1", DIGEST_BYTES), ("label", "<i8")])
        rows["digest"] = np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES)
        rows["label"] = labels
        self._events.update(rows.tobytes())
        self._count += len(rows)

    def of(self, settings: Mapping[str, Any]) -> str:
        """Return the digest with what holds for all events, as JSON can hold it."""
        everything = {"events": self._count, "digest": self._events.hexdigest(), **settings}
        text = json.dumps(everything, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[: 2 * DIGEST_BYTES]


def digest_of_input(path: StrPath) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits; of a folder, that of the names and
    digests of all files in it and below, in order.
    """
    path = Path(path)
    if path.is_dir():
        total = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            name = file.relative_to(path).as_posix().encode(errors="surrogateescape")
            total.update(name + b"\0" + digest_of_input(file).encode())
        return total.hexdigest()
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

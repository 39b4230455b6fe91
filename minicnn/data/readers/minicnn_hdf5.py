"""minicnn's own event files: zero-suppressed images in HDF5, with checksums on everything.

The layout is in docs/format.md. Files with labels of pixels are of version 2, all others of version
1, which is read for ever. Datasets are chunked, byte-shuffled, gzip'ed at level 1 and carry
fletcher32 sums; the structures between them carry HDF5's own (file format of HDF5 1.10), so a
flipped bit anywhere is an error and never a different event. And each event has a digest, and the
file has one of everything, so that what another program has changed is an error as well; files of
before have none, and are read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..axes import MICROBOONE, PLAIN, Axis, placed
from ..detector import DETECTOR_SIZE
from ..event import PARTICLE, Event
from ..sparse import SparseImage
from .digests import DIGEST_BYTES, FileDigest, event_digest
from .hdf5 import dataset, is_hdf5, open_hdf5
from .placement import pad, shrink, shrink_labels
from .reader import Reader, check_values, naming

FORMAT = "minicnn-events"
#: Version of a file without labels of pixels, and with them.
PLAIN_VERSION, LABELLED_VERSION = 1, 2
#: Dataset of the labels of pixels, uint8 (N,), and what stands for an event that has none.
PIXEL_LABELS = "pixels/label"
#: Dataset of the digests of events, uint8 (n, 16).
DIGESTS = "events/digest"
BUFFER_BYTES = 8 << 20
#: Rows per chunk and filters: chosen by benchmark, see docs/format.md.
PIXEL_CHUNK, EVENT_CHUNK = 16384, 4096
#: An event at most this far behind the last one counts as read in order (one of several ranks skips
#: those of the others).
NEAR = 16
FILTERS = {"shuffle": True, "compression": "gzip", "compression_opts": 1, "fletcher32": True}


def layout(channels: int, labelled: bool = False) -> dict[str, tuple[Any, tuple[int, ...], int]]:
    """Return {dataset name: (dtype, shape of one row, rows per chunk)}."""
    label = {PIXEL_LABELS: ("u1", (), PIXEL_CHUNK)} if labelled else {}
    return {
        "events/offset": ("i8", (), EVENT_CHUNK),
        "events/label": ("i4", (), EVENT_CHUNK),
        "events/id": ("i8", (3,), EVENT_CHUNK),
        DIGESTS: ("u1", (DIGEST_BYTES,), EVENT_CHUNK),
        "pixels/coords": ("i4", (2,), PIXEL_CHUNK),
        "pixels/values": ("f4", (channels,), PIXEL_CHUNK),
        "particles/offset": ("i8", (), EVENT_CHUNK),
        "particles/table": (PARTICLE, (), EVENT_CHUNK),
        **label,
    }


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def wrong_label(label: int, class_names: tuple[str, ...]) -> str:
    """Return what is said of a label that the file cannot have."""
    return (
        f"label {label}, expected -1 (unknown) to {len(class_names) - 1} ({', '.join(class_names)})"
    )


class EventChunk(NamedTuple):
    """Events ``first`` to ``end`` - 1 as they lie in the file; labels: of their pixels, or None."""

    first: int
    end: int
    coords: np.ndarray
    values: np.ndarray
    ids: np.ndarray
    particles: np.ndarray
    labels: np.ndarray | None


WRONG_DIGEST = "the digest differs from the contents"


def settings(file: Any) -> dict[str, Any]:
    """Return what the digest of a file covers besides its events; ``file``: a reader or writer."""
    return {
        "image_shape": list(file.file_shape),
        "class_names": list(file.class_names),
        "background": float(file.background),
        "metadata": file.metadata,
    }


NO_CHUNK = EventChunk(0, 0, *(np.zeros(0),) * 4, None)


class EventFile(Reader):
    """Events of a minicnn event file; only labels and offsets are kept in memory.

    size: images are centred on size x size, larger ones summed in the smallest blocks that fit.
    Further attributes: background, metadata (dict). Raises EventError where the file is not
    what it says.
    """

    name = "minicnn events (HDF5)"
    concurrent = True  # h5py has a lock of its own

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file, naming(path):
            return _text(file.attrs.get("format", "")) == FORMAT

    def __init__(self, path: str | Path, size: int | None = None) -> None:
        self.path = Path(path)
        self._begin(open_hdf5(self.path), self._open, size)

    def _open(self, size: int | None) -> None:
        attributes = self._file.attrs
        if _text(attributes.get("format", "")) != FORMAT:
            raise ValueError(
                f"not a minicnn event file: the root attribute 'format' is not {FORMAT!r}"
            )
        self.version = int(attributes["version"])
        if self.version not in (PLAIN_VERSION, LABELLED_VERSION):
            raise ValueError(
                f"has version {self.version} of the event format, this minicnn reads versions "
                f"{PLAIN_VERSION} and {LABELLED_VERSION}; update minicnn or make the file again"
            )
        self.file_shape = tuple(int(n) for n in attributes["image_shape"])
        self.background = float(attributes["background"])
        self.class_names = tuple(_text(name) for name in attributes["class_names"])
        self.metadata = json.loads(_text(attributes["metadata"]))
        if not isinstance(self.metadata, dict):
            raise ValueError(f"its metadata is no JSON object, but {self.metadata!r:.40}")
        check_values(self.file_shape)
        self.image_shape = self.file_shape
        if size is not None:
            self._set_canvas(self.file_shape[:2], size, self.file_shape[2])
        self.axes, self.unit = self._axes(), str(self.metadata.get("units", ""))
        self._data, self._chunk = {}, NO_CHUNK
        tables = layout(self.file_shape[2], self.has_pixel_labels)
        self.has_digests = DIGESTS in self._file or "digest" in attributes
        if not self.has_digests:
            del tables[DIGESTS]
        for name, (dtype, row, _) in tables.items():
            # Chunks of labels of pixels that were never stored are those of events without any.
            data = self._data[name] = dataset(self._file, name, is_filled=name != PIXEL_LABELS)
            if data.dtype != np.dtype(dtype) or data.shape[1:] != row:
                raise ValueError(
                    f"the dataset {name!r} has rows of {data.dtype} {data.shape[1:]}, "
                    f"expected {np.dtype(dtype)} {row}"
                )
        self.labels = self._data["events/label"][:]
        of_pixels = ["pixels/coords", "pixels/values", *[PIXEL_LABELS] * self.has_pixel_labels]
        self._pixels = self._offsets("events/offset", *of_pixels)
        self._particles = self._offsets("particles/offset", "particles/table")
        whole = self.file_shape[0] * self.file_shape[1]
        if len(self) and (np.diff(self._pixels) > whole).any():
            k = int(np.diff(self._pixels).argmax())
            raise ValueError(f"event {k} has {np.diff(self._pixels)[k]:,} pixels of {whole:,}")
        for name in ("events/id", *[DIGESTS] * self.has_digests):
            if len(self._data[name]) != len(self):
                raise ValueError(f"{len(self)} labels, but {len(self._data[name])} rows of {name}")
        wrong = (self.labels < -1) | (self.labels >= len(self.class_names))
        if wrong.any():
            k = int(wrong.argmax())
            raise ValueError(f"event {k} has {wrong_label(self.labels[k], self.class_names)}")
        self._digests = self._data[DIGESTS][:] if self.has_digests else None
        if self._digests is not None:
            self._check_digest(self._digests)

    def _check_digest(self, digests: np.ndarray) -> None:
        """Raise ValueError where the digest of the file's settings, labels and digests of events
        is not the one that was written.
        """
        digest = FileDigest()
        digest.add(digests.tobytes(), self.labels)
        if _text(self._file.attrs.get("digest", "")) != digest.of(settings(self)):
            raise ValueError(f"{WRONG_DIGEST}: its settings or labels are not those it was made of")

    def _axes(self):
        """Axes as the metadata has them; files of the simulator had none at first."""
        full = self.metadata.get("axes")
        if full is None and self.metadata.get("creator") == "minicnn simulate":
            full = [axis.summed(DETECTOR_SIZE / n) for axis, n in zip(MICROBOONE, self.file_shape)]
        axes = tuple(Axis(*axis) for axis in full or PLAIN)
        return placed(axes, self.file_shape, self._edge, self._size) if self._edge else axes

    def _offsets(self, name, *tables):
        offset = self._data[name][:]
        if len(offset) != len(self) + 1 or offset[0] != 0 or (np.diff(offset) < 0).any():
            raise ValueError(
                f"{name!r} must rise from 0 in {len(self) + 1} steps for {len(self)} labels"
            )
        for table in tables:
            if len(self._data[table]) != offset[-1]:
                raise ValueError(
                    f"{name!r} ends at {offset[-1]}, but {table!r} has {len(self._data[table])} "
                    "rows"
                )
        return offset

    @property
    def pixel_counts(self) -> np.ndarray:
        """Lit pixels of each event in the file, int64 (n,), before they are summed to ``size``."""
        return np.diff(self._pixels)

    @property
    def has_pixel_labels(self) -> bool:
        """Whether events come with the classes of their pixels."""
        return self.version == LABELLED_VERSION

    def _read(self, index: int) -> Event:
        chunk = self._chunk  # read once: another thread may put another chunk there
        if not chunk.first <= index < chunk.end:
            chunk = self._chunk = self._read_chunk(index, self._end_of_chunk(index, chunk))
        pixels, particles = (
            slice(*(offset[index : index + 2] - offset[chunk.first]).tolist())
            for offset in (self._pixels, self._particles)
        )
        coords, values = chunk.coords[pixels].copy(), chunk.values[pixels].copy()
        known = None if chunk.labels is None else chunk.labels[pixels].copy()
        number = chunk.ids[index - chunk.first].tolist()
        image = SparseImage(coords, values, self.file_shape, self.background)
        if self._digests is not None:
            labels = int(self.labels[index]), known
            digest = event_digest(coords, values, chunk.particles[particles], labels, number)
            if digest != self._digests[index].tobytes():
                raise ValueError(f"{WRONG_DIGEST}; copy the file or make it again")
        if self._edge:
            image = pad(image, self._edge, self._edge)
        small = shrink(image, self.image_shape)
        parents = chunk.particles[particles]["parent"]
        if ((parents < -1) | (parents >= len(parents))).any():
            raise ValueError(f"a particle's parent is none of the {len(parents)} particles, nor -1")
        known = None if known is None else shrink_labels(known, image, small)
        table = chunk.particles[particles].copy()
        return Event(small, int(self.labels[index]), tuple(number), table, known)

    def _end_of_chunk(self, index: int, last: EventChunk) -> int:
        """Return the event up to which to read when event ``index`` is wanted: many where the last
        chunk is near, because then the file is read in order, which is faster so.
        """
        if not last.end <= index < last.end + NEAR:
            return index + 1
        end = np.searchsorted(self._pixels, self._pixels[index] + PIXEL_CHUNK, side="right") - 1
        return max(index + 1, int(end))

    def _read_chunk(self, first: int, end: int) -> EventChunk:
        pixels, particles = (
            slice(int(offset[first]), int(offset[end]))
            for offset in (self._pixels, self._particles)
        )
        try:
            return EventChunk(
                first,
                end,
                self._data["pixels/coords"][pixels],
                self._data["pixels/values"][pixels],
                self._data["events/id"][first:end],
                self._data["particles/table"][particles],
                self._data[PIXEL_LABELS][pixels] if self.has_pixel_labels else None,
            )
        except OSError:
            if end == first + 1:
                raise
            # Something in the chunk is damaged: the wanted event may not be, so read it alone.
            return self._read_chunk(first, first + 1)

"""EventWriter: minicnn's own event files, written event by event; docs/format.md has the layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np

from ...files import Partial, named
from ...locks import file_locked
from ..event import CLASSES, IGNORED, PARTICLE, Event
from . import minicnn_hdf5 as event_format
from .digests import FileDigest, event_digest
from .reader import naming


def _write_text(attributes, name, text):
    """Write a text or several: of fixed length, so that it is kept, and checked, with the
    attribute.
    """
    import h5py

    encoded = np.char.encode(np.array(text, dtype=np.str_), "utf-8")
    attributes.create(
        name, encoded, dtype=h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize))
    )


class KeptErrors:
    """A file for HDF5, which loses what fails late: it writes when it likes, some of it where h5py
    cannot report an error, gives the file back as if it were whole, and crashes at the end.

    HDF5 sees every write succeed; ``check`` raises the first OSError that there was.
    """

    def __init__(self, file: RawIOBase, path: Path) -> None:
        self._file, self._path = file, path
        self._problem: OSError | None = None

    def check(self) -> None:
        """Raise the first error of writing, if there was one."""
        if self._problem:
            raise named(self._problem, self._path)

    def write(self, data: Any) -> int:
        """Write all of ``data``."""
        view, start = memoryview(data).cast("B"), self._file.tell()
        done = 0
        try:
            while done < len(view):
                done += self._file.write(view[done:]) or 0
        except OSError as problem:
            self._problem = self._problem or problem
            self._file.seek(start + len(view))
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the length of the file."""
        try:
            self._file.truncate(size)
        except OSError as problem:
            self._problem = self._problem or problem
        return size

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``: with zeros where a write failed."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and (count := self._file.readinto(view[done:])):
            done += count
        view[done:] = bytes(len(view) - done)
        return len(view)

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes."""
        data = bytearray(size)
        self.readinto(data)
        return bytes(data)

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(place, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def flush(self) -> None:
        """There is no buffer."""


class EventWriter:
    """Write a minicnn event file, event by event: ``with EventWriter(path, (3600, 3600, 1)) as w:
    w.append(event)``.

    image_shape (H, W, C), class_names and background hold for all events; metadata is a dict that
    JSON can hold, and can be changed until the file is closed. The first event with pixel labels
    makes the file one of version 2: pixels of events without them have the label IGNORED, also of
    those before it. The file appears under its name only when the ``with`` block ends well; after
    an error, or a kill, it does not. Raises EventError for an event that does not fit, naming file
    and event number; the writer stays usable then. LockedError, naming host and process, where
    another writer has the same file in work; ``alone``: the caller has seen to that.
    """

    def __init__(
        self,
        path: str | Path,
        image_shape: Iterable[int],
        class_names: Iterable[str] = CLASSES,
        background: float = 0.0,
        metadata: Mapping[str, Any] | None = None,
        alone: bool = False,
    ) -> None:
        import h5py

        self.path = Path(path)
        self.image_shape = self.file_shape = tuple(int(n) for n in image_shape)
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(
                f"{path}: an image shape is (height, width, channels), got {tuple(image_shape)}"
            )
        self.class_names, self.background = tuple(class_names), float(np.float32(background))
        if not self.class_names:
            raise ValueError(f"{path}: class_names is empty")
        self.metadata = dict(metadata or {})
        texts = {"format": event_format.FORMAT, "class_names": self.class_names}
        self._layout = event_format.layout(self.image_shape[2])
        self._rows: dict[str, list[Any]] = {name: [] for name in self._layout}
        self._count = self._buffered = 0
        self._ends = {"events/offset": 0, "particles/offset": 0}
        json.dumps(self.metadata)  # what JSON cannot hold is an error here, not at the end
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"{self.path}: there is no folder {self.path.parent}; make it first"
            )
        self._labelled, self._digest, self._lock = False, FileDigest(), ExitStack()
        if not alone:
            self._lock.enter_context(file_locked(self.path))
        try:
            self._partial = Partial(self.path)
        except BaseException:
            self._lock.close()
            raise
        self._disk = KeptErrors(self._partial.file, self.path)
        try:
            # Of version 1.10: checksums on HDF5's own structures too.
            self._file = h5py.File(self._disk, "w", libver=("v110", "v110"))
            self._begin(texts)
        except BaseException:
            self._discard()
            raise

    def _begin(self, texts: Mapping[str, Any]) -> None:
        attributes = self._file.attrs
        for name, text in texts.items():
            _write_text(attributes, name, text)
        attributes["version"] = event_format.PLAIN_VERSION
        attributes["image_shape"] = np.array(self.image_shape, "i8")
        attributes["background"] = np.float32(self.background)
        for name in self._layout:
            self._create(name)
        for name in self._ends:
            self._rows[name].append([0])
        self._disk.check()

    def _create(self, name: str) -> None:
        dtype, row, chunk = event_format.layout(self.image_shape[2], labelled=True)[name]
        self._file.create_dataset(
            name,
            (0, *row),
            dtype,
            maxshape=(None, *row),
            chunks=(chunk, *row),
            fillvalue=IGNORED if name == event_format.PIXEL_LABELS else None,
            **event_format.FILTERS,
        )

    def __len__(self) -> int:
        return self._count

    def append(self, event: Event) -> None:
        """Add one Event; EventError where its shape, background, label or particles do not fit this
        file.
        """
        if not self._file:
            raise ValueError(f"{self.path}: the writer is closed")
        image = event.image
        particles = np.asarray(event.particles, PARTICLE).reshape(-1)
        with naming(f"{self.path}, event {self._count}"):
            if image.shape != self.image_shape:
                raise ValueError(
                    f"the image has shape {image.shape}, this file holds {self.image_shape}"
                )
            if np.float32(image.background) != np.float32(self.background):
                raise ValueError(
                    f"the background is {image.background}, this file has {self.background}"
                )
            if event.label != int(event.label) or not -1 <= event.label < len(self.class_names):
                raise ValueError(event_format.wrong_label(event.label, self.class_names))
            if ((particles["parent"] < -1) | (particles["parent"] >= len(particles))).any():
                raise ValueError(
                    f"a particle's parent is none of the {len(particles)} particles, nor -1"
                )
            event_id = np.array(event.id, "i8").reshape(1, 3)
            image.check()  # arrays can be written to after the image was made
        self._ends["events/offset"] += image.nnz
        self._ends["particles/offset"] += len(particles)
        rows = {
            "events/label": [event.label],
            "events/id": event_id,
            "pixels/coords": image.coords.copy(),
            "pixels/values": image.values.copy(),
            "particles/table": particles.copy(),
            **{name: [end] for name, end in self._ends.items()},
        }
        known = event.pixel_labels
        digest = event_digest(
            image.coords, image.values, particles, (int(event.label), known), event_id[0]
        )
        self._digest.add(digest, [event.label])
        rows[event_format.DIGESTS] = np.frombuffer(digest, np.uint8)[None]
        if known is not None and not self._labelled:
            self._begin_pixel_labels()
        if self._labelled:
            labels = np.full(image.nnz, IGNORED, np.uint8) if known is None else known.copy()
            rows[event_format.PIXEL_LABELS] = labels
        for name, row in rows.items():
            self._rows[name].append(row)
        self._count += 1
        self._buffered += image.nbytes + particles.nbytes + 64
        if self._buffered >= event_format.BUFFER_BYTES:
            self._flush()

    def _begin_pixel_labels(self) -> None:
        """Make the file one of version 2; pixels that are there already are IGNORED."""
        self._flush()
        self._create(event_format.PIXEL_LABELS)
        before = len(self._file["pixels/coords"])
        for start in range(0, before, event_format.BUFFER_BYTES):
            count = min(event_format.BUFFER_BYTES, before - start)
            self._append(event_format.PIXEL_LABELS, np.full(count, IGNORED, np.uint8))
        self._rows[event_format.PIXEL_LABELS] = []
        self._file.attrs["version"] = event_format.LABELLED_VERSION
        self._labelled = True

    def _flush(self) -> None:
        for name, rows in self._rows.items():
            if rows:
                self._append(name, np.concatenate(rows))
                rows.clear()
        self._buffered = 0
        self._disk.check()

    def _append(self, name: str, new: np.ndarray) -> None:
        data = self._file[name]
        data.resize(len(data) + len(new), 0)
        data[len(data) - len(new) :] = new

    def close(self) -> None:
        """Write what is buffered and give the file its name. After an error, of a full disk say,
        the file is removed instead.
        """
        if not self._file:
            return
        try:
            self._flush()
            _write_text(self._file.attrs, "metadata", json.dumps(self.metadata))
            # As a reader will have it: JSON makes lists of tuples, and texts of keys.
            self.metadata = json.loads(json.dumps(self.metadata))
            _write_text(self._file.attrs, "digest", self._digest.of(event_format.settings(self)))
            self._file.close()
            self._disk.check()
            with event_format.EventFile(self._partial.hidden):  # all that was written is there
                self._partial.commit()
            self._lock.close()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove the unfinished file; whatever was at ``path`` before stays as it was."""
        self._rows = {name: [] for name in self._rows}
        try:
            self._file.close()
        finally:
            self._discard()

    def _discard(self) -> None:
        self._partial.discard()
        self._lock.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

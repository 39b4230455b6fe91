"""minicnn's own event files: zero-suppressed images in HDF5, with checksums on everything
(docs/format.md).

Layout, for n events with N lit pixels and M particles in all and C channels:

    attributes of /    format "minicnn-events", version 1, image_shape i8 (3,), class_names, background f4,
                       metadata: a JSON object as a string (creator, options, units ...)
    events/offset      i8 (n + 1,)   pixels of event k are rows offset[k] to offset[k + 1] of pixels/*
    events/label       i4 (n,)       index into class_names, -1 unknown
    events/id          i8 (n, 3)     run, subrun, event
    pixels/coords      i4 (N, 2)     row (wire), column (tick), row-major and unique within an event
    pixels/values      f4 (N, C)     value of every channel there; all other pixels are ``background``
    particles/offset   i8 (n + 1,)   as events/offset, for particles/table
    particles/table    (M,)          compound: pdg i4, parent i4, momentum f4[3], start f4[3], end f4[3]

Datasets are chunked, byte-shuffled, gzip'ed at level 1 and carry fletcher32 sums; the structures
between them carry HDF5's own (file format of HDF5 1.10), so a flipped bit anywhere is an error and
never a different event.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..axes import MICROBOONE, PLAIN, Axis
from ..event import CLASSES, PARTICLE, Event
from ..sparse import SparseImage
from .placement import DETECTOR_SIZE, shrink, shrunk_shape
from .reader import Reader, is_hdf5, naming, open_hdf5

FORMAT, VERSION = "minicnn-events", 1
BUFFER_BYTES = 8 << 20
#: Rows per chunk and filters: chosen by benchmark, see docs/format.md.
PIXEL_CHUNK, EVENT_CHUNK = 16384, 4096
#: An event at most this far behind the last one counts as read in order (one of several ranks skips
#: those of the others).
NEAR = 16
FILTERS = {"shuffle": True, "compression": "gzip", "compression_opts": 1, "fletcher32": True}


def _layout(channels):
    """Dataset name -> (dtype, shape of one row, rows per chunk)."""
    return {
        "events/offset": ("i8", (), EVENT_CHUNK),
        "events/label": ("i4", (), EVENT_CHUNK),
        "events/id": ("i8", (3,), EVENT_CHUNK),
        "pixels/coords": ("i4", (2,), PIXEL_CHUNK),
        "pixels/values": ("f4", (channels,), PIXEL_CHUNK),
        "particles/offset": ("i8", (), EVENT_CHUNK),
        "particles/table": (PARTICLE, (), EVENT_CHUNK),
    }


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _write_text(attributes, name, text):
    """Write a text or several: of fixed length, so that it is kept, and checked, with the
    attribute.
    """
    import h5py

    encoded = np.char.encode(np.array(text, dtype=np.str_), "utf-8")
    attributes.create(
        name, encoded, dtype=h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize))
    )


def _wrong_label(label, class_names):
    return (
        f"label {label}, expected -1 (unknown) to {len(class_names) - 1} ({', '.join(class_names)})"
    )


class Block(NamedTuple):
    """Events ``first`` to ``end`` - 1 as they lie in the file."""

    first: int
    end: int
    coords: np.ndarray = None
    values: np.ndarray = None
    ids: np.ndarray = None
    particles: np.ndarray = None


class EventFile(Reader):
    """Events of a minicnn event file; only labels and offsets are kept in memory.

    size: edge length of the images returned, when smaller than the file's: blocks of pixels are
    summed. Further attributes: background, metadata (dict). Raises EventError where the file is not
    what it says.
    """

    name = "minicnn events (HDF5)"
    concurrent = True  # h5py has a lock of its own

    @staticmethod
    def recognizes(path):
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file, naming(path):
            return _text(file.attrs.get("format", "")) == FORMAT

    def __init__(self, path, size=None):
        self.path = Path(path)
        self._file = open_hdf5(self.path)
        try:
            with naming(self.path):
                self._open(size)
        except BaseException:
            self.close()
            raise

    def _open(self, size):
        attributes = self._file.attrs
        if _text(attributes.get("format", "")) != FORMAT:
            raise ValueError(
                f"not a minicnn event file: the root attribute 'format' is not {FORMAT!r}"
            )
        if attributes["version"] != VERSION:
            raise ValueError(
                f"has version {attributes['version']} of the event format, this minicnn reads version "
                f"{VERSION}; update minicnn or make the file again"
            )
        self.file_shape = tuple(int(n) for n in attributes["image_shape"])
        self.background = float(attributes["background"])
        self.class_names = tuple(_text(name) for name in attributes["class_names"])
        self.metadata = json.loads(_text(attributes["metadata"]))
        self.image_shape = shrunk_shape(self.file_shape, size)
        self.axes, self.unit = self._axes(), str(self.metadata.get("units", ""))
        self._data, self._block = {}, Block(0, 0)
        for name, (dtype, row, _) in _layout(self.file_shape[2]).items():
            if name not in self._file:
                raise ValueError(f"the dataset {name!r} is missing")
            data = self._data[name] = self._file[name]
            if data.dtype != np.dtype(dtype) or data.shape[1:] != row:
                raise ValueError(
                    f"the dataset {name!r} has rows of {data.dtype} {data.shape[1:]}, "
                    f"expected {np.dtype(dtype)} {row}"
                )
        self.labels = self._data["events/label"][:]
        self._pixels = self._offsets("events/offset", "pixels/coords", "pixels/values")
        self._particles = self._offsets("particles/offset", "particles/table")
        if len(self._data["events/id"]) != len(self):
            raise ValueError(f"{len(self)} labels, but {len(self._data['events/id'])} ids")
        wrong = (self.labels < -1) | (self.labels >= len(self.class_names))
        if wrong.any():
            k = int(wrong.argmax())
            raise ValueError(f"event {k} has {_wrong_label(self.labels[k], self.class_names)}")

    def _axes(self):
        """Axes as the metadata has them; files of the simulator had none at first."""
        full = self.metadata.get("axes")
        if full is None and self.metadata.get("creator") == "minicnn simulate":
            full = [axis.summed(DETECTOR_SIZE / n) for axis, n in zip(MICROBOONE, self.file_shape)]
        return tuple(
            Axis(*axis).summed(n / m)
            for axis, n, m in zip(full or PLAIN, self.file_shape, self.image_shape)
        )

    def _offsets(self, name, *tables):
        offset = self._data[name][:]
        if len(offset) != len(self) + 1 or offset[0] != 0 or (np.diff(offset) < 0).any():
            raise ValueError(
                f"{name!r} must rise from 0 in {len(self) + 1} steps for {len(self)} labels"
            )
        for table in tables:
            if len(self._data[table]) != offset[-1]:
                raise ValueError(
                    f"{name!r} ends at {offset[-1]}, but {table!r} has {len(self._data[table])} rows"
                )
        return offset

    def _read(self, i):
        if not self._file:
            raise ValueError("the file is closed")
        block = self._block  # read once: another thread may put another block there
        if not block.first <= i < block.end:
            block = self._block = self._read_block(i, self._end_of_block(i, block))
        pixels, particles = (
            slice(*(offset[i : i + 2] - offset[block.first]).tolist())
            for offset in (self._pixels, self._particles)
        )
        image = SparseImage(
            block.coords[pixels].copy(),
            block.values[pixels].copy(),
            self.file_shape,
            self.background,
        )
        return Event(
            shrink(image, self.image_shape),
            int(self.labels[i]),
            tuple(block.ids[i - block.first].tolist()),
            block.particles[particles].copy(),
        )

    def _end_of_block(self, i, last):
        """Event up to which to read when event ``i`` is wanted: many, a file read in order being
        faster so, if the last block is near.
        """
        if not last.end <= i < last.end + NEAR:
            return i + 1
        return max(
            i + 1,
            int(np.searchsorted(self._pixels, self._pixels[i] + PIXEL_CHUNK, side="right")) - 1,
        )

    def _read_block(self, first, end):
        try:
            rows = {
                name: slice(int(offset[first]), int(offset[end]))
                for name, offset in (("pixels", self._pixels), ("particles", self._particles))
            }
            return Block(
                first,
                end,
                self._data["pixels/coords"][rows["pixels"]],
                self._data["pixels/values"][rows["pixels"]],
                self._data["events/id"][first:end],
                self._data["particles/table"][rows["particles"]],
            )
        except OSError:
            if end == first + 1:
                raise
            return self._read_block(
                first, first + 1
            )  # damage is to be laid to the event that has it

    def close(self):
        self._file.close()


class EventWriter:
    """Write a minicnn event file, event by event: ``with EventWriter(path, (3600, 3600, 1)) as w:
    w.append(event)``.

    image_shape (H, W, C), class_names and background hold for all events; metadata is a dict that
    JSON can hold, and can be changed until the file is closed. The file appears under its name only
    when the ``with`` block ends well; after an error, or a kill, it does not. Raises EventError for
    an event that does not fit, naming file and event number; the writer stays usable then.
    """

    def __init__(self, path, image_shape, class_names=CLASSES, background=0.0, metadata=None):
        import h5py

        self.path = Path(path)
        self.image_shape = tuple(int(n) for n in image_shape)
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(
                f"{path}: an image shape is (height, width, channels), got {tuple(image_shape)}"
            )
        self.class_names, self.background = tuple(class_names), float(np.float32(background))
        if not self.class_names:
            raise ValueError(f"{path}: class_names is empty")
        self.metadata = dict(metadata or {})
        texts = {"format": FORMAT, "class_names": self.class_names}
        self._layout = _layout(self.image_shape[2])
        self._rows = {name: [] for name in self._layout}
        self._count = self._buffered = 0
        self._ends = {"events/offset": 0, "particles/offset": 0}
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"{self.path}: there is no folder {self.path.parent}; make it first"
            )
        self._file = h5py.File(
            self._partial, "w", libver=("v110", "v110")
        )  # checksums on its own structures too
        attributes = self._file.attrs
        for name, text in texts.items():
            _write_text(attributes, name, text)
        json.dumps(self.metadata)  # what JSON cannot hold is an error here, not at the end
        attributes["version"] = VERSION
        attributes["image_shape"] = np.array(self.image_shape, "i8")
        attributes["background"] = np.float32(background)
        for name, (dtype, row, chunk) in self._layout.items():
            self._file.create_dataset(
                name, (0, *row), dtype, maxshape=(None, *row), chunks=(chunk, *row), **FILTERS
            )
        for name in self._ends:
            self._rows[name].append([0])

    def __len__(self):
        return self._count

    def append(self, event):
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
                raise ValueError(_wrong_label(event.label, self.class_names))
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
        for name, row in rows.items():
            self._rows[name].append(row)
        self._count += 1
        self._buffered += image.nbytes + particles.nbytes + 64
        if self._buffered >= BUFFER_BYTES:
            self._flush()

    def _flush(self):
        for name, rows in self._rows.items():
            if rows:
                data, new = self._file[name], np.concatenate(rows)
                data.resize(len(data) + len(new), 0)
                data[len(data) - len(new) :] = new
                rows.clear()
        self._buffered = 0

    def close(self):
        """Write what is buffered and give the file its name. After an error the file is removed
        instead.
        """
        if not self._file:
            return
        try:
            self._flush()
            _write_text(self._file.attrs, "metadata", json.dumps(self.metadata))
            self._file.close()
            with open(self._partial, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(self._partial, self.path)
        except BaseException:
            self.abort()
            raise

    def abort(self):
        """Remove the unfinished file; whatever was at ``path`` before stays as it was."""
        self._rows = {name: [] for name in self._layout}
        try:
            self._file.close()
        finally:
            self._partial.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:
            self.abort()

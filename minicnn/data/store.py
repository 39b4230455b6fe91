"""EventStore: a rank's events, each compressed with blosc and kept in a dictionary in memory,
decompressed batch by batch.
"""

import math
import threading
import time
import zlib
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from ..inspect import trace
from .ahead import ahead
from .event import EventError
from .sparse import SparseImage

FORMS = ("sparse", "dense")
CODECS = ("zstd", "lz4", "lz4hc", "blosclz", "zlib", "none")


@dataclass(frozen=True, slots=True)
class Packed:
    """One compressed event: ``digest`` is the CRC-32 of ``data``, because blosc itself notices few
    bit flips.
    """

    data: bytes
    digest: int
    pixels: int
    background: float
    source: str
    number: int

    @property
    def origin(self):
        """File and event, for messages."""
        return f"{self.source}: event {self.number}"


class EventStore:
    """Compressed events in memory, as the talk's data store.

    codec: "zstd", "lz4", "lz4hc", "blosclz", "zlib" or "none"; level 1 to 9. form: "sparse" keeps
    the lit pixels (the distance of each from the one before it, and the values) and gives
    SparseImage back; "dense" keeps whole images, as in the talk, and gives float32 arrays (H, W, C)
    back. Both are bit-exact. ``benchmarks/store.py`` compares them.
    """

    def __init__(self, codec="zstd", level=1, form="sparse"):
        if codec not in CODECS or not 1 <= level <= 9:
            raise ValueError(
                f"codec must be one of {', '.join(CODECS)} with a level of 1 to 9, got {codec!r}, {level}"
            )
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self.codec, self.level, self.form = codec, level, form
        self.events, self.labels = {}, np.zeros(0, np.int64)
        self.numbers = np.zeros(0, np.int64)  # of each event in its file
        self.image_shape, self.class_names = None, ()
        self.seconds, self.dense_bytes = 0.0, 0

    def __len__(self):
        return len(self.events)

    def load(self, source, indices=None, progress=None, threads=1):
        """Read the given events of a reader (default: all), compress and keep them; returns the
        store.

        ``threads`` compress, and read as well if the source says that it can be read by several at
        once (``concurrent``); the store is the same for any number. It pays for the simulator, not
        for event files (docs/store.md). ``progress(done, total)`` is called after each event.
        Raises EventError for an event without a label or of another shape; the store is then as it
        was before.
        """
        start = time.perf_counter()
        indices = np.arange(len(source)) if indices is None else np.asarray(indices)
        if self.image_shape not in (None, tuple(source.image_shape)):
            raise EventError(
                f"{_origin(source)}: images of {source.image_shape} cannot join a store of {self.image_shape}"
            )
        self.image_shape, self.class_names = tuple(source.image_shape), tuple(source.class_names)
        first, labels, packed = len(self.events), np.empty(len(indices), np.int64), {}
        order = np.argsort(indices, kind="stable")  # the file is read front to back
        reading = nullcontext() if getattr(source, "concurrent", False) else threading.Lock()

        def one(place):
            with reading:
                event = source.read(int(indices[place]))
            return event.label, self._pack(event, _origin(source), int(indices[place]))

        for done, (place, (label, event)) in enumerate(zip(order, ahead(one, order, threads)), 1):
            labels[place], packed[first + int(place)] = label, event
            if progress:
                progress(done, len(indices))
        self.events.update(packed)
        self.labels, self.numbers = (
            np.concatenate([self.labels, labels]),
            np.concatenate([self.numbers, indices]),
        )
        self.dense_bytes += 4 * math.prod(self.image_shape) * len(indices)
        self.seconds += time.perf_counter() - start
        return self

    def _pack(self, event, source, number):
        image, origin = event.image, f"{source}: event {number}"
        if not 0 <= event.label < len(self.class_names):
            raise EventError(
                f"{origin} has the label {event.label}, not one of the classes 0 to {len(self.class_names) - 1}: "
                "it cannot be trained on"
            )
        if tuple(image.shape) != self.image_shape:
            raise EventError(
                f"{origin} has the shape {tuple(image.shape)}, its file says {self.image_shape}"
            )
        if self.form == "dense":
            raw = image.to_dense().tobytes()
        else:  # distances are small numbers: they compress to a seventh of the coordinates
            flat = image.coords[:, 0].astype(np.int64) * self.image_shape[1] + image.coords[:, 1]
            raw = (
                np.diff(flat, prepend=0).astype(self._distance()).tobytes() + image.values.tobytes()
            )
        if self.codec != "none":
            blosc = _blosc()
            raw = blosc.compress(
                raw, typesize=4, clevel=self.level, shuffle=blosc.SHUFFLE, cname=self.codec
            )
        return Packed(raw, zlib.crc32(raw), image.nnz, image.background, source, number)

    def _distance(self):
        """The type of the distance between two pixels of an image, counted row by row."""
        return np.dtype(
            np.int32 if self.image_shape[0] * self.image_shape[1] < 1 << 31 else np.int64
        )

    def image(self, i):
        """Return event i decompressed: a SparseImage, or a float32 array (H, W, C) in the dense
        form.

        Raises EventError naming the event where its bytes in memory have changed since it was
        loaded.
        """
        packed = self.events[int(i)]
        if zlib.crc32(packed.data) != packed.digest:
            raise EventError(
                f"{packed.origin}: its compressed copy in memory is damaged (digest differs); load the store again and "
                "suspect this machine's memory"
            )
        with trace.span("decompress"):
            return self._unpack(packed)

    def _unpack(self, packed):
        raw = (
            bytearray(packed.data)
            if self.codec == "none"
            else _blosc().decompress(packed.data, as_bytearray=True)
        )
        if self.form == "dense":
            return np.frombuffer(raw, np.float32).reshape(self.image_shape)
        distance = self._distance()
        flat = np.cumsum(np.frombuffer(raw, distance, packed.pixels), dtype=distance)
        coords = np.empty((packed.pixels, 2), np.int32)
        np.divmod(flat, self.image_shape[1], out=(coords[:, 0], coords[:, 1]), casting="same_kind")
        values = np.frombuffer(raw, np.float32, offset=distance.itemsize * packed.pixels)
        return SparseImage(coords, values, self.image_shape, packed.background)

    def batch(self, indices):
        """Return (list of images, labels) of the given events."""
        return [self.image(i) for i in indices], self.labels[np.asarray(indices, np.int64)]

    @property
    def nbytes(self):
        """Bytes of the compressed events."""
        return sum(len(p.data) for p in self.events.values())

    def stats(self):
        """Return {"events", "seconds", "dense_bytes", "bytes"}: sums, so that ranks can add them
        up.
        """
        return {
            "events": len(self),
            "seconds": self.seconds,
            "dense_bytes": self.dense_bytes,
            "bytes": self.nbytes,
        }


def _origin(source):
    return str(getattr(source, "path", type(source).__name__))


def _blosc():
    """Import blosc on first use; it releases the GIL so that the prefetching thread overlaps the
    engine.
    """
    import blosc

    blosc.set_releasegil(True)
    blosc.set_nthreads(1)
    return blosc

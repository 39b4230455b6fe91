"""EventStore: a rank's events, each compressed with blosc and kept in a dictionary in memory, decompressed batch by batch."""
import math
import time
import zlib
from dataclasses import dataclass

import numpy as np

from .. import trace
from .event import EventError
from .sparse import SparseImage

FORMS = ("sparse", "dense")
CODECS = ("zstd", "lz4", "lz4hc", "blosclz", "zlib")


@dataclass(frozen=True)
class Packed:
    """One compressed event: ``digest`` is the CRC-32 of ``data``, because blosc itself notices few bit flips."""

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

    codec: "zstd", "lz4", "lz4hc", "blosclz" or "zlib"; level 1 to 9. form: "sparse" keeps the lit pixels (coordinates and values) and
    gives SparseImage back; "dense" keeps whole images, as in the talk, and gives float32 arrays (H, W, C) back. Both are bit-exact.
    """

    def __init__(self, codec="zstd", level=5, form="sparse"):
        if codec not in CODECS or not 1 <= level <= 9:
            raise ValueError(f"codec must be one of {', '.join(CODECS)} with a level of 1 to 9, got {codec!r}, {level}")
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self.codec, self.level, self.form = codec, level, form
        self.events, self.labels = {}, np.zeros(0, np.int64)
        self.numbers = np.zeros(0, np.int64)           # of each event in its file
        self.image_shape, self.class_names = None, ()
        self.seconds, self.dense_bytes = 0.0, 0

    def __len__(self):
        return len(self.events)

    def load(self, source, indices=None, progress=None):
        """Read the given events of a reader (default: all) one at a time, compress and keep them; returns the store.

        ``progress(done, total)`` is called after each event. Raises EventError for an event without a label or of another shape.
        """
        start = time.perf_counter()
        indices = np.arange(len(source)) if indices is None else np.asarray(indices)
        if self.image_shape not in (None, tuple(source.image_shape)):
            raise EventError(f"{_origin(source)}: images of {source.image_shape} cannot join a store of {self.image_shape}")
        self.image_shape, self.class_names = tuple(source.image_shape), tuple(source.class_names)
        first, labels = len(self.events), np.empty(len(indices), np.int64)
        for done, place in enumerate(np.argsort(indices, kind="stable"), 1):       # the file is read front to back
            number = int(indices[place])
            event = source.read(number)
            if not 0 <= event.label < len(self.class_names):
                raise EventError(f"{_origin(source)}: event {number} has the label {event.label}, not one of the classes 0 to "
                                 f"{len(self.class_names) - 1}: it cannot be trained on")
            labels[place] = event.label
            self.events[first + int(place)] = self._pack(event.image, _origin(source), number)
            self.dense_bytes += 4 * math.prod(self.image_shape)
            if progress:
                progress(done, len(indices))
        self.labels, self.numbers = np.concatenate([self.labels, labels]), np.concatenate([self.numbers, indices])
        self.seconds += time.perf_counter() - start
        return self

    def _pack(self, image, source, number):
        if tuple(image.shape) != self.image_shape:
            raise EventError(f"{source}: event {number} has the shape {tuple(image.shape)}, its file says {self.image_shape}")
        blosc = _blosc()
        raw = image.to_dense().tobytes() if self.form == "dense" else image.coords.tobytes() + image.values.tobytes()
        data = blosc.compress(raw, typesize=4, clevel=self.level, shuffle=blosc.SHUFFLE, cname=self.codec)
        return Packed(data, zlib.crc32(data), image.nnz, image.background, source, number)

    def image(self, i):
        """Return event i decompressed: a SparseImage, or a float32 array (H, W, C) in the dense form.

        Raises EventError naming the event where its bytes in memory have changed since it was loaded.
        """
        packed = self.events[int(i)]
        if zlib.crc32(packed.data) != packed.digest:
            raise EventError(f"{packed.origin}: its compressed copy in memory is damaged (digest differs); load the store again and "
                             "suspect this machine's memory")
        with trace.span("decompress"):
            raw = _blosc().decompress(packed.data, as_bytearray=True)
        if self.form == "dense":
            return np.frombuffer(raw, np.float32).reshape(self.image_shape)
        at = 8 * packed.pixels
        return SparseImage(np.frombuffer(raw, np.int32, 2 * packed.pixels).reshape(-1, 2), np.frombuffer(raw, np.float32, offset=at),
                           self.image_shape, packed.background)

    def batch(self, indices):
        """Return (list of images, labels) of the given events."""
        return [self.image(i) for i in indices], self.labels[np.asarray(indices, np.int64)]

    @property
    def nbytes(self):
        """Bytes of the compressed events."""
        return sum(len(p.data) for p in self.events.values())

    def stats(self):
        """Return {"events", "seconds", "dense_bytes", "bytes"}: sums, so that ranks can add them up."""
        return {"events": len(self), "seconds": self.seconds, "dense_bytes": self.dense_bytes, "bytes": self.nbytes}


def _origin(source):
    return str(getattr(source, "path", type(source).__name__))


def _blosc():
    """Import blosc on first use; it releases the GIL so that the prefetching thread overlaps the engine."""
    import blosc
    blosc.set_releasegil(True)
    blosc.set_nthreads(1)
    return blosc

"""EventStore: a rank's events, each compressed with blosc and kept in a dictionary in memory,
decompressed batch by batch.
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..inspect import trace
from ..kernels.types import Shape
from .balance import SCALES, lit_cells, relative_costs
from .event import IGNORED, Event, EventError
from .memory import check_memory
from .prefetch import ordered_map
from .sparse import SparseImage
from .targets import TARGETS, Target, check_target, read_target, read_weight

FORMS = ("sparse", "dense")
CODECS = ("zstd", "lz4", "lz4hc", "blosclz", "zlib", "none")


@dataclass(frozen=True, slots=True)
class CompressedEvent:
    """One compressed event: ``digest`` is the CRC-32 of ``data``, because blosc itself notices few
    bit flips. pixels: how many are lit. source, number: the file, and the event's number in it.
    """

    data: Any
    digest: int
    pixels: int
    background: float
    source: str
    number: int

    @property
    def origin(self) -> str:
        """File and event, for messages."""
        return f"{self.source}: event {self.number}"


class EventStore:
    """Compressed events in memory, as the talk's data store.

    codec: "zstd", "lz4", "lz4hc", "blosclz", "zlib" or "none"; level 1 to 9. form: "sparse" keeps
    the lit pixels (the distance of each from the one before it, and the values) and gives
    SparseImage back; "dense" keeps whole images, as in the talk, and gives float32 arrays (H, W, C)
    back. Both are bit-exact. ``benchmarks/store.py`` compares them.

    target: what is learned, "label" (the class), "momentum" (MeV/c of the primary), "direction",
    "pixel_labels", or a function of the Event, called once when it is loaded; see data.targets for
    the kinds. Labels of pixels are compressed with them; the dense form gives them back as (H, W),
    255 where nothing is lit. weights: a function of the Event that gives its sample weight, or
    None.

    labels int64 (n,): the classes, -1 where unknown, whatever the target is. targets: int64 (n,) or
    float32 (n, D), None for labels of pixels. file_indices int64 (n,): each event's number in its
    file. cells int32 (n, 4): lit cells of each, see balance.lit_cells. kind: "class", "vector",
    "pixels", or None where the first event will decide.
    """

    def __init__(
        self,
        codec: str = "zstd",
        level: int = 1,
        form: str = "sparse",
        target: Target = "label",
        weights: Callable[[Event], float] | None = None,
    ) -> None:
        if codec not in CODECS or not 1 <= level <= 9:
            raise ValueError(
                f"codec must be one of {', '.join(CODECS)} with a level of 1 to 9, got {codec!r}, "
                f"{level}"
            )
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        check_target(target)
        self.codec, self.level, self.form = codec, level, form
        self.target, self.weight_of = target, weights
        self.kind: str | None = None if callable(target) else TARGETS[target]
        self.events: Any = {}
        self.labels = np.zeros(0, np.int64)
        self.targets: np.ndarray | None = no_targets(self.kind)
        self.weights = None if weights is None else np.zeros(0, np.float32)
        self.file_indices = np.zeros(0, np.int64)
        self.cells = np.zeros((0, SCALES), np.int32)
        self.image_shape: Shape | None = None
        self.class_names: tuple[str, ...] = ()
        self.seconds, self.dense_bytes = 0.0, 0

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        shape = "" if self.image_shape is None else f" of {' x '.join(map(str, self.image_shape))}"
        packed = f"{self.nbytes / 1e6:.1f} MB as {self.codec} {self.level} ({self.form})"
        weighted = "" if self.weights is None else ", weighted"
        name = getattr(self.target, "__name__", self.target)
        kind = type(self).__name__
        return f"{kind}({len(self):,} events{shape}, {packed}, target {name}{weighted})"

    def _repr_html_(self) -> str:
        from ..inspect.report.notebook import store_html

        return store_html(self)

    @property
    def costs(self) -> np.ndarray:
        """What each of this rank's events costs, 1 in the mean, for steps of equal work: float64
        (n,), see balance.relative_costs.
        """
        return relative_costs(self.cells)

    @property
    def numbers(self) -> np.ndarray:
        """The former name of ``file_indices``."""
        return self.file_indices

    def load(
        self,
        source: Any,
        indices: Any = None,
        progress: Callable[[int, int], Any] | None = None,
        threads: int = 1,
        bad: Callable[[int, EventError], Any] | None = None,
    ) -> EventStore:
        """Read the events ``indices`` of a reader (default: all), compress and keep them; returns
        the store.

        ``threads`` compress, and read as well if the source says that it can be read by several at
        once (``concurrent``); the store is the same for any number. It pays for the simulator, not
        for event files (docs/store.md). ``progress(done, total)`` is called after each event.
        Raises EventError for an event that cannot be read, without the target or of another shape,
        and where the events will not fit into memory (``check_memory``); the store is then as it
        was before. ``bad(number, problem)`` is called instead of raising the error of an event,
        which is left out unless ``bad`` raises one itself.
        """
        start = time.perf_counter()
        indices = np.arange(len(source)) if indices is None else np.asarray(indices)
        shape = tuple(source.image_shape)
        if self.image_shape not in (None, shape):
            raise EventError(
                f"{_origin(source)}: images of {source.image_shape} cannot join a store of "
                f"{self.image_shape}"
            )
        before = self.image_shape, self.class_names
        self.image_shape, self.class_names = shape, tuple(source.class_names)
        try:
            found = self._read_all(source, indices, (progress, bad), threads)
            indices = indices[[entry is not None for entry in found]]
            read = [entry for entry in found if entry is not None]
            kind, targets = self._joined([value for _, value, *_ in read], source, indices)
        except BaseException:
            self.image_shape, self.class_names = before
            raise
        first = len(self.events)
        self.events.update({first + i: packed for i, (packed, *_) in enumerate(read)})
        self.kind, self.targets = kind, targets
        labels = np.array([label for _, _, label, *_ in read], np.int64)
        self.labels = np.concatenate([self.labels, labels])
        cells = np.array([cells for *_, cells in read], np.int32).reshape(-1, SCALES)
        self.cells = np.concatenate([self.cells, cells])
        if self.weights is not None:
            weights = np.array([weight for *_, weight, _ in read], np.float32)
            self.weights = np.concatenate([self.weights, weights])
        self.file_indices = np.concatenate([self.file_indices, indices.astype(np.int64)])
        self.dense_bytes += 4 * math.prod(shape) * len(indices)
        self.seconds += time.perf_counter() - start
        return self

    def _read_all(self, source: Any, indices: np.ndarray, calls: Any, threads: int) -> list[Any]:
        """Return [(CompressedEvent, (kind, target), label, weight, lit cells)] of the given events,
        None for those left out; ``calls``: (progress, bad) of ``load``.
        """
        progress, bad = calls
        order = np.argsort(indices, kind="stable")  # the file is read front to back
        concurrent = getattr(source, "concurrent", False)
        reading: AbstractContextManager[Any] = nullcontext() if concurrent else threading.Lock()
        origin = _origin(source)

        def read(position: int) -> Any:
            number = int(indices[position])
            try:
                with reading:
                    event = source.read(number)
                return self._entry(event, origin, number)
            except EventError as problem:
                if bad is None:
                    raise
                return problem

        found: list[Any] = [None] * len(indices)
        taken = 0
        for done, (position, entry) in enumerate(zip(order, ordered_map(read, order, threads)), 1):
            if isinstance(entry, EventError):
                bad(int(indices[position]), entry)
            else:
                found[position] = entry
                taken += len(entry[0].data)
            check_memory(taken, done, len(indices), origin)
            if progress:
                progress(done, len(indices))
        return found

    def _entry(self, event: Event, source: str, number: int) -> Any:
        """Return (CompressedEvent, (kind, target), label, weight, lit cells) of one event."""
        image, origin = event.image, f"{source}: event {number}"
        assert self.image_shape is not None
        kind, value = read_target(event, self.target, len(self.class_names), origin)
        if tuple(image.shape) != self.image_shape:
            raise EventError(
                f"{origin} has the shape {tuple(image.shape)}, its file says {self.image_shape}"
            )
        weight = read_weight(event, self.weight_of, origin) if self.weight_of else 1.0
        raw = self._raw(image, value if kind == "pixels" else None)
        if self.codec != "none":
            blosc = _blosc()
            raw = blosc.compress(
                raw, typesize=4, clevel=self.level, shuffle=blosc.SHUFFLE, cname=self.codec
            )
        packed = CompressedEvent(raw, zlib.crc32(raw), image.nnz, image.background, source, number)
        target = kind, None if kind == "pixels" else value
        return packed, target, int(event.label), weight, lit_cells(image)

    def _raw(self, image: SparseImage, labels: np.ndarray | None) -> bytes:
        """Return an image, and the labels of its pixels if there are any, as bytes."""
        if self.form == "dense":
            raw = image.to_dense().tobytes()
            if labels is not None:
                dense = np.full(image.shape[:2], IGNORED, np.uint8)
                dense[image.coords[:, 0], image.coords[:, 1]] = labels
                raw += dense.tobytes()
            return raw
        # Distances are small numbers: they compress to a seventh of the coordinates.
        flat = image.coords[:, 0].astype(np.int64) * image.shape[1] + image.coords[:, 1]
        raw = np.diff(flat, prepend=0).astype(self._distance()).tobytes() + image.values.tobytes()
        return raw if labels is None else raw + labels.tobytes()

    def _joined(
        self, new: list[tuple[str, Any]], source: Any, indices: np.ndarray
    ) -> tuple[str | None, np.ndarray | None]:
        """Return (kind, all targets) with those of new events; EventError where they differ in
        kind or length.
        """
        kind, earlier = self.kind, self.targets
        width = earlier.shape[1] if kind == "vector" and earlier is not None and len(self) else None
        for (its_kind, value), number in zip(new, indices):
            kind = kind or its_kind
            if kind == its_kind == "vector" and width is None:
                width = len(value)
            if its_kind != kind or (kind == "vector" and len(value) != width):
                got = f"{its_kind} of {len(value)}" if its_kind == "vector" else its_kind
                raise EventError(
                    f"{_origin(source)}: event {number} has a target of the kind {got}, those "
                    f"before it are {kind}" + (f" of {width}" if width else "")
                )
        if kind in (None, "pixels") or not new:
            return kind, earlier
        if kind == "class":
            added = np.array([value for _, value in new], np.int64)
        else:
            added = np.stack([value for _, value in new]).astype(np.float32)
        return kind, added if earlier is None or not len(self) else np.concatenate([earlier, added])

    def _distance(self) -> np.dtype:
        """The type of the distance between two pixels of an image, counted row by row."""
        assert self.image_shape is not None
        pixels = self.image_shape[0] * self.image_shape[1]
        return np.dtype(np.int32 if pixels < 1 << 31 else np.int64)

    def image(self, index: int) -> SparseImage | np.ndarray:
        """Return event ``index`` decompressed: a SparseImage, or a float32 array (H, W, C) in the
        dense form.

        Raises EventError naming the event where its bytes in memory have changed since it was
        loaded.
        """
        return self._decompressed(index)[0]

    def pixel_labels(self, index: int) -> np.ndarray:
        """Return the labels of the pixels of event ``index``: uint8 (n,), or (H, W) in the dense
        form. ValueError where the target is another one.
        """
        if self.kind != "pixels":
            raise ValueError(
                f"this store has the target {self.target!r}: EventStore(target='pixel_labels') "
                "keeps labels of pixels"
            )
        labels = self._decompressed(index)[1]
        assert labels is not None
        return labels

    def _decompressed(self, index: int) -> tuple[SparseImage | np.ndarray, np.ndarray | None]:
        packed = self.events[int(index)]
        if zlib.crc32(packed.data) != packed.digest:
            raise EventError(
                f"{packed.origin}: its compressed copy in memory is damaged (digest differs); load "
                "the store again and suspect this machine's memory"
            )
        with trace.span("decompress"):
            return self._unpack(packed)

    def _unpack(self, packed: CompressedEvent) -> tuple[SparseImage | np.ndarray, Any]:
        assert self.image_shape is not None
        height, width, channels = self.image_shape
        raw = (
            bytearray(packed.data)
            if self.codec == "none"
            else _blosc().decompress(packed.data, as_bytearray=True)
        )
        labelled = self.kind == "pixels"
        if self.form == "dense":
            pixels = height * width
            image = np.frombuffer(raw, np.float32, pixels * channels).reshape(self.image_shape)
            if not labelled:
                return image, None
            labels = np.frombuffer(raw, np.uint8, offset=4 * pixels * channels)
            return image, labels.reshape(height, width)
        count, distance = packed.pixels, self._distance()
        flat = np.cumsum(np.frombuffer(raw, distance, count), dtype=distance)
        coords = np.empty((count, 2), np.int32)
        np.divmod(flat, width, out=(coords[:, 0], coords[:, 1]), casting="same_kind")
        start = distance.itemsize * count
        values = np.frombuffer(raw, np.float32, count * channels, start).reshape(count, channels)
        # The digest says that these are the bytes of the image that was checked when it was made.
        sparse = SparseImage.trusted(coords, values, self.image_shape, packed.background)
        after = start + values.nbytes
        return sparse, np.frombuffer(raw, np.uint8, offset=after) if labelled else None

    def batch(self, indices: Any) -> tuple[Any, ...]:
        """Return (images, targets), and sample weights float32 (N,) if the store has them, of the
        events ``indices``: targets int64 (N,), float32 (N, D) or a list of uint8 arrays.
        """
        found = [self._decompressed(i) for i in indices]
        images, chosen = [image for image, _ in found], np.asarray(indices, np.int64)
        targets: Any = [labels for _, labels in found]
        if self.kind != "pixels":
            targets = self.labels[:0] if self.targets is None else self.targets[chosen]
        if self.weights is None:
            return images, targets
        return images, targets, self.weights[chosen]

    def digests(self) -> list[int]:
        """Return a number for the contents and the label of each of this rank's events."""
        labels = self.labels.tolist()
        return [self.events[i].digest ^ (labels[i] & 0xFFFF) for i in range(len(self))]

    @property
    def nbytes(self) -> int:
        """Bytes of the compressed events."""
        return sum(len(p.data) for p in self.events.values())

    def stats(self) -> dict[str, float]:
        """Return {"events", "seconds", "dense_bytes", "bytes"}: sums, so that ranks can add them
        up.
        """
        return {
            "events": len(self),
            "seconds": self.seconds,
            "dense_bytes": self.dense_bytes,
            "bytes": self.nbytes,
        }


def no_targets(kind: str | None) -> np.ndarray | None:
    """Return the targets of no events: int64 (0,), float32 (0, 0), or None."""
    if kind == "class":
        return np.zeros(0, np.int64)
    return np.zeros((0, 0), np.float32) if kind == "vector" else None


def _origin(source: Any) -> str:
    return str(getattr(source, "path", type(source).__name__))


def _blosc() -> Any:
    """Import blosc on first use; it releases the GIL so that the prefetching thread overlaps the
    engine.
    """
    import blosc

    blosc.set_releasegil(True)
    blosc.set_nthreads(1)
    return blosc

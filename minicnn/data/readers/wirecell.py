"""Frames of the Wire-Cell Toolkit: .npy files in a .npz or .zip, in a tar, plain or packed by gzip
or bzip2, or in a folder.

Read here, for each frame IDENT (a number, by convention the event's) and trace tag TAG (layout:
WireCell/wire-cell-toolkit, aux/docs/frame-files.org, FrameFileSink.cxx, NumpyFrameSaver.cxx):

    frame_TAG_IDENT.npy      (channels, ticks) or its transpose, 16-bit integers or floats
    channels_TAG_IDENT.npy   numbers of the channels
    tickinfo_TAG_IDENT.npy   time, length of a tick, number of the first tick

TAG may be empty or "*". summary_ and chanmask_ are not read: signal processing there sets bad
channels to 0 itself, and in raw waveforms they are found by their noise.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..axes import Axis, placed
from ..detector import DETECTOR_SIZE, FIRST_WIRE_CM, WIRE_PITCH_CM, WIRES_OF_PLANE
from ..event import CLASSES, Event, EventError
from ..sparse import SparseImage
from .archive import Archive, kind_of
from .cleaning import Cleaning, ranges
from .npy import read_header
from .placement import lit_pixels, merge, place
from .reader import Reader, naming

MEMBER = re.compile(r"(frame|channels|tickinfo)_(.*)_(-?\d+)")
OF_A_FRAME = re.compile(r"(frame|channels|tickinfo|summary|chanmask)_(.*)_(-?\d+)")
#: Tags of raw waveforms and of signals, by their beginnings; others are told by their content.
RAW, SIGNALS = ("orig", "raw", "daq", "adc"), ("gauss", "wiener", "dnnsp", "decon")
DEFAULT_TAG = "gauss"
#: Channel and tick numbers of any detector are below these; bytes of an array's header.
MOST_CHANNELS, MOST_TICK, LARGEST_HEADER = 1 << 20, 1 << 30, 1 << 12
FIRST_CHANNEL = (0, *np.cumsum(WIRES_OF_PLANE).tolist())


@dataclass
class Piece:
    """What a frame has of one tag; its samples stay in the file."""

    shape: tuple[int, ...] = ()
    kind: np.dtype | None = None
    channels: np.ndarray | None = None
    ticks: np.ndarray | None = None
    damage: str = ""

    def take(self, what: str, size: int, file: IO[bytes]) -> None:
        """Take what an array says: of samples shape and type, channels and ticks as a whole."""
        if what == "frame":
            start = file.read(min(size, LARGEST_HEADER))
            header = read_header(io.BytesIO(start), size)
            self.shape, self.kind = header.shape, header.dtype
            return
        if size > 8 * MOST_CHANNELS + LARGEST_HEADER:
            raise ValueError(f"{size:,} bytes are too many")
        numbers = read_array(file.read(size)).reshape(-1)
        if what == "channels":
            self.channels = numbers.astype(np.int64)
        else:
            self.ticks = numbers.astype(np.float64)

    def problem(self) -> str:
        """Return why the piece cannot be read, "" where it can."""
        channels, ticks = self.channels, self.ticks
        if self.damage:
            return self.damage
        if self.kind is None or channels is None or ticks is None:
            parts = {"frame": self.kind, "channels": channels, "tickinfo": ticks}
            missing = ", ".join(f"{name}_*" for name, part in parts.items() if part is None)
            return f"has no array {missing} beside the others"
        if self.kind.kind not in "uif" or len(self.shape) != 2 or 0 in self.shape:
            return f"expected samples (channels, ticks), got {self.kind} {self.shape}"
        if len(channels) not in self.shape:
            return f"has {len(channels)} channels for samples {self.shape}"
        if len(np.unique(channels)) != len(channels):
            return "has a channel twice"
        if not 0 <= channels.min() <= channels.max() < MOST_CHANNELS:
            return (
                f"has channels from {channels.min()} to {channels.max()}, expected 0 to "
                f"{MOST_CHANNELS - 1:,}"
            )
        if len(ticks) != 3 or not abs(ticks[2]) < MOST_TICK:
            return f"has the tickinfo {ticks[:4].tolist()}, expected time, tick and first tick"
        return ""

    @property
    def is_transposed(self) -> bool:
        """Whether rows are ticks."""
        return self.channels is None or self.shape[0] != len(self.channels)

    @property
    def range(self) -> tuple[int, int]:
        """Numbers of the first tick and of the one behind the last."""
        first = 0 if self.ticks is None else int(self.ticks[2])
        return first, first + self.shape[0 if self.is_transposed else 1]


class WireCell(Reader):
    """Events of a file or folder of Wire-Cell frames, one frame in memory at a time.

    tag: the traces that are read, or several tags, whose channels are put together; default: the
    only tag, or "gauss". raw: whether samples are raw waveforms, which are cleaned as those of
    ``Waveforms`` (pedestal, group, bipolar and noisy are options of it), or signals, which are
    taken as they are; default: by the tag (orig, raw, daq and adc, or gauss, wiener, dnnsp and
    decon), else raw unless most samples of the first frame are 0. threshold: of raw waveforms in
    sigmas of the channel's noise after summing (default 5), of signals the smallest pixel kept
    (default: all that are not 0).

    plane: 0, 1 or 2 of MicroBooNE, by its channel numbers; or planes, several, one channel of the
    image each; default: 2 where the first frame has all of the 8256 channels. Wires are centred on
    3600. Of other detectors, or with channels=(first, last), rows are channels in the order of
    their numbers, default: from the lowest to the highest of the file. ticks: (first, last); give
    it where files are to fit each other; default: from 0, or the first of the file, to its last.
    tick_sum: ticks added up to one column (default: the fewest that fit 3600 columns). size: edge
    of the image, larger ones are summed. Labels are -1; ``notes`` says what was left out.
    """

    name = "Wire-Cell frames (frame_*, channels_*, tickinfo_* in .npz, tar or a folder)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not kind_of(path):
            return False
        with naming(path), Archive(path) as archive:
            names = set(archive.first_names())
            if archive.kind not in ("folder", "zip"):
                return any(OF_A_FRAME.fullmatch(name) for name in names)
        frames = filter(None, (MEMBER.fullmatch(name) for name in names))
        return any(f"channels_{m[2]}_{m[3]}" in names for m in frames if m[1] == "frame")

    def __init__(
        self,
        path: str | Path,
        tag: str | Sequence[str] | None = None,
        raw: bool | None = None,
        plane: int | None = None,
        planes: Sequence[int] | None = None,
        channels: Sequence[int] | None = None,
        ticks: Sequence[int] | None = None,
        tick_sum: int | None = None,
        threshold: float | None = None,
        size: int | None = None,
        pedestal: str = "median",
        group: int = 48,
        bipolar: bool = False,
        noisy: float = 10.0,
    ) -> None:
        self.path, self.class_names, self.threshold = Path(path), CLASSES, threshold
        self.notes: dict[int, str] = {}
        self.planes = tuple(planes) if planes is not None else None if plane is None else (plane,)
        if self.planes is not None and channels is not None:
            raise ValueError("planes are of MicroBooNE, channels are rows: give one of both")
        if self.planes is not None and (
            not self.planes
            or len(set(self.planes)) != len(self.planes)
            or not set(self.planes) <= {0, 1, 2}
        ):
            raise ValueError(f"planes are 0, 1 and 2, each once; got {self.planes}")
        if tick_sum is not None and tick_sum < 1:
            raise ValueError(f"ticks summed are positive, got {tick_sum}")
        cleaning = {"pedestal": pedestal, "group": group, "bipolar": bipolar, "noisy": noisy}
        with naming(self.path):
            archive = Archive(self.path)
        self._begin(archive, self._open, tag, raw, channels, (ticks, tick_sum, size), cleaning)

    def _open(self, tag, raw, channels, ticks_and_size, cleaning):
        frames, tags = self._index()
        self.tags = _choose(tags, tag)
        self._idents = list(frames)
        self._frames = [{t: frames[i][t] for t in self.tags if t in frames[i]} for i in frames]
        self.labels = np.full(len(self._frames), -1, np.int32)
        sound = [[p for p in frame.values() if not p.problem()] for frame in self._frames]
        first = next((frame for frame in sound if frame), None)
        if first is None:
            i = next(i for i, frame in enumerate(self._frames) if frame)
            with naming(f"{self.path}, event {i}"):
                self._check(next(iter(self._frames[i].values())))
        every = np.sort(np.concatenate([piece.channels for piece in first]))
        if self.planes is None and channels is None:
            if np.array_equal(every, np.arange(FIRST_CHANNEL[-1])):
                self.planes = (2,)
        pieces = [piece for frame in sound for piece in frame]
        self._set_rows(channels, pieces)
        self._set_ticks(pieces, *ticks_and_size)
        self.raw = self._is_raw() if raw is None else bool(raw)
        self.unit = "ADC" if self.raw else ""
        sigmas = {"threshold": self.threshold} if self.raw and self.threshold is not None else {}
        self._cleaning = Cleaning(**cleaning, **sigmas)

    def _index(self):
        """({ident: {tag: Piece}}, tags in the file's order) of all members."""
        frames, tags = {}, {}
        for name, size, file in self._file.members():
            match = MEMBER.fullmatch(name)
            if not match:
                continue
            what, tag, ident = match[1], match[2], int(match[3])
            piece = frames.setdefault(ident, {}).setdefault(tag, Piece())
            if what == "frame":
                tags[tag] = None
            try:
                with naming(name):
                    piece.take(what, size, file)
            except EventError as problem:  # reported when the event is read
                piece.damage = str(problem)
        return frames, list(tags)

    def _set_rows(self, channels, pieces):
        """Set (first channel, the one behind the last) of the rows of each plane."""
        if self.planes is not None:
            self._rows = [(FIRST_CHANNEL[p], FIRST_CHANNEL[p + 1]) for p in self.planes]
            return
        if channels is None:
            low = min(int(piece.channels.min()) for piece in pieces)
            channels = (low, max(int(piece.channels.max()) for piece in pieces))
        first, last = (int(n) for n in channels)
        if not 0 <= first <= last < MOST_CHANNELS:
            raise ValueError(f"channels are (first, last) from 0 on, got {tuple(channels)}")
        self._rows = [(first, last + 1)]

    def _set_ticks(self, pieces, ticks, tick_sum, size):
        if ticks is None:
            ends = [piece.range for piece in pieces]
            ticks = (min(0, *(start for start, _ in ends)), max(stop for _, stop in ends) - 1)
        self._ticks = (int(ticks[0]), int(ticks[1]) + 1)
        count = self._ticks[1] - self._ticks[0]
        if not 0 < count < MOST_TICK:
            raise ValueError(f"ticks are (first, last), got {tuple(ticks)}")
        self.tick_sum = tick_sum or -(-count // DETECTOR_SIZE)
        self._columns = -(-count // self.tick_sum)
        shape = (self._rows[0][1] - self._rows[0][0], self._columns)
        canvas = shape if self.planes is None else (DETECTOR_SIZE, max(DETECTOR_SIZE, shape[1]))
        self._set_canvas(canvas, size, len(self._rows))
        rows = Axis("channel", start=float(self._rows[0][0]))
        if self.planes is not None:
            rows = Axis("wire")
            if self.planes[0] == 2:
                rows = Axis("wire", length="z", cm=WIRE_PITCH_CM, origin=FIRST_WIRE_CM)
        axes = (rows, Axis("tick", float(self.tick_sum), float(self._ticks[0])))
        self.axes = placed(axes, shape, self._edge, size)

    def _is_raw(self):
        """Whether samples are waveforms, by the tag or the first frame that can be read."""
        if self.tags[0].startswith(RAW + SIGNALS):
            return self.tags[0].startswith(RAW)
        for i, pieces in enumerate(self._frames):
            for tag, piece in pieces.items():
                with suppress(EventError), naming(f"{self.path}, event {i}"):
                    samples = self._samples(i, tag, piece)
                    return bool(np.count_nonzero(samples) > samples.size / 2)
        return False

    def _samples(self, index, tag, piece):
        """Samples (channels, ticks) of a piece."""
        self._check(piece)
        array = read_array(self._file.read(f"frame_{tag}_{self._idents[index]}"))
        return array.T if piece.is_transposed else array

    def _check(self, piece):
        """Raise ValueError where a piece of a frame cannot be read."""
        if problem := piece.problem():
            raise ValueError(problem)
        if self.planes is not None and piece.channels.max() >= FIRST_CHANNEL[-1]:
            raise ValueError(
                f"has the channel {piece.channels.max()}, MicroBooNE has 0 to "
                f"{FIRST_CHANNEL[-1] - 1}; of another detector give channels=, not planes"
            )

    def _read(self, index):
        images, left_out = [], []
        for tag, piece in self._frames[index].items():
            samples = self._samples(index, tag, piece)
            for channel, (first, last) in enumerate(self._rows):
                rows, columns, values, bad = self._lit(samples, piece, first, last)
                shape = (last - first, self._columns)
                summed = SparseImage.from_pixels(rows, columns, values[:, None], (*shape, 1))
                image = lit_pixels(
                    *summed.coords.T,
                    summed.values[:, 0],
                    (*shape, len(self._rows)),
                    None if self.raw else self.threshold,
                    channel,
                )
                images.append(place(image, self._edge, self._size))
                left_out += bad
        if not images:
            self.notes[index] = f"has no traces of {' or '.join(self.tags)}"
            nothing = np.zeros((0, self.image_shape[2]), np.float32)
            images = [SparseImage(np.zeros((0, 2), np.int32), nothing, self.image_shape)]
        if left_out:
            self.notes[index] = (
                f"channels {ranges(np.unique(left_out))} left out: noise above "
                f"{self._cleaning.noisy:g} ADC, or none"
            )
        return Event(merge(images), -1, (0, 0, self._idents[index]))

    def _lit(self, samples, piece, first, last):
        """(rows, columns, values (n,), bad channels) of the channels from ``first`` on."""
        chosen = np.flatnonzero((piece.channels >= first) & (piece.channels < last))
        chosen = chosen[np.argsort(piece.channels[chosen])]
        begin, end = piece.range
        low, high = max(begin, self._ticks[0]), max(min(end, self._ticks[1]), begin)
        column = (np.arange(low, high) - self._ticks[0]) // self.tick_sum
        starts = np.flatnonzero(np.diff(column, prepend=-1))
        found, bad = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))], []
        for k in range(0, len(chosen) if len(column) else 0, self._cleaning.at_a_time):
            some = chosen[k : k + self._cleaning.at_a_time]
            block = np.ascontiguousarray(samples[some, low - begin : high - begin])
            if not np.isfinite(block).all():
                names = ranges(piece.channels[some][~np.isfinite(block).all(1)])
                raise ValueError(f"channels {names} are not all finite")
            if self.raw:
                lit, value, wrong = self._cleaning.lit(block, starts)
                row, columns = lit[:, 0], column[starts[lit[:, 1]]]
                bad += piece.channels[some[wrong]].tolist()
            else:
                row, tick = np.nonzero(block)
                value, columns = block[row, tick], column[tick]
            found.append((piece.channels[some[row]] - first, columns, value.astype(np.float32)))
        return *map(np.concatenate, zip(*found)), bad


def read_array(data: bytes) -> np.ndarray:
    """Return the array of numbers in the bytes of an .npy file."""
    file = io.BytesIO(data)
    header = read_header(file, len(data))
    if header.dtype.kind not in "uif":
        raise ValueError(f"holds {header.dtype}, expected numbers")
    order: Any = "F" if header.is_fortran else "C"
    array: np.ndarray = np.frombuffer(data, header.dtype, offset=file.tell())
    return array.reshape(header.shape, order=order)


def _choose(tags, wanted):
    """The tags to read, out of those of the file."""
    if not tags:
        raise ValueError("holds no frames")
    if wanted is None:
        wanted = tags if len(tags) == 1 else [DEFAULT_TAG]
    chosen = [wanted] if isinstance(wanted, str) else [str(tag) for tag in wanted]
    missing = [tag for tag in chosen if tag not in tags]
    if missing or not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"choose by tag= out of {', '.join(map(repr, tags))}; got {chosen}")
    return tuple(chosen)

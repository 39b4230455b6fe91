"""Raw waveforms in NumPy files: ADC counts [channel, tick] in an .npy, or one event per array in an
.npz; 16-bit integers as they come from the electronics, or any other numbers on a pedestal.

Each group of channels is read, cleaned and zero-suppressed before the next one: pedestal
subtracted, noise that the group has in common subtracted, ticks summed, and samples kept that stand
out of the channel's own noise.
"""

from __future__ import annotations

import zipfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from ..axes import Axis, placed
from ..detector import DETECTOR_SIZE
from ..event import CLASSES, Event
from .cleaning import Cleaning, ranges
from .npy import read_header
from .placement import in_order, pad, shrink
from .reader import Reader, naming

FEWEST_TICKS = 1000
#: A pedestal is so many deviations of its samples away from 0.
DEVIATIONS = 10


class Waveforms(Reader):
    """Events of raw waveforms; ``group`` channels are in memory at a time.

    key: read only this array of an .npz (default: each array is an event). pedestal: "median" or
    "mode" of a channel. group: channels that share electronics; the median over them is subtracted
    at every tick where at least 8 of them are good (0: never). tick_sum: ticks added up to one
    column (default: the fewest that fit the 3600 columns of the image; the last column may have
    fewer). threshold: in sigmas of the channel's noise after summing. bipolar: keep negative
    samples too, as induction planes need. noisy: a channel whose noise, in ADC per tick after the
    subtraction, is above this is left out, and so is one that shows none at all; ``notes[i]`` says
    which. Channels are centred on 3600 wires; size: edge of the image, larger ones are summed.

    Pixels are ADC counts summed over ticks; labels are -1. What the noise of a channel is:
    ``cleaning.noise``.
    """

    unit = "ADC"
    name = "raw waveforms (.npy or .npz of ADC counts, channel x tick)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        path = Path(path)
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            start = file.read(6)
        if start != b"\x93NUMPY" and start[:4] != b"PK\3\4":
            return False
        with naming(path):
            keys = _keys(path)
            return bool(keys) and all(_is_raw(path, key) for key in keys)

    def __init__(
        self,
        path: str | Path,
        key: str | None = None,
        pedestal: str = "median",
        group: int = 48,
        tick_sum: int | None = None,
        threshold: float = 5.0,
        bipolar: bool = False,
        noisy: float = 10.0,
        size: int | None = None,
    ) -> None:
        self.path, self.class_names = Path(path), CLASSES
        self._cleaning = Cleaning(pedestal, group, threshold, bipolar, noisy)
        if tick_sum is not None and tick_sum < 1:
            raise ValueError(f"ticks summed are positive, got {tick_sum}")
        self.tick_sum = tick_sum
        self.notes: dict[int, str] = {}
        with naming(self.path):
            self.keys = _keys(self.path)
            if key is not None and key not in self.keys:
                raise ValueError(f"has no array {key!r}, it has {', '.join(self.keys)}")
            self.keys = self.keys if key is None else [key]
        self.labels = np.full(len(self.keys), -1, np.int32)
        self._set_canvas((DETECTOR_SIZE, DETECTOR_SIZE), size, 1)
        with naming(self.path), _opened(self.path, self.keys[0]) as (_, shape, _):
            if len(shape) == 2:  # axes of the first event
                block = tick_sum or -(-shape[1] // DETECTOR_SIZE)
                self.axes = placed(
                    (Axis("channel"), Axis("tick", float(block))),
                    (shape[0], -(-shape[1] // block)),
                    self._edge,
                    size,
                )

    def _read(self, index):
        with _opened(self.path, self.keys[index]) as (file, shape, dtype):
            if len(shape) != 2 or dtype.kind not in "uif":
                raise ValueError(f"expected ADC counts [channel, tick], got {dtype} {shape}")
            channels, ticks = shape
            line = ticks * dtype.itemsize  # bytes of a channel
            block = self.tick_sum or -(-ticks // DETECTOR_SIZE)
            columns = -(-ticks // block)
            coords, values, left_out = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)], []
            starts = np.arange(0, ticks, block)
            for first in range(0, channels, self._cleaning.at_a_time):
                count = min(self._cleaning.at_a_time, channels - first)
                raw = file.read(count * line)
                if len(raw) != count * line:
                    raise ValueError(
                        f"ends within channel {first + len(raw) // line} of {channels}; the file "
                        "is damaged"
                    )
                counts = np.frombuffer(raw, dtype).reshape(count, ticks)
                if not np.isfinite(counts).all():
                    raise ValueError(f"channels {first} to {first + count - 1} are not all finite")
                lit, value, bad = self._cleaning.lit(counts, starts)
                left_out += (first + bad).tolist()
                coords.append(lit + (first, 0))
                values.append(value)
            file.read(1)  # the end of a compressed array is where its checksum is compared
        if left_out:
            array = f"of {self.keys[index]} " if self.keys[index] else ""
            self.notes[index] = (
                f"channels {ranges(left_out)} {array}left out: noise above "
                f"{self._cleaning.noisy:g} ADC, or none"
            )
        image = in_order(
            np.concatenate(coords), np.concatenate(values)[:, None], (channels, columns, 1)
        )
        return Event(
            shrink(pad(image, self._edge, self._edge), self.image_shape), -1, (0, 0, index)
        )


@contextmanager
def _opened(path, key):
    """(file behind the header, shape, dtype) of an array of an .npz, or of an .npy, whose key is
    "".
    """
    with ExitStack() as opened:
        if key:
            archive = opened.enter_context(zipfile.ZipFile(path))
            file = opened.enter_context(archive.open(key + ".npy"))
            size = archive.getinfo(key + ".npy").file_size
        else:
            file, size = opened.enter_context(open(path, "rb")), path.stat().st_size
        shape, is_fortran, dtype = read_header(file, size)
        if is_fortran and len(shape) > 1:
            raise ValueError(
                "is stored by column (Fortran order); save it again as np.ascontiguousarray(array)"
            )
        yield file, shape, dtype


def _keys(path):
    with open(path, "rb") as file:
        if file.read(1) == b"\x93":
            return [""]
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _is_raw(path, key):
    """Whether an array is [channel, many ticks] around pedestals that are not 0: 16-bit counts of
    which most are not 0 (an image's pixels mostly are), or other numbers that vary little.
    """
    try:
        with _opened(path, key) as (file, shape, dtype):
            if len(shape) != 2 or not shape[0] or shape[1] < FEWEST_TICKS:
                return False
            if dtype.kind not in "uif":
                return False
            sample = np.frombuffer(file.read(dtype.itemsize * shape[1]), dtype)
    except ValueError:
        return False
    if dtype.kind != "f" and dtype.itemsize == 2:
        return np.count_nonzero(sample) > len(sample) / 2
    sample = sample.astype(np.float64)
    pedestal = np.median(sample)
    deviation = 1.4826 * np.median(np.abs(sample - pedestal))
    return bool(0 < DEVIATIONS * deviation < abs(pedestal))

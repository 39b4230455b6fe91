"""MicroBooNE Open Samples without wires, HDF5 "NoWire" files (843,000 events): hits, which are
Gaussian pulses on the wires, painted as such.

Read here, beside the tables that open_samples.py reads:

    hit_table/local_plane, local_wire     where a hit is
              local_time, rms, integral   the pulse: centre and width in ticks, area in ADC

A column of ``tick_sum`` ticks gets the share of the pulse's area that lies in it: what summing the
ticks of the wire gives, without its noise.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..detector import DETECTOR_SIZE, WIRES_OF_PLANE
from ..event import Event
from ..sparse import SparseImage
from .hdf5 import is_hdf5, open_hdf5
from .open_samples import OpenSamples
from .placement import merge, pad, place
from .reader import naming

HIT_COLUMNS = (
    "event_id",
    "event_id.seq_cnt",
    "local_plane",
    "local_wire",
    "local_time",
    "rms",
    "integral",
)
#: Ticks of a wire, as in the samples with wires.
TICKS = 6400
#: A pulse is painted so many widths to either side: all but 6e-5 of it.
WIDTHS = 4.0


class OpenSamplesHits(OpenSamples):
    """Events of a MicroBooNE Open Samples file without wires.

    plane, planes, threshold, clip, tick_sum, size, crop, label, label_of_pdg, class_names and the
    particles: as of OpenSamples.
    """

    name = "MicroBooNE Open Samples without wires (HDF5 with hit_table)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file, naming(path):
            return "hit_table" in file and "integral" in file["hit_table"]

    def _open(self, label_of_pdg):
        self._hit = self._columns("hit_table", HIT_COLUMNS)
        self._event, self._first = self._rows_of_events("hit_table", self._hit)
        self._set_axes(TICKS)
        self._open_truth(label_of_pdg)

    def _read(self, index):
        first, last = self._first[index : index + 2].tolist()
        plane, wire, time, rms, integral = (
            self._hit[name][first:last].reshape(-1).astype(np.float64) for name in HIT_COLUMNS[2:]
        )
        for name, column in (("time", time), ("width", rms), ("integral", integral)):
            wrong = ~np.isfinite(column) | (
                (column < 0) | (column > TICKS) if name == "width" else 0
            )
            if wrong.any():
                k = int(wrong.argmax())
                raise ValueError(f"hit {k} has the {name} {column[k]}")
        images = []
        for channel, number in enumerate(self.planes):
            chosen = plane == number
            images.append(self._painted(channel, *(c[chosen] for c in (wire, time, rms, integral))))
        event_id = tuple(self._hit["event_id"][first].tolist()) if last > first else (0, 0, 0)
        image = place(merge(images), self._edge, self._size)
        return Event(image, int(self.labels[index]), event_id, self._particles(index))

    def _painted(self, channel, wire, time, rms, integral):
        """Image of the hits (n,) of one plane on the full canvas, in channel ``channel``."""
        plane = self.planes[channel]
        wires, columns = WIRES_OF_PLANE[plane], TICKS // self.tick_sum
        known = (wire == np.floor(wire)) & (wire >= 0) & (wire < wires)
        if not known.all():
            raise ValueError(
                f"plane {plane} has a wire {wire[~known][0]}, expected 0 to {wires - 1}"
            )
        reach = WIDTHS * rms
        begin = np.floor((time - reach) / self.tick_sum).astype(np.int64)
        count = np.floor((time + reach) / self.tick_sum).astype(np.int64) - begin + 1
        # One row per hit and column that it reaches.
        of_hit = np.repeat(np.arange(len(wire)), count)
        column = np.arange(len(of_hit)) - np.repeat(np.cumsum(count) - count, count) + begin[of_hit]
        width = np.maximum(rms, 1e-6)[of_hit] * math.sqrt(2)
        edge = column * self.tick_sum - time[of_hit]
        share = (_erf((edge + self.tick_sum) / width) - _erf(edge / width)) / 2
        inside = (column >= 0) & (column < columns)
        values = np.zeros((int(inside.sum()), len(self.planes)), np.float64)
        values[:, channel] = (integral[of_hit] * share)[inside]
        shape = (wires, columns, len(self.planes))
        rows = wire.astype(np.int64)[of_hit][inside]
        image = SparseImage.from_pixels(rows, column[inside], values, shape)
        adc = image.values[:, channel]
        lit = adc != 0 if self.threshold is None else (adc >= self.threshold) & (adc != 0)
        limit = np.inf if self.clip is None else self.clip
        image = SparseImage(image.coords[lit], np.minimum(image.values[lit], limit), shape)
        return pad(image, DETECTOR_SIZE, DETECTOR_SIZE, self.crop)


def _erf(values: np.ndarray) -> np.ndarray:
    return np.array([math.erf(value) for value in values.tolist()])

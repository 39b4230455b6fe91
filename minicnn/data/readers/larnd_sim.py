"""larnd-sim HDF5 (DUNE 2x2, ND-LAr): simulated energy deposits in 3-D, projected onto a plane.

Read here (DUNE/larnd-sim, cli/dumpTree.py); compound rows, those of an event together:

    segments        event_id, x_start, x_end, ... z_end (cm), dE (MeV)
    trajectories    event_id, vertex_id, traj_id, parent_id (-1 primary), pdg_id,
                    pxyz_start (MeV/c), xyz_start, xyz_end (cm); traj_id is unique within a vertex

Older files have eventID, trackID, parentID and pdgId instead. What the pixels read out (packets) is
not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..event import CLASS_OF_PDG, CLASSES, PARTICLE, Event
from .hdf5 import dataset, is_hdf5, open_hdf5
from .projected import Projected
from .reader import naming
from .trajectories import Trajectories, field
from .truth import check_labels, label_of

POINTS = tuple(f"{axis}_{end}" for axis in "xyz" for end in ("start", "end"))
#: Rows that are read at a time where a whole table is looked at, and steps per pixel.
ROWS_AT_A_TIME, STEPS = 1 << 18, 2
#: Most steps of one event; each takes some 100 bytes.
MOST_STEPS = 1 << 25


class LarndSim(Projected):
    """Events of a larnd-sim file.

    plane: two of x, y, z, rows and columns of the image; default "zx", along the beam and the
    drift. pitch: edge of a pixel in cm. region: (first, last) of the rows and (first, last) of the
    columns in cm; default: what holds all deposits of the file; give it where files are to fit each
    other, deposits outside are left out then, with a note. threshold: smallest pixel kept in MeV,
    None for all. size: images are centred on size x size, larger ones summed in the smallest blocks
    that fit; default: the smallest square that holds the region.

    The energy of a segment is spread evenly over it. The label is that of the primary of highest
    momentum, by ``label_of_pdg`` (PDG code -> index into ``class_names``), -1 where that knows
    none.
    """

    unit = "MeV"
    name = "larnd-sim (HDF5 with segments)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file, naming(path):
            fields = getattr(file.get("segments"), "dtype", np.dtype("f4")).names or ()
            return {*POINTS, "dE"} <= set(fields)

    def __init__(
        self,
        path: str | Path,
        plane: str = "zx",
        pitch: float = 0.4,
        region: Sequence[float] | None = None,
        threshold: float | None = None,
        size: int | None = None,
        label_of_pdg: Mapping[int, int] = CLASS_OF_PDG,
        class_names: Sequence[str] = CLASSES,
    ) -> None:
        self.path, self.class_names, self.threshold = Path(path), tuple(class_names), threshold
        self._see(plane, pitch)
        self._begin(open_hdf5(self.path), self._open, region, size, label_of_pdg)

    def _open(self, region, size, label_of_pdg):
        self._segments = dataset(self._file, "segments")
        self._ids, self._rows = self._events(self._segments)
        self._set_region(region, size)
        self.labels = np.full(len(self._ids), -1, np.int32)
        self._tracks, self._rows_of = None, {}
        if "trajectories" not in self._file:
            return
        table = dataset(self._file, "trajectories")
        self._tracks = Trajectories(table)
        ids, rows = self._events(table)
        self._rows_of = dict(zip(ids, rows))
        for k, number in enumerate(self._ids):
            self.labels[k] = label_of(self._particles(number), label_of_pdg)
        check_labels(self.labels, self.class_names)

    def _events(self, table):
        """([event_id], [slice of its rows]) of a table, in the file's order."""
        ids = table.fields(field(table, "event_id"))[:].astype(np.int64)
        first = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
        numbers = ids[first].tolist()
        if len(set(numbers)) != len(numbers):
            twice = next(n for k, n in enumerate(numbers) if n in numbers[:k])
            raise ValueError(f"the rows of event_id {twice} in {table.name} are not together")
        ends = [*first[1:].tolist(), len(ids)]
        return numbers, [slice(a, b) for a, b in zip(first.tolist(), ends)]

    def _points(self, rows):
        """(start, end), float64 (n, 2) in cm, of segments as the plane sees them."""
        return tuple(
            np.stack([rows[f"{axis}_{end}"] for axis in self.plane], 1).astype(np.float64)
            for end in ("start", "end")
        )

    def _extent(self):
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        for first in range(0, len(self._segments), ROWS_AT_A_TIME):
            rows = self._segments.fields(POINTS)[first : first + ROWS_AT_A_TIME]
            for points in self._points(rows):
                low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
        if not len(self._segments):
            raise ValueError("the file holds no segments")
        return low, high + self.pitch  # a pixel to spare

    def _read(self, index):
        rows = self._segments.fields((*POINTS, "dE"))[self._rows[index]]
        start, end = self._points(rows)
        energy = rows["dE"].astype(np.float64)
        if not (np.isfinite(start).all() and np.isfinite(end).all() and np.isfinite(energy).all()):
            raise ValueError("has a segment that is not finite")
        length = np.abs(end - start).max(1)
        if (length > self.pitch * max(self._shape) * 2).any():
            raise ValueError(f"has a segment of {length.max():.4g} cm, longer than the detector")
        count = np.maximum(1, np.ceil(STEPS * length / self.pitch)).astype(np.int64)
        if count.sum() > MOST_STEPS:
            raise ValueError(f"has {count.sum():,} steps of segments; a larger pitch has fewer")
        segment_of = np.repeat(np.arange(len(rows)), count)
        step = np.arange(len(segment_of)) - np.repeat(np.cumsum(count) - count, count)
        share = ((step + 0.5) / count[segment_of])[:, None]
        points = start[segment_of] + share * (end - start)[segment_of]
        image = self._project(index, points, energy[segment_of] / count[segment_of])
        number = self._ids[index]
        return Event(image, int(self.labels[index]), (0, 0, number), self._particles(number))

    def _particles(self, number):
        if number not in self._rows_of:
            return np.zeros(0, PARTICLE)
        rows = self._rows_of[number]
        return self._tracks.particles(rows.start, rows.stop)

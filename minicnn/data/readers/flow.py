"""ndlar_flow HDF5 (DUNE 2x2, ND-LAr, FSD): charge hits of pixels in 3-D, projected onto a plane.

Read here (DUNE/ndlar_flow, src/proto_nd_flow/reco/charge; files and references: h5flow):

    charge/events/data                  id; a row per event
    charge/calib_final_hits/data        x, y, z (cm), Q (1000 e), E (MeV); hits of one pixel merged
    charge/calib_prompt_hits/data       the same, not merged
    mc_truth/trajectories/data          of simulated files, see trajectories.py
    mc_truth/interactions/data
    A/ref/B/ref                         (L, 2): rows of A and rows of B that belong together
    A/ref/B/ref_region                  start, stop: where in that table a row of A occurs; it is in
                                        B/ref/A, too, whichever of them has the table

References lead from events to hits, to raw events, from these to interactions and to trajectories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..event import CLASS_OF_PDG, CLASSES, PARTICLE, Event
from .hdf5 import dataset, is_hdf5, open_hdf5
from .projected import Projected
from .reader import naming
from .trajectories import Trajectories
from .truth import check_labels, label_of

EVENTS, RAW, INTERACTIONS = "charge/events", "charge/raw_events", "mc_truth/interactions"
TRAJECTORIES = "mc_truth/trajectories"
TO_TRUTH = ((EVENTS, RAW), (RAW, INTERACTIONS), (INTERACTIONS, TRAJECTORIES))
#: Names of the hits, the default first.
HITS = {"final": "charge/calib_final_hits", "prompt": "charge/calib_prompt_hits"}
#: What a hit is worth, and its unit.
UNITS = {"E": "MeV", "Q": "ke"}
HITS_AT_A_TIME = 1 << 18


class Flow(Projected):
    """Events of an ndlar_flow file.

    hits: "final" or "prompt"; default: final ones where the file has them. charge: "E", in MeV as
    the file says, or "Q", in 1000 electrons. plane: two of x, y, z, rows and columns of the image;
    default "zx", along the beam and the drift. pitch: edge of an image's pixel in cm; one smaller
    than the distance of the detector's pixels (0.37 to 0.44 cm) leaves rows empty. region: (first,
    last) of the rows and (first, last) of the columns in cm; default: what holds all hits of the
    file; give it where files are to fit each other, hits outside are left out then, with a note.
    threshold: smallest pixel kept, None for all that are not 0. size: images are centred on size x
    size, larger ones summed in the smallest blocks that fit; default: the smallest square that
    holds the region.

    Hits without a place or charge (nan) are left out, with a note. The label is that of the primary
    of highest momentum among the interactions of the event, by ``label_of_pdg`` (PDG code -> index
    into ``class_names``), -1 where that knows none or the file has no truth or no references to it.
    """

    name = "ndlar_flow (HDF5 with charge/events and calibrated hits)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file, naming(path):
            return f"{EVENTS}/data" in file and any(
                f"{name}/data" in file for name in HITS.values()
            )

    def __init__(
        self,
        path: str | Path,
        hits: str | None = None,
        charge: str = "E",
        plane: str = "zx",
        pitch: float = 0.5,
        region: Sequence[float] | None = None,
        threshold: float | None = None,
        size: int | None = None,
        label_of_pdg: Mapping[int, int] = CLASS_OF_PDG,
        class_names: Sequence[str] = CLASSES,
    ) -> None:
        self.path, self.class_names, self.threshold = Path(path), tuple(class_names), threshold
        if charge not in UNITS:
            raise ValueError(f"the charge of a hit is {' or '.join(UNITS)}, got {charge!r}")
        if hits is not None and hits not in HITS:
            raise ValueError(f"hits are {' or '.join(HITS)}, got {hits!r}")
        self.charge, self.unit = charge, UNITS[charge]
        self._see(plane, pitch)
        self._begin(open_hdf5(self.path), self._open, hits, region, size, label_of_pdg)

    def _open(self, hits, region, size, label_of_pdg):
        present = [name for name in HITS if f"{HITS[name]}/data" in self._file]
        if hits is not None and hits not in present:
            raise ValueError(f"has no {hits} hits, only {', '.join(present)}; choose by hits=")
        self.hits = hits or present[0]
        self._hits = dataset(self._file, f"{HITS[self.hits]}/data")
        missing = [
            n for n in ("x", "y", "z", self.charge) if n not in (self._hits.dtype.names or ())
        ]
        if missing:
            raise ValueError(
                f"{self._hits.name} has no field {', '.join(missing)}, it has "
                f"{', '.join(self._hits.dtype.names or ())}"
            )
        events = dataset(self._file, f"{EVENTS}/data")
        if "id" not in (events.dtype.names or ()):
            raise ValueError(f"{events.name} has no field 'id'")
        self._ids = events.fields("id")[:].astype(np.int64)
        if not len(self._ids) or not len(self._hits):
            raise ValueError(f"holds {len(self._ids)} events and {len(self._hits)} hits")
        self._hits_of = References(self._file, EVENTS, HITS[self.hits])
        self._set_region(region, size)
        self.labels = np.full(len(self._ids), -1, np.int32)
        self._tracks = None
        if not all(References.are_in(self._file, *step) for step in TO_TRUTH):
            return
        self._tracks = Trajectories(dataset(self._file, f"{TRAJECTORIES}/data"))
        self._chain = [References(self._file, *step) for step in TO_TRUTH]
        for i in range(len(self)):
            with naming(f"{self.path}, event {i}"):
                self.labels[i] = label_of(self._particles(i), label_of_pdg)
        check_labels(self.labels, self.class_names)

    def _points(self, rows):
        """(places float64 (n, 2), which of them are finite) of hits as the plane sees them."""
        points = np.stack([rows[axis] for axis in self.plane], 1).astype(np.float64)
        return points, np.isfinite(points).all(1)

    def _extent(self):
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        for first in range(0, len(self._hits), HITS_AT_A_TIME):
            rows = self._hits.fields(tuple(self.plane))[first : first + HITS_AT_A_TIME]
            points, known = self._points(rows)
            if known.any():
                low = np.minimum(low, points[known].min(0))
                high = np.maximum(high, points[known].max(0))
        if not np.isfinite(low).all():
            raise ValueError("no hit has a place")
        return low, high + self.pitch  # a pixel to spare

    def _read(self, index):
        first, last, keep = span(self._hits_of.rows([index]))
        rows = self._hits.fields((*self.plane, self.charge))[first:last][keep]
        points, known = self._points(rows)
        value = rows[self.charge].astype(np.float64)
        known &= np.isfinite(value)
        note = "" if known.all() else f"hits without place or charge left out: {(~known).sum()}"
        image = self._project(index, points[known], value[known], note)
        number = (0, 0, int(self._ids[index]))
        return Event(image, int(self.labels[index]), number, self._particles(index))

    def _particles(self, index):
        if self._tracks is None:
            return np.zeros(0, PARTICLE)
        rows = np.array([index])
        for references in self._chain:
            rows = references.rows(rows)
        return self._tracks.particles(*span(rows))


class References:
    """Which rows of one dataset belong to rows of another one; a table of them in the file."""

    def __init__(self, file: Any, parent: str, child: str) -> None:
        self.child = child
        names = (f"{parent}/ref/{child}/ref", f"{child}/ref/{parent}/ref")
        self._from = int(names[0] not in file)
        self._table = dataset(file, names[self._from])
        # Rows without references were never stored.
        region = dataset(file, f"{parent}/ref/{child}/ref_region", is_filled=False)
        if self._table.ndim != 2 or self._table.shape[1] != 2 or self._table.dtype.kind not in "iu":
            raise ValueError(f"{self._table.name} should be (n, 2) integers")
        if not {"start", "stop"} <= set(region.dtype.names or ()):
            raise ValueError(f"{region.name} has no fields start and stop")
        self._region = np.stack([region[name] for name in ("start", "stop")], 1).astype(np.int64)
        self._children = len(file[f"{child}/data"])

    @staticmethod
    def are_in(file: Any, parent: str, child: str) -> bool:
        """Tell whether a file has references between two datasets."""
        return f"{parent}/ref/{child}/ref_region" in file and f"{child}/data" in file

    def rows(self, parents: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the rows int64 (n,) of the child that belong to some of the parent, in order;
        ValueError where a reference leads nowhere.
        """
        found = [np.zeros(0, np.int64)]
        for number in np.asarray(parents).tolist():
            start, stop = self._region[number].tolist() if number < len(self._region) else (0, 0)
            if not 0 <= start <= stop <= len(self._table):
                raise ValueError(
                    f"has references to {self.child} in rows {start} to {stop} of a table of "
                    f"{len(self._table)}"
                )
            pairs = self._table[start:stop].astype(np.int64)
            found.append(pairs[pairs[:, self._from] == number, 1 - self._from])
        rows = np.unique(np.concatenate(found))
        if len(rows) and not 0 <= rows[0] <= rows[-1] < self._children:
            raise ValueError(
                f"has a reference to row {rows[-1]} of {self.child}, which has {self._children}"
            )
        return rows


def span(rows: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Return (first, last, which of these) of sorted rows, to read them in one piece."""
    first, last = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
    return first, last, rows - first

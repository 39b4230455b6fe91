"""MicroBooNE Open Samples, HDF5 "WithWire" files: deconvolved wires and simulated particles.

Read here, N rows per table, every scalar column stored as (N, 1):

    wire_table/local_plane, local_wire, adc (N, 6400)
        planes 0, 1 (induction, 2400 wires), 2 (collection, 3456)
    particle_table/g4_id, g4_pdg, parent_id, momentum, start_position, end_position
        momentum in GeV/c; positions (N, 3) in cm
    event_table/nu_pdg, is_cc         of the neutrino
    */event_id (N, 3)                 run, subrun, event
    */event_id.seq_cnt (events, 2)    event index, number of rows

Image: ticks summed by ``tick_sum``, pixels below ``threshold`` dropped, capped at ``clip``, then
centred on 3600 x 3600 (6400 ticks by 2 = 3200, 200 a side; 3456 wires, 72 a side) and summed in
blocks where ``size`` asks for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..axes import Axis, placed
from ..detector import (
    DETECTOR_SIZE,
    FIRST_WIRE_CM,
    MEASURED_CM_PER_TICK,
    TRIGGER_TICK,
    WIRE_PITCH_CM,
    WIRES_OF_PLANE,
)
from ..event import CLASS_OF_PDG, CLASSES, PARTICLE, Event
from .hdf5 import dataset, is_hdf5, open_hdf5
from .placement import in_order, merge, pad, place, sum_ticks
from .reader import Reader, naming
from .truth import check_labels, label_of_primary, particle_table

ROWS_AT_A_TIME = 256
WIRE_COLUMNS = ("event_id", "event_id.seq_cnt", "local_plane", "local_wire", "adc")
PARTICLE_COLUMNS = (
    "event_id.seq_cnt",
    "g4_id",
    "g4_pdg",
    "parent_id",
    "momentum",
    "start_position",
    "end_position",
)


EVENT_COLUMNS = ("event_id.seq_cnt", "nu_pdg", "is_cc")
#: Classes of label="neutrino".
INTERACTIONS = ("nu_e CC", "nu_mu CC", "NC")


class OpenSamples(Reader):
    """Events of a MicroBooNE Open Samples file; wires are read 256 at a time, kept are only the lit
    pixels.

    plane: 0, 1 or 2; or planes, several of them, one channel each. threshold, clip: ADC, after
    summing ``tick_sum`` ticks; None for neither. size: edge of the image. crop:
    cut what does not fit on 3600.

    label: "particle", see below, or "neutrino": nu_e CC, nu_mu CC or NC, by event_table, -1 for
    other flavours.

    The label is that of the primary particle (parent_id 0) of highest momentum, by ``label_of_pdg``
    (PDG code -> index into ``class_names``), -1 where that knows none or the file has no particles.
    Event.particles holds the table's rows in MeV/c and cm. The file has only the size of the
    momentum: it is given the direction from start to end; a particle whose parent is not in the
    table gets parent -1.
    """

    unit = "ADC"
    name = "MicroBooNE Open Samples (HDF5 with wire_table)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file, naming(path):
            return "wire_table" in file and "adc" in file["wire_table"]

    def __init__(
        self,
        path: str | Path,
        plane: int = 2,
        planes: Sequence[Any] | None = None,
        threshold: float | None = 10.0,
        clip: float | None = None,
        tick_sum: int = 2,
        size: int | None = None,
        crop: bool = False,
        label_of_pdg: Mapping[int, int] = CLASS_OF_PDG,
        class_names: Sequence[str] = CLASSES,
        label: str = "particle",
    ) -> None:
        if tick_sum < 1:
            raise ValueError(f"tick_sum must be positive, got {tick_sum}")
        self.path = Path(path)
        self._choose_labels(label, class_names)
        self._choose_planes(plane, planes)
        self.threshold, self.clip, self.tick_sum, self.crop = threshold, clip, tick_sum, crop
        self._set_canvas((DETECTOR_SIZE, DETECTOR_SIZE), size, len(self.planes))
        self._begin(open_hdf5(self.path), self._open, label_of_pdg)

    def _choose_planes(self, plane, planes):
        self.planes = tuple(planes) if planes is not None else (plane,)
        if (
            not self.planes
            or not set(self.planes) <= {0, 1, 2}
            or len(set(self.planes)) != len(self.planes)
        ):
            raise ValueError(
                f"planes are 0, 1 (induction) and 2 (collection), each once; got {self.planes}"
            )

    def _open(self, label_of_pdg):
        self._wire = self._columns("wire_table", WIRE_COLUMNS)
        self._event, self._first = self._rows_of_events("wire_table", self._wire)
        ticks = self._wire["adc"].shape[1:]
        if len(ticks) != 1:
            raise ValueError(
                f"wire_table/adc has shape {self._wire['adc'].shape}, expected (rows, ticks)"
            )
        self._set_axes(ticks[0])
        self._open_truth(label_of_pdg)

    def _set_axes(self, ticks):
        """Set the axes of images of wires of so many ticks."""
        columns = ticks // self.tick_sum
        if columns > DETECTOR_SIZE and not self.crop:
            raise ValueError(
                f"{ticks} ticks, summed by {self.tick_sum}, do not fit on {DETECTOR_SIZE} "
                "columns; sum more of them (tick_sum), or allow cropping (crop=True)"
            )
        cm = MEASURED_CM_PER_TICK
        wires = Axis("wire", length="z", cm=WIRE_PITCH_CM, origin=FIRST_WIRE_CM)
        columns = Axis("tick", self.tick_sum, 0, "x", cm * self.tick_sum, -TRIGGER_TICK * cm)
        if (
            len({WIRES_OF_PLANE[plane] for plane in self.planes}) > 1 or self.planes[0] != 2
        ):  # z is not along induction wires' pitch
            wires = wires._replace(cm=0.0)
        shape = (WIRES_OF_PLANE[self.planes[0]], ticks // self.tick_sum)
        self.axes = placed((wires, columns), shape, self._edge, self._size)

    def _open_truth(self, label_of_pdg):
        """Set the labels of the events, and where their particles are."""
        self.labels = np.full(len(self._event), -1, np.int32)
        self._particle, self._particle_rows = None, {}
        if self.label == "neutrino":
            self._set_neutrino_labels()
        if "particle_table" not in self._file:
            return
        self._particle = self._columns("particle_table", PARTICLE_COLUMNS)
        event, first = self._rows_of_events("particle_table", self._particle)
        self._particle_rows = {
            int(e): slice(*first[k : k + 2].tolist()) for k, e in enumerate(event)
        }
        for k in range(len(self)) if self.label == "particle" else ():
            rows = self._particle_rows.get(int(self._event[k]), slice(0, 0))
            pdg, parent, momentum = (
                _table(self._particle[name][rows]) for name in ("g4_pdg", "parent_id", "momentum")
            )
            size = np.linalg.norm(momentum.astype(np.float64), axis=1)
            self.labels[k] = label_of_primary(pdg[:, 0], size, parent[:, 0] == 0, label_of_pdg)
        check_labels(self.labels, self.class_names)

    def _choose_labels(self, label, class_names):
        """Set what labels are, and the names of the classes."""
        if label not in ("particle", "neutrino"):
            raise ValueError(f'label= is "particle" or "neutrino", got {label!r}')
        self.label = label
        self.class_names = INTERACTIONS if label == "neutrino" else tuple(class_names)

    def _set_neutrino_labels(self):
        if "event_table" not in self._file:
            raise ValueError('has no event_table: label="neutrino" needs one')
        table = self._columns("event_table", EVENT_COLUMNS)
        event, first = self._rows_of_events("event_table", table)
        pdg, is_cc = (np.abs(_table(table[name][:])[:, 0]) for name in ("nu_pdg", "is_cc"))
        row_of = dict(zip(event.tolist(), first.tolist()))
        for k, number in enumerate(self._event.tolist()):
            row = row_of.get(number)
            if row is not None:
                flavour = {12: 0, 14: 1}.get(int(pdg[row]), -1)
                self.labels[k] = flavour if is_cc[row] else INTERACTIONS.index("NC")

    def _columns(self, table, names):
        for name in names:
            if name not in self._file[table]:
                raise ValueError(
                    f"{table} has no column {name!r}, it has {', '.join(self._file[table])}"
                )
        columns = {name: dataset(self._file[table], name) for name in names}
        rows = {name: len(column) for name, column in columns.items() if name != "event_id.seq_cnt"}
        if len(set(rows.values())) > 1:
            raise ValueError(f"the columns of {table} differ in length: {rows}")
        return columns

    def _rows_of_events(self, table, columns):
        """Event index of each event that has rows in a table, and its first row, with the table's
        length at the end.
        """
        event, count = columns["event_id.seq_cnt"][:].reshape(-1, 2).astype(np.int64).T
        first = np.concatenate([[0], np.cumsum(count)])
        rows = len(next(column for name, column in columns.items() if name != "event_id.seq_cnt"))
        if (count < 0).any() or first[-1] != rows or len(set(event.tolist())) != len(event):
            raise ValueError(
                f"{table}/event_id.seq_cnt counts {first[-1]} rows for {len(event)} events, "
                f"the table has {rows}"
            )
        return event, first

    def _read(self, index):
        first, last = self._first[index : index + 2].tolist()
        plane = self._wire["local_plane"][first:last].reshape(-1)
        wire = self._wire["local_wire"][first:last].reshape(-1)
        images = [
            self._plane_image(channel, np.flatnonzero(plane == p), first, wire)
            for channel, p in enumerate(self.planes)
        ]
        event_id = tuple(self._wire["event_id"][first].tolist()) if last > first else (0, 0, 0)
        return Event(
            place(merge(images), self._edge, self._size),
            int(self.labels[index]),
            event_id,
            self._particles(index),
        )

    def _plane_image(self, channel, rows, first, wire):
        """Lit pixels of one plane on the full canvas, in channel ``channel``; ``rows`` are its rows
        in the event.
        """
        plane, wires = self.planes[channel], wire[rows]
        known = (wires == np.floor(wires)) & (wires >= 0) & (wires < WIRES_OF_PLANE[plane])
        if not known.all():
            raise ValueError(
                f"plane {plane} has a wire {wires[~known][0]}, expected 0 to "
                f"{WIRES_OF_PLANE[plane] - 1}"
            )
        names, times = np.unique(wires, return_counts=True)
        if (times > 1).any():
            raise ValueError(f"wire {names[times > 1][0]:.0f} of plane {plane} is given twice")
        coords, values = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            some = rows[start : start + ROWS_AT_A_TIME]
            adc = self._wire["adc"][first + some.min() : first + some.max() + 1][some - some.min()]
            adc = sum_ticks(adc.astype(np.float32), self.tick_sum)
            if not np.isfinite(adc).all():
                raise ValueError(
                    f"wire {wire[some][~np.isfinite(adc).all(1)][0]:.0f} of plane {plane} is not "
                    "finite"
                )
            lit = np.argwhere(
                adc != 0 if self.threshold is None else (adc >= self.threshold) & (adc != 0)
            )
            coords.append(np.stack([wire[some][lit[:, 0]].astype(np.int64), lit[:, 1]], 1))
            values.append(
                np.minimum(adc[lit[:, 0], lit[:, 1]], np.inf if self.clip is None else self.clip)
            )
        coords, value = np.concatenate(coords), np.concatenate(values)
        values = np.zeros((len(value), len(self.planes)), np.float32)
        values[:, channel] = value
        shape = (
            WIRES_OF_PLANE[plane],
            self._wire["adc"].shape[1] // self.tick_sum,
            len(self.planes),
        )
        return pad(in_order(coords, values, shape), DETECTOR_SIZE, DETECTOR_SIZE, self.crop)

    def _particles(self, index):
        rows = self._particle_rows.get(int(self._event[index]), slice(0, 0))
        if rows.stop == rows.start:
            return np.zeros(0, PARTICLE)
        column = {name: _table(self._particle[name][rows]) for name in PARTICLE_COLUMNS[1:]}
        start, end = column["start_position"], column["end_position"]
        momentum = column["momentum"].astype(np.float64)
        if momentum.shape[1] == 1:  # only its size: along the way from start to end
            path = end.astype(np.float64) - start
            length = np.linalg.norm(path, axis=1, keepdims=True)
            way = np.where(length > 0, path / np.where(length > 0, length, 1), [0, 0, 1])
            momentum = momentum * way
        track, parent = column["g4_id"][:, 0], column["parent_id"][:, 0]
        return particle_table(column["g4_pdg"][:, 0], track, parent, momentum, (start, end))


def _table(column):
    """(N, k) of a column that may have been stored as (N,)."""
    return column if column.ndim == 2 else column[:, None]

"""Trajectories of simulated particles as edep-sim and larnd-sim write them, to minicnn's table."""

from __future__ import annotations

from typing import Any

import numpy as np

from .truth import particle_table

#: Names of fields, and what older files call them.
OLDER = {"event_id": "eventID", "traj_id": "trackID", "parent_id": "parentID", "pdg_id": "pdgId"}
FIELDS = ("event_id", "traj_id", "parent_id", "pdg_id", "pxyz_start", "xyz_start", "xyz_end")


def field(table: Any, name: str) -> str:
    """Return what this file calls the field ``name`` of a table; ValueError where it has none."""
    for known in (name, OLDER.get(name, name)):
        if known in (table.dtype.names or ()):
            return known
    raise ValueError(
        f"{table.name} has no field {name!r}, it has {', '.join(table.dtype.names or ())}"
    )


class Trajectories:
    """A dataset of trajectories: event_id, vertex_id, traj_id, parent_id (-1 primary), pdg_id,
    pxyz_start (MeV/c), xyz_start, xyz_end (cm); traj_id is unique within a vertex.
    """

    def __init__(self, table: Any) -> None:
        self._table, self._names = table, {name: field(table, name) for name in FIELDS}
        self._vertices = [n for n in ("event_id", "vertex_id") if n in table.dtype.names]

    def particles(self, first: int, last: int, keep: Any = slice(None)) -> np.ndarray:
        """Return the PARTICLE rows of trajectories ``first`` to ``last`` - 1; keep: which of these,
        by index or bool.
        """
        rows = self._table[first:last][keep]
        column = {name: rows[self._names[name]] for name in FIELDS}
        vertex = np.zeros(len(rows), np.int64)
        if self._vertices:
            vertex = np.unique(rows[self._vertices], return_inverse=True)[1]
        track = column["traj_id"].astype(np.int64) + (vertex << 33)
        parent = column["parent_id"].astype(np.int64)
        parent = np.where(parent < 0, -1, parent + (vertex << 33))
        momentum = column["pxyz_start"].astype(np.float64) / 1000.0
        ends = column["xyz_start"], column["xyz_end"]
        return particle_table(column["pdg_id"], track, parent, momentum, ends)

"""From a file's particles to minicnn's table of particles, and from that to the label of the
event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..event import PARTICLE


def particle_table(
    pdg: Any, track: Any, parent: Any, momentum: Any, ends: tuple[Any, Any], process: Any = None
) -> np.ndarray:
    """Return the PARTICLE rows of one event.

    pdg, track, parent (n,): PDG code, track number and that of the parent. momentum (n, 3) in
    GeV/c; ends: where they start and end, (n, 3) each, in cm. process (n,) of bytes or str, or
    None: a particle is primary if it says "primary"; where none does, if its parent is itself or
    not in the event. A doubled track number stands for its first particle.
    """
    table = np.zeros(len(pdg), PARTICLE)
    if not len(table):
        return table
    track, parent = np.asarray(track, np.int64), np.asarray(parent, np.int64)
    row_of: dict[int, int] = {}
    for row, number in enumerate(track.tolist()):
        row_of.setdefault(number, row)
    table["pdg"], table["momentum"] = pdg, 1000.0 * np.asarray(momentum, np.float64)
    table["start"], table["end"] = ends
    table["parent"] = [row_of.get(number, -1) for number in parent.tolist()]
    primary = np.zeros(len(table), bool)
    if process is not None:
        primary = (
            np.array(
                [str(p, "ascii", "replace") if isinstance(p, bytes) else str(p) for p in process]
            )
            == "primary"
        )
    if not primary.any():
        primary = table["parent"] == np.arange(len(table))
    table["parent"][primary] = -1
    return table


def label_of(particles: np.ndarray, label_of_pdg: Mapping[int, int]) -> int:
    """Return the label of the primary of highest momentum by ``label_of_pdg`` (PDG code -> label),
    -1 where that knows none.
    """
    momentum = np.linalg.norm(particles["momentum"].astype(np.float64), axis=1)
    return label_of_primary(particles["pdg"], momentum, particles["parent"] == -1, label_of_pdg)


def label_of_primary(
    pdg: np.ndarray, momentum: np.ndarray, primary: np.ndarray, label_of_pdg: Mapping[int, int]
) -> int:
    """Return the same of columns (n,): PDG codes, sizes of momenta and which are primary."""
    size = np.where(primary, momentum, -1)
    if not len(size) or not size.max() >= 0:
        return -1
    return label_of_pdg.get(int(pdg[size.argmax()]), -1)


def check_labels(labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Raise ValueError where a label is neither -1 nor an index into ``class_names``."""
    if not ((labels >= -1) & (labels < len(class_names))).all():
        raise ValueError(
            f"label_of_pdg gives labels {sorted(set(labels.tolist()))} for {len(class_names)} "
            f"classes ({', '.join(class_names)})"
        )


#: MeV/c^2 of particles whose mass is not small beside their momentum.
MASSES = {13: 105.66, 211: 139.57, 321: 493.68, 2212: 938.27}
#: Least number of such particles by which a unit is told, and by how much their energies may
#: differ.
FEWEST, AGREEMENT = 1, 0.05


def mev_per_unit(pdg: np.ndarray, momentum: np.ndarray, energy: np.ndarray | None) -> float:
    """Return how many MeV/c the unit of a file's momenta is, 1000 or 1, by its own evidence: with
    the right one energy, total or kinetic, momentum and mass fit each other.

    pdg (n,), momentum (n, 3), energy (n,) in the same unit, None where the file has none. 1000, as
    the format says, where nothing tells otherwise.
    """
    if energy is None:
        return 1000.0
    mass = np.array([MASSES.get(abs(int(code)), 0.0) for code in pdg])
    size = np.linalg.norm(np.asarray(momentum, np.float64), axis=1)
    chosen = (mass > 0) & (size > 0) & (np.asarray(energy) > 0)
    if chosen.sum() < FEWEST:
        return 1000.0
    mass, size, energy = mass[chosen], size[chosen], np.asarray(energy, np.float64)[chosen]
    worst = {}
    for unit in (1000.0, 1.0):
        total = np.sqrt((size * unit) ** 2 + mass**2)
        worst[unit] = min(
            float(np.median(np.abs(expected - energy * unit) / expected))
            for expected in (total, total - mass)
        )
    return 1.0 if worst[1.0] < AGREEMENT and worst[1.0] < worst[1000.0] else 1000.0


def choose_particles(names: Sequence[str], wanted: str | None) -> str | None:
    """Return which of the producers of particles is read: ``wanted``, the only one, or "mctruth";
    None where there are none. ValueError where it is not there, or several could be meant.
    """
    if wanted is not None and wanted not in names:
        raise ValueError(f"holds no particles {wanted!r}, only {', '.join(names) or 'none'}")
    if wanted is None and len(names) > 1 and "mctruth" not in names:
        raise ValueError(
            "holds the particles of several producers; choose by particles= one of "
            f"{', '.join(names)}"
        )
    return wanted or ("mctruth" if "mctruth" in names else next(iter(names), None))

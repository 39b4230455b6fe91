"""Muons of up to 8 GeV, which radiate, and showers of 6 GeV."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import material, radiation
from .. import particles as P
from ..ionisation import Track
from ..kinematics import Point, Vector
from .base import BEAM, UPSTREAM, Check, Figure, Series, Validation, empty_world, relative

#: CSDA range in g/cm2 of muons in liquid argon by kinetic energy in MeV: Groom, Mokhov and
#: Striganov, At. Data Nucl. Data Tables 78 (2001) 183
GROOM = {400: 238.5, 1000: 616.3, 2000: 1202.0, 3000: 1758.0, 4000: 2297.0, 8000: 4359.0}


def muon_range(simulator: Any) -> Validation:
    """Ranges of fast muons, which radiate, against the table."""
    grid = np.geomspace(1.0, 8000.0, 600)
    per_cm = material.stopping_power(grid, P.MUON) + [radiation.loss(t) for t in grid]
    steps = np.diff(grid) * 0.5 * (1 / per_cm[1:] + 1 / per_cm[:-1])
    ranges = material.DENSITY * np.concatenate([[0.0], np.cumsum(steps)])
    checks = [
        relative(
            f"{t / 1000:g} GeV",
            np.interp(t, grid, ranges),
            r,
            0.01,
            "g/cm²",
            "Groom, Mokhov and Striganov 2001; 0.6 % of the loss at 6 GeV is radiation of atomic "
            "electrons, which is left out",
        )
        for t, r in GROOM.items()
    ]
    lost = [radiation.loss(t) / p for t, p in zip(grid, per_cm)]
    seen = grid > 100
    return Validation(
        "muon_range",
        "Fast muons",
        "CSDA range of muons with bremsstrahlung and pair production, which take "
        f"{100 * lost[-1]:.1f} % of the loss at 8 GeV.",
        Figure(
            "kinetic energy (MeV)",
            "range (g/cm²)",
            [
                Series("here", grid[seen], ranges[seen]),
                Series("Groom et al.", list(GROOM), list(GROOM.values()), "points"),
            ],
            True,
            True,
        ),
        checks,
    )


def muon_radiation(simulator: Any, n: int = 200) -> Validation:
    """What muons of 6 GeV/c emit: knock-on electrons, photons and pairs."""
    energies, path = [], 0.0
    for i in range(n):
        _, truth = simulator.deposits(i, 13, 6000.0, UPSTREAM, BEAM)
        path += float(np.linalg.norm(truth["end"][0] - truth["start"][0]))
        born = truth[truth["parent"] == 0]
        pairs = {tuple(p["start"]) for p in born[born["pdg"] == -11]}
        own = [p["momentum"] for p in born if p["pdg"] == 11 and tuple(p["start"]) not in pairs]
        energies += [float(np.linalg.norm(p)) for p in own]
    t_max = float(material.max_transfer(6000.0, P.MUON))
    low = np.array([20.0, 50.0, 100.0])
    found = np.array([np.sum(np.array(energies) > t) for t in low]) / path
    expected = np.array(
        [material.XI * (1 / t - 1 / t_max - math.log(t_max / t) / t_max) for t in low]
    )
    checks = [
        Check(
            f"knock-on electrons above {t:g} MeV in 10 m",
            1000 * a,
            1000 * b,
            1000 * (4 * math.sqrt(b / path) + 0.05 * b),
            "",
            "xi / T² (1 - T / T_max), PDG eq. 34.8; 4 standard deviations, and 5 % for pairs of "
            "which one is below 10 MeV",
        )
        for t, a, b in zip(low, found, expected)
    ]
    world, rng, energy = empty_world(), np.random.default_rng(3), 6000.0 + P.MUON
    muon = Track(-1, 6000.0, Vector(*BEAM), Point(*UPSTREAM, 0.0))
    processes = {
        "photons": (0, radiation.brems_cross_section),
        "pairs": (1, radiation.pair_cross_section),
    }
    for name, (kind, section) in processes.items():
        v = np.geomspace(radiation.CUT / energy, 0.98 * 6000.0 / energy, 2000)
        number, carried = (
            float(np.trapezoid(section(energy, v) * v * weight, np.log(v)))
            for weight in (1.0, v * energy)
        )
        drawn = []
        for _ in range(20000):
            world.n[:] = 0
            drawn.append(radiation.radiate(rng, world, kind, muon))
        checks += [
            relative(
                f"{name} above 5 MeV in 10 m",
                1000 * radiation.inverse_length(kind, 6000.0),
                1000 * number * material.ATOMS,
                0.03,
                "",
                "integral of the cross section",
            ),
            relative(
                f"their mean energy, {name}",
                np.mean(drawn),
                carried / number,
                0.08,
                "MeV",
                "integral of the cross section",
            ),
        ]
    return Validation(
        "muon_radiation",
        "What fast muons emit",
        f"Electrons that {n} muons of 6 GeV/c knock out of atoms; and the photons and pairs above "
        f"{radiation.CUT:g} MeV that they radiate.",
        Figure(
            "more than (MeV)",
            "electrons per cm",
            [Series("simulated", low, found, "points"), Series("expected", low, expected)],
            True,
            True,
        ),
        checks,
    )


def large_shower(simulator: Any, n: int = 16) -> Validation:
    """Where electrons and photons of 6 GeV leave their energy."""
    x0, edges = material.RADIATION_LENGTH, np.linspace(0, 24, 49)
    checks, series = [], []
    for colour, (name, pdg, add) in enumerate((("electron", 11, -0.5), ("photon", 22, 0.5))):
        found = [simulator.deposits(i, pdg, 6000.0, UPSTREAM, BEAM)[0] for i in range(n)]
        steps = np.concatenate(found)
        depth = (steps[:, 2] - UPSTREAM[2]) / x0
        energy = np.histogram(depth, edges, weights=steps[:, 4])[0] / (n * 6000.0 * 0.5)
        top = math.log(6000.0 / 32.8) + add
        middle = 0.5 * (edges[1:] + edges[:-1])
        near = energy > 0.8 * energy.max()
        a, b, _ = np.polyfit(middle[near], energy[near], 2)
        checks += [
            Check(
                f"energy left in the TPC, {name}",
                np.mean([s[:, 4].sum() for s in found]) / 6000.0,
                1.0,
                0.01,
                "",
                "all; the shower is contained",
            ),
            Check(
                f"deepest rise, {name}",
                -b / (2 * a),
                top,
                0.7,
                "X0",
                f"ln(E / E_c) {'+' if add > 0 else '-'} 0.5, PDG 34.5",
            ),
            relative(
                f"mean depth, {name}",
                np.average(depth, weights=steps[:, 4]),
                top + 1 / 0.5,
                0.12,
                "X0",
                "gamma function with b = 0.5, PDG 34.5",
            ),
        ]
        t = np.linspace(0.01, 24, 200)
        shape = 1 + 0.5 * top
        curve = 0.5 * (0.5 * t) ** (shape - 1) * np.exp(-0.5 * t) / math.gamma(shape)
        series += [
            Series(f"{name}, simulated", edges, energy, "steps", colour),
            Series(f"{name}, gamma function", t, curve, "line", colour),
        ]
    return Validation(
        "large_shower",
        "Showers of 6 GeV",
        f"Energy by depth of {n} showers of each kind.",
        Figure("depth (X0)", "part of the energy per X0", series),
        checks,
    )

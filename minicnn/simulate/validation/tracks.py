"""Charged tracks against Bethe, Landau, range tables and Geant4."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .. import decays, ionisation, material
from .. import particles as P
from ..kinematics import Point
from ..record import inside
from .base import Check, Figure, Series, Validation, histogram, relative

#: CSDA range in cm by momentum in MeV/c, argon of 1.396 g/cm3
MOMENTA = (200, 300, 500, 800, 1000)
RANGES = {
    "mu": (40, 83, 175, 313, 403),
    "pi": (29, 67, 157, 296, 388),
    "K": (2.4, 9.4, 43, 135, 213),
}
TABLE_DENSITY = 1.396
MASSES = {"mu": P.MUON, "pi": P.PION, "K": P.KAON}
CODES = {"mu": 13, "pi": 211, "K": 321}


def csda_range(simulator: Any) -> Validation:
    """Ranges of muons, pions and kaons against the table."""
    checks, series = [], []
    for colour, (name, table) in enumerate(RANGES.items()):
        ours = [
            material.csda_range(p, MASSES[name]) * material.DENSITY / TABLE_DENSITY for p in MOMENTA
        ]
        checks += [
            relative(
                f"{name}, {p} MeV/c",
                r,
                t,
                0.04,
                "cm",
                "table of CSDA ranges, rounded to two or three digits",
            )
            for p, r, t in zip(MOMENTA, ours, table)
        ]
        grid = np.geomspace(150, 1100, 60)
        curve = [
            material.csda_range(p, MASSES[name]) * material.DENSITY / TABLE_DENSITY for p in grid
        ]
        series += [
            Series(name, grid, np.array(curve), "line", colour),
            Series(f"{name}, table", MOMENTA, table, "points", colour),
        ]
    return Validation(
        "csda_range",
        "Range",
        "CSDA range of Bethe's equation, scaled from the simulator's density of 1.381 g/cm³ to the "
        "table's 1.396 g/cm³.",
        Figure("momentum (MeV/c)", "range (cm)", series, True, True),
        checks,
    )


def to_the_stop(
    simulator: Any, pdg: int, momentum: float, n: int, direction: Any = (0.0, 0.0, 1.0)
) -> Iterator[np.ndarray]:
    """Yield the steps (k, 6) of primaries that stop, without those that decay or interact in
    flight.
    """
    for i in range(n):
        steps, truth = simulator.deposits(
            i, pdg=pdg, momentum=momentum, position=(128.0, 0.0, 300.0), direction=direction
        )
        last = np.flatnonzero(np.abs(steps[:, :3] - truth["end"][0]).max(1) < 1e-3)
        if (
            len(last) and steps[last[0], 5] < 0.0201
        ):  # the last step of a particle that stops is what its range leaves
            born = np.linalg.norm(truth["momentum"][truth["parent"] == 0], axis=1)
            if pdg != 211 or (np.abs(born - 29.79) < 0.01).any():
                yield steps[: last[0] + 1]


def restricted_loss(kinetic: Any, mass: Any) -> Any:
    """Return the mean loss in MeV/cm that stays on the track: Bethe's without the knock-on
    electrons above DELTA_CUT.
    """
    loss, t_max, cut = (
        float(material.stopping_power(kinetic, mass)),
        material.max_transfer(kinetic, mass),
        ionisation.DELTA_CUT,
    )
    if t_max <= cut:
        return loss
    gamma = 1 + kinetic / mass
    beta2 = 1 - 1 / gamma**2
    return loss - material.XI / beta2 * (math.log(t_max / cut) - beta2 * (1 - cut / t_max))


def energy_loss(simulator: Any, n: int = 150) -> Validation:
    """dE/dx against residual range: what tells a K from a pi from a mu."""
    checks, series = [], []
    edges = np.geomspace(0.5, 60, 16)
    for colour, (name, momentum) in enumerate((("mu", 280.0), ("pi", 280.0), ("K", 560.0))):
        energies = np.geomspace(1, 700, 200)
        ranges = [
            material.csda_range(math.sqrt(t * (t + 2 * MASSES[name])), MASSES[name])
            for t in energies
        ]
        sums, near = np.zeros((len(edges) - 1, 2)), {r: np.zeros(2) for r in (2, 5, 10, 20)}
        for steps in to_the_stop(simulator, CODES[name], momentum, n):
            residual = steps[:, 5].sum() - np.cumsum(steps[:, 5]) + 0.5 * steps[:, 5]
            place = np.digitize(residual, edges) - 1
            inside = (place >= 0) & (place < len(sums))
            np.add.at(sums, place[inside], steps[inside][:, 4:6])
            for r, total in near.items():
                total += steps[(residual > 0.9 * r) & (residual < 1.1 * r), 4:6].sum(0)
        for r, (energy, length) in near.items():
            expected = restricted_loss(float(np.interp(r, ranges, energies)), MASSES[name])
            checks.append(
                relative(
                    f"{name}, {r} cm before the stop",
                    energy / length,
                    expected,
                    0.03,
                    "MeV/cm",
                    "Bethe, PDG eq. 34.5",
                )
            )
        grid = np.geomspace(0.5, 60, 80)
        curve = [restricted_loss(float(np.interp(x, ranges, energies)), MASSES[name]) for x in grid]
        middle = np.sqrt(edges[1:] * edges[:-1])
        series += [
            Series(f"{name}, Bethe", grid, np.array(curve), "line", colour),
            Series(
                f"{name}, simulated",
                middle,
                sums[:, 0] / np.maximum(sums[:, 1], 1e-9),
                "points",
                colour,
            ),
        ]
    return Validation(
        "energy_loss",
        "Energy loss along the track",
        "Mean energy left on the track per cm of stopping mu, pi and K "
        f"against Bethe's equation without the knock-on electrons above {ionisation.DELTA_CUT} "
        "MeV, which have tracks "
        "of their own.",
        Figure("residual range (cm)", "dE/dx (MeV/cm)", series, True),
        checks,
    )


def geant4_muon(simulator: Any, path: str | Path, n: int = 150) -> Validation:
    """The muon of 100 MeV against Geant4's: its range, straggling and profile."""
    import h5py

    with h5py.File(path, "r") as file:
        table = file["pstep/lar_vol"][0]
    muon = table[table["pdg"] == 13]
    muon = muon[np.argsort(muon["t"], kind="stable")]
    theirs = np.stack([muon["de"], muon["dx"] / 10.0], 1).astype(float)
    momentum = math.sqrt(100.0 * (100.0 + 2 * P.MUON))
    ours = [s[:, 4:6] for s in to_the_stop(simulator, 13, momentum, n, (0.3, 0.2, 1.0))]
    lengths = np.array([s[:, 1].sum() for s in ours])
    edges = np.array([0.3, 1, 2, 4, 8, 16, 29])

    def profile(tracks):
        sums = np.zeros((6, 2))
        for s in tracks:
            residual = s[:, 1].sum() - np.cumsum(s[:, 1]) + 0.5 * s[:, 1]
            for k in range(6):
                sums[k] += s[(residual >= edges[k]) & (residual < edges[k + 1])].sum(0)
        return sums[:, 0] / sums[:, 1]

    simulated, geant4 = profile(ours), profile([theirs])
    source = "Geant4, one muon of 100 MeV"
    checks = [
        relative(
            "range", lengths.mean(), theirs[:, 1].sum(), 0.03, "cm", source + " (straggling 2.7 %)"
        ),
        Check(
            "straggling of the range",
            lengths.std() / lengths.mean(),
            0.027,
            0.012,
            "",
            "about 2.7 % (Bethe and Ashkin)",
        ),
    ]
    checks += [
        relative(
            f"dE/dx at {a:g}-{b:g} cm",
            x,
            y,
            0.08,
            "MeV/cm",
            source + ", its delta rays as they fell",
        )
        for a, b, x, y in zip(edges, edges[1:], simulated, geant4)
    ]
    return Validation(
        "geant4_muon",
        "A muon of 100 MeV",
        "Energy left on the track by residual range: the mean of our muons, and "
        "Geant4's one muon in steps of 0.1 mm.",
        Figure(
            "residual range (cm)",
            "dE/dx (MeV/cm)",
            [
                Series("Geant4", edges, geant4, "steps"),
                Series("simulated", np.sqrt(edges[1:] * edges[:-1]), simulated, "points"),
            ],
            True,
        ),
        checks,
    )


def straggling(simulator: Any, n: int = 150) -> Validation:
    """Fluctuation of the loss in one wire's pitch against Landau."""
    steps = np.concatenate(
        [simulator.deposits(i, 13, 600.0, (128, 0, 50), (0, 0, 1.0))[0][:400] for i in range(n)]
    )
    loss = steps[steps[:, 5] > 0.1499][:, 4]
    loss = loss[: len(loss) // 2 * 2].reshape(-1, 2).sum(1)
    count, edge = np.histogram(loss, 90, (0.3, 1.2))
    middle = 0.5 * (edge[1:] + edge[:-1])
    top = count > 0.6 * count.max()
    a, b, _ = np.polyfit(middle[top], count[top], 2)
    gamma = 1 + (math.hypot(600.0, P.MUON) - P.MUON - 60.0) / P.MUON  # half way through the 60 cm
    bg2 = gamma**2 - 1
    beta2, i = bg2 / gamma**2, material.I_EV * 1e-6
    xi = material.XI * 0.3 / beta2
    delta = float(material.density_effect(math.sqrt(bg2)))
    expected = xi * (math.log(2 * P.ELECTRON * bg2 / i) + math.log(xi / i) + 0.2 - beta2 - delta)
    x, density = histogram(loss, 90, (0.3, 1.2))
    theory = landau((middle - expected) / xi - 0.22278) / xi
    checks = [
        relative(
            "most probable loss", -b / (2 * a), expected, 0.03, "MeV", "Landau, PDG eq. 34.12"
        ),
        relative(
            "full width at half maximum",
            np.sum(count > count.max() / 2) * 0.01,
            4.018 * xi,
            0.2,
            "MeV",
            "4.018 xi",
        ),
    ]
    return Validation(
        "straggling",
        "Fluctuation of the loss",
        "Energy that muons of 600 MeV/c leave in 3 mm, and Landau's distribution, "
        "which knows no upper end (knock-on electrons above 0.5 MeV are apart).",
        Figure(
            "loss in 3 mm (MeV)",
            "density per MeV",
            [Series("simulated", x, density, "steps"), Series("Landau", middle, theory)],
        ),
        checks,
    )


def landau(x: Any) -> Any:
    """Return Landau's density 1/pi int_0^inf exp(-t ln t - x t) sin(pi t) dt by the trapezoidal
    rule; below -3.5 it is 0 (< 1e-4).
    """
    t, x = np.linspace(1e-9, 100, 100001), np.asarray(x)[:, None]
    inner = np.exp(-t * np.log(t) - np.maximum(x, -3.5) * t) * np.sin(np.pi * t)
    return np.where(x[:, 0] < -3.5, 0.0, np.trapezoid(inner, t, axis=1) / np.pi)


def interaction_length(simulator: Any, n: int = 300) -> Validation:
    """How far pions of 600 MeV/c go before they interact."""
    ends, path = 0, 0.0
    reach = []
    for i in range(n):
        _, truth = simulator.deposits(
            i, pdg=211, momentum=600.0, position=(128, 0, 100), direction=(0, 0, 1.0)
        )
        length = float(np.linalg.norm(truth["end"][0] - truth["start"][0]))
        ends += length < 100.0
        path += min(length, 100.0)
        reach.append(length)
    depth = np.linspace(0, 100, 51)
    alive = [np.mean(np.array(reach) >= d) for d in depth]
    value = path / ends
    checks = [Check("mean free path", value, 80.0, 20.0, "cm", "about 80 cm for pions in argon")]
    return Validation(
        "interaction_length",
        "Pions interact",
        "Part of 600 MeV/c pi+ that is left at a depth.",
        Figure(
            "depth (cm)",
            "part left",
            [
                Series("simulated", depth, np.array(alive), "points"),
                Series("exp(-depth / 80 cm)", depth, np.exp(-depth / 80)),
            ],
            log_y=True,
        ),
        checks,
    )


def pion_ends(simulator: Any, n: int = 2000) -> Validation:
    """How pions end, in all directions from anywhere in the TPC: without an interaction they look
    like muons.
    """
    grid = np.geomspace(30, 1100, 60)  # MeV/c, and the range of each
    ranges = np.array([material.csda_range(p, P.PION) for p in grid])
    momenta = np.random.default_rng(1).uniform(100, 1000, n)
    ends: Any = []
    in_flight: list[Any] = []
    for i, momentum in enumerate(momenta):
        _, truth = simulator.deposits(i, (211, -211)[i % 2], momentum)
        x, y, z = truth["end"][0].tolist()
        daughters = set(np.abs(truth["pdg"][truth["parent"] == 0])) - {11, 22}
        ends.append(
            "leave the TPC"
            if not inside(Point(x, y, z, 0.0), 0.0)
            else "decay"
            if daughters == {13}
            else "interact or are captured"
        )
        if i % 2:
            left = np.interp(momentum, grid, ranges) - np.linspace(
                0, np.linalg.norm(truth["end"][0] - truth["start"][0]), 40
            )
            per_cm = [decays.inverse_length(211, p) for p in np.interp(left, ranges, grid)]
            in_flight.append(np.mean(per_cm) * (left[0] - left[-1]))
    ends, edges, fates = (
        np.array(ends),
        np.linspace(100, 1000, 10),
        ("interact or are captured", "leave the TPC", "decay"),
    )
    parts = {
        end: np.array(
            [np.mean(ends[(momenta >= a) & (momenta < b)] == end) for a, b in pairwise(edges)]
        )
        for end in fates
    }
    share = {end: np.mean(ends == end) for end in fates}
    checks = [
        Check(
            "negative pions that decay",
            np.mean(ends[1::2] == "decay"),
            np.mean(in_flight),
            0.012,
            "",
            "in flight alone: integral of m / (p c tau) along straight tracks; at rest argon "
            "captures them",
        )
    ]
    return Validation(
        "pion_ends",
        "Pions end",
        f"What becomes of {n} pions of both charges in all directions from anywhere in the TPC, at "
        f"100 to 1000 MeV/c: {share['leave the TPC']:.0%} leave it and {share['decay']:.0%} decay, "
        "most of them at rest, "
        "into a muon of 1 mm and its electron. But for their energy loss, which is almost that of "
        "muons, these look like "
        f"muons; the other {share[fates[0]]:.0%} interact in flight or are captured at rest.",
        Figure(
            "momentum (MeV/c)",
            "part",
            [Series(end, edges, part, "steps") for end, part in parts.items()],
        ),
        checks,
    )

"""Photons and electrons against cross sections and the radiation length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import material, record
from .. import particles as P
from .. import showers as S
from ..detector import survival
from ..kinematics import Point, Vector
from ..record import Particle
from .base import CENTRE, Check, Figure, Series, Validation, histogram, relative

XCOM = {1.0: 0.0576, 5.0: 0.0276, 10.0: 0.0245, 100.0: 0.0304}  # cm2/g of argon by MeV


def photon_attenuation(simulator: Any) -> Validation:
    """Attenuation of photons against XCOM."""
    grid = np.exp(material.LOG_LOW + material.LOG_STEP * np.arange(material.N_GRID))
    parts = S.photon_tables() / material.DENSITY
    total = parts.sum(0)
    checks = [
        relative(f"{e:g} MeV", np.interp(e, grid, total), x, 0.04, "cm²/g", "XCOM, NIST")
        for e, x in XCOM.items()
    ]
    high = 1 / (material.ATOMS * float(S.pair_cross_section(5e4)))
    checks.append(
        relative(
            "mean free path at 50 GeV",
            high,
            9 / 7 * material.RADIATION_LENGTH,
            0.05,
            "cm",
            "9/7 X0",
        )
    )
    seen = (grid > 0.03) & (grid < 2000)
    names = ("pair production", "Compton", "photo effect")
    series = [
        Series(name, grid[seen], np.maximum(part[seen], 1e-6)) for name, part in zip(names, parts)
    ]
    series += [
        Series("sum", grid[seen], total[seen]),
        Series("XCOM", list(XCOM), list(XCOM.values()), "points"),
    ]
    return Validation(
        "photon_attenuation",
        "Photon cross sections",
        "Mass attenuation of argon.",
        Figure("photon energy (MeV)", "attenuation (cm²/g)", series, True, True),
        checks,
    )


def conversion_length(simulator: Any, n: int = 1000) -> Validation:
    """How deep photons convert."""
    checks, series = [], []
    for colour, energy in enumerate((100.0, 300.0, 1000.0)):
        particles = [
            simulator.deposits(i, 22, energy, (128, 0, 300), (0, 0, 1.0))[1] for i in range(n)
        ]
        depth = np.array([t["end"][0, 2] - t["start"][0, 2] for t in particles])
        expected = 1 / (material.ATOMS * float(S.pair_cross_section(energy)))
        checks.append(
            Check(
                f"mean depth, {energy:g} MeV",
                depth.mean(),
                expected,
                expected * (0.02 + 4 / math.sqrt(n)),
                "cm",
                "1 / (n sigma_pair); 4 standard deviations, and 2 % for Compton scattering",
            )
        )
        edges, density = histogram(depth, 24, (0, 96))
        middle = 0.5 * (edges[1:] + edges[:-1])
        series += [
            Series(f"{energy:g} MeV", edges, density, "steps", colour),
            Series("", middle, np.exp(-middle / expected) / expected, "line", colour),
        ]
    return Validation(
        "conversion_length",
        "Photons convert",
        f"Depth at which {n} photons of each energy end, and exponentials of the expected length.",
        Figure("depth (cm)", "density per cm", series, log_y=True),
        checks,
    )


def shower_profile(simulator: Any, n: int = 100) -> Validation:
    """Where electrons of 1 GeV leave their energy."""
    steps = np.concatenate(
        [simulator.deposits(i, 11, 1000.0, (128, 0, 100), (0, 0, 1.0))[0] for i in range(n)]
    )
    depth, x0 = (steps[:, 2] - 100.0) / material.RADIATION_LENGTH, material.RADIATION_LENGTH
    edges = np.linspace(0, 16, 33)
    energy = np.histogram(depth, edges, weights=steps[:, 4])[0] / (n * 1000.0 * 0.5)
    t_max, b = math.log(1000.0 / 32.8) - 0.5, 0.5
    a = 1 + b * t_max
    t = np.linspace(0.01, 16, 200)
    gamma = b * (b * t) ** (a - 1) * np.exp(-b * t) / math.gamma(a)
    near = np.hypot(steps[:, 0] - 128, steps[:, 1]) < 9.0
    total = steps[:, 4].sum()
    checks = [
        relative(
            "mean depth",
            np.average(depth, weights=steps[:, 4]),
            a / b,
            0.15,
            "X0",
            "gamma function with b = 0.5, PDG 34.5",
        ),
        relative(
            "deepest rise",
            edges[energy.argmax()] + 0.25,
            t_max,
            0.3,
            "X0",
            "ln(E / E_c) - 0.5; bins of 0.5 X0",
        ),
        Check(
            "energy within 9 cm of the axis",
            steps[near, 4].sum() / total,
            0.87,
            0.06,
            "",
            "nine tenths in one Molière radius, a rule of heavier nuclei",
        ),
        Check(
            "energy deposited",
            total / (n * 1000.0),
            0.995,
            0.015,
            "of E",
            "what does not leave as photons",
        ),
    ]
    return Validation(
        "shower_profile",
        "Shower profile",
        f"Energy per radiation length (X0 = {x0:.2f} cm) of {n} electrons of 1 GeV.",
        Figure(
            "depth (X0)",
            "1/E dE/dt",
            [
                Series("simulated", edges, energy, "steps"),
                Series("gamma function, b = 0.5", t, gamma),
            ],
        ),
        checks,
    )


def radiation_length(simulator: Any, n: int = 10000) -> Validation:
    """What electrons of 1 GeV radiate."""
    world, rng = record.new_world(material.tables(), S.photon_tables()), np.random.default_rng(5)
    depth = 7 * S.STEP * np.arange(28)  # whole steps: photons are born in the middle of one
    left = np.zeros(len(depth))
    p = math.sqrt(1000.0**2 - P.ELECTRON**2)
    electron = Particle(11, 0, Vector(0.0, 0.0, p), Point(128.0, 0.0, 100.0, 0.0))
    for _ in range(n):  # the electron alone: its photons stay on the stack
        world.n[:] = 0
        S.electron(rng, world, electron)
        born = world.stack[: world.n[2]]
        photons = born[born[:, 0] == 22]
        radiated = np.linalg.norm(photons[:, 2:5], axis=1)
        order = np.argsort(photons[:, 7])
        sums = np.concatenate([[0.0], np.cumsum(radiated[order])])
        left += 1 - sums[np.searchsorted(photons[order, 7] - 100.0, depth)] / 1000.0
    left /= n
    first = -depth[1] / math.log(left[1])  # collisions are 0.2 % of the energy in this cm
    checks = [
        relative(
            "X0 from the first cm",
            first,
            material.RADIATION_LENGTH,
            0.09,
            "cm",
            "19.55 g/cm² (PDG); 4 standard deviations",
        )
    ]
    expected = np.exp(-depth / material.RADIATION_LENGTH)
    return Validation(
        "radiation_length",
        "Radiation length",
        f"Mean part of their energy that {n} electrons of 1 GeV have not radiated "
        "at a depth; beyond the first cm collisions take energy that is then never radiated.",
        Figure(
            "depth (cm)",
            "not radiated",
            [
                Series("simulated", depth, left, "points"),
                Series("exp(-depth / X0)", depth, expected),
            ],
        ),
        checks,
    )


def best_cut(electrons: Any, photons: Any, cuts: Any) -> Any:
    """Return the cut that tells most of them, and whether each is told by it: bool (2, n)."""
    told = [np.array((electrons < cut, photons >= cut)) for cut in cuts]
    best = max(range(len(cuts)), key=lambda k: told[k].mean())
    return cuts[best], told[best]


def shower_start(simulator: Any, n: int = 200) -> Validation:
    """The first centimetres of electrons and photons: one or two minimum ionising particles."""
    found: dict[Any, Any] = {}
    for name, pdg in (("e-", 11), ("gamma", 22)):
        found[name] = []
        for i in range(n):
            s, truth = simulator.deposits(i, pdg, 400.0, (128, 0, 300), (0, 0, 1.0))
            z = truth["end"][0, 2] if pdg == 22 else 300.0
            found[name].append(s[(s[:, 2] > z) & (s[:, 2] < z + 3.0), 4].sum() / 3.0)
    found = {name: np.array(values) for name, values in found.items()}
    series = [
        Series(name, *histogram(values, 40, (0, 10)), "steps") for name, values in found.items()
    ]
    ratio = np.median(found["gamma"]) / np.median(found["e-"])
    cut, told = best_cut(found["e-"], found["gamma"], np.linspace(2, 8, 121))
    checks = [
        Check("ratio of the medians", ratio, 1.95, 0.25, "", "two particles to one"),
        Check(
            "median of electrons", np.median(found["e-"]), 2.2, 0.3, "MeV/cm", "minimum 2.1 MeV/cm"
        ),
    ]
    return Validation(
        "shower_start",
        "Electron or photon",
        "Energy in the first 3 cm of electrons, and of photons from where they convert, at 400 "
        f"MeV: the way to tell them. A cut at {cut:.1f} MeV/cm on this truth is right for "
        f"{told.mean():.0%} of {2 * n}.",
        Figure("dE/dx (MeV/cm)", "density", series),
        checks,
    )


def one_plane(simulator: Any, n: int = 600) -> Validation:
    """The same as one plane sees it, which does not tell how a particle goes along its wires."""
    # MeV that escape recombination, per cm in space and per cm in the picture
    found: dict[Any, Any] = {}
    seen: Any = []
    for name, pdg in (("e-", 11), ("gamma", 22)):
        for i in range(n):
            s, truth = simulator.deposits(i, pdg, 400.0, CENTRE)
            away = s[:, :3] - truth["end" if pdg == 22 else "start"][0]
            for view, distance in (
                ("in space", np.linalg.norm(away, axis=1)),
                ("in the picture", np.hypot(away[:, 0], away[:, 2])),
            ):
                near = s[distance < 3.0]
                escaped = sum(energy * survival(energy / length) for energy, length in near[:, 4:])
                found.setdefault((name, view), []).append(escaped / 3.0)
            way = truth["momentum"][0]
            seen.append(np.hypot(way[0], way[2]) / np.linalg.norm(way))
    found, seen = (
        {key: np.array(values) for key, values in found.items()},
        np.array(seen).reshape(2, n),
    )
    right = {
        view: best_cut(found["e-", view], found["gamma", view], np.linspace(1, 6, 201))[1]
        for view in ("in space", "in the picture")
    }
    steep = seen < 0.6
    times = np.median(found["e-", "in the picture"] / found["e-", "in space"] * seen[0])
    checks = [
        Check(
            "ratio of the medians, in space",
            np.median(found["gamma", "in space"]) / np.median(found["e-", "in space"]),
            2.0,
            0.25,
            "",
            "two particles to one, each of which recombines by itself",
        ),
        Check(
            "electrons: median of sin x charge in the picture / in space",
            times,
            1.0,
            0.12,
            "",
            "straight lines",
        ),
        Check(
            "directions whose sine is below 0.6",
            np.mean(steep),
            0.2,
            0.05,
            "",
            "1 - sqrt(1 - 0.6²), isotropic",
        ),
    ]
    series = [
        Series(f"{name}, {view}", *histogram(values, 40, (0, 8)), "steps", colour)
        for colour, ((name, view), values) in enumerate(found.items())
    ]
    text = (
        f"Charge, as the energy that escapes recombination, in the first 3 cm of {n} electrons and "
        f"{n} photons of 400 MeV in all "
        "directions, their start given. The collection plane does not see how far they go along "
        "its wires: 3 cm in its picture are "
        f"3 cm / sin in space. The best cut is right for {right['in space'].mean():.0%} where the "
        "length is known and for "
        f"{right['in the picture'].mean():.0%} in the picture: "
        f"{right['in the picture'][~steep].mean():.0%} where the sine is above "
        f"0.6, {right['in the picture'][steep].mean():.0%} below."
    )
    return Validation(
        "one_plane",
        "Electron or photon, by one plane",
        text,
        Figure("charge per cm (MeV/cm)", "density", series),
        checks,
    )

"""Decays against the theory of their spectra and the measured branching fractions."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from .. import decays
from .. import particles as P
from .base import CENTRE, Check, Figure, Series, Validation, histogram, relative


def michel_spectrum(simulator: Any, n: int = 20000) -> Validation:
    """The electrons of muon decay."""
    rng = np.random.default_rng(2)
    energies = np.array([decays.michel_energy(rng) for _ in range(n)])
    edges, density = histogram(energies, 55, (0, 55))
    x = np.linspace(0, 1, 100)
    checks = [
        relative("mean", energies.mean(), 0.7 * 52.83, 0.005, "MeV", "7/10 of the end point"),
        Check("largest", energies.max(), 52.83, 0.3, "MeV", "m_mu / 2"),
    ]
    checks += [
        Check(
            f"part below {f:g} of the end point",
            np.mean(energies < f * 52.83),
            2 * f**3 - f**4,
            0.013,
            "",
            "2 x³ - x⁴",
        )
        for f in (0.25, 0.5, 0.75)
    ]
    series = [
        Series("simulated", edges, density, "steps"),
        Series("2 x² (3 - 2x)", 52.83 * x, 2 * x**2 * (3 - 2 * x) / 52.83),
    ]
    return Validation(
        "michel_spectrum",
        "Michel electrons",
        f"Energy of {n} electrons of muon decays at rest, and x² (3 - 2x).",
        Figure("energy (MeV)", "density per MeV", series),
        checks,
    )


CHANNELS = {
    (-13,): "mu+ nu",
    (111, 211): "pi+ pi0",
    (-211, 211, 211): "3 pi",
    (-11, 111): "pi0 e+ nu",
    (-13, 111): "pi0 mu+ nu",
    (111, 111, 211): "pi+ 2 pi0",
}
FRACTIONS = (
    0.6356 + 0.004,
    0.2067,
    0.0558,
    0.0507,
    0.0335,
    0.0176,
)  # the rest of 0.4 % is counted as mu+ nu


def branching(simulator: Any, n: int = 1500) -> Validation:
    """Decays at rest, and capture."""
    found: Counter[Any] = Counter()
    for i in range(n):
        t = simulator.deposits(i, pdg=321, momentum=300.0, position=CENTRE)[1]
        found[tuple(sorted(int(x) for x in t["pdg"][t["parent"] == 0]))] += 1
    total = sum(found[c] for c in CHANNELS)
    parts = [found[c] / total for c in CHANNELS]
    checks = [
        Check(
            f"K+ to {name}",
            part,
            fraction,
            4 * math.sqrt(fraction / total),
            "",
            "PDG 2022; 4 standard deviations",
        )
        for name, part, fraction in zip(CHANNELS.values(), parts, FRACTIONS)
    ]
    electrons = {}
    for sign in (1, -1):  # decays at rest or in flight
        truths = [
            simulator.deposits(i, pdg=-13 * sign, momentum=150.0, position=CENTRE)[1]
            for i in range(n // 3)
        ]
        electrons[sign] = np.mean(
            [((t["pdg"] == -11 * sign) & (t["parent"] == 0)).any() for t in truths]
        )
    free, deviation = (
        1 - P.MUON_CAPTURE,
        4 * math.sqrt(P.MUON_CAPTURE * (1 - P.MUON_CAPTURE) / (n // 3)),
    )
    checks += [
        Check("mu+ to a positron", electrons[1], 1.0, 0.01, "", "always"),
        Check(
            "mu- to an electron",
            electrons[-1],
            free,
            deviation + 0.01,
            "",
            "76 % are captured; 1 % decay in flight",
        ),
    ]
    names = (*CHANNELS.values(), "mu+ to e+", "mu- to e-")
    positions = np.arange(len(names))
    return Validation(
        "branching",
        "Decays",
        f"Decays of {total} kaons into one of the six channels, and of stopped muons.",
        Figure(
            "",
            "part",
            [
                Series(
                    "simulated", positions, np.array([*parts, electrons[1], electrons[-1]]), "bars"
                ),
                Series("reference", positions, np.array([*FRACTIONS, 1.0, free]), "points"),
            ],
            ticks=names,
        ),
        checks,
    )

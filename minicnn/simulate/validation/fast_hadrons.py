"""Hadrons of up to 6 GeV/c on argon, on its nuclei and on their nucleons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import cascade, collisions, decays, hadrons
from .. import particles as P
from ..kinematics import Point, Vector
from ..record import Particle, mass
from .base import BEAM, UPSTREAM, Check, Figure, Series, Validation, empty_world, relative

#: Inelastic cross sections in mb on calcium (A = 40) by kinetic energy in MeV: Barashenkov's
#: evaluations as Geant4 tabulates them, JINR Dubna 1993 (pions) and P2-89-770 (nucleons)
PIONS_ON_CALCIUM = {1000: 550, 2000: 525, 3000: 510, 5000: 488}
PROTONS_ON_CALCIUM = {1500: 629, 2000: 630, 3000: 620, 5000: 612}
#: Elastic ones, total less inelastic, from the same
ELASTIC_ON_CALCIUM = {
    211: {2000: 270, 3000: 230, 5000: 217},
    2212: {1500: 361, 2000: 372, 3000: 370, 5000: 353},
}


def sphere(section: float) -> float:
    """Return the cross section in mb of the nucleus of cascade.py for a hadron with ``section`` mb
    on a nucleon: of all straight paths through the sphere those on which it hits one.
    """
    x = 2 * cascade.DENSITY * cascade.MB_FM2 * section * cascade.RADIUS
    hits = 1 - 2 * (1 - (1 + x) * math.exp(-x)) / x**2
    return math.pi * cascade.RADIUS**2 * hits / cascade.MB_FM2


def fast_cross_sections(simulator: Any) -> Validation:
    """Inelastic cross sections on argon above 1 GeV."""

    def of(curve: Any, t: float) -> float:
        return float(hadrons.curve(curve, float(t)))

    named = (
        ("pi", hadrons.PION_INELASTIC, PIONS_ON_CALCIUM, 0.1),
        ("p", hadrons.PROTON_INELASTIC, PROTONS_ON_CALCIUM, 0.05),
    )
    checks = [
        relative(
            f"{name}, {t / 1000:g} GeV",
            of(curve, t),
            x,
            part,
            "mb",
            "Barashenkov's evaluation for calcium, A = 40",
        )
        for name, curve, table, part in named
        for t, x in table.items()
    ]
    checks += [
        relative(
            f"elastic, {'pi' if pdg == 211 else 'p'}, {t / 1000:g} GeV",
            hadrons.inverse_lengths(pdg, float(t))[1] / hadrons.MB,
            x,
            0.1,
            "mb",
            "Barashenkov's evaluation for calcium, A = 40",
        )
        for pdg, table in ELASTIC_ON_CALCIUM.items()
        for t, x in table.items()
    ]
    checks.append(
        Check(
            "K+, 6 GeV/c",
            of(hadrons.KAON_INELASTIC, math.hypot(6000.0, P.KAON) - P.KAON),
            380.0,
            26.0,
            "mb",
            "ProtoDUNE, Phys. Rev. D 110 (2024) 092011: 380 ± 26 mb on argon",
        )
    )
    grid = np.arange(1000.0, 6001.0, 250.0)
    series = []
    curves = {
        "pi": (211, hadrons.PION_INELASTIC),
        "p": (2212, hadrons.PROTON_INELASTIC),
        "K+": (321, hadrons.KAON_INELASTIC),
        "K-": (-321, hadrons.KAON_MINUS_INELASTIC),
    }
    for colour, (name, (pdg, curve)) in enumerate(curves.items()):
        series.append(Series(name, grid, np.array([of(curve, t) for t in grid]), "line", colour))
        if name != "K-":
            checks.append(
                relative(
                    f"the cascade's sphere, {name} of 4 GeV",
                    sphere(collisions.cross_section(pdg, 4000.0)),
                    of(curve, 4000.0),
                    0.15,
                    "mb",
                    "the curve above",
                )
            )
    for colour, (label, table) in enumerate(
        (("pi on calcium", PIONS_ON_CALCIUM), ("p on calcium", PROTONS_ON_CALCIUM))
    ):
        series.append(Series(label, list(table), list(table.values()), "points", colour))
    return Validation(
        "fast_cross_sections",
        "Fast hadrons interact",
        "Inelastic cross sections on argon; the table has elastic ones too. The K-'s is that of "
        "the cascade's sphere, for want of data.",
        Figure("kinetic energy (MeV)", "cross section (mb)", series),
        checks,
    )


def fast_paths(simulator: Any, n: int = 400) -> Validation:
    """How far hadrons of 6 GeV/c go before they interact or decay."""
    checks, series, depth = [], [], np.linspace(0, 150, 31)
    for colour, (name, pdg) in enumerate((("pi-", -211), ("K+", 321), ("p", 2212))):
        reach = []
        for i in range(n):
            j = n * colour + i  # independent of the other hadrons
            _, truth = simulator.deposits(j, pdg, 6000.0, (125.0, 0.0, 880.0), BEAM)
            reach.append(float(np.linalg.norm(truth["end"][0] - truth["start"][0])))
        length = np.array(reach)
        ends = (length < 150.0).sum()
        value = np.minimum(length, 150.0).sum() / ends
        kinetic = math.hypot(6000.0, mass(pdg)) - mass(pdg) - 100.0
        rate = hadrons.inverse_lengths(pdg, kinetic)[0] + decays.inverse_length(pdg, 5900.0)
        checks.append(
            Check(
                f"mean free path, {name}",
                value,
                1 / rate,
                4 / rate / math.sqrt(ends),
                "cm",
                "1 / (n sigma + m / p c tau); 4 standard deviations",
            )
        )
        alive = np.array([np.mean(length >= d) for d in depth])
        series += [
            Series(name, depth, alive, "points", colour),
            Series("", depth, np.exp(-depth * rate), "line", colour),
        ]
    return Validation(
        "fast_paths",
        "Paths of fast hadrons",
        f"Part of {n} hadrons of 6 GeV/c that is left at a depth.",
        Figure("depth (cm)", "part left", series, log_y=True),
        checks,
    )


def nucleon_collisions(simulator: Any, n: int = 6000) -> Validation:
    """What a proton makes on a proton: multiplicity, transverse momentum, what it keeps."""
    rng = np.random.default_rng(1)
    codes = np.empty(collisions.MOST, np.int64)
    momenta = np.empty((collisions.MOST, 3))
    checks, series = [], []
    for colour, p in enumerate((3000.0, 6000.0)):
        charged: Any = []
        kept, across, pions, balance = [], [], [], []
        e_in = math.hypot(p, P.PROTON)
        for _ in range(n):
            made, new = collisions.collide(rng, 2212, Vector(0.0, 0.0, p), codes, momenta)
            charges = [collisions.charge(code) for code in codes[:made]]
            energy = np.sqrt((momenta[:made] ** 2).sum(1) + [mass(c) ** 2 for c in codes[:made]])
            balance.append(energy.sum() - e_in - P.NUCLEON)
            if not new or sum(charges) != 2:
                continue  # elastic, or with a neutron
            charged.append(sum(map(abs, charges)))
            kept.append((energy[0] - mass(codes[0])) / (e_in - P.PROTON))
            between = np.isin(np.abs(codes[:made]), (211, 111))
            across += list(np.hypot(*momenta[:made][between, :2].T))
            pions += list(codes[:made][between])
        s = 2 * P.PROTON * (P.PROTON + e_in) * 1e-6
        expected = 0.88 + 0.44 * math.log(s) + 0.118 * math.log(s) ** 2
        name = f"{p / 1000:g} GeV/c"
        checks += [
            Check(
                f"charged particles, {name}",
                np.mean(charged),
                expected,
                0.3,
                "",
                "Thome et al., Nucl. Phys. B 129 (1977) 365: 0.88 + 0.44 ln s + 0.118 ln² s",
            ),
            Check(
                f"part of the energy that the leading nucleon keeps, {name}",
                np.mean(kept),
                0.6,
                0.12,
                "",
                "about half far above threshold, more near it; assumed",
            ),
            Check(
                f"energy that is made, {name}",
                np.mean(balance),
                0.0,
                15.0,
                "MeV",
                "none, but for the nucleon's Fermi motion less its binding",
            ),
        ]
        counts = np.bincount(charged, minlength=9)[:9] / len(charged)
        series.append(Series(f"pp, {name}", np.arange(-0.5, 9), counts, "steps", colour))
    checks.append(
        Check(
            "mean transverse momentum of pions, 6 GeV/c",
            np.mean(across),
            300.0,
            50.0,
            "MeV/c",
            "about 0.3 GeV/c at all energies; assumed",
        )
    )
    checks.append(
        Check(
            "neutral pions, 6 GeV/c",
            np.mean(np.array(pions) == 111),
            1 / 3,
            0.12,
            "",
            "a third where isospin is all; charge conservation favours them near threshold",
        )
    )
    return Validation(
        "nucleon_collisions",
        "A fast nucleon hits a nucleon",
        "Charged particles of inelastic collisions of two protons.",
        Figure("charged particles", "part of the collisions", series),
        checks,
    )


def nuclear_cascade(simulator: Any, n: int = 1000) -> Validation:
    """Energy that comes out of a nucleus, and in what."""
    world, rng, checks, parts = empty_world(), np.random.default_rng(2), [], []
    names = ("pi-, 1.5 GeV/c", "pi-, 6 GeV/c", "K+, 1.5 GeV/c", "K+, 6 GeV/c", "p, 6 GeV/c")
    shot = ((-211, 1500.0), (-211, 6000.0), (321, 1500.0), (321, 6000.0), (2212, 6000.0))
    groups = {"mesons": (111, 211, 321, 311), "nucleons": (2112, 2212), "photons": (22,)}
    for name, (pdg, p) in zip(names, shot):
        m = mass(pdg)
        e_in = math.hypot(p, m) - (m if pdg == 2212 else 0.0)
        sums, shine = [], []
        for _ in range(n):
            world.n[:] = 0
            hadron = Particle(pdg, -1, Vector(0.0, 0.0, p), Point(*UPSTREAM, 0.0))
            cascade.cascade(rng, world, hadron)
            stack = world.stack[: world.n[2]]
            codes = stack[:, 0].astype(int)
            m_out = np.array([mass(code) for code in codes])
            own = np.where(np.isin(codes, (2112, 2212)), m_out, 0.0)
            own = np.where(codes == 3122, P.NUCLEON, own)  # it was a nucleon
            out = np.sqrt((stack[:, 2:5] ** 2).sum(1) + m_out**2) - own
            sums.append(
                [
                    out[np.isin(np.abs(codes), codes_of_group)].sum()
                    for codes_of_group in groups.values()
                ]
            )
            sums[-1].append(out.sum())
            shine.append(out[codes == 22].sum())
        table = np.array(sums) / e_in
        parts.append(table.mean(0))
        checks += [
            Check(
                f"mean energy that comes out, {name}",
                table[:, 3].mean(),
                0.98,
                0.02,
                "",
                "all but 8 MeV for each nucleon that leaves",
            ),
            Check(
                f"most energy that comes out, {name}",
                table[:, 3].max(),
                1.0,
                120.0 / e_in,
                "",
                "no more than came in; Fermi motion of up to 25 MeV a collision is not taken from "
                "the nucleus",
            ),
            Check(
                f"most energy of the photons, {name}",
                max(shine),
                10.0,
                0.3,
                "MeV",
                "they start where no nucleon can leave, 9.9 MeV in argon-40",
            ),
        ]
    index, found = np.arange(len(names)), np.array(parts)
    return Validation(
        "nuclear_cascade",
        "What comes out of a nucleus",
        f"Mean parts of the energy of hadrons that leave an argon nucleus in mesons, nucleons and "
        f"photons, {n} of each.",
        Figure(
            "",
            "part of the energy",
            [Series(group, index, found[:, k], "points") for k, group in enumerate(groups)],
            ticks=names,
        ),
        checks,
    )

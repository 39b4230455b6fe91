"""Decays in flight and at rest, and what argon nuclei do to stopped negative particles."""

import math

import numpy as np

from . import cascade, hadrons
from ._jit import jit
from .kinematics import boost, isotropic, three_body, two_body
from .particles import (
    ELECTRON,
    KAON,
    KAON0,
    KAON_DECAYS,
    KAON_LIFE,
    KSHORT_CTAU,
    LAMBDA,
    LAMBDA_CTAU,
    MUON,
    MUON_CAPTURE,
    MUON_LIFE,
    PION,
    PION_LIFE,
)
from .record import emit, mass

LIGHT = 29979.2458  # cm/us
MICHEL_END = (MUON * MUON + ELECTRON * ELECTRON) / (2.0 * MUON)
MUON_LIFE_ARGON = 0.537  # us, mu- in argon (Suzuki et al., Phys. Rev. C 35 (1987) 2212)
KAON_CUMULATIVE = np.cumsum([fraction for fraction, _ in KAON_DECAYS])
KAON_DAUGHTERS = np.array([list(codes) + [0] * (3 - len(codes)) for _, codes in KAON_DECAYS])


@jit
def inverse_length(pdg, p):
    """Return the decay probability per cm, m / (p c tau)."""
    pdg = abs(pdg)
    if pdg == 13:
        return MUON / (p * LIGHT * MUON_LIFE)
    if pdg == 211:
        return PION / (p * LIGHT * PION_LIFE)
    if pdg == 321:
        return KAON / (p * LIGHT * KAON_LIFE)
    return 0.0


@jit
def michel_energy(rng):
    """Return the energy in MeV of a muon decay's electron: x^2 (3 - 2 x), x = E / 52.8 MeV (PDG
    review).
    """
    while True:
        x = rng.random()
        if rng.random() < x * x * (3.0 - 2.0 * x):
            return max(x * MICHEL_END, ELECTRON + 0.01)


@jit
def emit_particle(world, pdg, row, qx, qy, qz, e, bx, by, bz, x, y, z, time):
    """Emit a daughter of momentum q and energy e in the parent's frame, unless it is a neutrino."""
    if abs(pdg) != 12 and abs(pdg) != 14 and pdg != 0:
        px, py, pz = boost(qx, qy, qz, e, bx, by, bz)
        emit(world, pdg, row, px, py, pz, x, y, z, time, 0.0)


@jit
def pair(rng, world, m, pdg1, pdg2, row, bx, by, bz, x, y, z, time):
    """Decay a mass ``m`` that moves with velocity b into two particles, isotropically in its
    frame.
    """
    m1, m2 = mass(pdg1), mass(pdg2)
    q = two_body(m, m1, m2)
    ux, uy, uz = isotropic(rng)
    emit_particle(
        world,
        pdg1,
        row,
        q * ux,
        q * uy,
        q * uz,
        math.sqrt(q * q + m1 * m1),
        bx,
        by,
        bz,
        x,
        y,
        z,
        time,
    )
    emit_particle(
        world,
        pdg2,
        row,
        -q * ux,
        -q * uy,
        -q * uz,
        math.sqrt(q * q + m2 * m2),
        bx,
        by,
        bz,
        x,
        y,
        z,
        time,
    )


@jit
def triple(rng, world, m, pdg1, pdg2, pdg3, row, bx, by, bz, x, y, z, time):
    """Decay a mass ``m`` that moves with velocity b into three particles, uniformly in phase
    space.
    """
    m1, m2, m3 = mass(pdg1), mass(pdg2), mass(pdg3)
    ax, ay, az, cx, cy, cz, dx, dy, dz = three_body(rng, m, m1, m2, m3)
    emit_particle(
        world,
        pdg1,
        row,
        ax,
        ay,
        az,
        math.sqrt(ax * ax + ay * ay + az * az + m1 * m1),
        bx,
        by,
        bz,
        x,
        y,
        z,
        time,
    )
    emit_particle(
        world,
        pdg2,
        row,
        cx,
        cy,
        cz,
        math.sqrt(cx * cx + cy * cy + cz * cz + m2 * m2),
        bx,
        by,
        bz,
        x,
        y,
        z,
        time,
    )
    emit_particle(
        world,
        pdg3,
        row,
        dx,
        dy,
        dz,
        math.sqrt(dx * dx + dy * dy + dz * dz + m3 * m3),
        bx,
        by,
        bz,
        x,
        y,
        z,
        time,
    )


@jit
def of_sign(pdg, sign):
    """Return a daughter of a K+ as it is of a kaon of that sign."""
    return pdg if pdg == 111 or pdg == 0 else sign * pdg


@jit
def decay(rng, world, pdg, row, px, py, pz, x, y, z, time):
    """Let a mu, pi, K, pi0, K0 or Lambda of the given momentum decay here. Neutrinos are not
    recorded.
    """
    m = mass(pdg)
    e = math.sqrt(px * px + py * py + pz * pz + m * m)
    bx, by, bz = px / e, py / e, pz / e
    sign = 1 if pdg > 0 else -1
    if abs(pdg) == 13:  # mu- (13) to e- (11)
        e_rest = michel_energy(rng)
        q = math.sqrt(e_rest * e_rest - ELECTRON * ELECTRON)
        ux, uy, uz = isotropic(rng)
        emit_particle(
            world, sign * 11, row, q * ux, q * uy, q * uz, e_rest, bx, by, bz, x, y, z, time
        )
    elif abs(pdg) == 211:  # pi+ (211) to mu+ (-13)
        pair(rng, world, m, -13 * sign, 14, row, bx, by, bz, x, y, z, time)
    elif pdg == 111:
        pair(rng, world, m, 22, 22, row, bx, by, bz, x, y, z, time)
    elif abs(pdg) == 321:
        r = rng.random()
        channel = 0
        for k in range(len(KAON_CUMULATIVE)):
            if r < KAON_CUMULATIVE[k]:
                channel = k
                break
        d = KAON_DAUGHTERS[channel]
        a, b, c = of_sign(d[0], sign), of_sign(d[1], sign), of_sign(d[2], sign)
        if c == 0:
            pair(rng, world, m, a, b, row, bx, by, bz, x, y, z, time)
        else:
            triple(rng, world, m, a, b, c, row, bx, by, bz, x, y, z, time)
    elif pdg == 311 and rng.random() < 0.5:  # half of the K0 are K-short; K-long leave the detector
        p = math.sqrt(px * px + py * py + pz * pz)
        flight = KSHORT_CTAU / KAON0 * rng.standard_exponential()
        x, y, z = x + flight * px, y + flight * py, z + flight * pz
        time += flight * p / LIGHT
        if rng.random() < 0.692:
            pair(rng, world, m, 211, -211, row, bx, by, bz, x, y, z, time)
        else:
            pair(rng, world, m, 111, 111, row, bx, by, bz, x, y, z, time)
    elif pdg == 3122:
        p = math.sqrt(px * px + py * py + pz * pz)
        flight = LAMBDA_CTAU / LAMBDA * rng.standard_exponential()
        x, y, z = x + flight * px, y + flight * py, z + flight * pz
        time += flight * p / LIGHT
        if rng.random() < 0.641:
            pair(rng, world, m, 2212, -211, row, bx, by, bz, x, y, z, time)
        else:
            pair(rng, world, m, 2112, 111, row, bx, by, bz, x, y, z, time)


@jit
def at_rest(rng, world, pdg, row, x, y, z, time):
    """Let a stopped charged particle decay, or be captured if negative."""
    if pdg == -13:
        decay(
            rng,
            world,
            pdg,
            row,
            0.0,
            0.0,
            0.0,
            x,
            y,
            z,
            time + MUON_LIFE * rng.standard_exponential(),
        )
    elif pdg == 13:
        time += MUON_LIFE_ARGON * rng.standard_exponential()
        if rng.random() < MUON_CAPTURE:
            hadrons.muon_capture(rng, world, row, x, y, z, time)
        else:
            decay(rng, world, pdg, row, 0.0, 0.0, 0.0, x, y, z, time)
    elif pdg == 211:
        decay(
            rng,
            world,
            pdg,
            row,
            0.0,
            0.0,
            0.0,
            x,
            y,
            z,
            time + PION_LIFE * rng.standard_exponential(),
        )
    elif pdg == 321:
        decay(
            rng,
            world,
            pdg,
            row,
            0.0,
            0.0,
            0.0,
            x,
            y,
            z,
            time + KAON_LIFE * rng.standard_exponential(),
        )
    elif pdg == -211:
        hadrons.absorb(rng, world, pdg, row, 0.0, 0.0, 0.0, x, y, z, time)
    elif pdg == -321:  # K- N -> Lambda pi
        cascade.cascade(rng, world, pdg, row, 0.0, 0.0, 1.0, x, y, z, time)

"""Decays in flight and at rest, and what argon nuclei do to stopped negative particles."""

import math

import numpy as np

from . import cascade, hadrons
from ._jit import jit
from .kinematics import (
    AT_REST,
    Vector,
    boost,
    divided,
    isotropic,
    later,
    moved,
    norm,
    scaled,
    three_body,
    total_energy,
    two_body,
)
from .particles import (
    ELECTRON,
    KAON,
    KAON_DECAYS,
    KAON_LIFE,
    KSHORT_CTAU,
    LAMBDA_CTAU,
    MUON,
    MUON_CAPTURE,
    MUON_LIFE,
    PION,
    PION_LIFE,
)
from .record import Particle, emit, mass

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
def emit_daughter(world, parent, pdg, momentum, energy):
    """Emit a daughter with a momentum and energy in the parent's frame, unless it is a neutrino."""
    if abs(pdg) != 12 and abs(pdg) != 14 and pdg != 0:
        velocity = divided(parent.momentum, total_energy(parent.momentum, mass(parent.pdg)))
        emit(world, pdg, parent.row, boost(momentum, energy, velocity), parent.point, 0.0)


@jit
def pair(rng, world, parent, pdg1, pdg2):
    """Decay a particle here into two, isotropically in its frame."""
    m1, m2 = mass(pdg1), mass(pdg2)
    q = two_body(mass(parent.pdg), m1, m2)
    axis = isotropic(rng)
    emit_daughter(world, parent, pdg1, scaled(q, axis), math.sqrt(q * q + m1 * m1))
    emit_daughter(world, parent, pdg2, scaled(-q, axis), math.sqrt(q * q + m2 * m2))


@jit
def triple(rng, world, parent, pdg1, pdg2, pdg3):
    """Decay a particle here into three, uniformly in phase space."""
    m1, m2, m3 = mass(pdg1), mass(pdg2), mass(pdg3)
    a, b, c = three_body(rng, mass(parent.pdg), m1, m2, m3)
    emit_daughter(world, parent, pdg1, a, total_energy(a, m1))
    emit_daughter(world, parent, pdg2, b, total_energy(b, m2))
    emit_daughter(world, parent, pdg3, c, total_energy(c, m3))


@jit
def flown(rng, particle, c_tau):
    """Return the particle where it decays, which is ``c_tau`` cm times p / m from here on
    average.
    """
    pdg, row, momentum, point = particle
    flight = c_tau / mass(pdg) * rng.standard_exponential()
    point = later(moved(point, scaled(flight, momentum)), flight * norm(momentum) / LIGHT)
    return Particle(pdg, row, momentum, point)


@jit
def of_sign(pdg, sign):
    """Return a daughter of a K+ as it is of a kaon of that sign."""
    return pdg if pdg == 111 or pdg == 0 else sign * pdg


@jit
def decay(rng, world, particle):
    """Let a mu, pi, K, pi0, K0 or Lambda decay, the last two after a flight from here. Neutrinos
    are not recorded.
    """
    pdg = particle.pdg
    sign = 1 if pdg > 0 else -1
    if abs(pdg) == 13:  # mu- (13) to e- (11)
        energy = michel_energy(rng)
        q = math.sqrt(energy * energy - ELECTRON * ELECTRON)
        emit_daughter(world, particle, sign * 11, scaled(q, isotropic(rng)), energy)
    elif abs(pdg) == 211:  # pi+ (211) to mu+ (-13)
        pair(rng, world, particle, -13 * sign, 14)
    elif pdg == 111:
        pair(rng, world, particle, 22, 22)
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
            pair(rng, world, particle, a, b)
        else:
            triple(rng, world, particle, a, b, c)
    elif pdg == 311 and rng.random() < 0.5:  # half of the K0 are K-short; K-long leave the detector
        there = flown(rng, particle, KSHORT_CTAU)
        if rng.random() < 0.692:
            pair(rng, world, there, 211, -211)
        else:
            pair(rng, world, there, 111, 111)
    elif pdg == 3122:
        there = flown(rng, particle, LAMBDA_CTAU)
        if rng.random() < 0.641:
            pair(rng, world, there, 2212, -211)
        else:
            pair(rng, world, there, 2112, 111)


@jit
def life_at_rest(pdg):
    """Return the mean life in us of a stopped particle in argon, 0 where it does not decay."""
    if pdg == 13:
        return MUON_LIFE_ARGON
    if pdg == -13:
        return MUON_LIFE
    if pdg == 211:
        return PION_LIFE
    return KAON_LIFE if pdg == 321 else 0.0


@jit
def at_rest(rng, world, pdg, row, point):
    """Let a stopped charged particle decay, or be captured if negative."""
    life = life_at_rest(pdg)
    if life > 0.0:
        point = later(point, life * rng.standard_exponential())
        if pdg == 13 and rng.random() < MUON_CAPTURE:
            hadrons.muon_capture(rng, world, row, point)
        else:
            decay(rng, world, Particle(pdg, row, AT_REST, point))
    elif pdg == -211:
        hadrons.absorb(rng, world, Particle(pdg, row, AT_REST, point))
    elif pdg == -321:  # K- N -> Lambda pi
        cascade.cascade(rng, world, Particle(pdg, row, Vector(0.0, 0.0, 1.0), point))

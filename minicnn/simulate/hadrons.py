"""Strong interactions with argon, kept simple: kinks, absorption, charge exchange, pion production,
proton stubs.

Cross sections are smooth curves through the measured ones: the Delta resonance near 180 MeV makes
the pion's large (Ashery et al., Phys. Rev. C 23 (1981) 2173; absorption on argon: LADS, Kotlinski
et al., Eur. Phys. J. A 9 (2000) 537); the K+ has no resonance and its is small (Friedman et al.,
Phys. Rev. C 55 (1997) 1304). Above 1.2 GeV they follow Barashenkov's evaluations for calcium (JINR
Dubna, 1993 and 1989) and the ProtoDUNE's K+ (Phys. Rev. D 110 (2024) 092011); the K-'s is that of
the sphere of cascade.py. What happens there is in cascade.py.
"""

import math

import numpy as np

from ._jit import jit
from .kinematics import (
    boost,
    deflect,
    divided,
    invariant_mass,
    isotropic,
    minus,
    moved,
    norm,
    plus,
    scaled,
    three_body,
    total_energy,
    two_body,
)
from .material import ATOMS
from .particles import ARGON_BINDING, KAON, NUCLEON, PION
from .record import MIN_RECORDED_ENERGY_MEV, Particle, emit, ends, in_argon, mass

MB = 1e-27 * ATOMS  # 1/cm of one millibarn
GRID = 20.0  # MeV between the entries of the curves below
_T = GRID * np.arange(330)
_AT = [0, 30, 60, 100, 150, 200, 300, 500, 800, 1200, 1500, 2000, 3000, 6600]
PION_INELASTIC = np.interp(  # mb
    _T, _AT, [0, 90, 240, 470, 620, 670, 640, 540, 500, 520, 530, 520, 505, 480]
)
PION_ELASTIC = np.interp(
    _T, _AT, [60, 90, 170, 330, 430, 450, 400, 260, 210, 200, 280, 270, 230, 205]
)
PION_ABSORBED = np.interp(
    _T, [0, 60, 150, 200, 300, 500, 800, 1200], [0.6, 0.5, 0.38, 0.34, 0.26, 0.14, 0.08, 0.06]
)
PION_EXCHANGED = np.interp(
    _T, [0, 100, 300, 600, 1200], [0.06, 0.1, 0.13, 0.12, 0.1]
)  # parts of inelastic
PION_PRODUCING = np.interp(_T, [0, 250, 400, 600, 900, 1200], [0, 0, 0.08, 0.2, 0.38, 0.45])
KAON_INELASTIC = np.interp(_T, [0, 50, 150, 300, 500, 1200], [150, 220, 270, 310, 350, 380])
PROTON_INELASTIC = np.where(
    _T < 1000,
    np.interp(_T, [0, 10, 30, 80, 1200], [0, 300, 600, 480, 470]),
    np.interp(_T, [980, 1300, 2000, 6600], [472, 620, 620, 605]),
)
KAON_MINUS_INELASTIC = np.interp(
    _T,
    [0, 30, 120, 620, 1080, 1570, 2550, 5530, 6600],
    [800, 700, 600, 550, 510, 495, 480, 460, 455],
)
SLOPE = 65e-6  # 1/(MeV/c)^2, diffraction exp(-SLOPE q^2): R^2 / 5, R = 3.5 fm


@jit
def curve(values, kinetic):
    """Return a curve's value at a kinetic energy in MeV."""
    f = min(kinetic / GRID, len(values) - 1.001)
    i = int(f)
    return values[i] + (f - i) * (values[i + 1] - values[i])


@jit
def inverse_lengths(pdg, kinetic):
    """Return (inelastic, elastic) interactions per cm of a pi, K or p."""
    if pdg == -321:
        s = MB * curve(KAON_MINUS_INELASTIC, kinetic)
        return s, 0.5 * s
    pdg = abs(pdg)
    if pdg == 211:
        return MB * curve(PION_INELASTIC, kinetic), MB * curve(PION_ELASTIC, kinetic)
    if pdg == 321:
        s = MB * curve(KAON_INELASTIC, kinetic)
        return s, 0.5 * s
    if pdg == 2212:
        s = MB * curve(PROTON_INELASTIC, kinetic)
        return s, (0.7 if kinetic < 1000.0 else 0.59) * s
    return 0.0, 0.0


@jit
def diffract(rng, p, direction):
    """Return the direction after elastic scattering off the whole nucleus: exponential in q^2 = 2
    p^2 (1 - cos).
    """
    c = 1.0 - min(2.0, rng.standard_exponential() / (SLOPE * 2.0 * p * p))
    return deflect(direction, c, 2.0 * math.pi * rng.random())


@jit
def knock_out(world, pdg, row, momentum, point):
    """Emit a nucleon after it has climbed out of the nuclear potential; too slow ones stay
    inside.
    """
    m = mass(pdg)
    p = norm(momentum)
    kinetic = math.sqrt(p * p + m * m) - m - 2.0 * ARGON_BINDING
    if kinetic > 1.0:
        k = math.sqrt(kinetic * (kinetic + 2.0 * m)) / p
        emit(world, pdg, row, scaled(k, momentum), point, 0.0)


@jit
def evaporate(rng, world, row, count, temperature, point):
    """Emit ``count`` slow nucleons, a third of them protons, with energies of a nuclear temperature
    in MeV.
    """
    for _ in range(count):
        pdg = 2212 if rng.random() < 0.35 else 2112
        kinetic = temperature * (rng.standard_exponential() + rng.standard_exponential())
        p = math.sqrt(kinetic * (kinetic + 2.0 * NUCLEON))
        emit(world, pdg, row, scaled(p, isotropic(rng)), point, MIN_RECORDED_ENERGY_MEV)


@jit
def muon_capture(rng, world, row, point):
    """mu- p -> n nu: most of the energy leaves with the neutrino; neutrons and, rarely, a slow
    proton remain.
    """
    evaporate(rng, world, row, 1 + (rng.random() < 0.5), 2.5, point)


@jit
def absorb(rng, world, pion):
    """Let a pion be absorbed by a pair of nucleons, which share its energy, partly lost to others
    on their way out.
    """
    pdg, row, momentum, point = pion
    total = total_energy(momentum, PION) + 2.0 * NUCLEON
    q = two_body(invariant_mass(total, momentum), NUCLEON, NUCLEON)
    axis = isotropic(rng)
    velocity = divided(momentum, total)
    for side in range(2):
        # pi+ (n p) -> p p and pi- (n p) -> n n dominate; pairs of equal nucleons give n p
        proton = rng.random() < 0.9 if pdg > 0 else rng.random() < 0.1
        nucleon = 2212 if proton else 2112
        own = boost(scaled(q if side == 0 else -q, axis), math.hypot(q, NUCLEON), velocity)
        if rng.random() < 0.5:  # strikes another nucleon on its way out
            strike(rng, world, Particle(nucleon, row, own, point))
        else:
            knock_out(world, nucleon, row, own, point)
    evaporate(rng, world, row, 1 + int(3.0 * rng.random()), 2.5, point)


@jit
def strike(rng, world, nucleon):
    """Scatter a nucleon off a nucleon at rest in the nucleus and let both leave it."""
    pdg, row, momentum, point = nucleon
    e = total_energy(momentum, NUCLEON) + NUCLEON
    velocity = divided(momentum, e)
    q = two_body(invariant_mass(e, momentum), NUCLEON, NUCLEON)
    axis = isotropic(rng)
    other = 2212 if rng.random() < 0.45 else 2112
    e_each = math.sqrt(q * q + NUCLEON * NUCLEON)
    knock_out(world, pdg, row, boost(scaled(q, axis), e_each, velocity), point)
    knock_out(world, other, row, boost(scaled(-q, axis), e_each, velocity), point)


@jit
def on_nucleon(rng, world, meson, out, nucleon):
    """Scatter a meson off a bound nucleon; it leaves as the particle ``out``, the nucleon is
    knocked out.

    Angle in their rest frame: 1 + 3 cos^2 for pions (Delta resonance), isotropic for kaons (S
    wave). The target moves with a Fermi momentum of up to 220 MeV/c.
    """
    pdg, row, momentum, point = meson
    m = mass(pdg)
    fermi = 220.0 * rng.random() ** (1.0 / 3.0)
    target = scaled(fermi, isotropic(rng))
    both = plus(momentum, target)
    own = minus(both, target)  # the meson's momentum, to rounding
    e = total_energy(own, m) + math.sqrt(fermi * fermi + NUCLEON * NUCLEON) - ARGON_BINDING
    m_out = mass(out)
    q = two_body(invariant_mass(e, both), m_out, NUCLEON)
    c = 2.0 * rng.random() - 1.0
    if m < KAON:
        while 4.0 * rng.random() > 1.0 + 3.0 * c * c:
            c = 2.0 * rng.random() - 1.0
    axis = deflect(divided(own, norm(own)), c, 2.0 * math.pi * rng.random())
    velocity = divided(both, e)
    e_meson, e_nucleon = math.sqrt(q * q + m_out * m_out), math.sqrt(q * q + NUCLEON * NUCLEON)
    emit(world, out, row, boost(scaled(q, axis), e_meson, velocity), point, 0.0)
    knock_out(world, nucleon, row, boost(scaled(-q, axis), e_nucleon, velocity), point)


@jit
def produce(rng, world, pion):
    """pi N -> pi pi N, uniform in phase space."""
    pdg, row, momentum, point = pion
    e = total_energy(momentum, PION) + NUCLEON
    velocity = divided(momentum, e)
    a, b, c = three_body(rng, invariant_mass(e, momentum), PION, PION, NUCLEON)
    r = rng.random()
    second, nucleon = (111, 2212) if r < 0.45 else (-pdg, 2212) if r < 0.85 else (pdg, 2112)
    emit(world, pdg, row, boost(a, total_energy(a, PION), velocity), point, 0.0)
    emit(world, second, row, boost(b, total_energy(b, PION), velocity), point, 0.0)
    knock_out(world, nucleon, row, boost(c, total_energy(c, NUCLEON), velocity), point)


@jit
def interact(rng, world, hadron):
    """Let a pi, K or p interact inelastically here."""
    pdg, row, momentum, point = hadron
    m = mass(pdg)
    kinetic = total_energy(momentum, m) - m
    r = rng.random()
    if abs(pdg) == 211:
        absorbed = curve(PION_ABSORBED, kinetic)
        exchanged = absorbed + curve(PION_EXCHANGED, kinetic)
        producing = exchanged + curve(PION_PRODUCING, kinetic)
        if r < absorbed:
            absorb(rng, world, hadron)
        elif r < exchanged:
            on_nucleon(rng, world, hadron, 111, 2212 if pdg > 0 else 2112)
        elif r < producing:
            produce(rng, world, hadron)
        else:  # pi+ p and pi- n are three times stronger than pi+ n and pi- p
            proton = rng.random() < (0.7 if pdg > 0 else 0.25)
            on_nucleon(rng, world, hadron, pdg, 2212 if proton else 2112)
            evaporate(rng, world, row, int(2.0 * rng.random()), 2.0, point)
    elif abs(pdg) == 321:
        if r < 0.2:  # K+ n -> K0 p
            on_nucleon(rng, world, hadron, 311, 2212)
        else:
            on_nucleon(rng, world, hadron, pdg, 2212 if r < 0.65 else 2112)
    else:
        strike(rng, world, hadron)


@jit
def neutron(rng, world, particle):
    """Follow a neutron: now and then a knocked-out proton, or a 1.46 MeV photon of excited argon,
    shows its way.
    """
    _, row, momentum, point = particle
    p = norm(momentum)
    direction = divided(momentum, p)
    kinetic = math.sqrt(p * p + NUCLEON * NUCLEON) - NUCLEON
    while kinetic > 1.6:
        flight = rng.standard_exponential() * (40.0 if kinetic < 50.0 else 70.0)
        point = moved(point, scaled(flight, direction))
        if not in_argon(point):
            break
        if kinetic > 30.0 and rng.random() < 0.5:
            ends(world, row, point)
            p = math.sqrt(kinetic * (kinetic + 2.0 * NUCLEON))
            strike(rng, world, Particle(2112, row, scaled(p, direction), point))
            return
        direction = isotropic(rng)
        if rng.random() < 0.5:
            kinetic -= 1.46
            emit(world, 22, row, scaled(1.46, isotropic(rng)), point, MIN_RECORDED_ENERGY_MEV)
        kinetic *= 0.95
    ends(world, row, point)

"""One fast hadron hits one nucleon: how often, and what flies off.

Products come from longitudinal phase space: transverse momenta are Gaussian, rapidities uniform
between what is left of the projectile (the fastest) and of the nucleon (the slowest), stretched
until energy and momentum are those of the collision.
"""

import math

import numpy as np

from ._jit import jit
from .hadrons import GRID, curve
from .kinematics import (
    Vector,
    boost,
    deflect,
    divided,
    invariant_mass,
    isotropic,
    norm,
    plus,
    scaled,
    total_energy,
    two_body,
)
from .particles import ARGON_BINDING, NUCLEON
from .record import mass

_T = GRID * np.arange(330)  # MeV


def _against_kinetic(momenta, values, particle_mass):
    """Return a curve on the grid of kinetic energies, from points at momenta in GeV/c."""
    p = 1000.0 * np.array(momenta)
    return np.interp(_T, np.sqrt(p * p + particle_mass**2) - particle_mass, values)


# Total cross sections of hadrons on the nucleons of argon in mb, the mean of protons and neutrons,
# after the compilation of the PDG (section "Cross sections"): the resonances are smoothed.
PION = _against_kinetic(
    (0, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6),
    (5, 15, 60, 120, 55, 33, 40, 38, 33, 30.5, 29, 26.7),
    139.57,
)
KAON_PLUS = _against_kinetic((0, 0.5, 1, 1.5, 2, 6), (11, 14, 17.8, 18.4, 17.8, 17.4), 493.68)
KAON_MINUS = _against_kinetic(
    (0, 0.3, 0.5, 1, 1.5, 2, 3, 6), (110, 90, 60, 45, 32, 29, 26, 22.8), 493.68
)
BARYON = _against_kinetic(
    (0, 0.3, 0.5, 0.8, 1, 1.5, 2, 3, 4, 6), (0, 0, 25, 28, 31, 43, 45, 43.5, 42, 41.3), 938.3
)
# Their elastic part
PION_ELASTIC = _against_kinetic(
    (0, 0.4, 1, 1.5, 2, 3, 6), (1, 0.9, 0.5, 0.4, 0.33, 0.25, 0.19), 139.57
)
KAON_ELASTIC = _against_kinetic(
    (0, 0.8, 1, 1.2, 1.5, 2, 3, 6), (1, 0.95, 0.8, 0.65, 0.5, 0.38, 0.29, 0.2), 493.68
)
KAON_MINUS_ELASTIC = _against_kinetic(
    (0, 0.1, 0.3, 0.5, 1, 2, 6), (0, 0, 0.4, 0.45, 0.42, 0.3, 0.16), 493.68
)
BARYON_ELASTIC = _against_kinetic(
    (0, 0.8, 1, 1.5, 2, 3, 6), (1, 1, 0.95, 0.58, 0.45, 0.38, 0.28), 938.3
)

SLOPE = 6e-6  # 1/(MeV/c)^2: elastic scattering falls as exp(-SLOPE q^2)
TRANSVERSE = 280.0  # MeV/c: Gaussian width of either transverse momentum
STRANGE, STRANGE_ENERGY = 0.06, 900.0  # part of the collisions that make K Lambda, and from where
EXCHANGED = 0.35  # of the leading mesons and nucleons change their charge
MOST_PIONS = 8
MOST = MOST_PIONS + 3  # particles that one collision makes


@jit
def cross_section(pdg, kinetic):
    """Return the total cross section in mb on a nucleon of argon, 0 for what is not followed."""
    kind = abs(pdg)
    if kind == 211 or kind == 111:
        return curve(PION, kinetic)
    if pdg == 321:
        return curve(KAON_PLUS, kinetic)
    if pdg == -321:
        return curve(KAON_MINUS, kinetic)
    if kind == 2212 or kind == 2112:
        return curve(BARYON, kinetic)
    return 0.0


@jit
def elastic_part(pdg, kinetic):
    """Return the part of the collisions in which nothing is made."""
    kind = abs(pdg)
    if kind == 211 or kind == 111:
        return curve(PION_ELASTIC, kinetic)
    if pdg == 321:
        return curve(KAON_ELASTIC, kinetic)
    if pdg == -321:
        return curve(KAON_MINUS_ELASTIC, kinetic)
    return curve(BARYON_ELASTIC, kinetic)


@jit
def charge(pdg):
    """Return the charge of a hadron."""
    if pdg == 211 or pdg == 321 or pdg == 2212:
        return 1
    return -1 if pdg == -211 or pdg == -321 else 0


@jit
def mean_pions(free):
    """Return the mean number of pions that ``free`` MeV above the masses make.

    Two thirds of them are charged, as are two thirds of the leading particles: so that with pp the
    charged multiplicity is 0.88 + 0.44 ln s + 0.118 ln^2 s, s in GeV^2 (Thome et al., Nucl. Phys.
    B 129 (1977) 365), taken as a function of the energy that is free.
    """
    log = 2.0 * math.log(1e-3 * (free + 2.0 * NUCLEON))
    return max(1.5 * (0.88 + 0.44 * log + 0.118 * log * log - 1.33), 1.0)


@jit
def poisson(rng, mean):
    """Return a number of Poisson's distribution, for small means."""
    k, p, limit = 0, rng.random(), math.exp(-mean)
    while p > limit:
        k += 1
        p *= rng.random()
    return k


@jit
def leading(rng, pdg):
    """Return what is left of the projectile: itself, or its partner of another charge."""
    if rng.random() > EXCHANGED:
        return pdg
    kind = abs(pdg)
    if kind == 211:
        return 111
    if kind == 111:
        return 211 if rng.random() < 0.5 else -211
    if kind == 321:
        return 311
    return 2112 if pdg == 2212 else 2212


@jit
def choose(rng, pdg, target, free, codes):
    """Fill ``codes`` with the products of an inelastic collision with ``free`` MeV to spend, the
    projectile's first, the nucleon's last; return how many, 0 where no charges fit.
    """
    total = charge(pdg) + charge(target)
    absorbs = pdg == -321 and rng.random() < 1.0 / (1.0 + free / 600.0)
    strange = pdg != -321 and free > STRANGE_ENERGY and rng.random() < STRANGE
    for _ in range(60):
        pions = min(1 + poisson(rng, mean_pions(free) - 1.0), MOST_PIONS)
        n = 0
        if not absorbs:
            codes[0] = leading(rng, pdg)
            n = 1
        if strange:
            codes[n] = 321 if rng.random() < 0.5 else 311
            n += 1
            pions -= 1
        for _k in range(pions):
            codes[n] = (111, 211, -211)[int(3.0 * rng.random())]
            n += 1
        if strange or absorbs:  # K- N -> Lambda pi
            codes[n] = 3122
        else:
            codes[n] = target if rng.random() > EXCHANGED else 4324 - target  # p and n
        n += 1
        found = 0
        for k in range(n):
            found += charge(codes[k])
        if found == total:
            return n
    return 0


@jit
def spread(rng, energy, codes, n, momenta):
    """Draw the momenta (n, 3) of products of masses ``codes`` in their frame, z along the
    projectile, with ``energy`` MeV in all; return False where that is not enough.
    """
    sizes, places = np.empty(n), np.empty(n)
    least = 0.0
    for k in range(n):
        least += mass(codes[k])
        places[k] = 1.0 if k == 0 else 0.0 if k == n - 1 else rng.random()
    if least > 0.999 * energy:
        return False
    width = min(TRANSVERSE, 0.7 * (energy - least) / math.sqrt(n))
    while True:
        mx, my, total = 0.0, 0.0, 0.0
        for k in range(n):
            momenta[k, 0] = width * rng.standard_normal()
            momenta[k, 1] = width * rng.standard_normal()
            mx += momenta[k, 0] / n
            my += momenta[k, 1] / n
        for k in range(n):
            momenta[k, 0] -= mx
            momenta[k, 1] -= my
            sizes[k] = math.sqrt(mass(codes[k]) ** 2 + momenta[k, 0] ** 2 + momenta[k, 1] ** 2)
            total += sizes[k]
        if total < energy:
            break
        width *= 0.8
    low, high = 0.0, 20.0
    for _ in range(50):  # the stretch b with sum(m e^by) sum(m e^-by) = energy^2
        b = 0.5 * (low + high)
        up, down = 0.0, 0.0
        for k in range(n):
            up += sizes[k] * math.exp(b * places[k])
            down += sizes[k] * math.exp(-b * places[k])
        if up * down < energy * energy:
            low = b
        else:
            high = b
    shift = 0.5 * math.log(down / up)
    for k in range(n):
        momenta[k, 2] = sizes[k] * math.sinh(shift + b * places[k])
    return True


@jit
def collide(rng, pdg, momentum, codes, momenta):
    """Let a hadron hit a nucleon of argon that moves with a Fermi momentum of up to 220 MeV/c; fill
    ``codes`` (n,) and ``momenta`` (n, 3) with what flies off, the projectile's first, the nucleon's
    last; return (n, whether something was made).
    """
    target = 2212 if rng.random() < 0.45 else 2112
    fermi = 220.0 * rng.random() ** (1.0 / 3.0)
    both = plus(momentum, scaled(fermi, isotropic(rng)))
    m = mass(pdg)
    e_in = total_energy(momentum, m)
    e = e_in + math.sqrt(fermi * fermi + NUCLEON * NUCLEON) - ARGON_BINDING
    energy = invariant_mass(e, both)
    velocity = divided(both, e)
    axis = boost(momentum, e_in, scaled(-1.0, velocity))
    axis = divided(axis, norm(axis))
    n = 0
    if rng.random() > elastic_part(pdg, e_in - m):
        free = energy - m - NUCLEON
        if pdg == -321:  # a hyperon is light for it: K- N -> Lambda pi gives 180 MeV
            free = max(free, 10.0)
        for _ in range(20):
            n = choose(rng, pdg, target, max(free, 0.0), codes)
            if n and spread(rng, energy, codes, n, momenta):
                break
            n = 0
    made = n > 0
    if not made:
        codes[0], codes[1], n = pdg, target, 2
        if pdg == 321 and target == 2112 and rng.random() < 0.4 * min(1.0, 600.0 / (e_in - m)):
            codes[0], codes[1] = 311, 2212  # K+ n -> K0 p
        q = two_body(energy, mass(codes[0]), mass(codes[1]))
        c = 1.0 - min(2.0, rng.standard_exponential() / (SLOPE * 2.0 * max(q * q, 1.0)))
        s, phi = math.sqrt(max(0.0, 1.0 - c * c)), 2.0 * math.pi * rng.random()
        for k in range(2):
            sign = 1.0 if k == 0 else -1.0
            momenta[k, 0] = sign * q * s * math.cos(phi)
            momenta[k, 1] = sign * q * s * math.sin(phi)
            momenta[k, 2] = sign * q * c
    for k in range(n):
        own = Vector(momenta[k, 0], momenta[k, 1], momenta[k, 2])
        p = norm(own)
        if p > 0.0:
            own = scaled(p, deflect(axis, own.z / p, math.atan2(own.y, own.x)))
        e_k = math.sqrt(p * p + mass(codes[k]) ** 2)
        momenta[k, 0], momenta[k, 1], momenta[k, 2] = boost(own, e_k, velocity)
    return n, made

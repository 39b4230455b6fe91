"""What a fast hadron does to an argon nucleus: collision after collision, until all have left it.

The nucleus is a uniform sphere. The projectile hits a nucleon in it (collisions.py), and what flies
off may hit others, new particles only after a formation time. What becomes slow is handed to
hadrons.py, which knows pions below 0.9 GeV, kaons below 0.6 and nucleons below 1 GeV. The energy
that is missing then evaporates nucleons, and photons take the last 10 MeV.
"""

import math

import numpy as np

from . import collisions, hadrons
from ._jit import jit
from .hadrons import MB
from .kinematics import (
    Vector,
    divided,
    dot,
    isotropic,
    minus,
    moved,
    norm,
    plus,
    scaled,
    total_energy,
)
from .particles import KAON0, NUCLEON
from .record import (
    MIN_RECORDED_ENERGY_MEV,
    TRACK,
    Particle,
    deposit,
    emit,
    ends,
    in_argon,
    mass,
)

RADIUS = (
    4.42  # fm: sqrt(5/3) of the charge radius of argon-40, 3.427 fm (Angeli and Marinova, 2013)
)
DENSITY = 40.0 / (4.0 / 3.0 * math.pi * RADIUS**3)  # nucleons per fm^3
MB_FM2 = 0.1  # fm^2 per mb
FORMATION = 0.4  # fm/c in the rest frame of a new particle
PION_FROM, KAON_FROM, NUCLEON_FROM = 880.0, 622.0, 1000.0  # MeV of kinetic energy
INSIDE = 64  # particles in a nucleus at a time
SEPARATION = 8.2  # MeV that it takes to part a nucleon from the nucleus
MOST_SLOW = 25  # nucleons and alpha particles that evaporate from one nucleus


@jit
def is_fast(pdg, kinetic):
    """Tell whether a hadron is for this module."""
    kind = abs(pdg)
    if kind == 211:
        return kinetic > PION_FROM
    if kind == 321:
        return pdg < 0 or kinetic > KAON_FROM
    return kinetic > NUCLEON_FROM and (kind == 2212 or kind == 2112)


@jit
def interact(rng, world, hadron):
    """Let a pi, K or nucleon interact inelastically here."""
    m = mass(hadron.pdg)
    if is_fast(hadron.pdg, total_energy(hadron.momentum, m) - m):
        cascade(rng, world, hadron)
    else:
        hadrons.interact(rng, world, hadron)


@jit
def first_place(rng, length):
    """Return where in the nucleus (fm, z along the projectile) one of mean free path ``length``
    collides first.
    """
    while True:
        b2 = RADIUS * RADIUS * rng.random()
        half = math.sqrt(RADIUS * RADIUS - b2)
        depth = length * rng.standard_exponential()
        if depth < 2.0 * half:
            return math.sqrt(b2), depth - half


@jit
def to_surface(place, direction):
    """Return the distance in fm from a place in the nucleus (fm from its centre) to its surface."""
    along = dot(place, direction)
    inner = RADIUS * RADIUS - dot(place, place)
    return math.sqrt(max(along * along + inner, 0.0)) - along


@jit
def cascade(rng, world, hadron):
    """Let a hadron go through an argon nucleus, and emit what comes out of it."""
    pdg, row, momentum, point = hadron
    # pdg, momentum, place in fm, fm that it still needs to form (-1: it collides where it is)
    inside = np.empty((INSIDE, 8))
    codes, momenta = np.empty(collisions.MOST, np.int64), np.empty((collisions.MOST, 3))
    m = mass(pdg)
    p = norm(momentum)
    section = collisions.cross_section(pdg, math.sqrt(p * p + m * m) - m)
    b, depth = first_place(rng, 1.0 / (DENSITY * MB_FM2 * max(section, 1.0)))
    direction = divided(momentum, p)
    side = isotropic(rng)
    side = minus(side, scaled(dot(side, direction), direction))  # across the path
    across = b / math.sqrt(max(dot(side, side), 1e-12))
    put(inside[0], pdg, momentum, plus(scaled(depth, direction), scaled(across, side)), -1.0)
    available = math.sqrt(p * p + m * m) - (m if m > KAON0 else 0.0)
    n, first = 1, world.n[2]
    while n > 0:
        n -= 1
        s = inside[n]
        code, forms = int(s[0]), s[7]
        momentum, place = Vector(s[1], s[2], s[3]), Vector(s[4], s[5], s[6])
        m = mass(code)
        p = norm(momentum)
        kinetic = math.sqrt(p * p + m * m) - m
        if forms >= 0.0:
            section = collisions.cross_section(code, kinetic)
            stays = section > 0.0 and p > 0.0
            if stays:
                direction = divided(momentum, p)
                flight = forms + rng.standard_exponential() / (DENSITY * MB_FM2 * section)
                stays = flight < to_surface(place, direction)
            if not stays:
                leave(world, code, row, momentum, point)
                continue
            place = plus(place, scaled(flight, direction))
        if code == 111:  # as a charged one: charge exchange
            code = 211 if rng.random() < 0.5 else -211
        if not is_fast(code, kinetic):
            hadrons.interact(rng, world, Particle(code, row, momentum, point))
            continue
        made, new = collisions.collide(rng, code, momentum, codes, momenta)
        for k in range(made):
            momentum = Vector(momenta[k, 0], momenta[k, 1], momenta[k, 2])
            if n == INSIDE:
                leave(world, codes[k], row, momentum, point)
                continue
            forms = 0.0
            if new and 0 < k < made - 1:
                forms = FORMATION * norm(momentum) / mass(codes[k])
            put(inside[n], codes[k], momentum, place, forms)
            n += 1
    calm(rng, world, row, available - spent(world, first), point)


@jit
def put(entry, pdg, momentum, place, forms):
    """Fill the entry of a particle in the nucleus, see :func:`cascade`."""
    entry[0], entry[7] = pdg, forms
    entry[1], entry[2], entry[3] = momentum
    entry[4], entry[5], entry[6] = place


@jit
def leave(world, pdg, row, momentum, point):
    """Emit a particle that comes out of the nucleus; nucleons climb out of its potential."""
    if pdg == 2212 or pdg == 2112:
        hadrons.knock_out(world, pdg, row, momentum, point)
    else:
        emit(world, pdg, row, momentum, point, 0.0)


@jit
def spent(world, first):
    """Return the MeV that particles of the stack from number ``first`` on took out of the nucleus:
    kinetic energy of nucleons and what it takes to part them from it, all energy of the others.
    """
    total = 0.0
    for k in range(first, world.n[2]):
        s = world.stack[k]
        m = mass(int(s[0]))
        total += total_energy(Vector(s[2], s[3], s[4]), m)
        if s[0] == 2212 or s[0] == 2112:
            total += SEPARATION - m
        elif s[0] == 3122:
            total -= NUCLEON
    return total


@jit
def calm(rng, world, row, left, point):
    """Let a nucleus with ``left`` MeV of excitation cool: slow nucleons, alpha particles, which
    leave a dot, and last photons, whose electrons are dots around it.
    """
    for _ in range(MOST_SLOW):
        if left < SEPARATION + 2.0:
            break
        if left > 18.5 and rng.random() < 0.35:
            energy = 5.0 + 5.0 * rng.random()
            deposit(world, point, energy, 0.0045 * (energy / 5.5) ** 1.5, TRACK)
            left -= energy + SEPARATION
            continue
        before = world.n[2]
        hadrons.evaporate(rng, world, row, 1, 2.5, point)
        energy = spent(world, before)
        if energy > left:  # more than there is: photons take the rest
            world.n[2] = before
            break
        left -= energy
    left = min(left, SEPARATION + 2.0)
    while left > 0.2:  # each takes what it likes: some photons of 1 to 4 MeV
        energy = left * math.sqrt(rng.random())
        left -= energy
        emit(world, 22, row, scaled(energy, isotropic(rng)), point, MIN_RECORDED_ENERGY_MEV)


@jit
def neutron(rng, world, particle):
    """Follow a neutron until it collides as a fast one, or as hadrons.neutron does."""
    _, row, momentum, point = particle
    p = norm(momentum)
    m = mass(2112)
    kinetic = math.sqrt(p * p + m * m) - m
    if not is_fast(2112, kinetic):
        hadrons.neutron(rng, world, particle)
        return
    flight = rng.standard_exponential() / (MB * hadrons.curve(hadrons.PROTON_INELASTIC, kinetic))
    point = moved(point, divided(scaled(flight, momentum), p))
    ends(world, row, point)
    if in_argon(point):
        cascade(rng, world, Particle(2112, row, momentum, point))

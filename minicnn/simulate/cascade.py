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
from .kinematics import isotropic
from .particles import KAON0, NUCLEON
from .record import MIN_RECORDED_ENERGY_MEV, TRACK, deposit, emit, ends, in_argon, mass

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
def interact(rng, world, pdg, row, px, py, pz, x, y, z, time):
    """Let a pi, K or nucleon interact inelastically here."""
    m = mass(pdg)
    if is_fast(pdg, math.sqrt(px * px + py * py + pz * pz + m * m) - m):
        cascade(rng, world, pdg, row, px, py, pz, x, y, z, time)
    else:
        hadrons.interact(rng, world, pdg, row, px, py, pz, x, y, z, time)


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
def to_surface(fx, fy, fz, ux, uy, uz):
    """Return the distance in fm from a point in the nucleus to its surface."""
    along = fx * ux + fy * uy + fz * uz
    inner = RADIUS * RADIUS - (fx * fx + fy * fy + fz * fz)
    return math.sqrt(max(along * along + inner, 0.0)) - along


@jit
def cascade(rng, world, pdg, row, px, py, pz, x, y, z, time):
    """Let a hadron go through an argon nucleus, and emit what comes out of it."""
    # pdg, momentum, place in fm, fm that it still needs to form (-1: it collides where it is)
    inside = np.empty((INSIDE, 8))
    codes, momenta = np.empty(collisions.MOST, np.int64), np.empty((collisions.MOST, 3))
    m = mass(pdg)
    p = math.sqrt(px * px + py * py + pz * pz)
    section = collisions.cross_section(pdg, math.sqrt(p * p + m * m) - m)
    b, depth = first_place(rng, 1.0 / (DENSITY * MB_FM2 * max(section, 1.0)))
    ux, uy, uz = px / p, py / p, pz / p
    vx, vy, vz = isotropic(rng)  # a vector across the path
    along = vx * ux + vy * uy + vz * uz
    vx, vy, vz = vx - along * ux, vy - along * uy, vz - along * uz
    across = b / math.sqrt(max(vx * vx + vy * vy + vz * vz, 1e-12))
    hit = inside[0]
    hit[0], hit[1], hit[2], hit[3], hit[7] = pdg, px, py, pz, -1.0
    hit[4] = depth * ux + across * vx
    hit[5] = depth * uy + across * vy
    hit[6] = depth * uz + across * vz
    available = math.sqrt(p * p + m * m) - (m if m > KAON0 else 0.0)
    n, first = 1, world.n[2]
    while n > 0:
        n -= 1
        code = int(inside[n, 0])
        ax, ay, az, fx, fy, fz, forms = inside[n, 1:8]
        m = mass(code)
        p = math.sqrt(ax * ax + ay * ay + az * az)
        kinetic = math.sqrt(p * p + m * m) - m
        if forms >= 0.0:
            section = collisions.cross_section(code, kinetic)
            stays = section > 0.0 and p > 0.0
            if stays:
                ux, uy, uz = ax / p, ay / p, az / p
                flight = forms + rng.standard_exponential() / (DENSITY * MB_FM2 * section)
                stays = flight < to_surface(fx, fy, fz, ux, uy, uz)
            if not stays:
                leave(world, code, row, ax, ay, az, x, y, z, time)
                continue
            fx, fy, fz = fx + flight * ux, fy + flight * uy, fz + flight * uz
        if code == 111:  # as a charged one: charge exchange
            code = 211 if rng.random() < 0.5 else -211
        if not is_fast(code, kinetic):
            hadrons.interact(rng, world, code, row, ax, ay, az, x, y, z, time)
            continue
        made, new = collisions.collide(rng, code, ax, ay, az, codes, momenta)
        for k in range(made):
            ax, ay, az = momenta[k, 0], momenta[k, 1], momenta[k, 2]
            if n == INSIDE:
                leave(world, codes[k], row, ax, ay, az, x, y, z, time)
                continue
            s = inside[n]
            s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = codes[k], ax, ay, az, fx, fy, fz, 0.0
            if new and 0 < k < made - 1:
                s[7] = FORMATION * math.sqrt(ax * ax + ay * ay + az * az) / mass(codes[k])
            n += 1
    calm(rng, world, row, available - spent(world, first), x, y, z, time)


@jit
def leave(world, pdg, row, px, py, pz, x, y, z, time):
    """Emit a particle that comes out of the nucleus; nucleons climb out of its potential."""
    if pdg == 2212 or pdg == 2112:
        hadrons.knock_out(world, pdg, row, px, py, pz, x, y, z, time)
    else:
        emit(world, pdg, row, px, py, pz, x, y, z, time, 0.0)


@jit
def spent(world, first):
    """Return the MeV that particles of the stack from number ``first`` on took out of the nucleus:
    kinetic energy of nucleons and what it takes to part them from it, all energy of the others.
    """
    total = 0.0
    for k in range(first, world.n[2]):
        s = world.stack[k]
        m = mass(int(s[0]))
        total += math.sqrt(s[2] * s[2] + s[3] * s[3] + s[4] * s[4] + m * m)
        if s[0] == 2212 or s[0] == 2112:
            total += SEPARATION - m
        elif s[0] == 3122:
            total -= NUCLEON
    return total


@jit
def calm(rng, world, row, left, x, y, z, time):
    """Let a nucleus with ``left`` MeV of excitation cool: slow nucleons, alpha particles, which
    leave a dot, and last photons, whose electrons are dots around it.
    """
    for _ in range(MOST_SLOW):
        if left < SEPARATION + 2.0:
            break
        if left > 18.5 and rng.random() < 0.35:
            energy = 5.0 + 5.0 * rng.random()
            deposit(world, x, y, z, time, energy, 0.0045 * (energy / 5.5) ** 1.5, TRACK)
            left -= energy + SEPARATION
            continue
        before = world.n[2]
        hadrons.evaporate(rng, world, row, 1, 2.5, x, y, z, time)
        energy = spent(world, before)
        if energy > left:  # more than there is: photons take the rest
            world.n[2] = before
            break
        left -= energy
    left = min(left, SEPARATION + 2.0)
    while left > 0.2:  # each takes what it likes: some photons of 1 to 4 MeV
        energy = left * math.sqrt(rng.random())
        left -= energy
        gx, gy, gz = isotropic(rng)
        emit(
            world,
            22,
            row,
            energy * gx,
            energy * gy,
            energy * gz,
            x,
            y,
            z,
            time,
            MIN_RECORDED_ENERGY_MEV,
        )


@jit
def neutron(rng, world, row, px, py, pz, x, y, z, time):
    """Follow a neutron until it collides as a fast one, or as hadrons.neutron does."""
    p = math.sqrt(px * px + py * py + pz * pz)
    m = mass(2112)
    kinetic = math.sqrt(p * p + m * m) - m
    if not is_fast(2112, kinetic):
        hadrons.neutron(rng, world, row, px, py, pz, x, y, z, time)
        return
    flight = rng.standard_exponential() / (MB * hadrons.curve(hadrons.PROTON_INELASTIC, kinetic))
    x, y, z = x + flight * px / p, y + flight * py / p, z + flight * pz / p
    ends(world, row, x, y, z)
    if in_argon(x, y, z):
        cascade(rng, world, 2112, row, px, py, pz, x, y, z, time)

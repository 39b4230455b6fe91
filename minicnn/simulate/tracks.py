"""Heavy charged particles (mu, pi, K, p): steps of at most 1.5 mm, until they stop, decay, interact
or leave.
"""

import math

from . import cascade, decays, hadrons, radiation
from ._jit import jit
from .ionisation import Step, Track, collisions, scatter
from .kinematics import divided, moved, norm, plus, scaled
from .particles import ELECTRON
from .record import TRACK, Particle, deposit, ends, in_argon, lookup, mass

STEP = 0.15  # cm; the image has columns of 0.11 cm and wires every 0.3 cm
STOPPED = 0.02  # cm of range left: the rest of the energy stays here


@jit
def species(pdg):
    """Return the row of the stopping-power tables."""
    pdg = abs(pdg)
    return 1 if pdg == 13 else 2 if pdg == 211 else 3 if pdg == 321 else 4


@jit
def charged(rng, world, particle):
    """Follow one mu, pi, K or p."""
    pdg, row, momentum, point = particle
    m = mass(pdg)
    p = norm(momentum)
    direction = divided(momentum, p)
    kinetic = math.sqrt(p * p + m * m) - m
    stopping, ranges = world.stopping[species(pdg), 0], world.stopping[species(pdg), 1]
    while True:
        left = lookup(ranges, kinetic)
        if left < STOPPED:
            deposit(world, point, kinetic, left, TRACK)
            ends(world, row, point)
            decays.at_rest(rng, world, pdg, row, point)
            return
        step = min(STEP, 0.2 * left)
        e = kinetic + m
        p = math.sqrt(kinetic * (kinetic + 2.0 * m))
        beta2 = (p / e) ** 2

        inelastic, elastic = hadrons.inverse_lengths(pdg, kinetic)
        decay = decays.inverse_length(pdg, p)
        r = rng.random() / step
        if r < inelastic:
            ends(world, row, point)
            cascade.interact(rng, world, Particle(pdg, row, scaled(p, direction), point))
            return
        if r < inelastic + decay:
            ends(world, row, point)
            decays.decay(rng, world, Particle(pdg, row, scaled(p, direction), point))
            return
        if r < inelastic + decay + elastic:
            direction = hadrons.diffract(rng, p, direction)
        radiates = -1
        if kinetic > radiation.FROM and abs(pdg) == 13:
            photons = radiation.inverse_length(radiation.PHOTON, kinetic)
            pairs = radiation.inverse_length(radiation.PAIR, kinetic)
            if decay <= r < decay + photons:
                radiates = radiation.PHOTON
            elif decay + photons <= r < decay + photons + pairs:
                radiates = radiation.PAIR

        half = max(kinetic - 0.5 * step * lookup(stopping, kinetic), 0.25 * kinetic)
        mean = min(step * lookup(stopping, half), kinetic)
        gamma = e / m
        t_max = (
            2.0
            * ELECTRON
            * (gamma * gamma - 1.0)
            / (1.0 + 2.0 * gamma * ELECTRON / m + (ELECTRON / m) ** 2)
        )
        turned = scatter(rng, step, p, p / e, direction)
        way = scaled(0.5 * step, plus(direction, turned))
        middle = moved(point, scaled(0.5, way))
        local, carried = collisions(
            rng, world, Track(row, kinetic, direction, middle), Step(step, beta2, mean, t_max)
        )
        deposit(world, middle, local, step, TRACK)
        kinetic = max(kinetic - local - carried, 1e-3)
        point, direction = moved(point, way), turned
        if not in_argon(point):
            ends(world, row, point)
            return
        if radiates >= 0:
            muon = Track(row, kinetic, direction, point)
            kinetic -= radiation.radiate(rng, world, radiates, muon)

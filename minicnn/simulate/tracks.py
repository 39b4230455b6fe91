"""Heavy charged particles (mu, pi, K, p): steps of at most 1.5 mm, until they stop, decay, interact
or leave.
"""

import math

from . import cascade, decays, hadrons, radiation
from ._jit import jit
from .ionisation import collisions, scatter
from .particles import ELECTRON
from .record import TRACK, deposit, ends, in_argon, lookup, mass

STEP = 0.15  # cm; the image has columns of 0.11 cm and wires every 0.3 cm
STOPPED = 0.02  # cm of range left: the rest of the energy stays here


@jit
def species(pdg):
    """Return the row of the stopping-power tables."""
    pdg = abs(pdg)
    return 1 if pdg == 13 else 2 if pdg == 211 else 3 if pdg == 321 else 4


@jit
def charged(rng, world, pdg, row, px, py, pz, x, y, z, time):
    """Follow one mu, pi, K or p."""
    m = mass(pdg)
    p = math.sqrt(px * px + py * py + pz * pz)
    ux, uy, uz = px / p, py / p, pz / p
    kinetic = math.sqrt(p * p + m * m) - m
    stopping, ranges = world.stopping[species(pdg), 0], world.stopping[species(pdg), 1]
    while True:
        left = lookup(ranges, kinetic)
        if left < STOPPED:
            deposit(world, x, y, z, time, kinetic, left, TRACK)
            ends(world, row, x, y, z)
            decays.at_rest(rng, world, pdg, row, x, y, z, time)
            return
        step = min(STEP, 0.2 * left)
        e = kinetic + m
        p = math.sqrt(kinetic * (kinetic + 2.0 * m))
        beta2 = (p / e) ** 2

        inelastic, elastic = hadrons.inverse_lengths(pdg, kinetic)
        decay = decays.inverse_length(pdg, p)
        r = rng.random() / step
        if r < inelastic:
            ends(world, row, x, y, z)
            cascade.interact(rng, world, pdg, row, p * ux, p * uy, p * uz, x, y, z, time)
            return
        if r < inelastic + decay:
            ends(world, row, x, y, z)
            decays.decay(rng, world, pdg, row, p * ux, p * uy, p * uz, x, y, z, time)
            return
        if r < inelastic + decay + elastic:
            ux, uy, uz = hadrons.diffract(rng, p, ux, uy, uz)
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
        vx, vy, vz = scatter(rng, step, p, p / e, ux, uy, uz)
        mx, my, mz = 0.5 * step * (ux + vx), 0.5 * step * (uy + vy), 0.5 * step * (uz + vz)
        hx, hy, hz = x + 0.5 * mx, y + 0.5 * my, z + 0.5 * mz
        local, carried = collisions(
            rng, world, row, mean, step, beta2, t_max, kinetic, hx, hy, hz, ux, uy, uz, time
        )
        deposit(world, hx, hy, hz, time, local, step, TRACK)
        kinetic = max(kinetic - local - carried, 1e-3)
        x, y, z, ux, uy, uz = x + mx, y + my, z + mz, vx, vy, vz
        if not in_argon(x, y, z):
            ends(world, row, x, y, z)
            return
        if radiates >= 0:
            kinetic -= radiation.radiate(
                rng, world, radiates, row, kinetic, x, y, z, ux, uy, uz, time
            )

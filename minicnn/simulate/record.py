"""What one event writes down while it is simulated: particles waiting, particles seen, energy
deposited.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..data.pixel_classes import PIXEL_CLASSES
from . import material
from ._jit import jit
from .geometry import MARGIN, X_MAX, Y_MAX, Z_MAX
from .kinematics import Point, Vector, total_energy
from .particles import ELECTRON, KAON, KAON0, LAMBDA, MUON, NEUTRON, PION, PION0, PROTON

#: MeV of kinetic energy: softer shower particles, delta rays and nucleons get no row in the truth.
MIN_RECORDED_ENERGY_MEV = 10.0
#: Pixel classes of the deposits: of electrons and positrons, and of heavier charged particles.
SHOWER, TRACK = PIXEL_CLASSES.index("shower"), PIXEL_CLASSES.index("track")
STEPS, TRUTH, STACK = 1 << 17, 1 << 13, 1 << 13  # capacities; a shower of 6 GeV has 44,000 steps


class World(NamedTuple):
    """Everything that the physics reads and writes.

    stopping (species, 2, grid): dE/dx and range. photons (3, grid): pair production, Compton
    scattering, photo effect per cm. steps (n, 6): x, y, z (cm), time (us), energy (MeV), length
    (cm). classes uint8 (n,): SHOWER or TRACK, of each step. truth (n, 11): pdg, parent, momentum,
    start, end. stack (n, 9): pdg, row, momentum (MeV/c), position, time. n: how many steps, truth
    rows and stack rows are filled.
    """

    stopping: np.ndarray
    photons: np.ndarray
    steps: np.ndarray
    classes: np.ndarray
    truth: np.ndarray
    stack: np.ndarray
    n: np.ndarray


class Particle(NamedTuple):
    """A particle that is about to do something: its PDG code, its momentum in MeV/c, where it is.

    row: the parent of what it makes, in the truth table. That is its own row; where it has none,
    see row_known_to_parent; while it is in the nucleus that it was made in, its parent's.
    """

    pdg: int
    row: int
    momentum: Vector
    point: Point


def new_world(stopping: np.ndarray, photons: np.ndarray, steps: int = STEPS) -> World:
    """Return an empty World on shared tables with room for so many steps."""
    return World(
        stopping,
        photons,
        np.empty((steps, 6)),
        np.empty(steps, np.uint8),
        np.empty((TRUTH, 11)),
        np.empty((STACK, 9)),
        np.zeros(3, np.int64),
    )


@jit
def mass(pdg):
    """Return the mass in MeV for a PDG code."""
    pdg = abs(pdg)
    if pdg == 11:
        return ELECTRON
    if pdg == 13:
        return MUON
    if pdg == 211:
        return PION
    if pdg == 321:
        return KAON
    if pdg == 2212:
        return PROTON
    if pdg == 2112:
        return NEUTRON
    if pdg == 111:
        return PION0
    if pdg == 311:
        return KAON0
    if pdg == 3122:
        return LAMBDA
    return 0.0


@jit
def inside(point, margin):
    """Tell whether a point lies in the TPC widened by ``margin`` cm on every side."""
    return (
        -margin < point.x < X_MAX + margin
        and -Y_MAX - margin < point.y < Y_MAX + margin
        and -margin < point.z < Z_MAX + margin
    )


@jit
def in_argon(point):
    """Tell whether a particle is still followed."""
    return inside(point, MARGIN)


@jit
def deposit(world, point, energy, length, pixel_class):
    """Write down ``energy`` MeV left along ``length`` cm around a point, if charge from there is
    read out; pixel_class: SHOWER or TRACK.
    """
    k = world.n[0]
    if energy > 0.0 and inside(point, 0.0):
        if k >= len(world.steps):
            raise RuntimeError("an event has more steps than there is memory for")
        s = world.steps[k]
        s[0], s[1], s[2], s[3] = point
        s[4], s[5] = energy, max(length, 1e-4)
        world.classes[k] = pixel_class
        world.n[0] = k + 1


@jit
def row_known_to_parent(row):
    """Return a particle's truth row or, where it has none, that of its nearest ancestor r that has
    (written -2 - r).
    """
    return row if row >= 0 else -2 - row


@jit
def emit(world, pdg, parent, momentum, point, least):
    """Put a new particle on the stack and, if it has ``least`` MeV of kinetic energy, into the
    truth table.

    parent: the row of the parent as the parent knows it (see row_known_to_parent), -1 for the
    primary.
    """
    k, r = world.n[2], world.n[1]
    if k >= STACK or r >= TRUTH:
        raise RuntimeError("an event has more particles than there is memory for")
    up = row_known_to_parent(parent) if parent != -1 else -1
    m = mass(pdg)
    if total_energy(momentum, m) - m >= least:
        q = world.truth[r]
        q[0], q[1] = pdg, up
        q[2], q[3], q[4] = momentum
        q[5], q[6], q[7] = point.x, point.y, point.z
        q[8], q[9], q[10] = point.x, point.y, point.z
        world.n[1] = r + 1
        row = r
    else:
        row = -2 - up
    s = world.stack[k]
    s[0], s[1] = pdg, row
    s[2], s[3], s[4] = momentum
    s[5], s[6], s[7], s[8] = point
    world.n[2] = k + 1


@jit
def take(world):
    """Return the particle on top of the stack, and remove it there."""
    world.n[2] -= 1
    s = world.stack[world.n[2]]
    momentum, point = Vector(s[2], s[3], s[4]), Point(s[5], s[6], s[7], s[8])
    return Particle(int(s[0]), int(s[1]), momentum, point)


@jit
def ends(world, row, point):
    """Write down where a particle ended."""
    if row >= 0:
        end = world.truth[row]
        end[8], end[9], end[10] = point.x, point.y, point.z


@jit
def lookup(table, kinetic):
    """Return a table's value at a kinetic energy in MeV, interpolated linearly in its logarithm."""
    f = (math.log(kinetic) - material.LOG_LOW) / material.LOG_STEP
    i = min(max(int(f), 0), material.N_GRID - 2)
    w = min(max(f - i, 0.0), 1.0)
    return table[i] + w * (table[i + 1] - table[i])

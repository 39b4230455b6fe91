"""Electrons, positrons and photons: an electromagnetic branching Monte Carlo from 1 GeV down to 0.1
MeV.

Every photon above 0.3 MeV is followed: the Compton electrons of soft photons are the isolated dots
around a shower.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import material
from ._jit import jit
from .ionisation import Step, Track, collisions, scatter
from .kinematics import deflect, divided, isotropic, minus, moved, norm, plus, scaled
from .material import ATOMS, ELECTRONS, RADIATION_LENGTH, XI, Z
from .particles import ELECTRON
from .record import MIN_RECORDED_ENERGY_MEV, SHOWER, deposit, emit, ends, in_argon, lookup

STEP = 0.15  # cm
ELECTRON_CUT, PHOTON_CUT, BREMS_CUT = (
    0.1,
    0.03,
    0.3,
)  # MeV: stop, absorb, soft photons below this count as local loss
CLASSICAL_RADIUS2 = (2.8179403e-13) ** 2  # cm2
URBAN = np.array(
    [  # microbarn; Geant4 Physics Reference Manual, gamma conversion
        [8.7842e2, -1.9625e3, 1.2949e3, -2.0028e2, 1.2575e1, -2.8333e-1],
        [-1.0342e1, 1.7692e1, -8.2381, 1.3063, -9.0815e-2, 2.3586e-3],
        [-4.5263e2, 1.1161e3, -8.6749e2, 2.1773e2, -2.0467e1, 6.5372e-1],
    ]
)


def pair_cross_section(energy: Any) -> Any:
    """Return the pair-production cross section of argon in cm2 (Urban's fit to Hubbell, Gimm and
    Overbo, 1980).
    """
    energy = np.asarray(energy, np.float64)
    x = np.log(np.maximum(energy, 1.5) / ELECTRON)
    f1, f2, f3 = (sum(c * x**k for k, c in enumerate(row)) for row in URBAN)
    near = (np.clip(energy - 2 * ELECTRON, 0, None) / (1.5 - 2 * ELECTRON)) ** 2
    return Z * (Z + 1) * (f1 + f2 * Z + f3 / Z) * 1e-30 * np.where(energy < 1.5, near, 1.0)


def compton_cross_section(energy: Any) -> Any:
    """Return the Compton cross section per electron in cm2 (Klein and Nishina, Z. Phys. 52 (1929)
    853).
    """
    k = np.asarray(energy, np.float64) / ELECTRON
    log = np.log1p(2 * k)
    part = (
        (1 + k) / k**2 * (2 * (1 + k) / (1 + 2 * k) - log / k)
        + log / (2 * k)
        - (1 + 3 * k) / (1 + 2 * k) ** 2
    )
    small = 4 / 3 * (1 - 2 * k)  # the exact form cancels badly for soft photons
    return 2 * math.pi * CLASSICAL_RADIUS2 * np.where(k < 0.01, small, part)


def photon_tables() -> np.ndarray:
    """Return float64 (3, grid): pair production, Compton scattering, photo effect per cm on the
    energy grid.
    """
    energy = np.exp(material.LOG_LOW + material.LOG_STEP * np.arange(material.N_GRID))
    photo = (
        0.07 * material.DENSITY * (0.1 / energy) ** 3
    )  # 1/cm; argon, about 0.07 cm2/g at 100 keV (XCOM)
    return np.stack(
        [ATOMS * pair_cross_section(energy), ELECTRONS * compton_cross_section(energy), photo]
    )


@jit
def narrow(rng, energy, direction):
    """Return a direction at an angle of order m / E: density of u = theta E / m as u / (1 +
    u^2)^2.
    """
    r = rng.random()
    theta = min(ELECTRON / energy * math.sqrt(r / (1.0 - r)), math.pi)
    return deflect(direction, math.cos(theta), 2.0 * math.pi * rng.random())


@jit
def brems_correction(kinetic):
    """Return radiative loss over that of complete screening: 0.56, 0.86, 0.96 at 1, 10, 100 MeV
    (after ESTAR, NIST).
    """
    return max(0.2, 1.0 - 0.44 / math.sqrt(kinetic))


@jit
def electron(rng, world, particle):
    """Follow an electron or positron: collisions, scattering, bremsstrahlung.

    Photons per cm above the cut k_c: dN/dk = (4/3 - 4/3 y + y^2) / (X0 k), y = k / E (PDG review,
    eq. 34.28, complete screening), times :func:`brems_correction`.
    """
    pdg, row, momentum, point = particle
    p = norm(momentum)
    direction = divided(momentum, p)
    kinetic = math.sqrt(p * p + ELECTRON * ELECTRON) - ELECTRON
    stopping, ranges = world.stopping[0, 0], world.stopping[0, 1]
    while kinetic > ELECTRON_CUT:
        step = min(STEP, max(0.2 * lookup(ranges, kinetic), 0.003))
        e = kinetic + ELECTRON
        p = math.sqrt(kinetic * (kinetic + 2.0 * ELECTRON))
        beta2 = (p / e) ** 2
        t_max = 0.5 * kinetic if pdg > 0 else kinetic
        half = max(kinetic - 0.5 * step * lookup(stopping, kinetic), 0.5 * kinetic)
        mean = min(step * lookup(stopping, half), kinetic)
        if pdg < 0:  # the table is for T_max = T / 2; a positron has twice that
            mean += XI * step / beta2 * 0.25
        turned = scatter(rng, step, p, p / e, direction)
        way = scaled(0.5 * step, plus(direction, turned))
        middle = moved(point, scaled(0.5, way))
        local, carried = collisions(
            rng, world, Track(row, kinetic, direction, middle), Step(step, beta2, mean, t_max)
        )
        if kinetic > BREMS_CUT:
            cut = BREMS_CUT / kinetic
            strength = brems_correction(kinetic) * step / RADIATION_LENGTH
            local += strength * kinetic * cut * (4.0 / 3.0 - 2.0 / 3.0 * cut)
            number = strength * (
                -4.0 / 3.0 * math.log(cut) - 4.0 / 3.0 * (1.0 - cut) + 0.5 * (1.0 - cut * cut)
            )
            if rng.random() < number:
                y = cut ** rng.random()
                while rng.random() > 1.0 - y + 0.75 * y * y:
                    y = cut ** rng.random()
                k = min(y * kinetic, max(kinetic - local - carried, 0.0))
                if k > 0.0:
                    momentum = scaled(k, narrow(rng, e, direction))
                    emit(world, 22, row, momentum, middle, MIN_RECORDED_ENERGY_MEV)
                    carried += k
        local = min(local, max(kinetic - carried, 0.0))
        deposit(world, middle, local, step, SHOWER)
        kinetic -= local + carried
        point, direction = moved(point, way), turned
        if not in_argon(point):
            ends(world, row, point)
            return
    if kinetic > 0.0:
        deposit(world, point, kinetic, lookup(ranges, max(kinetic, 2e-3)), SHOWER)
    ends(world, row, point)
    if pdg < 0:  # annihilation at rest
        way = isotropic(rng)
        emit(world, 22, row, scaled(ELECTRON, way), point, MIN_RECORDED_ENERGY_MEV)
        emit(world, 22, row, scaled(-ELECTRON, way), point, MIN_RECORDED_ENERGY_MEV)


@jit
def compton(rng, energy):
    """Return (energy, cosine of the angle) of the scattered photon, by Klein and Nishina (Butcher
    and Messel, 1960).
    """
    k = energy / ELECTRON
    low = 1.0 / (1.0 + 2.0 * k)
    a1, a2 = -math.log(low), 0.5 * (1.0 - low * low)
    while True:
        if rng.random() * (a1 + a2) < a1:
            eps = math.exp(-a1 * rng.random())
        else:
            eps = math.sqrt(low * low + (1.0 - low * low) * rng.random())
        t = (1.0 - eps) / (k * eps)
        if rng.random() < 1.0 - eps * t * (2.0 - t) / (1.0 + eps * eps):
            return eps * energy, 1.0 - t


@jit
def photon(rng, world, particle):
    """Follow a photon to its conversion, through its Compton scatters, or out of the argon."""
    _, row, momentum, point = particle
    energy = norm(momentum)
    direction = divided(momentum, energy)
    while energy > PHOTON_CUT:
        pairs, scatters = lookup(world.photons[0], energy), lookup(world.photons[1], energy)
        total = pairs + scatters + lookup(world.photons[2], energy)
        flight = rng.standard_exponential() / total
        point = moved(point, scaled(flight, direction))
        if not in_argon(point):
            ends(world, row, point)
            return
        r = rng.random() * total
        if r < pairs:  # energy shared as 1 - 4/3 f (1 - f) (PDG review, eq. 34.31)
            rest = ELECTRON / energy
            while True:
                f = rest + (1.0 - 2.0 * rest) * rng.random()
                if rng.random() < 1.0 - 4.0 / 3.0 * f * (1.0 - f):
                    break
            ends(world, row, point)
            for pdg in (11, -11):
                e = f * energy if pdg > 0 else (1.0 - f) * energy
                p = math.sqrt(max(e * e - ELECTRON * ELECTRON, 1e-8))
                momentum = scaled(p, narrow(rng, e, direction))
                emit(world, pdg, row, momentum, point, MIN_RECORDED_ENERGY_MEV)
            return
        if r < pairs + scatters:
            left, c = compton(rng, energy)
            turned = deflect(direction, c, 2.0 * math.pi * rng.random())
            kinetic = energy - left
            if kinetic > ELECTRON_CUT:
                momentum = minus(scaled(energy, direction), scaled(left, turned))
                emit(world, 11, row, momentum, point, MIN_RECORDED_ENERGY_MEV)
            else:
                length = lookup(world.stopping[0, 1], max(kinetic, 2e-3))
                deposit(world, point, kinetic, length, SHOWER)
            energy, direction = left, turned
            continue
        break
    ends(world, row, point)
    if energy > ELECTRON_CUT:  # photo effect: one electron
        p = math.sqrt(energy * (energy + 2.0 * ELECTRON))
        emit(world, 11, row, scaled(p, isotropic(rng)), point, MIN_RECORDED_ENERGY_MEV)
    else:
        length = lookup(world.stopping[0, 1], max(energy, 2e-3))
        deposit(world, point, energy, length, SHOWER)

"""Liquid argon: constants, stopping power, CSDA range. cm, MeV, g."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .particles import ELECTRON, SPECIES_MASS

TEMPERATURE = 89.0  # K
DENSITY = 1.928 - 0.00615 * TEMPERATURE  # g/cm3
Z, A, I_EV = 18.0, 39.948, 188.0
RADIATION_LENGTH = 19.55 / DENSITY  # cm
K_BETHE = 0.307075  # MeV cm2/mol
XI = 0.5 * K_BETHE * Z / A * DENSITY  # MeV/cm; xi of Landau's theory is XI * length / beta^2
ATOMS = DENSITY * 6.02214e23 / A  # per cm3
ELECTRONS = ATOMS * Z  # per cm3
STERNHEIMER = (0.1956, 3.0, 0.2, 3.0, 5.2146)  # a, k, x0, x1, C

#: the tables: log-uniform in kinetic energy (MeV)
T_LOW, N_GRID = 1e-3, 1280
LOG_LOW, LOG_STEP = math.log(T_LOW), math.log(4e3 / T_LOW) / 1199
T_HIGH = T_LOW * math.exp(LOG_STEP * (N_GRID - 1))  # 11 GeV


def density_effect(beta_gamma: Any) -> Any:
    """Return delta (Sternheimer et al., At. Data Nucl. Data Tables 30 (1984) 261; PDG review, eq.
    34.7).
    """
    a, k, x0, x1, c = STERNHEIMER
    x = np.log10(np.maximum(beta_gamma, 1e-9))
    delta = 2 * math.log(10) * x - c
    return np.where(x >= x1, delta, np.where(x < x0, 0.0, delta + a * np.maximum(x1 - x, 0.0) ** k))


def max_transfer(kinetic: Any, mass: Any) -> Any:
    """Return the largest kinetic energy in MeV given to one electron (PDG review, eq. 34.4); for
    e-: half its own.
    """
    if mass == ELECTRON:
        return 0.5 * kinetic
    gamma = 1 + kinetic / mass
    bg2 = gamma * gamma - 1
    return 2 * ELECTRON * bg2 / (1 + 2 * gamma * ELECTRON / mass + (ELECTRON / mass) ** 2)


def stopping_power(kinetic: Any, mass: Any) -> Any:
    """Return the mean collision loss -dE/dx in MeV/cm.

    Heavy particles: Bethe's equation (PDG review, eq. 34.5); electrons: Moller's cross section (eq.
    34.24). Both with the density effect. Below beta gamma = 0.04 (heavy) or 1 keV (electrons) the
    formula is held at its value there.
    """
    kinetic = np.asarray(kinetic, np.float64)
    mass = float(mass)
    kinetic = np.maximum(kinetic, T_LOW if mass == ELECTRON else mass * 0.0008)
    gamma = 1 + kinetic / mass
    bg2 = gamma * gamma - 1
    beta2 = bg2 / (gamma * gamma)
    delta = density_effect(np.sqrt(bg2))
    i = I_EV * 1e-6
    if mass == ELECTRON:
        log = np.log(ELECTRON * bg2 * ELECTRON * (gamma - 1) / (2 * i * i))
        rest = 1 - beta2 - (2 * gamma - 1) / gamma**2 * math.log(2) + ((gamma - 1) / gamma) ** 2 / 8
        return XI / beta2 * (log + rest - delta)
    log = 0.5 * np.log(2 * ELECTRON * bg2 * max_transfer(kinetic, mass) / (i * i))
    return 2 * XI / beta2 * (log - beta2 - delta / 2)


def tables() -> np.ndarray:
    """Return float64 (species, 2, N_GRID): stopping power in MeV/cm and CSDA range in cm on the
    energy grid.
    """
    kinetic = np.exp(LOG_LOW + LOG_STEP * np.arange(N_GRID))
    out = np.empty((len(SPECIES_MASS), 2, N_GRID))
    for row, mass in zip(out, SPECIES_MASS):
        row[0] = stopping_power(kinetic, mass)
        slice_ = np.diff(kinetic) * 0.5 * (1 / row[0][1:] + 1 / row[0][:-1])
        row[1] = kinetic[0] / row[0][0] + np.concatenate([[0.0], np.cumsum(slice_)])
    return out


def csda_range(momentum: Any, mass: Any) -> Any:
    """Return the CSDA range in cm of a particle of ``momentum`` MeV/c: the integral of dT /
    (dE/dx).
    """
    end = math.sqrt(momentum**2 + mass**2) - mass
    kinetic = np.geomspace(min(1e-3, end / 10), end, 20000)
    inverse = 1 / stopping_power(kinetic, mass)
    return float(
        np.sum(np.diff(kinetic) * 0.5 * (inverse[1:] + inverse[:-1])) + kinetic[0] * inverse[0]
    )

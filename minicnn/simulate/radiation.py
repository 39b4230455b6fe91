"""Bremsstrahlung and pair production of fast muons.

At 6 GeV they take 0.5 % of the energy loss, but in few and visible pieces: one of more than 5 MeV
in 50 m. Cross sections as in Groom, Mokhov and Striganov, At. Data Nucl. Data Tables 78 (2001) 183.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import material
from ._jit import jit
from .kinematics import deflect, scaled
from .material import ATOMS, Z
from .particles import ELECTRON, MUON
from .record import MIN_RECORDED_ENERGY_MEV, emit

FROM = 1000.0  # MeV of kinetic energy from which muons radiate: below it is 0.1 % of their loss
CUT = 5.0  # MeV: softer photons and pairs are left out
ALPHA, ELECTRON_RADIUS = 1 / 137.036, 2.8179403e-13  # cm
PHOTON, PAIR = 0, 1

_KINETIC = np.geomspace(FROM, material.T_HIGH, 25)
_LOG_STEP = math.log(material.T_HIGH / FROM) / (len(_KINETIC) - 1)
_QUANTILES, _HALF = 65, 4  # so many points of the spectrum, and so many in which its rest halves


def brems_cross_section(energy: float, part: Any) -> Any:
    """Return dsigma/dv in cm2 per argon atom of a muon of ``energy`` MeV for photons that take the
    ``part`` v of it (Petrukhin and Shestakov, Can. J. Phys. 46 (1968) S377; Groom et al., eq. 22).
    """
    v = np.asarray(part, np.float64)
    transfer = MUON**2 * v / (2 * energy * (1 - v))
    screening = 1 + 189 * math.sqrt(math.e) / ELECTRON * transfer * Z ** (-1 / 3)
    log = np.log(2 / 3 * 189 * MUON / ELECTRON * Z ** (-2 / 3) / screening)
    size = ALPHA * (2 * Z * ELECTRON_RADIUS * ELECTRON / MUON) ** 2
    return size * (4 / 3 - 4 / 3 * v + v * v) * np.maximum(log, 0.0) / v


def pair_cross_section(energy: float, part: Any) -> Any:
    """Return dsigma/dv in cm2 per argon atom for e+ e- pairs, integrated over how the two share
    their energy (Kelner and Kotov, as Kokoulin and Petrukhin write it; the electron's diagram, 99 %
    of it).
    """
    v = np.atleast_1d(np.asarray(part, np.float64))[:, None]
    end = 1 - 4 * ELECTRON / (energy * v)
    end = (1 - 6 * MUON**2 / (energy**2 * (1 - v))) * np.sqrt(np.maximum(end, 0.0))
    rho2 = (np.maximum(end, 0.0) * np.linspace(0, 1, 101)) ** 2
    xi = (MUON * v / (2 * ELECTRON)) ** 2 * (1 - rho2) / (1 - v)
    beta = v * v / (2 * (1 - v))
    y = (5 - rho2 + 4 * beta * (1 + rho2)) / (
        2 * (1 + 3 * beta) * np.log(3 + 1 / xi) - rho2 - 2 * beta * (2 - rho2)
    )
    b = (
        ((2 + rho2) * (1 + beta) + xi * (3 + rho2)) * np.log1p(1 / xi)
        + (1 - rho2 - beta) / (1 + xi)
        - (3 + rho2)
    )
    both = (1 + xi) * (1 + y)
    root = 183 * Z ** (-1 / 3)
    slow = 2 * ELECTRON * math.sqrt(math.e) * root * both / (energy * v * (1 - rho2))
    log = np.log(root * np.sqrt(both) / (1 + slow))
    log -= 0.5 * np.log1p((1.5 * ELECTRON * Z ** (1 / 3) / MUON) ** 2 * both)
    inner = np.maximum(b * log, 0.0)
    integral = np.trapezoid(inner, np.sqrt(rho2), axis=1) * (end[:, 0] > 0)
    size = 4 / (3 * math.pi) * Z * (Z + 1) * (ALPHA * ELECTRON_RADIUS) ** 2
    return size * (1 - v[:, 0]) / v[:, 0] * integral


def loss(kinetic: float) -> float:
    """Return the mean loss by both in MeV/cm of a muon."""
    energy, total = kinetic + MUON, 0.0
    for section, low in ((brems_cross_section, 1e-5), (pair_cross_section, 4 * ELECTRON / energy)):
        v = np.geomspace(1.001 * low, 0.98, 400)
        total += float(np.trapezoid(section(energy, v) * v * v, np.log(v)))
    return ATOMS * energy * total


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Return (inverse lengths in 1/cm (2, energies), log(energy in MeV) (2, energies, _QUANTILES)
    that the parts 1, 2^-1/4, 2^-2/4, ... exceed) of photons and pairs above CUT.
    """
    inverse = np.empty((2, len(_KINETIC)))
    quantiles = np.empty((2, len(_KINETIC), _QUANTILES))
    for k, kinetic in enumerate(_KINETIC):
        energy = kinetic + MUON
        v = np.geomspace(CUT / energy, 0.98 * kinetic / energy, 150)
        for kind, section in ((PHOTON, brems_cross_section), (PAIR, pair_cross_section)):
            density = section(energy, v) * v
            parts = 0.5 * (density[1:] + density[:-1]) * np.diff(np.log(v))
            sums = np.concatenate([[0.0], np.cumsum(parts)])
            inverse[kind, k] = ATOMS * sums[-1]
            quantiles[kind, k] = np.interp(
                1 - 2.0 ** (-np.arange(_QUANTILES) / _HALF), sums / sums[-1], np.log(v * energy)
            )
    return inverse, quantiles


INVERSE, SPECTRA = _tables()


@jit
def inverse_length(kind, kinetic):
    """Return the photons or pairs above CUT per cm of a muon."""
    f = min(max(math.log(kinetic / FROM) / _LOG_STEP, 0.0), len(_KINETIC) - 1.001)
    i = int(f)
    return INVERSE[kind, i] + (f - i) * (INVERSE[kind, i + 1] - INVERSE[kind, i])


@jit
def radiate(rng, world, kind, muon):
    """Emit a photon or a pair, at an angle of m / E to the muon (an ionisation.Track); return its
    energy in MeV.
    """
    kinetic = muon.kinetic
    k = round(min(max(math.log(kinetic / FROM) / _LOG_STEP, 0.0), len(_KINETIC) - 1.0))
    f = min(_HALF / math.log(2.0) * rng.standard_exponential(), _QUANTILES - 1.001)
    i = int(f)
    spectrum = SPECTRA[kind, k]
    energy = min(math.exp(spectrum[i] + (f - i) * (spectrum[i + 1] - spectrum[i])), 0.98 * kinetic)
    theta = MUON / (kinetic + MUON) * math.sqrt(rng.random())
    direction = deflect(muon.direction, math.cos(theta), 2.0 * math.pi * rng.random())
    if kind == PHOTON:
        emit(world, 22, muon.row, scaled(energy, direction), muon.point, MIN_RECORDED_ENERGY_MEV)
        return energy
    share = 0.05 + 0.9 * rng.random()
    for pdg in (11, -11):
        e = max(energy * (share if pdg > 0 else 1.0 - share), ELECTRON + 1e-4)
        p = math.sqrt(e * e - ELECTRON * ELECTRON)
        emit(world, pdg, muon.row, scaled(p, direction), muon.point, MIN_RECORDED_ENERGY_MEV)
    return energy

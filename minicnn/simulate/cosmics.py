"""Muons of cosmic rays: which, from where, and when."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .geometry import DRIFT_VELOCITY, FULL, MARGIN, TRIGGER, X_MAX, Y_MAX, Z_MAX
from .particles import MUON

#: Sea level: intensity cos^2 of the zenith angle and (E0 + E)^-n in energy (Shukla and Sankrith,
#: Int. J. Mod. Phys. A 33 (2018) 1850175), which has a mean of 4 GeV
E0, POWER = 4280.0, 3.01  # MeV
POSITIVE = 0.56  # 1.3 mu+ for every mu- (PDG review, "Cosmic rays")
#: us around the trigger in which a muon can leave charge in the image
WINDOW = (-TRIGGER - X_MAX / DRIFT_VELOCITY, FULL - TRIGGER)
_LOW, _HIGH = np.array([0.0, -Y_MAX, 0.0]), np.array([X_MAX, Y_MAX, Z_MAX])
_AROUND = 400.0  # cm around the TPC's top: flatter muons that hit a side are 1 % of all


def mean_number(rate: float) -> float:
    """Return how many muons an image has at a ``rate`` in kHz of those that cross the TPC; some
    come so early or late that they leave nothing.
    """
    return rate * 1e-3 * (WINDOW[1] - WINDOW[0])


def draw_muon(rng: Any) -> tuple[int, np.ndarray, np.ndarray, float]:
    """Return (PDG code, momentum (3,) in MeV/c, where it enters the argon (3,) in cm, time in us)
    of a muon whose straight path crosses the TPC.
    """
    while True:
        cosine = rng.random() ** 0.25  # cos^3 d(cos): what goes through a horizontal plane
        phi, sine = 2 * math.pi * rng.random(), math.sqrt(1 - cosine * cosine)
        way = np.array([sine * math.cos(phi), -cosine, sine * math.sin(phi)])
        top = np.array([_LOW[0] - _AROUND, _HIGH[1] + MARGIN, _LOW[2] - _AROUND])
        point = top + rng.random(3) * np.array([X_MAX + 2 * _AROUND, 0.0, Z_MAX + 2 * _AROUND])
        if _distance(point, way, 0.0) is not None:
            break
    start = _distance(point, way, MARGIN)
    assert start is not None  # the TPC lies within its margin
    kinetic = E0 * (rng.random() ** (-1 / (POWER - 1)) - 1)
    momentum = math.sqrt(kinetic * (kinetic + 2 * MUON))
    pdg = -13 if rng.random() < POSITIVE else 13
    return pdg, momentum * way, point + (start + 1e-3) * way, float(rng.uniform(*WINDOW))


def _distance(point: np.ndarray, way: np.ndarray, margin: float) -> float | None:
    """Return how far a straight path goes to the TPC widened by a margin, None where it misses."""
    with np.errstate(divide="ignore"):
        low, high = ((edge - point) / way for edge in (_LOW - margin, _HIGH + margin))
    enters, leaves = np.minimum(low, high).max(), np.maximum(low, high).min()
    return max(float(enters), 0.0) if enters < leaves and leaves > 0 else None

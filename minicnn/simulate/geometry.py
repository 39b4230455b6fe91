"""Where the detector is: a MicroBooNE-like TPC, and how a point in it maps to a wire and a tick.
cm, us.

x is the drift coordinate (0 at the anode wires), y points up, z along the beam (JINST 12 (2017)
P02017). The image has 3600 rows (wires, 3 mm apart) and 3600 columns (pairs of 0.5 us ticks: 1 us,
0.1098 cm of drift).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..data.detector import (
    COLLECTION_WIRES,
    DETECTOR_SIZE,
    DRIFT_VELOCITY,
    FIRST_WIRE_CM,
    INDUCTION_WIRES,
    TRIGGER_TICK,
    WIRE_PITCH_CM,
)

X_MAX, Y_MAX, Z_MAX = 256.04, 116.5, 1036.8  # 0 < x < X_MAX, |y| < Y_MAX, 0 < z < Z_MAX
MARGIN = 20.0  # cm of argon around the TPC, where no charge is read
FULL = DETECTOR_SIZE  # rows and columns of the full image
PITCH = WIRE_PITCH_CM
FIELD = 0.273  # kV/cm
TRIGGER = TRIGGER_TICK / 2  # column of x = 0, t = 0

#: per plane (collection, induction +60 degrees, induction -60 degrees): wires, direction across the
#: wires in (y, z), and the coordinate of wire 0's lower edge
PLANES = (
    (COLLECTION_WIRES, 0.0, 1.0, FIRST_WIRE_CM),
    (INDUCTION_WIRES, math.sin(math.pi / 3), 0.5, -Y_MAX * math.sin(math.pi / 3)),
    (INDUCTION_WIRES, -math.sin(math.pi / 3), 0.5, -Y_MAX * math.sin(math.pi / 3)),
)


def row_of(y: Any, z: Any, plane: int = 0) -> Any:
    """Return the (fractional) row of the full image of a point; pixel r covers r to r + 1. Wires
    lie in the middle.
    """
    wires, across_y, across_z, start = PLANES[plane]
    return (FULL - wires) // 2 + (across_y * y + across_z * z - start) / PITCH


def column_of(x: Any, time: Any = 0.0) -> Any:
    """Return the (fractional) column of the full image for charge freed at drift distance x and
    time t (us).
    """
    return TRIGGER + time + x / DRIFT_VELOCITY


def wire_lengths(plane: int) -> np.ndarray:
    """Return the lengths in cm (wires,) of a plane's wires: shorter in the corners where they cross
    the frame's sides.
    """
    wires, across_y, across_z, start = PLANES[plane]
    if across_y == 0.0:
        return np.full(wires, 2 * Y_MAX)
    s = start + PITCH * (np.arange(wires) + 0.5)  # the wire is the line across_y y + across_z z = s
    low, high = np.sort([s / across_y, (s - across_z * Z_MAX) / across_y], axis=0)
    return np.maximum(np.minimum(high, Y_MAX) - np.maximum(low, -Y_MAX), 0.0) / across_z

"""Which class of particles made a pixel: the charge of showers and of tracks apart, through the
same response as the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.event import IGNORED, PIXEL_CLASSES
from ..data.sparse import SparseImage
from . import detector
from .tiles import Tiles, charge_at, clear


def class_charges(
    coords: np.ndarray,
    steps: np.ndarray,
    classes: np.ndarray,
    readout: detector.Readout,
    tiles: Tiles,
) -> np.ndarray:
    """Return float32 (n, classes): for each pixel ``coords`` (n, 2) of the full image of a plane
    the sum of |charge| in ADC counts that the deposits of each pixel class left there.

    steps (m, 6), classes uint8 (m,): the deposits, see record.World. tiles: scratch memory of its
    own.
    """
    found = np.zeros((len(coords), len(PIXEL_CLASSES)), np.float32)
    # deposits are positive, so that these pulses give the sum of magnitudes
    sizes = readout._replace(pulses=np.abs(readout.pulses))
    for k in range(len(PIXEL_CLASSES)):
        chosen = classes == k
        if not chosen.any():
            continue
        clear(tiles)
        own = steps if chosen.all() else steps[chosen]
        detector.charge(own, sizes, tiles)
        charge_at(tiles, coords, found[:, k])
    return found


def pixel_labels(image: SparseImage, rows: Any, columns: Any, charges: np.ndarray) -> np.ndarray:
    """Return uint8 (n,): the class of each lit pixel of ``image``.

    rows, columns (m,), charges (m, classes): pixels of the full planes as they lie on the image,
    several of them on one pixel where it is smaller or has several planes. A pixel is of the class
    with most charge, and IGNORED where noise made more than half of it.
    """
    total = np.zeros((image.nnz, charges.shape[1]), np.float64)
    np.add.at(total, image.index_of(rows, columns), charges)
    labels = total.argmax(1).astype(np.uint8)
    labels[2.0 * total.sum(1) < np.abs(image.values).sum(1, dtype=np.float64)] = IGNORED
    return labels

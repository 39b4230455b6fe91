"""The classes of pixels beside the charge that particles of each class freed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...data.event import IGNORED, PIXEL_CLASSES
from .. import detector, record
from ..simulator import Simulator
from .base import CENTRE, Check, Figure, Series, Validation

EVENTS = 25
#: Name, PDG code, momentum in MeV/c (energy, for photons and electrons).
PARTICLES = (
    ("gamma", 22, 400.0),
    ("e-", 11, 400.0),
    ("mu-", 13, 250.0),
    ("mu+", -13, 250.0),
    ("pi+", 211, 250.0),
    ("K+", 321, 450.0),
    ("p", 2212, 700.0),
)


def pixel_classes(simulator: Any) -> Validation:
    """Return the part of the image's charge in shower pixels beside that which shower particles
    freed, for one particle of each kind.
    """
    source = Simulator(seed=simulator.seed, pixel_truth=True, sample="isotropic")
    checks, freed, labelled, ignored = [], [], [], []
    for name, pdg, momentum in PARTICLES:
        charge, pixels, count = np.zeros(2), np.zeros(2), np.zeros(2)
        for i in range(EVENTS):
            event = source.simulate(i, pdg, momentum, CENTRE)
            values = event.image.values[:, 0]
            labels = np.asarray(event.pixel_labels)
            for k in range(len(PIXEL_CLASSES)):
                pixels[k] += values[labels == k].sum()
            count += np.array([np.count_nonzero(labels == IGNORED), event.image.nnz])
            steps, _ = source.deposits(i, pdg, momentum, CENTRE)
            survival = [detector.survival(loss) for loss in steps[:, 4] / steps[:, 5]]
            classes = source._scratch.world.classes[: len(steps)]
            charge += np.bincount(classes, steps[:, 4] * survival, minlength=2)
        freed.append(charge[record.SHOWER] / charge.sum())
        labelled.append(pixels[record.SHOWER] / pixels.sum())
        ignored.append(count[0] / count[1])
        checks.append(
            Check(
                f"{name} of {momentum:.0f} MeV/c",
                100 * labelled[-1],
                100 * freed[-1],
                1e-6 if freed[-1] in (0.0, 1.0) else 4.0,
                "% shower",
                "charge that electrons and positrons free, of all",
            )
        )
    x = np.arange(len(PARTICLES), dtype=float)
    return Validation(
        "pixel_classes",
        "Classes of pixels",
        "Part of the charge of the image in pixels of the class shower, "
        "`Simulator(pixel_truth=True)`, "
        f"beside the part that shower particles freed, before the detector: {EVENTS} particles of "
        "each kind. Pixels where a delta ray or a Michel electron lies on its track have the class "
        f"of most charge. {max(ignored):.1%} of the pixels at most are ignored: noise made most of "
        "them.",
        Figure(
            "",
            "part of the charge that is shower",
            [
                Series("labels of the pixels", x, np.array(labelled), "bars"),
                Series("freed charge", x, np.array(freed), "points"),
            ],
            ticks=tuple(name for name, _, _ in PARTICLES),
        ),
        checks,
    )

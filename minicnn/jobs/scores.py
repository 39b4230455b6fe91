"""Scores of single events, with what is known of each: their file, and the figures made of them."""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import data
from ..data.axes import PLAIN, Axis
from ..files import StrPath, atomic_file
from ..inspect.report.confusion import draw_accuracy
from ..inspect.report.scores import ScoredEvents, draw_calibration, draw_cuts, draw_roc

LIT = "lit pixels"
MOMENTUM = "momentum of the particle [MeV/c]"
ALONG_WIRES = "|cosine| between its direction and the vertical (the collection wires)"
LENGTH_CM, LENGTH_PIXELS = "length in the image [cm]", "length in the image [pixels]"
#: Wrong events of one truth and one prediction in the gallery, and all of them.
OF_A_KIND, GALLERY = 2, 12


class Quantities(NamedTuple):
    """What is known of an event beside its class; nan where it is not. along_wires: |cosine| of the
    primary particle's direction. length: of the image's diagonal part that holds the inner 98 % of
    the charge in either direction, in cm where the axes know it, else in pixels.
    """

    lit_pixels: float
    momentum: float
    along_wires: float
    length: float


class Prediction(NamedTuple):
    """One classified event. number: in its file. truth: its label there, -1 where it has none."""

    number: int
    truth: int
    quantities: Quantities
    scores: np.ndarray


def quantities_of(event: data.Event, axes: Sequence[Axis]) -> Quantities:
    """Return the Quantities of an event in an image with these axes."""
    image = event.image
    charge = np.abs(image.values - image.background).sum(1, dtype=np.float64)
    length = math.nan
    if charge.sum() > 0:
        across, up = (_extent(positions, charge) for positions in image.coords.T)
        steps = [axis.cm for axis in axes] if _in_cm(axes) else [1.0, 1.0]
        length = math.hypot(steps[0] * across, steps[1] * up)
    return Quantities(image.nnz, event.momentum, abs(event.direction[1]), length)


def _in_cm(axes: Sequence[Axis]) -> bool:
    return all(axis.cm for axis in axes)


def _extent(positions: np.ndarray, charge: np.ndarray) -> int:
    """Return the pixels from 1 to 99 % of the charge along an axis, both counted."""
    order = np.argsort(positions, kind="stable")
    share = np.cumsum(charge[order]) / charge.sum()
    low, high = positions[order][np.searchsorted(share, (0.01, 0.99)).clip(0, len(positions) - 1)]
    return int(high) - int(low) + 1


def quantity_names(axes: Sequence[Axis]) -> tuple[str, ...]:
    """Return the names of Quantities, with units, for images with these axes."""
    return (LIT, MOMENTUM, ALONG_WIRES, LENGTH_CM if _in_cm(axes) else LENGTH_PIXELS)


class Noting:
    """A source of events that notes the Quantities of each that it reads: {number: Quantities}."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.noted: dict[int, Quantities] = {}
        self.axes = getattr(source, "axes", PLAIN)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> data.Event:
        """Return event ``index`` of the source."""
        event = self.source.read(index)
        self.noted[index] = quantities_of(event, self.axes)
        return event


class PredictionTable:
    """Predictions of one or several files, and what their columns are called. The truth is a name:
    files may number their classes as they like.
    """

    def __init__(self, class_names: Sequence[str], axes: Sequence[Axis] = PLAIN) -> None:
        self.class_names, self.names = tuple(class_names), quantity_names(axes)
        self.rows: list[tuple[str, str, Prediction]] = []

    def add(
        self,
        path: StrPath,
        found: Iterable[Prediction],
        names: Sequence[str],
        axes: Sequence[Axis] = PLAIN,
    ) -> None:
        """Add predictions of the events of a file whose classes have these names, and its images
        these axes; lengths in another unit than the table's count as not known.
        """
        if quantity_names(axes) != self.names:
            found = [
                prediction._replace(quantities=prediction.quantities._replace(length=math.nan))
                for prediction in found
            ]
        self.rows += [
            (str(path), truth_name(prediction, names), prediction) for prediction in found
        ]

    def write(self, path: Path) -> None:
        """Write a CSV file, a line per event."""
        with atomic_file(path) as file:
            writer = csv.writer(file)
            writer.writerow(["file", "event", "truth", *self.names, *self.class_names])
            for name, truth, prediction in self.rows:
                lit, *others = prediction.quantities
                numbers = map(float, (*others, *prediction.scores))
                writer.writerow([name, prediction.number, truth, int(lit), *numbers])

    def known(self) -> ScoredEvents:
        """Return the events whose truth is one of the model's classes."""
        known = [
            (truth, prediction) for _, truth, prediction in self.rows if truth in self.class_names
        ]
        table = np.array([prediction.quantities for _, prediction in known], np.float64).reshape(
            -1, 4
        )
        return ScoredEvents(
            self.class_names,
            np.array([self.class_names.index(truth) for truth, _ in known], np.int64),
            np.array([prediction.scores for _, prediction in known], np.float64).reshape(
                len(known), len(self.class_names)
            ),
            dict(zip(self.names, table.T)),
        )


def truth_name(prediction: Prediction, names: Sequence[str]) -> str:
    """Return the name of an event's truth, "unknown" where it has none."""
    return names[prediction.truth] if prediction.truth >= 0 else "unknown"


def draw_scores(events: ScoredEvents, picture: Callable[[str], Path]) -> None:
    """Draw the figures of scored events to ``picture("roc")``, "cuts", "calibration" and, where
    something is known of the particles, "accuracy".
    """
    if not len(events.labels):
        return
    draw_roc(picture("roc"), events)
    draw_cuts(picture("cuts"), events)
    draw_calibration(picture("calibration"), events)
    if any(np.isfinite(values).any() for values in events.quantities.values()):
        draw_accuracy(
            picture("accuracy"),
            events.quantities,
            events.labels,
            events.predicted,
            events.class_names,
        )


def worst_mistakes(found: Sequence[Prediction]) -> list[Prediction]:
    """Return at most GALLERY wrongly classified events, those with the highest scores for a wrong
    class first, OF_A_KIND at most of the same truth and prediction.
    """
    wrong = [
        prediction
        for prediction in found
        if 0 <= prediction.truth != int(prediction.scores.argmax())
    ]
    kinds: dict[tuple[int, int], int] = {}
    chosen: list[Prediction] = []
    for prediction in sorted(
        wrong, key=lambda prediction: (-float(prediction.scores.max()), prediction.number)
    ):
        kind = prediction.truth, int(prediction.scores.argmax())
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] <= OF_A_KIND and len(chosen) < GALLERY:
            chosen.append(prediction)
    return chosen

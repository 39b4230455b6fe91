"""What a validation is: a picture, and numbers beside their references."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import material, record, showers

CENTRE = (128.0, 0.0, 500.0)  # cm, the middle of the TPC
UPSTREAM, BEAM = (125.0, 0.0, 50.0), (0.0, 0.0, 1.0)  # near its upstream face, along the beam


class Check(NamedTuple):
    """One number beside its reference; it holds within ``tolerance``, absolute. source: where the
    reference is from.
    """

    what: str
    value: Any
    reference: Any
    tolerance: Any
    unit: str
    source: str

    @property
    def holds(self) -> bool:
        """Whether the number agrees."""
        return abs(self.value - self.reference) <= self.tolerance


def relative(
    what: str, value: Any, reference: Any, fraction: float, unit: str, source: str
) -> Check:
    """Return a Check with a tolerance of ``fraction`` of its reference."""
    return Check(
        what, float(value), float(reference), abs(fraction * float(reference)), unit, source
    )


class Series(NamedTuple):
    """What is drawn under one label: kind "line", "points", "bars" or "steps" (x are then the edges
    of the bins, one more than y).
    """

    label: str
    x: Any
    y: Any
    kind: str = "line"
    colour: int | None = None  # number in the colour cycle, where series belong together


@dataclass
class Figure:
    """Axes and what is drawn in them. ticks: names for x = 0, 1, ..."""

    x: str
    y: str
    series: list
    log_x: bool = False
    log_y: bool = False
    ticks: tuple = ()


@dataclass
class Validation:
    """The outcome of one validation. ``text`` says what is compared with what; name is that of its
    picture; file: what it was read from.
    """

    name: str
    title: str
    text: str
    figure: Figure
    checks: list = field(default_factory=list)
    file: str = ""


def histogram(values: Any, bins: int, span: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return (edges, density) of a histogram, normalised to 1."""
    count, edges = np.histogram(values, bins, span)
    return edges, count / (len(values) * (edges[1] - edges[0]))


def empty_world() -> record.World:
    """Return the memory of an event, for studies of single processes."""
    return record.new_world(material.tables(), showers.photon_tables())

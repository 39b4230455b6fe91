"""What the rows and columns of an image are in the detector: the axes of event displays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .detector import (
    COLLECTION_WIRES,
    DETECTOR_SIZE,
    DRIFT_VELOCITY,
    FIRST_WIRE_CM,
    TICK_US,
    TRIGGER_TICK,
    WIRE_PITCH_CM,
)


class Axis(NamedTuple):
    """One axis: pixel p covers ``start`` + p ``step`` to ``start`` + (p + 1) ``step`` of what
    ``name`` counts.

    cm: length per pixel along the coordinate ``length``, ``origin`` its value at the edge of pixel
    0; 0 where it is not known.
    """

    name: str
    step: float = 1.0
    start: float = 0.0
    length: str = ""
    cm: float = 0.0
    origin: float = 0.0

    def summed(self, block: float) -> Axis:
        """Return the axis after ``block`` pixels have been added up to one."""
        return self._replace(step=self.step * block, cm=self.cm * block)

    def padded(self, pixels: float) -> Axis:
        """Return the axis after ``pixels`` have been put before the first one."""
        return self._replace(
            start=self.start - pixels * self.step, origin=self.origin - pixels * self.cm
        )


#: of an image whose detector is not known
PLAIN = (Axis("row"), Axis("column"))
_MARGIN = (DETECTOR_SIZE - COLLECTION_WIRES) // 2  # rows on either side of the wires
_COLUMN = 2 * TICK_US * DRIFT_VELOCITY  # cm of drift per column
#: rows and columns of a MicroBooNE-like image of 3600 x 3600: the collection wires in the middle,
#: pairs of ticks
MICROBOONE = (
    Axis("wire", 1.0, -_MARGIN, "z", WIRE_PITCH_CM, FIRST_WIRE_CM - _MARGIN * WIRE_PITCH_CM),
    Axis("tick", 2.0, 0.0, "x", _COLUMN, -TRIGGER_TICK // 2 * _COLUMN),
)


def placed(
    axes: Sequence[Axis], shape: Sequence[int], edge: int, size: int | None = None
) -> tuple[Axis, ...]:
    """Return the axes of an image of ``shape`` that is centred on ``edge`` x ``edge`` and summed to
    ``size`` x ``size``.
    """
    return tuple(
        axis.padded((edge - n) // 2).summed(edge // (size or edge)) for axis, n in zip(axes, shape)
    )

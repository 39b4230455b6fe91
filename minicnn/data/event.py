"""What an event is: its image, its class, the class of each pixel and the particles that made
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .pixel_classes import IGNORED, PIXEL_CLASSES
from .sparse import SparseImage

CLASSES = ("gamma", "e+-", "mu+-", "pi+-", "K+")
CLASS_OF_PDG = {22: 0, 11: 1, -11: 1, 13: 2, -13: 2, 211: 3, -211: 3, 321: 4}

#: One row per particle. ``parent`` is the row of the parent within the event, -1 for the primary.
#: momentum in MeV/c at the start, start and end in cm.
PARTICLE = np.dtype(
    [("pdg", "i4"), ("parent", "i4"), ("momentum", "f4", 3), ("start", "f4", 3), ("end", "f4", 3)]
)


class EventError(ValueError):
    """Bad input data; the message names the file and the event."""


@dataclass(frozen=True, eq=False, repr=False)
class Event:
    """One labelled image.

    label: indexes the class names of its file, -1 where unknown. id: (run, subrun, event).
    particles: rows of PARTICLE. pixel_labels: uint8 (n,), the class of each lit pixel in the order
    of ``image.coords``, an index into PIXEL_CLASSES or IGNORED; None where nothing is known.
    Raises ValueError for pixel labels that are not as many as the lit pixels, or no such numbers.
    """

    image: SparseImage
    label: int
    id: tuple[int, ...] = (0, 0, 0)
    particles: np.ndarray = field(default_factory=lambda: np.zeros(0, PARTICLE))
    pixel_labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.pixel_labels is not None:
            labels = check_pixel_labels(self.pixel_labels, self.image.nnz)
            object.__setattr__(self, "pixel_labels", labels)

    @property
    def momentum(self) -> float:
        """MeV/c of the primary particle; nan where there is not exactly one."""
        return float(np.linalg.norm(self._primary()))

    @property
    def direction(self) -> np.ndarray:
        """Unit vector (3,) of the primary particle's momentum: along the drift, upwards, along the
        beam; nan where there is not one.
        """
        vector = self._primary()
        with np.errstate(invalid="ignore"):
            return vector / np.linalg.norm(vector)

    def with_pixels(self, keep: np.ndarray, values: np.ndarray | None = None) -> Event:
        """Return the event with only those lit pixels where ``keep`` (bool (n,)) is set, with their
        labels; values: float32 (n, C) to put in place of the image's.
        """
        image = self.image
        values = image.values if values is None else values
        smaller = SparseImage.trusted(
            image.coords[keep], values[keep], image.shape, image.background
        )
        labels = None if self.pixel_labels is None else self.pixel_labels[keep]
        return replace(self, image=smaller, pixel_labels=labels)

    def _primary(self) -> np.ndarray:
        primary = self.particles[self.particles["parent"] < 0]
        return (
            primary["momentum"][0].astype(np.float64) if len(primary) == 1 else np.full(3, np.nan)
        )

    def __repr__(self) -> str:
        text = f"Event(label={self.label}, id={tuple(self.id)}, {self.image!r}"
        if len(self.particles):
            momentum = "" if np.isnan(self.momentum) else f", primary of {self.momentum:.0f} MeV/c"
            text += f", {len(self.particles)} particle{'s' * (len(self.particles) > 1)}{momentum}"
        if self.pixel_labels is not None:
            counts = np.bincount(self.pixel_labels, minlength=IGNORED + 1)
            named = [f"{counts[k]:,} {name}" for k, name in enumerate(PIXEL_CLASSES)]
            text += f", pixels: {', '.join(named)}, {counts[IGNORED]:,} ignored"
        return text + ")"

    def _repr_png_(self) -> bytes:
        from ..inspect.report.notebook import event_png

        return event_png(self)


def check_pixel_labels(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the labels of ``count`` pixels as uint8 (count,); ValueError for another number of
    them, or one that is not 0 to 255.
    """
    array = np.asarray(labels)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"pixel labels are one integer for each of the {count} lit pixels, in their order, got "
            f"{array.dtype} {array.shape}; after a change of the pixels change the labels as well "
            "(Event.with_pixels)"
        )
    if array.dtype != np.uint8 and ((array < 0) | (array > IGNORED)).any():
        raise ValueError(f"pixel labels are 0 to {IGNORED}, got {array.min()} to {array.max()}")
    return array.astype(np.uint8, copy=False)

"""What an event is: its image, its class and the particles that made it."""

from dataclasses import dataclass, field

import numpy as np

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


@dataclass(frozen=True)
class Event:
    """One labelled image: ``label`` indexes the class names of its file, -1 where unknown; ``id``
    is (run, subrun, event).
    """

    image: SparseImage
    label: int
    id: tuple = (0, 0, 0)
    particles: np.ndarray = field(default_factory=lambda: np.zeros(0, PARTICLE))

    @property
    def momentum(self):
        """MeV/c of the primary particle; nan where there is not exactly one."""
        return float(np.linalg.norm(self._primary()))

    @property
    def direction(self):
        """Unit vector (3,) of the primary particle's momentum: along the drift, upwards, along the
        beam; nan where there is not one.
        """
        vector = self._primary()
        with np.errstate(invalid="ignore"):
            return vector / np.linalg.norm(vector)

    def _primary(self):
        primary = self.particles[self.particles["parent"] < 0]
        return (
            primary["momentum"][0].astype(np.float64) if len(primary) == 1 else np.full(3, np.nan)
        )

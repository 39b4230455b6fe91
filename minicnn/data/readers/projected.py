"""What readers of charge in 3-D share: points in cm, projected onto a plane of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..axes import Axis, placed
from ..sparse import SparseImage
from .placement import place
from .reader import Reader


class Projected(Reader):
    """Events as points with charge. A subclass calls ``_see`` and, when the file is open,
    ``_set_region``; it writes ``_extent`` and hands the points of an event to ``_project``.

    plane: two of x, y, z, rows and columns of the image. pitch: edge of a pixel in cm. threshold:
    smallest pixel kept, None for all that are not 0. ``notes`` says what was left out, by event.
    """

    plane: str
    pitch: float
    threshold: float | None = None
    notes: dict[int, str]

    def _see(self, plane: Any, pitch: Any) -> None:
        plane = str(plane)
        if len(plane) != 2 or len(set(plane)) != 2 or not set(plane) <= set("xyz"):
            raise ValueError(f"a plane is two of x, y, z such as 'zx'; got {plane!r}")
        if not pitch > 0:
            raise ValueError(f"the pitch is a positive number of cm, got {pitch}")
        self.plane, self.pitch, self.notes = plane, float(pitch), {}

    def _set_region(self, region: Sequence[float] | None, size: int | None) -> None:
        """Set image and axes for (first, last) of the rows and (first, last) of the columns in cm,
        or for what holds all points of the file.
        """
        low, high = self._extent() if region is None else np.reshape(region, (2, 2)).T
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise ValueError(f"the region must be (first, last, first, last) in cm, got {region}")
        self._origin = np.floor(np.asarray(low) / self.pitch) * self.pitch
        self._shape = np.ceil((np.asarray(high) - self._origin) / self.pitch).astype(int).tolist()
        self._set_canvas(self._shape, size, 1)
        axes = [
            Axis(f"{name} pixel", length=name, cm=self.pitch, origin=float(origin))
            for name, origin in zip(self.plane, self._origin)
        ]
        self.axes = placed(axes, self._shape, self._edge, size)

    def _extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the smallest and largest (row, column) in cm of all points of the file."""
        raise NotImplementedError(f"{type(self).__name__}._extent")

    def _project(
        self, index: int, points: np.ndarray, values: np.ndarray, note: str = ""
    ) -> SparseImage:
        """Return the image of points float64 (n, 2) in cm, rows and columns, with values (n,).

        What lies outside the region is in the note of event ``index``, behind ``note``.
        """
        cells = np.floor((points - self._origin) / self.pitch)
        inside = ((cells >= 0) & (cells < self._shape)).all(1)
        outside = f"{values[~inside].sum():.4g} {self.unit} lie outside the region"
        notes = [note] * bool(note) + [outside] * (not inside.all())
        if notes:
            self.notes[index] = "; ".join(notes)
        shape = (*self._shape, 1)
        rows, columns = cells[inside].astype(np.int64).T
        image = SparseImage.from_pixels(rows, columns, values[inside][:, None], shape)
        least = -np.inf if self.threshold is None else self.threshold
        lit = (image.values[:, 0] != 0) & (image.values[:, 0] >= least)
        image = SparseImage(image.coords[lit], image.values[lit], shape)
        return place(image, self._edge, self._size)

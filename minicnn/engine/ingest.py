"""From a batch of events to what the first stage takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data.sparse import SparseImage
from ..kernels.types import Array, Shape
from ..kernels.workspace import Workspace
from .input_map import InputMap
from .lit import Grid, LitMap

#: Fraction of lit pixels above which an event enters as an array. benchmarks/active.py prints what
#: each choice costs.
PIXEL_CROSSOVER = 0.02
#: Lit pixels of the events that run together: so many that the weights, which are read once for all
#: of them, cost little, and so few that memory does not grow with the batch.
PIECE_PIXELS = 200_000

Event = SparseImage | np.ndarray


class LitPixels(NamedTuple):
    """The lit pixels of an event: coords int32 (n, 2), values (n, C) not mapped, and what all other
    pixels have.
    """

    coords: np.ndarray
    values: np.ndarray
    background: float


def gather_lit_pixels(
    kernels: Any, events: Sequence[SparseImage | LitPixels], height: int, input_map: InputMap
) -> tuple[Array, Array]:
    """Return (positions (m, 2), mapped values (m, C)) of the listed pixels of events, on the
    device. Rows count on through the events: row r of event e is e * height + r.
    """
    if len(events) == 1:
        coords, values = events[0].coords, events[0].values
    else:
        coords = np.concatenate([e.coords for e in events])
        values = np.concatenate([e.values for e in events])
        end = 0
        for i, event in enumerate(events):
            begin, end = end, end + len(event.coords)
            coords[begin:end, 0] += i * height  # of rows alone: as (n, 2) + (2,) 5 times slower
    return kernels.asarray(coords), kernels.asarray(input_map(values))


def check_event(event: Event, number: int, shape: Shape) -> None:
    """Raise ValueError, naming the event, for another shape or a pixel that is not finite."""
    if not hasattr(event, "shape"):
        raise ValueError(
            f"event {number} of the batch is a {type(event).__name__}: images are numpy arrays "
            "(H, W, C) or SparseImages"
        )
    if tuple(event.shape) != shape:
        raise ValueError(
            f"event {number} of the batch has the shape {tuple(event.shape)}, the network takes "
            f"{shape}"
        )
    # One pass tells whether something is wrong; only then is it looked for.
    if not isinstance(event, SparseImage) and not np.isfinite(np.add.reduce(event, None)):
        where = np.argwhere(~np.isfinite(event))
        if len(where):
            raise ValueError(
                f"event {number} of the batch: pixel {tuple(where[0].tolist())} is "
                f"{event[tuple(where[0])]} ({len(where)} in all are not finite)"
            )


class DenseInput:
    """Makes one device array (n, H, W, C) of events, their pixels mapped by ``input_map``."""

    def __init__(self, kernels: Any, shape: Shape, dtype: np.dtype, input_map: InputMap) -> None:
        self.kernels, self.shape, self.dtype, self.input_map = kernels, shape, dtype, input_map
        self.workspace = Workspace()

    def __call__(self, events: Sequence[Any]) -> Array:
        """Return the array; of SparseImages only the listed pixels go to a GPU."""
        kernels, input_map = self.kernels, self.input_map
        sparse = all(isinstance(event, SparseImage) for event in events)
        if not (kernels.on_device and sparse):
            return kernels.asarray(self._on_host(events), self.dtype)
        batch = kernels.empty((len(events), *self.shape), self.dtype)
        for image, event in zip(batch, events):
            image[...] = float(input_map(np.float32(event.background)))
        if len(events):
            lit = gather_lit_pixels(kernels, events, self.shape[0], input_map)
            kernels.put_pixels(batch, *lit)
        return batch

    def _on_host(self, events: Sequence[Event]) -> np.ndarray:
        """Return the array in a buffer that the next call overwrites, or the events as they are."""
        if self.input_map.identity and isinstance(events, np.ndarray):
            return events
        batch = self.workspace.buffer("batch", (len(events), *self.shape), self.dtype)
        for out, event in zip(batch, events):
            if isinstance(event, SparseImage):
                event.to_dense(out, self.input_map)
            else:
                out[...] = self.input_map(event)
        return batch


class LitInput:
    """Makes LitMaps of events, their pixels mapped by ``input_map``.

    most: the fraction of lit pixels up to which it does.
    """

    def __init__(
        self, kernels: Any, shape: Shape, dtype: np.dtype, input_map: InputMap, lit_fraction: float
    ) -> None:
        self.kernels, self.shape, self.dtype, self.input_map = kernels, shape, dtype, input_map
        self.most = int(lit_fraction * shape[0] * shape[1])
        self.grid = Grid.uniform(kernels, *shape[:2])
        self._rest: dict[float, Array] = {}

    def lit_pixels(self, event: Event) -> LitPixels | None:
        """Return the event's lit pixels, None if there are too many; of an array those that are not
        0.
        """
        if isinstance(event, SparseImage):
            found = LitPixels(event.coords, event.values, event.background)
            return found if event.nnz <= self.most else None
        image = np.asarray(event)
        image = image.astype(self.dtype if image.dtype.kind == "f" else np.float32, copy=False)
        positions = self.kernels.lit_pixels(self.kernels.asarray(image[None]), 0.0, self.most)
        if positions is None:
            return None
        positions = self.kernels.to_host(positions)
        return LitPixels(positions, image[positions[:, 0], positions[:, 1]], 0.0)

    def __call__(self, events: Sequence[LitPixels]) -> LitMap:
        """Return the LitMap of events of one background."""
        positions, values = gather_lit_pixels(self.kernels, events, self.shape[0], self.input_map)
        values = values.astype(self.dtype, copy=False)
        return LitMap(
            self.grid, len(events), positions, values, self._resting(events[0].background)
        )

    def _resting(self, background: float) -> Array:
        """Return the resting pixel (1, 1, C), the same array for the same background."""
        if background not in self._rest:
            pixel = self.input_map(np.full((1, 1, self.shape[2]), background, self.dtype))
            self._rest = {background: self.kernels.asarray(pixel)}
        return self._rest[background]

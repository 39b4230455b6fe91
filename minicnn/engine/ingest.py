"""From a batch of events to what the first stage takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.sparse import SparseImage
from ..kernels.types import Array, Shape
from ..kernels.workspace import Workspace
from .input_map import InputMap

Event = SparseImage | np.ndarray


def background_of(event: Event) -> float:
    """Return the value of the pixels that an event does not list; 0 for an array, which
    lists all.
    """
    return 0.0 if isinstance(event, np.ndarray) else event.background


def gather_lit_pixels(
    kernels: Any, events: Sequence[SparseImage], input_map: InputMap
) -> tuple[Array, Array]:
    """Return (positions (m, 2), mapped values (m, C)) of the listed pixels of SparseImages, on the
    device. Rows count on through the events: row r of event e is e * H + r.
    """
    if len(events) == 1:
        coords, values = events[0].coords, events[0].values
    else:
        below = [np.array([i * e.shape[0], 0], np.int32) for i, e in enumerate(events)]
        coords = np.concatenate([e.coords + rows for e, rows in zip(events, below)])
        values = np.concatenate([e.values for e in events])
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
        if not hasattr(kernels, "pinned") or not sparse:
            return kernels.asarray(self._on_host(events), self.dtype)
        batch = kernels.empty((len(events), *self.shape), self.dtype)
        for image, event in zip(batch, events):
            image[...] = float(input_map(np.float32(event.background)))
        if len(events):
            kernels.put_pixels(batch, *gather_lit_pixels(kernels, events, input_map))
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

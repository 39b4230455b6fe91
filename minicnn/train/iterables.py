"""Any iterable of batches as training data: generators, lists, a torch DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data.batches import ArrayDataset
from ..data.sparse import SparseImage


class IterableData:
    """Batches (x, y) or (x, y, sample weights) of an iterable, in its own order.

    steps: batches per epoch, None for as many as there are. An iterator (a generator) goes on where
    it was in the next epoch; anything else begins anew, also within an epoch where it has fewer
    batches than the epoch has steps, as on a rank with less data than others. ValueError where the
    batches of an iterator do not last for the epoch.
    """

    def __init__(self, source: Any, steps: int | None = None) -> None:
        self.source, self.once, self.drawn = source, hasattr(source, "__next__"), 0
        length = len(source) if hasattr(source, "__len__") else None
        self.steps = steps or length

    @staticmethod
    def takes(data: Any) -> bool:
        """Tell whether data are an iterable of batches, and no data set or tuple of arrays."""
        if hasattr(data, "batch") or not hasattr(data, "__iter__"):
            return False
        if hasattr(data, "__next__") or not isinstance(data, (tuple, list)):
            return not isinstance(data, np.ndarray)
        return (
            isinstance(data, list)
            and bool(data)
            and all(isinstance(batch, (tuple, list)) and len(batch) in (2, 3) for batch in data)
        )

    def batches(self, epoch: int = 0, done: int = 0) -> Iterator[Any]:
        """Yield the batches of an epoch that follow the first ``done``. Those are drawn and dropped
        where the training goes on in another process; of an iterator, those of epochs before too.
        """
        earlier = 0 if not self.once else epoch * (self.steps or 0) + done - self.drawn
        for dropped in range(max(earlier, 0)):
            self.drawn += 1
            if next(self.source, None) is None:
                raise ValueError(f"the data ended after {dropped} batches that were used before")
        for number, batch in enumerate(self._epoch(done if self.once else 0)):
            if self.once or number >= done:
                yield batch

    def _epoch(self, begun: int) -> Iterator[Any]:
        """Yield the batches of an epoch from number ``begun`` on."""
        running, count, once = iter(self.source), begun, self.once
        while self.steps is None or count < self.steps:
            batch = next(running, None)
            if batch is None and self.steps is not None and not once:
                running = iter(self.source)
                batch = next(running, None)
            if batch is None:
                if count == 0 or self.steps is not None:
                    raise ValueError(
                        f"the data ended after {count} of this epoch's "
                        f"{self.steps or 'first'} batches: a generator runs once; give a list, a "
                        "data set, or a generator that does not end with steps_per_epoch"
                    )
                return
            self.drawn += 1
            yield as_batch(batch)
            count += 1

    def in_memory(self) -> ArrayDataset:
        """Return all batches as one data set, for validation."""
        found = list(self.batches())
        joined = [[item for batch in found for item in batch[part]] for part in (0, 1)]
        weights = np.concatenate([batch[2] for batch in found]) if len(found[0]) > 2 else None
        return ArrayDataset(joined[0], joined[1], weights)


def as_batch(batch: Any) -> tuple[Any, ...]:
    """Return (images, targets[, weights]) with tensors of other libraries as NumPy arrays;
    ValueError for anything that is no pair or triple.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise ValueError(
            f"a batch is (images, targets) or (images, targets, weights), got a "
            f"{type(batch).__name__}" + (f" of {len(batch)}" if hasattr(batch, "__len__") else "")
        )
    return tuple(_plain(part) for part in batch)


def _plain(part: Any) -> Any:
    if isinstance(part, (np.ndarray, SparseImage)):
        return part
    if isinstance(part, (list, tuple)):
        return (
            type(part)(_plain(item) for item in part) if part and not np.isscalar(part[0]) else part
        )
    if hasattr(part, "detach"):  # a torch tensor, which may sit on a GPU
        part = part.detach().cpu()
    return np.asarray(part)

"""From a data set to the batches of an epoch, the next one fetched by a thread while the current
one is learned.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from ..inspect import trace
from .ahead import ahead
from .shard import shard


class ArrayDataset:
    """Images and labels in memory: x (N, H, W, C) or a list of images, y (N,) int."""

    def __init__(self, x, y):
        if len(x) != len(y):
            raise ValueError(f"{len(x)} images, but {len(y)} labels")
        self.x, self.labels = x, np.asarray(y)

    def __len__(self):
        return len(self.labels)

    def batch(self, indices):
        """Return (list of images, labels) of the given events."""
        return [self.x[i] for i in indices], self.labels[indices]


def as_dataset(data, rank=0, ranks=1, seed=0):
    """Return ``data`` if it has ``batch``; of a pair (x, y), equal on all ranks, this rank's share."""
    if hasattr(data, "batch"):
        return data
    x, y = data
    if len(x) != len(y):
        raise ValueError(f"{len(x)} images, but {len(y)} labels")
    mine = shard(len(y), ranks, rank, seed) if ranks > 1 else range(len(y))
    return ArrayDataset([x[i] for i in mine], np.asarray(y)[mine])


def batches(dataset, order, batch_size, steps, prefetch=1):
    """Yield exactly ``steps`` batches (images, labels) of ``dataset`` in the given order; the last
    ones may be short or empty.

    ``prefetch`` batches are read and decompressed ahead by one thread (0: none). An error there is
    raised here, in its place.
    """
    parts = [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)]
    if prefetch < 1:
        for part in parts:
            yield _fetch(dataset, part)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        yield from ahead(partial(_fetch, dataset), parts, pool=pool, most=prefetch)


def _fetch(dataset, part):
    with trace.span("read"):  # less what has spans of its own: decompress, augment
        return dataset.batch(part)

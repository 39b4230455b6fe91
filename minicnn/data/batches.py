"""From a data set to the batches of an epoch, the next one fetched by a thread while the current
one is learned.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from ..inspect import trace
from .dataset import Dataset
from .prefetch import ordered_map
from .shard import shard
from .sparse import SparseImage


class ArrayDataset:
    """Images and targets in memory.

    x: (N, H, W, C) or a list of N images; a tuple of these for a model of several inputs. y: int
    (N,), float (N, D), or a list of N integer arrays, labels of the lit pixels of each image; a
    tuple of these for a model of several outputs. weights: sample weights (N,) or None.
    file_indices: the number of each event in the arrays of which this is a share, where it is one.
    """

    file_indices: np.ndarray | None = None

    def __init__(self, x: Any, y: Any, weights: Any = None) -> None:
        self.x = x
        self.inputs = list(x) if _is_several(x, 4) else [x]
        self.outputs = [_as_targets(part) for part in (y if _is_several(y, 1) else [y])]
        self._several_inputs, self._several_outputs = _is_several(x, 4), _is_several(y, 1)
        self.weights = None if weights is None else np.asarray(weights, np.float32)
        for part in self.inputs[1:]:
            if len(part) != len(self.inputs[0]):
                raise ValueError(
                    f"inputs of {' and '.join(str(len(p)) for p in self.inputs)} images: every "
                    "event needs one of each"
                )
        for part in self.outputs:
            if len(part) != len(self):
                raise ValueError(f"{len(self)} images, but {len(part)} labels")
        if self.weights is not None and self.weights.shape != (len(self),):
            raise ValueError(
                f"{len(self)} images, but sample weights of shape {self.weights.shape}"
            )

    def __len__(self) -> int:
        return len(self.inputs[0])

    @property
    def targets(self) -> Any:
        """All targets; a tuple for several outputs."""
        return tuple(self.outputs) if self._several_outputs else self.outputs[0]

    @property
    def labels(self) -> Any:
        """The targets, under the name that classifiers use."""
        return self.targets

    def batch(self, indices: Any) -> tuple[Any, ...]:
        """Return (images, targets), and sample weights if there are any, of the events
        ``indices``.
        """
        images = tuple([part[i] for i in indices] for part in self.inputs)
        targets = tuple(_take(part, indices) for part in self.outputs)
        batch = (
            images if self._several_inputs else images[0],
            targets if self._several_outputs else targets[0],
        )
        return batch if self.weights is None else (*batch, self.weights[np.asarray(indices, int)])

    def digests(self) -> list[int]:
        """Return a number for the contents and targets of each event."""
        return [_digest(self.batch([i])) for i in range(len(self))]

    def __repr__(self) -> str:
        return f"ArrayDataset({len(self):,} events)"


def _digest(part: Any, digest: int = 0) -> int:
    """Return the CRC of all arrays in nested lists and tuples, and of their shapes."""
    if isinstance(part, (list, tuple)):
        for item in part:
            digest = _digest(item, digest)
        return digest
    if isinstance(part, SparseImage):
        return _digest((part.coords, part.values), digest)
    array = np.ascontiguousarray(part)
    return zlib.crc32(array.tobytes(), zlib.crc32(repr(array.shape).encode(), digest))


def _is_several(part: Any, depth: int) -> bool:
    """Tell whether ``part`` is a tuple of several inputs (or outputs): of lists, or of arrays of at
    least ``depth`` dimensions.
    """
    return (
        isinstance(part, tuple)
        and bool(part)
        and all(
            isinstance(item, list) or (isinstance(item, np.ndarray) and item.ndim >= depth)
            for item in part
        )
    )


def _as_targets(y: Any) -> Any:
    """Return targets that can be indexed: an array, or a list of label arrays."""
    if isinstance(y, list) and y and all(np.ndim(item) for item in y):
        arrays = [np.asarray(item) for item in y]
        if all(array.dtype.kind in "iu" for array in arrays):
            return arrays
    return np.asarray(y)


def _take(targets: Any, indices: Any) -> Any:
    if isinstance(targets, list):
        return [targets[i] for i in indices]
    return targets[np.asarray(indices, np.int64)]


def as_dataset(data: Any, rank: int = 0, ranks: int = 1, seed: int = 0) -> Any:
    """Return ``data`` if it is a data set; of (x, y) or (x, y, sample weights), equal on all ranks,
    this rank's share.

    Raises ValueError for anything else.
    """
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise ValueError(
            "data are a data set (with len and batch(indices)), (x, y) or (x, y, sample weights), "
            f"got a {type(data).__name__}" + f" of {len(data)}" * hasattr(data, "__len__")
        )
    whole = ArrayDataset(*data)
    own = shard(len(whole), ranks, rank, seed) if ranks > 1 else np.arange(len(whole))
    share = ArrayDataset(*whole.batch(own)) if ranks > 1 else whole
    share.file_indices = own
    return share


def batches(
    dataset: Any, order: Any, batch_size: int, steps: int, prefetch: int = 1
) -> Iterator[tuple[Any, ...]]:
    """Yield exactly ``steps`` batches of ``batch_size`` events of ``dataset``, as its ``batch``
    returns them, in the given order (indices); the last ones may be short or empty.

    ``prefetch`` batches are read and decompressed ahead by one thread (0: none). An error there is
    raised here, in its place.
    """
    parts = [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)]
    if prefetch < 1:
        for part in parts:
            yield _fetch(dataset, part)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        yield from ordered_map(partial(_fetch, dataset), parts, pool=pool, limit=prefetch)


def _fetch(dataset: Any, part: Any) -> tuple[Any, ...]:
    with trace.span("read"):  # less what has spans of its own: decompress, augment
        return dataset.batch(part)

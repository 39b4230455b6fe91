"""What training takes as a data set, what readers give to stores, and wrappers of data sets."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..kernels.types import Shape
from .balance import equal_batches
from .event import Event


@runtime_checkable
class Dataset(Protocol):
    """Events that can be fetched in batches: EventStore, NodeStore, ArrayDataset, Augmented,
    Planes.
    Optional members, which only the functions of this module look for:

    - ``epoch``: set before each epoch, where what is drawn for an event depends on it
      (begin_epoch).
    - ``costs`` (node_events,): what each event costs, in any unit: batches are then dealt evenly
      (epoch_order).
    - ``order(seed, epoch, events per step)``: the indices of an epoch, where the data set deals the
      events itself (epoch_order); ``order_name``: what it does, in a few words for checkpoints.
    - ``node_events``: how many events ``batch`` can fetch, where these are more than ``len``
      (fetchable_events).
    - ``file_indices`` (node_events,): the number of each event in its file, where a rank holds a
      share (file_indices_of).
    - ``digests()``: a number of 32 bits for the contents of each event of this rank
      (content_digest).
    - ``image_shape`` (H, W, C), ``class_names``, ``labels`` (node_events,): for reports.
    """

    def __len__(self) -> int:
        """Number of events of this rank."""
        ...

    def batch(self, indices: Any) -> tuple[Any, ...]:
        """Return (images, targets), or (images, targets, sample weights), of the events
        ``indices``, int (N,).

        images: a list of SparseImage or float32 (H, W, C) arrays; for a model of several inputs a
        tuple of such lists. targets: int (N,), float (N, D) or a list of label arrays, one per
        event, in the order of its lit pixels; for several outputs a tuple of these. sample weights:
        float32 (N,).
        """
        ...


@runtime_checkable
class EventSource(Protocol):
    """Events that can be read one by one: all readers, and the Simulator.

    Optional members: ``path``, for messages; ``concurrent``: whether several threads may read at
    once; ``labels`` int32 (n,), -1 where unknown, ``axes`` and ``unit`` for reports;
    ``pixel_counts`` int64 (n,): how many pixels of each event are lit, where the file tells it
    before they are read.
    """

    image_shape: Shape
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of events."""
        ...

    def read(self, index: int) -> Event:
        """Return event ``index``; EventError naming file and event where it is damaged."""
        ...


def begin_epoch(dataset: Any, epoch: int) -> None:
    """Tell a data set which epoch is next, if it asks for it by an attribute ``epoch``."""
    if hasattr(dataset, "epoch"):
        dataset.epoch = epoch


#: Names of the orders that data sets without one of their own have (order_name).
PERMUTATION, EQUAL_WORK = "permutation", "permutation, steps of equal work"


def epoch_order(
    dataset: Any, seed: int, epoch: int, rank: int, events_per_step: int, balance: bool = True
) -> np.ndarray:
    """Return the indices of a rank's events in an epoch: the data set's own ``order``, if it has
    one, else a permutation given by (seed, epoch, rank), with steps of equal cost (data.balance)
    where ``balance`` is on and the data set knows its ``costs``.
    """
    own = getattr(dataset, "order", None)
    if own is not None:
        return own(seed, epoch, events_per_step)
    generator = np.random.default_rng([seed, epoch, rank])
    costs = getattr(dataset, "costs", None) if balance else None
    if costs is None:
        return generator.permutation(len(dataset))
    return equal_batches(costs, events_per_step, generator)


def order_name(dataset: Any, balance: bool = True) -> str:
    """Return what ``epoch_order`` does, in words: a training that goes on needs the same."""
    if hasattr(dataset, "order"):
        return getattr(dataset, "order_name", "that of the data set")
    known = balance and getattr(dataset, "costs", None) is not None
    return EQUAL_WORK if known else PERMUTATION


def fetchable_events(dataset: Any) -> int:
    """Return how many events ``dataset.batch`` can fetch: those of the node, or of this rank."""
    return int(getattr(dataset, "node_events", len(dataset)))


def file_indices_of(dataset: Any) -> np.ndarray:
    """Return int64 (fetchable events,): the number of each event in its file, by default its
    index.
    """
    known = getattr(dataset, "file_indices", None)
    return np.arange(fetchable_events(dataset)) if known is None else np.asarray(known)


def content_digest(dataset: Any) -> int:
    """Return a number of 64 bits that tells a rank's events from others: the sum over its events,
    so that the sum over ranks does not depend on their number. 0 for data sets that are no store
    and no arrays.
    """
    digests = getattr(dataset, "digests", None)
    if digests is None:
        return 0
    # Each event's number and contents are mixed (splitmix64), or sums of them would be alike.
    mixed = file_indices_of(dataset)[: len(dataset)].astype(np.uint64) << np.uint64(32)
    mixed ^= np.asarray(digests(), np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return int((mixed ^ (mixed >> np.uint64(31))).sum())


class DatasetWrapper:
    """A data set that changes what another one fetches. Attributes that it does not have are those
    of the inner one, ``order``, ``labels``, ``class_names`` and so on; ``epoch`` goes to both.
    """

    def __init__(self, dataset: Any) -> None:
        if not isinstance(dataset, Dataset):
            raise ValueError(
                f"{type(self).__name__} takes a data set (with len and batch(indices)), got a "
                f"{type(dataset).__name__}"
            )
        self.dataset = dataset
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch that events are fetched for."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        begin_epoch(self.dataset, epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # while an object is unpickled it has no attributes yet
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dataset!r})"

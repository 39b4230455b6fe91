"""Augmented: a data set whose events go through a transform when they are fetched."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..inspect import trace
from .dataset import DatasetWrapper, fetchable_events, file_indices_of
from .sparse import SparseImage
from .transform_base import apply, event_rng


class Augmented(DatasetWrapper):
    """A data set whose images go through a transform when they are fetched, a new draw in each
    epoch; labels of pixels go along with them.

    dataset: anything with ``batch(indices) -> (images, targets[, sample weights])`` and a length.
    transform: see transforms. seed: of the draws. numbers: for each event of the data set its
    number in the whole file, where ranks hold shares of one (default: ``file_indices`` of the data
    set, else its index). ``epoch`` is set by whoever trains, before each epoch. Dense images become
    sparse ones, and so do their labels.
    """

    def __init__(self, dataset: Any, transform: Any, seed: int = 0, numbers: Any = None) -> None:
        super().__init__(dataset)
        self.transform, self.seed = transform, seed
        self.file_indices = file_indices_of(dataset) if numbers is None else np.asarray(numbers)
        events = fetchable_events(dataset)
        if len(self.file_indices) != events:
            raise ValueError(f"{len(self.file_indices)} numbers for {events} events")

    @property
    def numbers(self) -> np.ndarray:
        """The former name of ``file_indices``."""
        return self.file_indices

    def batch(self, indices: Any) -> tuple[Any, ...]:
        """Return (transformed images, targets), and sample weights if any, of the given events."""
        images, targets, *weights = self.dataset.batch(indices)
        if isinstance(images, tuple):
            raise ValueError(
                "Augmented takes a data set of single images, this one has several inputs; of wire "
                "planes make Planes(Augmented(store, ...))"
            )
        labelled = isinstance(targets, list)
        labels = targets if labelled else [None] * len(images)
        with trace.span("augment"):
            pairs = [
                self._transformed(image, label, i)
                for image, label, i in zip(images, labels, indices)
            ]
        if labelled:
            targets = [label for _, label in pairs]
        return ([image for image, _ in pairs], targets, *weights)

    def _transformed(self, image: Any, labels: Any, index: int) -> tuple[SparseImage, Any]:
        if not isinstance(image, SparseImage):
            image = SparseImage.from_dense(image)
        if labels is not None and labels.ndim == 2:
            labels = labels[image.coords[:, 0], image.coords[:, 1]]
        rng = event_rng(self.seed, self.epoch, self.file_indices[index])
        return apply(self.transform, image, labels, rng)

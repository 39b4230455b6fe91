"""What all transforms of events share: what pixels and their labels can undergo, and the numbers
drawn for an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .sparse import SparseImage

#: uint8 (n,), a label for each lit pixel, or None where there are none.
Labels: TypeAlias = np.ndarray | None
#: numpy.random.Generator; None for a transform that draws nothing.
Rng: TypeAlias = Any


def event_rng(seed: int, epoch: int, event: Any) -> np.random.Generator:
    """Return the Generator that ``seed`` gives one event in one epoch; ``event`` is its number in
    the file, or its (run, subrun, event).
    """
    numbers = [event] if np.ndim(event) == 0 else list(event)
    return np.random.default_rng([int(n) & (1 << 64) - 1 for n in (seed, epoch, *numbers)])


def mapped(
    image: SparseImage,
    labels: Labels,
    mapping: Callable[[Any], Any],
    background: float | None = None,
) -> tuple[SparseImage, Labels]:
    """Return the image with the values mapping(values), all pixels in their places, and its labels.

    background: of the result, by default the mapping of the image's. Raises ValueError where the
    mapping gives what is not finite.
    """
    values = np.ascontiguousarray(mapping(image.values), np.float32)
    if background is None:
        background = float(mapping(np.float32(image.background)))
    if not (np.isfinite(values).all() and np.isfinite(background)):
        raise ValueError("a transform made a pixel infinite or not a number")
    return SparseImage.trusted(image.coords, values, image.shape, background), labels


def kept(
    image: SparseImage,
    labels: Labels,
    keep: np.ndarray,
    coords: np.ndarray | None = None,
    values: np.ndarray | None = None,
) -> tuple[SparseImage, Labels]:
    """Return the image with only the pixels where ``keep`` (bool (n,)) is set, and their labels.

    coords int32 (n, 2), values float32 (n, C): to put in place of the image's; they keep the order.
    """
    coords = image.coords if coords is None else coords
    values = image.values if values is None else values
    if keep.all():  # nothing has to be copied
        return SparseImage.trusted(coords, values, image.shape, image.background), labels
    return _ordered(image, labels, coords, values, np.flatnonzero(keep))


def moved(image: SparseImage, labels: Labels, coords: np.ndarray) -> tuple[SparseImage, Labels]:
    """Return the image with its pixels at ``coords`` int32 (n, 2), in any order but all different
    and inside the image, and their labels.
    """
    # Stable: quick where long runs are in order already.
    order = np.argsort(coords[:, 0] * np.int64(image.shape[1]) + coords[:, 1], kind="stable")
    return _ordered(image, labels, coords, image.values, order)


def mirrored(image: SparseImage, labels: Labels, axis: int) -> tuple[SparseImage, Labels]:
    """Return the image with its rows (axis 0) or columns (axis 1) in reverse, and its labels."""
    rows, n = image.coords[:, 0], image.nnz
    if not n:
        return image, labels
    # Pixels are in order: nothing has to be sorted. Those of a row, first to end - 1, are turned
    # round by p -> first + end - 1 - p; with all of them backwards, so are the rows instead.
    first = np.append(0, np.flatnonzero(rows[1:] != rows[:-1]) + 1)
    end = np.append(first[1:], n)
    order = np.repeat(first + end - 1, end - first) - np.arange(n)
    coords = image.coords.copy()
    coords[:, axis] = image.shape[axis] - 1 - coords[:, axis]
    order = order if axis == 1 else order[::-1]
    return _ordered(image, labels, coords, image.values, order)


def _ordered(
    image: SparseImage, labels: Labels, coords: np.ndarray, values: np.ndarray, order: np.ndarray
) -> tuple[SparseImage, Labels]:
    """Return the image with coords[order] and values[order], and its labels in that order."""
    # Row and column of a pixel go along as one number of 8 bytes.
    places = np.ascontiguousarray(coords).view(np.int64)[:, 0].take(order)
    coords = places.view(np.int32).reshape(-1, 2)
    result = SparseImage.trusted(coords, values.take(order, 0), image.shape, image.background)
    return result, None if labels is None else labels[order]


def inside(coords: np.ndarray, image: SparseImage) -> np.ndarray:
    """Return bool (n,): which of the places ``coords`` int32 (n, 2) lie in the image."""
    # As unsigned numbers negative coordinates are very large: one comparison finds both.
    within = coords.view(np.uint32) < np.array(image.shape[:2], np.uint32)
    return np.asarray(within[:, 0] & within[:, 1])


class Transform:
    """Base of all transforms: a subclass defines ``apply``."""

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        """Return (image, labels of its pixels) transformed; labels may be None. rng: the NumPy
        generator of this event in this epoch (event_rng), None for a transform that draws nothing.
        """
        raise NotImplementedError(f"{type(self).__name__}.apply")

    def __call__(self, image: SparseImage, rng: Rng = None) -> SparseImage:
        return self.apply(image, None, rng)[0]


def apply(
    transform: Callable[..., SparseImage], image: SparseImage, labels: Labels, rng: Rng
) -> tuple[SparseImage, Labels]:
    """Return (image, labels) of a Transform or of any function (image, rng) -> image; ValueError
    where such a function changes which pixels are lit and there are labels.
    """
    if isinstance(transform, Transform):
        return transform.apply(image, labels, rng)
    result = transform(image, rng)
    if labels is not None and not np.array_equal(result.coords, image.coords):
        raise ValueError(
            f"{transform!r} moves or drops pixels without their labels: derive it from "
            "transforms.Transform and define apply(image, labels, rng)"
        )
    return result, labels

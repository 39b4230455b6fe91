"""Planes: a data set that hands out the wire planes of its images one by one."""

from __future__ import annotations

from typing import Any

from ..kernels.types import Shape
from .dataset import DatasetWrapper
from .sparse import SparseImage


class Planes(DatasetWrapper):
    """A data set whose images come as one list per plane, for networks with a trunk for each.

    ``batch`` returns ((images of plane 0, images of plane 1, ...), targets[, sample weights]): for
    each event the one-plane images (H, W, 1) of ``SparseImage.planes``. Labels of pixels come as a
    tuple, too: for each plane a list of the labels of the pixels that are lit there. Augmentation
    belongs inside, Planes(Augmented(store, ...)), so that an event's planes are moved together.

    dataset: the data set of whole images. planes: how many, by default those of the data set's
    ``image_shape``.
    """

    def __init__(self, dataset: Any, planes: int | None = None) -> None:
        super().__init__(dataset)
        shape = getattr(dataset, "image_shape", None)
        if planes is None:
            if shape is None:
                raise ValueError(
                    f"a {type(dataset).__name__} does not say how many planes its images have: "
                    "give planes="
                )
            planes = shape[2]
        self._shape = None if shape is None else (*shape[:2], 1)
        self.planes = int(planes)

    @property
    def image_shape(self) -> Shape | None:
        """Shape (H, W, 1) of every image, None where the data set does not say."""
        return self._shape

    def batch(self, indices: Any) -> tuple[Any, ...]:
        """Return (tuple of one list of images per plane, targets), and sample weights if any, of
        the events ``indices``.
        """
        images, targets, *weights = self.dataset.batch(indices)
        if isinstance(images, tuple):
            raise ValueError(
                "Planes takes a data set of single images, this one has several inputs"
            )
        sparse = [
            image if isinstance(image, SparseImage) else SparseImage.from_dense(image)
            for image in images
        ]
        for image in sparse:
            if image.shape[2] != self.planes:
                raise ValueError(f"an image has {image.shape[2]} planes, expected {self.planes}")
        apart = tuple([image.plane(c) for image in sparse] for c in range(self.planes))
        if isinstance(targets, list):
            targets = tuple(
                [
                    (labels if labels.ndim == 1 else labels[tuple(image.coords.T)])[
                        image.lit_in_plane(c)
                    ]
                    for labels, image in zip(targets, sparse)
                ]
                for c in range(self.planes)
            )
        return (apart, targets, *weights)

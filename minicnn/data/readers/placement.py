"""Where a detector image goes on the network's: sum blocks of ticks, pad or crop, shrink. Works on
lit pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...kernels.types import Shape
from ..event import IGNORED
from ..sparse import SparseImage


def sum_ticks(image: np.ndarray, block: int) -> np.ndarray:
    """Add up blocks of ``block`` columns of a dense (rows, ticks) array: (rows, ticks // block)."""
    rows, ticks = image.shape
    if block < 1 or ticks % block:
        raise ValueError(
            f"{ticks} ticks cannot be summed in blocks of {block}; choose a divisor of {ticks}"
        )
    return image.reshape(rows, ticks // block, block).sum(2)


def repeat_ticks(image: SparseImage, times: int) -> SparseImage:
    """Stretch (H, W, C) to (H, W * times, C): every column becomes ``times`` columns that share its
    charge.
    """
    h, w, c = image.shape
    rows = np.repeat(image.coords[:, 0], times)
    columns = (image.coords[:, 1:] * times + np.arange(times)).reshape(-1)
    values = np.repeat(image.values / np.float32(times), times, axis=0)
    return in_order(np.stack([rows, columns], 1), values, (h, w * times, c))


def pad(image: SparseImage, height: int, width: int, crop: bool = False) -> SparseImage:
    """Centre an image on (height, width), as evenly as possible (the odd row or column goes to the
    high side).

    Background must be 0. Raises ValueError where the image is larger and ``crop`` is not set.
    """
    h, w, c = image.shape
    if (h > height or w > width) and not crop:
        raise ValueError(
            f"an image of {h} x {w} does not fit on {height} x {width}; choose a larger size"
        )
    _zero_background(image)
    coords = image.coords + np.array([(height - h) // 2, (width - w) // 2], np.int32)
    keep = ((coords >= 0) & (coords < (height, width))).all(1)
    return SparseImage(coords[keep], image.values[keep], (height, width, c))


def shrink(image: SparseImage, shape: Shape) -> SparseImage:
    """Add up square blocks of pixels so that the image has ``shape``, of which its own is a
    multiple; charge is kept.
    """
    if image.shape == tuple(shape):
        return image
    _zero_background(image)
    rows, columns = (image.coords // (image.shape[0] // shape[0])).T
    return SparseImage.from_pixels(rows, columns, image.values, shape)


def shrink_labels(labels: np.ndarray, image: SparseImage, small: SparseImage) -> np.ndarray:
    """Return the labels uint8 (m,) of ``small``, which ``shrink`` made of ``image`` with pixel
    labels uint8 (n,): of each block the label with the largest sum of magnitudes of its pixels,
    IGNORED where none is known.
    """
    if small is image:
        return labels
    block = image.shape[0] // small.shape[0]
    index = small.index_of(*(image.coords // block).T)
    sums = np.zeros((small.nnz, IGNORED + 1), np.float64)
    np.add.at(sums, (index, labels), np.abs(image.values).sum(1, dtype=np.float64))
    known = sums[:, :IGNORED]
    return np.where(known.any(1), known.argmax(1), IGNORED).astype(np.uint8)


def merge(images: Sequence[SparseImage]) -> SparseImage:
    """Add up images of one shape: a pixel is lit where it is in any of them."""
    if len(images) == 1:
        return images[0]
    coords = np.concatenate([image.coords for image in images])
    return SparseImage.from_pixels(
        coords[:, 0],
        coords[:, 1],
        np.concatenate([image.values for image in images]),
        images[0].shape,
    )


def _zero_background(image):
    if image.background != 0:
        raise ValueError(
            "only images with background 0 can be padded or shrunk, this one has "
            f"{image.background}"
        )


def in_order(coords: np.ndarray, values: np.ndarray, shape: Shape) -> SparseImage:
    """SparseImage of pixels in any order, each given once: nothing is added up."""
    order = np.lexsort((coords[:, 1], coords[:, 0]))
    return SparseImage(coords[order], values[order], shape)


def canvas_edge(shape: Sequence[int], size: int | None = None) -> int:
    """Edge of the square that an image (H, W, C) is centred on: ``size`` times the smallest whole
    number that holds it.

    Without ``size`` it is the longer edge of the image: nothing is summed and nothing lost.
    """
    longest = max(shape[:2])
    if longest < 1:
        raise ValueError(f"an image has at least one pixel, got {tuple(shape[:2])}")
    if size is None:
        return longest
    if size < 1:
        raise ValueError(f"the size of images is a positive number of pixels, got {size}")
    return size * -(-longest // size)


def place(image: SparseImage, edge: int, size: int | None = None) -> SparseImage:
    """Centre an image on ``edge`` x ``edge`` and add up blocks of pixels until it is ``size`` x
    ``size``; charge is kept.
    """
    return shrink(pad(image, edge, edge), (size or edge, size or edge, image.shape[2]))


def lit_pixels(
    rows: Any,
    columns: Any,
    values: Any,
    shape: Shape,
    threshold: float | None = None,
    channel: int = 0,
) -> SparseImage:
    """SparseImage of the pixels of one plane, in any order, in ``channel``; those of 0, or below
    ``threshold``, are not lit.
    """
    values = np.asarray(values, np.float32)
    keep = (values != 0) if threshold is None else (values >= threshold) & (values != 0)
    keep |= ~np.isfinite(values)  # SparseImage names them
    spread = np.zeros((int(keep.sum()), shape[2]), np.float32)
    spread[:, channel] = values[keep]
    return in_order(np.stack([np.asarray(rows)[keep], np.asarray(columns)[keep]], 1), spread, shape)

"""Normalisation and augmentation of events, on their lit pixels: callables ``t(image, rng) ->
SparseImage``.

    from minicnn.data import transforms as tr
    pipeline = tr.Compose([tr.MirrorWire(), tr.MirrorTime(), tr.Shift(50, 100)])
    image = pipeline(image, tr.event_rng(seed, epoch, number))
    image, labels = pipeline.apply(image, labels, rng)       # labels of the pixels go along

What is drawn for an event depends on ``event_rng``'s arguments alone, so that any rank, at any
number of ranks, in any order, makes the same image. Every transform draws as many numbers whatever
the image is. Images keep their shape; order and uniqueness of the pixels are kept. All randomness
comes from ``rng`` (numpy.random.Generator); normalisations accept None.

A transform of one's own is any function (image, rng) -> image. Where it moves or drops pixels and
events have pixel labels, it is a subclass of Transform that defines ``apply`` by means of
``mapped``, ``kept``, ``moved`` and ``mirrored``: all that pixels can undergo, with their labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .augmented import Augmented
from .sparse import SparseImage
from .transform_base import (
    Labels,
    Rng,
    Transform,
    apply,
    event_rng,
    inside,
    kept,
    mapped,
    mirrored,
    moved,
)

__all__ = [
    "Augmented",
    "Clip",
    "Compose",
    "DeadWires",
    "GainJitter",
    "Log",
    "MirrorTime",
    "MirrorWire",
    "Scale",
    "Shift",
    "Transform",
    "event_rng",
    "kept",
    "mapped",
    "mirror_images",
    "mirrored",
    "moved",
]


class Compose(Transform):
    """One of ``transforms`` after the other."""

    def __init__(self, transforms: Iterable[Callable[..., SparseImage]]) -> None:
        self.transforms = list(transforms)
        for t in self.transforms:
            if not callable(t):
                raise ValueError(f"a transform is called with (image, rng), got {t!r}")

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        for t in self.transforms:
            image, labels = apply(t, image, labels, rng)
        return image, labels


# ------------------------------------------------------------------------------------ normalisation
class Scale(Transform):
    """v -> v * factor: ADC counts to numbers of order one. The background is scaled too."""

    def __init__(self, factor: float) -> None:
        self.factor = np.float32(_finite("factor", factor))

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        with np.errstate(over="ignore"):  # becomes infinite, which ``mapped`` refuses
            return mapped(image, labels, lambda v: v * self.factor)


class Clip(Transform):
    """v -> min(max(v, low), high), None for no limit: one very bright pixel does not decide. The
    background is clipped too.
    """

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        ordered = low is None or high is None or low <= high
        if (low is None and high is None) or not ordered:
            raise ValueError(f"Clip needs low <= high, or one of them, got {low} and {high}")
        self.low, self.high = low, high

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        return mapped(image, labels, lambda v: np.clip(v, self.low, self.high))


class Log(Transform):
    """v -> sign(v) * log(1 + |v| / scale): a range of decades becomes one of a few units; 0 stays
    0, v << scale goes linearly.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = np.float32(_positive("scale", scale))

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        return mapped(image, labels, lambda v: np.copysign(np.log1p(np.abs(v) / self.scale), v))


# ------------------------------------------------------------------------------------- augmentation
class MirrorWire(Transform):
    """Reverse the wires (rows) with the given probability."""

    axis = 0

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = _fraction("probability", probability)

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        if rng.random() >= self.probability:
            return image, labels
        return mirrored(image, labels, self.axis)


class MirrorTime(MirrorWire):
    """Reverse the ticks (columns) with the given probability; about the edge before pixel
    ``about``, or half a pixel further on, where given (column c becomes 2 about - 1 - c, and what
    leaves the image is lost), else about the middle of the image.
    """

    axis = 1

    def __init__(self, probability: float = 0.5, about: float | None = None) -> None:
        super().__init__(probability)
        if about is not None and 2 * about != int(2 * _finite("about", about)):
            raise ValueError(f"about must be an edge or the middle of a pixel, got {about}")
        self.about = about

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        reverse, labels = super().apply(image, labels, rng)
        if self.about is None or reverse is image:
            return reverse, labels
        coords = reverse.coords + np.array([0, int(2 * self.about) - image.shape[1]], np.int32)
        return kept(reverse, labels, inside(coords, image), coords)


def mirror_images(image: SparseImage) -> list[SparseImage]:
    """Return the image, it with the wires reversed, with the ticks, and with both."""
    rng = event_rng(0, 0, 0)  # which draws nothing that matters: all are mirrored
    wires = MirrorWire(1.0)(image, rng)
    return [image, wires, *(MirrorTime(1.0)(each, rng) for each in (image, wires))]


class Shift(Transform):
    """Move by whole pixels, uniformly within +-rows and +-columns; what leaves the image is lost,
    what enters is background.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.limits = (int(_finite("rows", rows)), int(_finite("columns", columns)))
        if min(self.limits) < 0 or self.limits != (rows, columns):
            raise ValueError(f"Shift takes whole numbers of pixels >= 0, got {rows} and {columns}")

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        step = [int(rng.integers(-limit, limit + 1)) for limit in self.limits]
        coords = image.coords + np.array(step, np.int32)
        return kept(image, labels, inside(coords, image), coords)


class GainJitter(Transform):
    """Multiply the lit pixels of every plane by its own factor from a Gaussian of mean 1 and width
    sigma, not below 0.
    """

    def __init__(self, sigma: float) -> None:
        self.sigma = _positive("sigma", sigma)

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        draws = rng.standard_normal(image.shape[2])
        gain = np.maximum(1 + self.sigma * draws, 0).astype(np.float32)
        return mapped(image, labels, lambda v: v * gain, image.background)


class DeadWires(Transform):
    """Every wire (row) reads nothing but background with the probability ``fraction``, in each
    plane on its own.
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = _fraction("fraction", fraction)

    def apply(
        self, image: SparseImage, labels: Labels = None, rng: Rng = None
    ) -> tuple[SparseImage, Labels]:
        dead = rng.random((image.shape[0], image.shape[2])) < self.fraction
        background = np.float32(image.background)
        values = np.where(dead[image.coords[:, 0]], background, image.values)
        return kept(image, labels, (values != background).any(1), values=values)


def _finite(name: str, value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}")
    return value


def _positive(name: str, value: float) -> float:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, got {value}")
    return value


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a fraction of 0 to 1, got {value}")
    return value

"""Normalisation and augmentation of events, on their lit pixels: callables ``t(image, rng) ->
SparseImage``.

    from minicnn.data import transforms as tr pipeline = tr.Compose([tr.MirrorWire(),
    tr.MirrorTime(), tr.Shift(50, 100), tr.GainJitter(0.05), tr.Clip(high=400)]) image =
    pipeline(image, tr.event_rng(seed, epoch, number))

What is drawn for an event depends on ``event_rng``'s arguments alone, so that any rank, at any
number of ranks, in any order, makes the same image. Every transform draws as many numbers whatever
the image is. Images keep their shape; order and uniqueness of the pixels are kept. All randomness
comes from ``rng`` (numpy.random.Generator); normalisations accept None.
"""

import numpy as np

from ..inspect import trace
from .sparse import SparseImage


def event_rng(seed, epoch, event):
    """Return the Generator for one event in one epoch; ``event`` is its number in the file, or its
    (run, subrun, event).
    """
    numbers = [event] if np.ndim(event) == 0 else list(event)
    return np.random.default_rng([int(n) & (1 << 64) - 1 for n in (seed, epoch, *numbers)])


class Compose:
    """One transform after the other."""

    def __init__(self, transforms):
        self.transforms = list(transforms)
        for t in self.transforms:
            if not callable(t):
                raise ValueError(f"a transform is called with (image, rng), got {t!r}")

    def __call__(self, image, rng=None):
        for t in self.transforms:
            image = t(image, rng)
        return image


# ------------------------------------------------------------------------------------ normalisation
class Scale:
    """v -> v * factor: ADC counts to numbers of order one. The background is scaled too."""

    def __init__(self, factor):
        self.factor = np.float32(_finite("factor", factor))

    def __call__(self, image, rng=None):
        return _mapped(image, lambda v: v * self.factor)


class Clip:
    """v -> min(max(v, low), high), None for no limit: one very bright pixel does not decide. The
    background is clipped too.
    """

    def __init__(self, low=None, high=None):
        if (low is None and high is None) or (None not in (low, high) and not low <= high):
            raise ValueError(f"Clip needs low <= high, or one of them, got {low} and {high}")
        self.low, self.high = low, high

    def __call__(self, image, rng=None):
        return _mapped(image, lambda v: np.clip(v, self.low, self.high))


class Log:
    """v -> sign(v) * log(1 + |v| / scale): a range of decades becomes one of a few units; 0 stays
    0, v << scale goes linearly.
    """

    def __init__(self, scale=1.0):
        self.scale = np.float32(_positive("scale", scale))

    def __call__(self, image, rng=None):
        return _mapped(image, lambda v: np.copysign(np.log1p(np.abs(v) / self.scale), v))


# ------------------------------------------------------------------------------------- augmentation
class MirrorWire:
    """Reverse the wires (rows) with the given probability."""

    axis = 0

    def __init__(self, probability=0.5):
        self.probability = _fraction("probability", probability)

    def __call__(self, image, rng):
        if rng.random() >= self.probability:
            return image
        coords = image.coords.copy()
        coords[:, self.axis] = image.shape[self.axis] - 1 - coords[:, self.axis]
        return _sorted(coords, image.values, image)


class MirrorTime(MirrorWire):
    """Reverse the ticks (columns) with the given probability."""

    axis = 1


class Shift:
    """Move by whole pixels, uniformly within +-rows and +-columns; what leaves the image is lost,
    what enters is background.
    """

    def __init__(self, rows, columns):
        self.limits = (int(_finite("rows", rows)), int(_finite("columns", columns)))
        if min(self.limits) < 0 or self.limits != (rows, columns):
            raise ValueError(f"Shift takes whole numbers of pixels >= 0, got {rows} and {columns}")

    def __call__(self, image, rng):
        step = [int(rng.integers(-limit, limit + 1)) for limit in self.limits]
        coords = image.coords + np.array(step, np.int32)
        inside = ((coords >= 0) & (coords < image.shape[:2])).all(1)
        return SparseImage(coords[inside], image.values[inside], image.shape, image.background)


class GainJitter:
    """Multiply the lit pixels of every plane by its own factor from a Gaussian of mean 1 and width
    sigma, not below 0.
    """

    def __init__(self, sigma):
        self.sigma = _positive("sigma", sigma)

    def __call__(self, image, rng):
        gain = np.maximum(1 + self.sigma * rng.standard_normal(image.shape[2]), 0).astype(
            np.float32
        )
        return SparseImage(image.coords, image.values * gain, image.shape, image.background)


class DeadWires:
    """Every wire (row) reads nothing but background with the given probability, in each plane on
    its own.
    """

    def __init__(self, fraction):
        self.fraction = _fraction("fraction", fraction)

    def __call__(self, image, rng):
        dead = rng.random((image.shape[0], image.shape[2])) < self.fraction
        values = np.where(dead[image.coords[:, 0]], np.float32(image.background), image.values)
        lit = (values != np.float32(image.background)).any(1)
        return SparseImage(image.coords[lit], values[lit], image.shape, image.background)


class Augmented:
    """A data set whose images go through a transform when they are fetched, a new draw in each
    epoch.

    dataset: anything with ``batch(indices) -> (images, labels)`` and a length. transform: as above.
    seed: of the draws. numbers: for each event of the data set its number in the whole file, where
    ranks hold shares of one (default: those of the data set, else its index). ``epoch`` is set by
    whoever trains, before each epoch. Dense images become sparse ones.
    """

    def __init__(self, dataset, transform, seed=0, numbers=None):
        self.dataset, self.transform, self.seed, self.epoch = dataset, transform, seed, 0
        self.numbers = np.asarray(
            getattr(dataset, "numbers", np.arange(len(dataset))) if numbers is None else numbers
        )
        events = getattr(dataset, "reach", len(dataset))
        if len(self.numbers) != events:
            raise ValueError(f"{len(self.numbers)} numbers for {events} events")

    def __len__(self):
        return len(self.dataset)

    def __getattr__(self, name):  # labels, class_names ... of the data set
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def batch(self, indices):
        """Return (transformed images, labels) of the given events."""
        images, labels = self.dataset.batch(indices)
        with trace.span("augment"):
            return [
                self.transform(
                    image if isinstance(image, SparseImage) else SparseImage.from_dense(image),
                    event_rng(self.seed, self.epoch, self.numbers[i]),
                )
                for image, i in zip(images, indices)
            ], labels


def _mapped(image, f):
    return SparseImage(
        image.coords, f(image.values), image.shape, float(f(np.float32(image.background)))
    )


def _sorted(coords, values, image):
    order = np.argsort(
        coords[:, 0] * np.int64(image.shape[1]) + coords[:, 1], kind="stable"
    )  # quick where long runs are in order
    return SparseImage(coords[order], values[order], image.shape, image.background)


def _finite(name, value):
    if not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}")
    return value


def _positive(name, value):
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, got {value}")
    return value


def _fraction(name, value):
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a fraction of 0 to 1, got {value}")
    return value

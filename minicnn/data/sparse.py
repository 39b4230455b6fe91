"""SparseImage: an image as the list of its lit pixels."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class SparseImage:
    """An (H, W, C) float32 image given by its lit pixels; every other pixel has the value
    ``background``.

    coords int32 (n, 2): row (wire), column (tick), sorted row by row and unique, because sums
    follow this order. values float32 (n, C). shape (H, W, C). Raises ValueError where an entry is
    out of range, unsorted, doubled or not finite.
    """

    coords: np.ndarray
    values: np.ndarray
    shape: tuple
    background: float = 0.0

    def __post_init__(self):
        set_ = object.__setattr__
        set_(self, "coords", np.ascontiguousarray(self.coords, np.int32).reshape(-1, 2))
        values = np.ascontiguousarray(self.values, np.float32)
        set_(self, "shape", tuple(int(n) for n in self.shape))
        if len(self.shape) != 3:
            raise ValueError(f"an image shape is (height, width, channels), got {self.shape}")
        set_(self, "values", values.reshape(len(self.coords), self.shape[2]))
        self.check()

    def check(self):
        """Raise ValueError naming the first entry that breaks the rules of the class."""
        h, w, _ = self.shape

        def place(k):
            return f"pixel {k} at (row {self.coords[k, 0]}, column {self.coords[k, 1]})"

        outside = self.coords.view(np.uint32) >= np.array(
            (h, w), np.uint32
        )  # what is negative becomes very large
        if outside.any():
            raise ValueError(
                f"{place(outside.any(1).argmax())} lies outside the image of {h} x {w}"
            )
        number = self.coords[:, 0] * np.int64(w) + self.coords[:, 1]
        unsorted = number[1:] <= number[:-1]
        if unsorted.any():
            k = unsorted.argmax()
            what = "given twice" if number[k] == number[k + 1] else "not in row-major order"
            raise ValueError(f"{place(k + 1)} is {what}; SparseImage.from_pixels sorts and adds up")
        finite = np.isfinite(self.values)
        if not finite.all():
            k = (~finite).any(1).argmax()
            raise ValueError(f"{place(k)} has the value {self.values[k].tolist()}")
        if not np.isfinite(self.background):
            raise ValueError(f"the background is {self.background}")

    @property
    def nnz(self):
        """Number of lit pixels."""
        return len(self.coords)

    @property
    def nbytes(self):
        """Bytes of coordinates and values."""
        return self.coords.nbytes + self.values.nbytes

    @classmethod
    def from_dense(cls, image, background=0.0):
        """Make one from an (H, W, C) or (H, W) array: a pixel is lit where any channel differs from
        ``background``.
        """
        image = np.asarray(image, np.float32)
        image = image[..., None] if image.ndim == 2 else image
        coords = np.argwhere((image != background).any(-1))
        return cls(coords, image[coords[:, 0], coords[:, 1]], image.shape, background)

    @classmethod
    def from_pixels(cls, rows, columns, values, shape, background=0.0):
        """Make one from unordered pixels; values of pixels that occur more than once are added up."""
        values = np.asarray(values, np.float32).reshape(len(rows), shape[2])
        key, place = np.unique(
            np.asarray(rows, np.int64) * shape[1] + np.asarray(columns, np.int64),
            return_inverse=True,
        )
        total = np.zeros((len(key), shape[2]), np.float64)
        np.add.at(total, place, values)
        return cls(np.stack([key // shape[1], key % shape[1]], 1), total, shape, background)

    def to_dense(self, out=None, f=None):
        """Return the (H, W, C) float32 array of the values, or of f(values), written into ``out``
        when given.
        """
        if out is None:
            out = np.empty(self.shape, np.float32)
        background, values = (
            (np.float32(self.background), self.values)
            if f is None
            else (f(np.float32(self.background)), f(self.values))
        )
        out[...] = background
        out[self.coords[:, 0], self.coords[:, 1]] = values
        return out

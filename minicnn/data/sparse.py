"""SparseImage: an image as the list of its lit pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.types import Shape

#: Whether images made by ``SparseImage.trusted`` are checked like all others:
#: MINICNN_CHECK_IMAGES=1 in the environment, or this flag. The tests have it on.
CHECK_TRUSTED = os.environ.get("MINICNN_CHECK_IMAGES", "0") not in ("", "0")


@dataclass(frozen=True, eq=False, repr=False)
class SparseImage:
    """An (H, W, C) float32 image given by its lit pixels; every other pixel has the value
    ``background``.

    coords int32 (n, 2): row (wire), column (tick), sorted row by row and unique, because sums
    follow this order. values float32 (n, C). shape (H, W, C). background: a number that float32
    holds (others are rounded). Raises ValueError where an entry is out of range, unsorted, doubled,
    not a real number or not finite in float32.
    """

    coords: np.ndarray
    values: np.ndarray
    shape: tuple[int, ...]
    background: float = 0.0

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3:
            raise ValueError(f"an image shape is (height, width, channels), got {shape}")
        coords = _as_int32(self.coords)
        values = np.ascontiguousarray(as_float32(self.values))
        if values.size != len(coords) * shape[2]:
            raise ValueError(
                f"{len(coords)} pixels of an image of {shape[2]} channels need values of shape "
                f"{(len(coords), shape[2])}, got {values.shape}"
            )
        self._set(coords, values.reshape(len(coords), shape[2]), shape, self.background)
        self.check()

    def _set(self, coords: Any, values: Any, shape: Shape, background: Any) -> None:
        rounded = float(np.float32(background))
        self.__dict__.update(coords=coords, values=values, shape=shape, background=rounded)

    @classmethod
    def trusted(
        cls, coords: np.ndarray, values: np.ndarray, shape: Shape, background: float = 0.0
    ) -> SparseImage:
        """Make one without looking at the pixels, for code that keeps the rules by construction.

        coords: int32 (n, 2), values: float32 (n, C), C-contiguous; shape: a tuple of three ints.
        They are neither converted nor copied. With ``CHECK_TRUSTED`` on, what breaks a rule is the
        same ValueError as otherwise.
        """
        image = object.__new__(cls)
        image._set(coords, values, shape, background)
        if CHECK_TRUSTED:
            image._check_arrays()
            image.check()
        return image

    def _check_arrays(self) -> None:
        """Raise ValueError unless the arrays have the types and shapes of the class."""
        expected = (len(self.coords), self.shape[2])
        for name, array, dtype, shape in (
            ("coords", self.coords, np.int32, (len(self.coords), 2)),
            ("values", self.values, np.float32, expected),
        ):
            if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
                raise ValueError(
                    f"SparseImage.trusted takes {name} as contiguous {np.dtype(dtype)} {shape}, "
                    f"got {array.dtype} {array.shape}"
                )

    def check(self) -> None:
        """Raise ValueError naming the first entry that breaks the rules of the class."""
        h, w, _ = self.shape

        def pixel(entry: Any) -> str:
            return f"pixel {entry} at (row {self.coords[entry, 0]}, column {self.coords[entry, 1]})"

        # As unsigned numbers negative coordinates are very large: one comparison finds both.
        outside = self.coords.view(np.uint32) >= np.array((h, w), np.uint32)
        if outside.any():
            raise ValueError(
                f"{pixel(outside.any(1).argmax())} lies outside the image of {h} x {w}"
            )
        number = self.coords[:, 0] * np.int64(w) + self.coords[:, 1]
        unsorted = number[1:] <= number[:-1]
        if unsorted.any():
            entry = unsorted.argmax()
            what = "given twice" if number[entry] == number[entry + 1] else "not in row-major order"
            raise ValueError(
                f"{pixel(entry + 1)} is {what}; SparseImage.from_pixels sorts and adds up"
            )
        finite = np.isfinite(self.values)
        if not finite.all():
            entry = (~finite).any(1).argmax()
            raise ValueError(f"{pixel(entry)} has the value {self.values[entry].tolist()}")
        if not np.isfinite(self.background):
            raise ValueError(f"the background is {self.background}")

    @property
    def nnz(self) -> int:
        """Number of lit pixels."""
        return len(self.coords)

    @property
    def nbytes(self) -> int:
        """Bytes of coordinates and values."""
        return self.coords.nbytes + self.values.nbytes

    @classmethod
    def from_dense(cls, image: Any, background: float = 0.0) -> SparseImage:
        """Make one from an (H, W, C) or (H, W) array of real numbers: a pixel is lit where any
        channel, in float32, differs from ``background``.
        """
        image = as_float32(image)
        image = image[..., None] if image.ndim == 2 else image
        if image.ndim != 3:
            raise ValueError(f"a dense image has the shape (H, W) or (H, W, C), got {image.shape}")
        coords = np.argwhere((image != np.float32(background)).any(-1))
        return cls(coords, image[coords[:, 0], coords[:, 1]], image.shape, background)

    @classmethod
    def from_pixels(
        cls, rows: Any, columns: Any, values: Any, shape: Shape, background: float = 0.0
    ) -> SparseImage:
        """Make one of ``shape`` (H, W, C) from unordered pixels: ``rows`` and ``columns``, whole
        numbers (n,), and ``values`` (n, C). Values of pixels that occur more than once are added
        up, in float64, and rounded to float32 once. ValueError for a pixel outside.
        """
        values = np.asarray(values)
        if values.dtype.kind not in "biuf":
            raise ValueError(f"pixel values are real numbers, got an array of {values.dtype}")
        values = values.reshape(len(rows), shape[2])
        rows, columns = _integers("rows", rows), _integers("columns", columns)
        outside = (rows < 0) | (rows >= shape[0]) | (columns < 0) | (columns >= shape[1])
        if outside.any():  # before row and column become one number, which would hide it
            k = int(outside.argmax())
            raise ValueError(
                f"pixel {k} at (row {rows[k]}, column {columns[k]}) lies outside the image of "
                f"{shape[0]} x {shape[1]}"
            )
        key, inverse = np.unique(rows * shape[1] + columns, return_inverse=True)
        total = np.zeros((len(key), shape[2]), np.float64)
        np.add.at(total, inverse, values)
        return cls(np.stack([key // shape[1], key % shape[1]], 1), total, shape, background)

    def index_of(self, rows: Any, columns: Any) -> np.ndarray:
        """Return int64 (m,): where each of the pixels (rows[i], columns[i]) is in the list;
        ValueError for one that is not lit.
        """
        width = np.int64(self.shape[1])
        listed = self.coords[:, 0] * width + self.coords[:, 1]
        wanted = np.asarray(rows, np.int64) * width + np.asarray(columns, np.int64)
        index = np.searchsorted(listed, wanted)
        missing = index == len(listed)
        missing[~missing] = listed[index[~missing]] != wanted[~missing]
        if missing.any():
            row, column = divmod(int(wanted[missing.argmax()]), int(width))
            raise ValueError(f"the pixel at (row {row}, column {column}) is not lit")
        return index

    def plane(self, channel: int) -> SparseImage:
        """Return ``channel`` as an image of one channel, (H, W, 1): the pixels where this channel
        differs from the background.
        """
        if not 0 <= channel < self.shape[2]:
            raise IndexError(
                f"the image has the planes 0 to {self.shape[2] - 1}, asked for {channel}"
            )
        lit = self.lit_in_plane(channel)
        return SparseImage.trusted(
            self.coords[lit],
            self.values[lit, channel : channel + 1],
            (*self.shape[:2], 1),
            self.background,
        )

    def lit_in_plane(self, channel: int) -> np.ndarray:
        """Return bool (n,): which of the lit pixels ``plane(channel)`` keeps."""
        return self.values[:, channel] != np.float32(self.background)

    def planes(self) -> tuple[SparseImage, ...]:
        """Return ``plane(channel)`` of every channel."""
        return tuple(self.plane(c) for c in range(self.shape[2]))

    def to_dense(
        self, out: np.ndarray | None = None, function: Callable[[Any], Any] | None = None
    ) -> np.ndarray:
        """Return the (H, W, C) float32 array of the values, or of function(values), written into
        ``out`` when given.
        """
        if out is None:
            out = np.empty(self.shape, np.float32)
        background: Any = np.float32(self.background)
        values: Any = self.values
        if function is not None:
            background, values = function(background), function(values)
        out[...] = background
        out[self.coords[:, 0], self.coords[:, 1]] = values
        return out

    def __repr__(self) -> str:
        h, w, c = self.shape
        text = f"SparseImage({h} x {w} x {c}, {self.nnz:,} lit"
        if self.nnz:
            text += f" ({self.nnz / (h * w):.3%}), {self.values.min():g} to {self.values.max():g}"
        return text + (f", background {self.background:g})" if self.background else ")")

    def _repr_png_(self) -> bytes:
        from ..inspect.report.notebook import event_png

        return event_png(self)


def as_float32(values: Any) -> np.ndarray:
    """Return real numbers of any type as float32; what float32 cannot hold becomes infinite (and is
    refused by ``SparseImage.check``). ValueError for anything else, as complex numbers or text.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"pixel values are real numbers, got an array of {array.dtype}")
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32)


def _integers(name: str, values: Any) -> np.ndarray:
    """Return pixel numbers as int64; ValueError where one is no whole number."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size and not (array == np.floor(array)).all():
        raise ValueError(f"{name} of pixels are whole numbers, got {array.dtype} with fractions")
    return array.astype(np.int64)


def _as_int32(coords: Any) -> np.ndarray:
    """Return coordinates (n, 2) as contiguous int32; ValueError for those beyond int32, which would
    come out as those of another pixel.
    """
    if isinstance(coords, np.ndarray) and coords.dtype == np.int32:
        return np.ascontiguousarray(coords).reshape(-1, 2)
    wide = _integers("coordinates", coords).reshape(-1, 2)
    beyond = (np.abs(wide) > np.iinfo(np.int32).max).any(1)
    if beyond.any():
        k = int(beyond.argmax())
        raise ValueError(f"pixel {k} at {tuple(wide[k].tolist())} lies outside of any image")
    return np.ascontiguousarray(wide, np.int32)

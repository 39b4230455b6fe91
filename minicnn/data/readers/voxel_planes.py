"""3-D images of voxels, seen along an axis of their volume: a plane is two of x, y, z."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

#: Planes by number, as of PILArNet: rows and columns.
PROJECTIONS = ("zx", "yx", "zy")


class Pixels(NamedTuple):
    """Pixels of one plane: rows, columns and values (n,), in an image of ``shape`` (H, W)."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]


def planes_of_volume(wanted: Sequence[Any] | None) -> tuple[str, ...]:
    """Return the planes that are meant, "zx" where none is; ValueError."""
    planes = (0,) if wanted is None else wanted
    planes = tuple(PROJECTIONS[p] if p in (0, 1, 2) else str(p) for p in planes)
    right = all(len(p) == len(set(p)) == 2 and set(p) <= set("xyz") for p in planes)
    if not planes or not right or len(set(planes)) != len(planes):
        raise ValueError(
            f"a plane is 0, 1, 2 or two of x, y, z such as 'zx', each once; got {planes}"
        )
    return planes


def seen(counts: Sequence[int], plane: str) -> tuple[int, int]:
    """Return (rows, columns) of a volume of ``counts`` voxels along x, y and z."""
    rows, columns = (int(counts["xyz".index(axis)]) for axis in plane)
    return rows, columns


def project(
    places: Mapping[str, np.ndarray], values: np.ndarray, counts: Sequence[int], plane: str
) -> Pixels:
    """Return the pixels of voxels at ``places`` int64 (n,) along x, y and z with values float32
    (n,): those behind each other are added up, in float64.
    """
    shape = seen(counts, plane)
    width = max(shape[1], 1)
    key, of_pixel = np.unique(places[plane[0]] * width + places[plane[1]], return_inverse=True)
    return Pixels(key // width, key % width, np.bincount(of_pixel, values, len(key)), shape)

"""3-D images of voxels, seen along an axis of their volume: a plane is two of x, y, z."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..event import IGNORED, PIXEL_CLASSES
from ..sparse import SparseImage
from .placement import lit_pixels, merge, pad

#: Planes by number, as of PILArNet: rows and columns.
PROJECTIONS = ("zx", "yx", "zy")
IN_3D = "sparse3d"
#: Semantic class of larcv and PILArNet -> pixel class. Michel electrons (2) and delta rays (3) are
#: showers (see PIXEL_CLASSES); a low-energy deposit (4), and a class that is not known, is neither.
PIXEL_CLASS = {
    0: PIXEL_CLASSES.index("shower"),
    1: PIXEL_CLASSES.index("track"),
    2: PIXEL_CLASSES.index("shower"),
    3: PIXEL_CLASSES.index("shower"),
}
NEITHER = len(PIXEL_CLASSES)


class Pixels(NamedTuple):
    """Pixels of one plane: rows, columns and values (n,), in an image of ``shape`` (H, W)."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]


class Voxels(NamedTuple):
    """A 3-D tensor: numbers int64 (n,) of voxels in the file's own order, values float32 (n,),
    places int64 (n,) along x, y and z, in a volume of ``counts`` voxels.
    """

    numbers: np.ndarray
    values: np.ndarray
    places: Mapping[str, np.ndarray]
    counts: Sequence[int]

    def only(self, chosen: np.ndarray) -> Voxels:
        """Return the voxels for which ``chosen`` bool (n,) is true."""
        places = {axis: place[chosen] for axis, place in self.places.items()}
        return Voxels(self.numbers[chosen], self.values[chosen], places, self.counts)


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


def project(voxels: Voxels, plane: str) -> Pixels:
    """Return the pixels of a plane: voxels behind each other are added up, in float64."""
    shape = seen(voxels.counts, plane)
    width = max(shape[1], 1)
    key = voxels.places[plane[0]] * width + voxels.places[plane[1]]
    key, of_pixel = np.unique(key, return_inverse=True)
    values = np.bincount(of_pixel, voxels.values, len(key))
    return Pixels(key // width, key % width, values, shape)


def image_of(
    seen_planes: Sequence[Pixels], edge: int, threshold: float | None = None
) -> SparseImage:
    """Return (edge, edge, planes), each plane centred; pixels of 0 or below ``threshold`` are left
    out.
    """
    images = []
    for channel, pixels in enumerate(seen_planes):
        shape = (*pixels.shape, len(seen_planes))
        images.append(pad(lit_pixels(*pixels[:3], shape, threshold, channel), edge, edge))
    return merge(images)


def choose_semantics(names: Sequence[str], wanted: bool | str, producer: str) -> str:
    """Return the tensor of semantic classes that ``wanted`` means, among full ``names`` of images
    as in "sparse3d_pcluster_semantics"; True: the only one called so. ValueError.
    """
    tensors = [name for name in names if name.startswith(IN_3D)]
    if producer not in tensors:
        raise ValueError(
            f"pixel_labels= needs semantic classes of voxels, and {producer} are 2-D images; "
            f"choose 3-D tensors by producer= (there are {', '.join(tensors) or 'none'})"
        )
    chosen = [name for name in tensors if wanted in (name, name.split("_", 1)[1])]
    if wanted is True:
        chosen = [name for name in tensors if "semantics" in name]
    if len(chosen) != 1:
        problem = (
            "holds the semantic classes of several producers"
            if chosen
            else ("holds no semantic classes" + (f" {wanted!r}" if wanted is not True else ""))
        )
        raise ValueError(f"{problem}; choose by pixel_labels= one of {', '.join(tensors)}")
    return chosen[0]


def pixel_labels(
    image: SparseImage, voxels: Voxels, semantics: Voxels, planes: Sequence[str]
) -> np.ndarray:
    """Return uint8 (n,): the pixel class of each of the n lit pixels of ``image``, which
    ``image_of`` made of ``voxels``: the one that most of its charge is of. ``semantics`` has the
    semantic classes of voxels as values. IGNORED where most is of neither class or not known.
    """
    kinds, width = _pixel_classes(voxels, semantics), np.int64(image.shape[1])
    listed, sums = image.coords[:, 0] * width + image.coords[:, 1], []
    for kind in range(NEITHER + 1):
        some = voxels.only(kinds == kind)
        part = image_of([project(some, plane) for plane in planes], image.shape[0])
        numbers = part.coords[:, 0] * width + part.coords[:, 1]
        _, index, of_part = np.intersect1d(listed, numbers, True, return_indices=True)
        sums.append(np.zeros(image.nnz))
        sums[-1][index] = part.values[of_part].sum(1, dtype=np.float64)
    most = np.argmax(sums, 0)
    return np.where(most == NEITHER, IGNORED, most).astype(np.uint8)


def _pixel_classes(voxels, semantics):
    """int64 (n,): the pixel class of each voxel, NEITHER where it has none."""
    if list(semantics.counts) != list(voxels.counts):
        raise ValueError(
            f"has semantic classes in a volume of {list(semantics.counts)} voxels, and charge in "
            f"one of {list(voxels.counts)}"
        )
    order = np.argsort(semantics.numbers)
    known = semantics.numbers[order]
    if (known[1:] == known[:-1]).any():
        raise ValueError("has a voxel of two semantic classes")
    classes = [PIXEL_CLASS.get(value, NEITHER) for value in semantics.values[order].tolist()]
    index = np.searchsorted(known, voxels.numbers)
    kinds = np.array([*classes, NEITHER])[index]
    return np.where(np.array([*known, -1])[index] == voxels.numbers, kinds, NEITHER)

"""Kinds of images in larcv2 ROOT files, entry by entry; larcv2_root.py is their reader.

Layout (DeepLearnPhysics/larcv2, larcv/core/DataFormat), of a producer NAME:

    image2d_NAME_tree
        _image_v._img                           a vector of pixels per plane:
                                                flat[wire * ticks + tick]
        _image_v._meta._row_count, _col_count   ticks and wires of each plane
    sparse2d_NAME_tree
        _tensor_v._voxel_v                      a vector of voxels per plane: _id =
                                                wire * ticks + tick, _value
        _tensor_v._meta._row_count, _col_count
    sparse3d_NAME_tree
        _voxel_v._id, _value                    _id = (z * ny + y) * nx + x
        _meta._xnum, _ynum, _znum               nx, ny, nz
        _meta._xlen, ..., _p1.x, ..., _unit     edges of a voxel, corner of the volume; 1 is cm
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..axes import Axis
from ..event import EventError
from .reader import naming
from .voxel_planes import Pixels, Voxels, planes_of_volume, project, seen

ENTRIES_AT_A_TIME = 1000
#: What ROOT writes before vectors of voxels: whether their members follow one by one, and whether
#: the version of the class is given by a checksum.
MEMBERWISE, BYTES_OF_VERSIONS, BYTES_OF_CHECKSUM = 0x4000, 8, 4
#: larcv's DistanceUnit_t of centimetres.
CENTIMETRES = 1


class Product:
    """Images of one tree. A subclass says which ``planes`` a wish means, how large images of these
    are at most, and reads the pixels of an entry.
    """

    kind = "?"

    def __init__(self, tree: Any, path: Any) -> None:
        self._tree, self._path, self.entries = tree, path, int(tree.num_entries)

    def planes(self, wanted: Sequence[Any] | None) -> tuple[Any, ...]:
        """Return the planes that are read, those ``wanted`` or the default; ValueError."""
        raise NotImplementedError

    def largest(self, planes: Sequence[Any]) -> tuple[int, int]:
        """Return (rows, columns) that hold the images of all entries."""
        raise NotImplementedError

    def axes(self, planes: Sequence[Any]) -> tuple[tuple[Axis, Axis], tuple[int, int]]:
        """Return the axes of the first plane of the first sound entry, and its shape."""
        raise NotImplementedError

    def pixels(self, index: int, planes: Sequence[Any]) -> Iterator[Pixels]:
        """Yield the pixels of each of the planes of entry ``index``; ValueError where it is
        damaged.
        """
        raise NotImplementedError

    def _first(self, read: Any) -> Any:
        """Return read(i) of the first entry for which it is no error; the others are reported when
        they are read.
        """
        problem = None
        for i in range(self.entries):
            try:
                with naming(f"{self._path}, event {i}"):
                    return read(i)
            except EventError as its_problem:
                problem = problem or its_problem
        raise problem or ValueError("the file holds no events")

    def _columns(self, branches: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of branches, entry by entry."""
        for start in range(0, self.entries, ENTRIES_AT_A_TIME):
            stop = min(start + ENTRIES_AT_A_TIME, self.entries)
            yield from zip(*(b.array(entry_start=start, entry_stop=stop) for b in branches))


class Planes(Product):
    """What the two kinds of 2-D images share: planes are numbered, and each has a size."""

    vector, content = "?", "?"

    def __init__(self, tree: Any, path: Any) -> None:
        super().__init__(tree, path)
        self._content = branch(tree, f"{self.vector}.{self.content}")
        counts = [f"{self.vector}._meta.{name}" for name in ("_col_count", "_row_count")]
        self._counts = self._branches(tree, counts)

    def _branches(self, tree, names):
        return [branch(tree, name) for name in names]

    def planes(self, wanted: Sequence[Any] | None) -> tuple[Any, ...]:
        shapes = self._first(self._shapes)
        planes = (len(shapes) - 1,) if wanted is None else tuple(wanted)
        known = all(plane in range(len(shapes)) for plane in planes)
        if not planes or not known or len(set(planes)) != len(planes):
            raise ValueError(f"planes are 0 to {len(shapes) - 1}, each once; got {planes}")
        return planes

    def largest(self, planes: Sequence[Any]) -> tuple[int, int]:
        chosen = [self._first(self._shapes)[plane] for plane in planes]
        if self._counts:
            for wires, ticks in self._columns(self._counts):
                sizes = list(zip(wires, ticks))
                chosen += [sizes[plane] for plane in planes if plane < len(sizes)]
        wires, ticks = zip(*chosen)
        return int(max(wires)), int(max(ticks))

    def axes(self, planes: Sequence[Any]) -> tuple[tuple[Axis, Axis], tuple[int, int]]:
        return (Axis("wire"), Axis("tick")), self._first(self._shapes)[planes[0]]

    def pixels(self, index: int, planes: Sequence[Any]) -> Iterator[Pixels]:
        shapes, contents = self._shapes(index), self._contents(index)
        for plane in planes:
            if plane >= len(shapes):
                raise ValueError(f"has no plane {plane}, it has {len(shapes)} planes")
            yield self._of_plane(contents[plane], shapes[plane])

    def _contents(self, index):
        """What each of the planes of entry ``index`` holds."""
        raise NotImplementedError

    def _of_plane(self, content, shape):
        """Pixels of a plane, of its content and (wires, ticks)."""
        raise NotImplementedError

    def _shapes(self, index):
        """[(wires, ticks)] of the planes of entry ``index``; ValueError where it has none."""
        shapes = list(zip(*([int(n) for n in entry(count, index)] for count in self._counts)))
        if not shapes:
            raise ValueError("has no planes")
        return shapes


class DenseImages(Planes):
    """Images as all of their pixels. Without the counts of rows and columns they are square."""

    kind, vector, content = "image2d", "_image_v", "_img"

    def _branches(self, tree, names):
        found = [branch(tree, name, None) for name in names]
        return [] if any(count is None for count in found) else found

    def _contents(self, index):
        return entry(self._content, index)

    def _shapes(self, index):
        pixels = self._contents(index)
        if self._counts:
            shapes = list(zip(*([int(n) for n in entry(count, index)] for count in self._counts)))
        else:
            shapes = [(side, side) for side in (math.isqrt(len(content)) for content in pixels)]
        counts = [len(content) for content in pixels]
        if not shapes or [wires * ticks for wires, ticks in shapes] != counts:
            raise ValueError(f"has planes of {counts} pixels for images of {shapes}")
        return shapes

    def _of_plane(self, content, shape):
        image = np.asarray(content, np.float32).reshape(shape)
        lit = np.nonzero(image)
        return Pixels(*lit, image[lit], shape)


class SparseImages(Planes):
    """Images as their lit pixels."""

    kind, vector, content = "sparse2d", "_tensor_v", "_voxel_v"

    def _contents(self, index):
        return voxels(self._content, index)

    def pixels(self, index: int, planes: Sequence[Any]) -> Iterator[Pixels]:
        shapes, contents = self._shapes(index), self._contents(index)
        if len(contents) != len(shapes):
            raise ValueError(
                f"has the pixels of {len(contents)} planes, but sizes of {len(shapes)}"
            )
        return super().pixels(index, planes)

    def _of_plane(self, content, shape):
        number = _within(content[0], shape)
        return Pixels(number // max(shape[1], 1), number % max(shape[1], 1), content[1], shape)


class Tensors(Product):
    """3-D tensors, projected along an axis of their volume: a plane is two of x, y, z."""

    kind = "sparse3d"

    def __init__(self, tree: Any, path: Any) -> None:
        super().__init__(tree, path)
        self._id, self._value = (branch(tree, f"_voxel_v.{name}") for name in ("_id", "_value"))
        self._counts = [branch(tree, f"_meta._{axis}num") for axis in "xyz"]

    def planes(self, wanted: Sequence[Any] | None) -> tuple[Any, ...]:
        return planes_of_volume(wanted)

    def largest(self, planes: Sequence[Any]) -> tuple[int, int]:
        edges = [0, 0, 0]
        for counts in self._columns(self._counts):
            edges = [max(have, int(count)) for have, count in zip(edges, counts)]
        if not all(edges):
            raise ValueError("no event has a volume of voxels")
        shapes = [seen(edges, plane) for plane in planes]
        rows, columns = zip(*shapes)
        return max(rows), max(columns)

    def axes(self, planes: Sequence[Any]) -> tuple[tuple[Axis, Axis], tuple[int, int]]:
        volumes = enumerate(self._columns(self._counts))
        first, counts = next((i, counts) for i, counts in volumes if all(counts))
        axes = tuple(self._axis(first, axis) for axis in planes[0])
        return axes, seen(counts, planes[0])

    def _axis(self, index, axis):
        names = (f"_meta._{axis}len", f"_meta._p1.{axis}", "_meta._unit")
        found = [branch(self._tree, name, None) for name in names]
        if any(value is None for value in found):
            return Axis(f"{axis} voxel")
        edge, corner, unit = (float(entry(value, index)) for value in found)
        if unit != CENTIMETRES or not edge > 0 or not math.isfinite(edge + corner):
            return Axis(f"{axis} voxel")
        return Axis(f"{axis} voxel", length=axis, cm=edge, origin=corner)

    def pixels(self, index: int, planes: Sequence[Any]) -> Iterator[Pixels]:
        voxels = self.voxels(index)
        yield from (project(voxels, plane) for plane in planes)

    def voxels(self, index: int) -> Voxels:
        """Return the tensor of entry ``index``; ValueError where it is damaged."""
        counts = [int(entry(count, index)) for count in self._counts]
        value = np.asarray(entry(self._value, index), np.float32)
        number = _within(entry(self._id, index), counts)
        if len(value) != len(number):
            raise ValueError(f"has {len(number)} voxels and {len(value)} values")
        nx, ny = max(counts[0], 1), max(counts[1], 1)
        places = {"x": number % nx, "y": number // nx % ny, "z": number // (nx * ny)}
        return Voxels(number, value, places, counts)


#: Kinds of products that are read; of those in a file the first kind is the default.
KINDS = {kind.kind: kind for kind in (DenseImages, SparseImages, Tensors)}


def _within(numbers, counts):
    """Numbers of voxels int64 (n,); ValueError where one is not of an image of ``counts``."""
    numbers, voxel_count = np.asarray(numbers, np.uint64), min(math.prod(counts), 1 << 62)
    if len(numbers) and int(numbers.max()) >= voxel_count:
        volume = " x ".join(map(str, counts))
        raise ValueError(f"has the voxel {numbers.max()} in an image of {volume}")
    return numbers.astype(np.int64)


def voxels(branch: Any, index: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (ids, values) of each vector of voxels in entry ``index`` of a branch.

    uproot does not read such vectors where ROOT has written them member by member, as it does by
    default: a count of bytes, a version, that of the class and its checksum, and then of each
    vector its length, all ids and all values, in big-endian numbers.
    """
    import uproot

    as_bytes = uproot.AsJagged(uproot.AsDtype("u1"))
    array = branch.array(as_bytes, entry_start=index, entry_stop=index + 1, library="np")
    raw = np.asarray(array[0], np.uint8).tobytes()
    if len(raw) < BYTES_OF_VERSIONS or not int.from_bytes(raw[4:6], "big") & MEMBERWISE:
        return [(vector["_id"], vector["_value"]) for vector in entry(branch, index)]
    offset = BYTES_OF_VERSIONS
    if not int.from_bytes(raw[6:8], "big"):
        offset += BYTES_OF_CHECKSUM
    found = []
    while offset < len(raw):
        count = int.from_bytes(raw[offset : offset + 4], "big")
        ends = offset + 4, offset + 4 + 8 * count, offset + 4 + 12 * count
        if ends[2] > len(raw):
            raise ValueError(
                f"has {len(raw)} bytes of voxels, expected {ends[2]} or more: it is damaged"
            )
        values = np.frombuffer(raw, ">f4", count, ends[1]).astype(np.float32)
        found.append((np.frombuffer(raw, ">u8", count, ends[0]).astype(np.uint64), values))
        offset = ends[2]
    return found


def branch(tree: Any, name: str, *default: Any) -> Any:
    """Return the branch whose own name is ``name``, wherever in the tree it is; ``default`` where
    there is none, else ValueError.
    """
    for key in tree.keys():
        if key.split("/")[-1] == name:
            return tree[key]
    if default:
        return default[0]
    raise ValueError(f"{tree.name} has no branch {name!r}, it has {', '.join(tree.keys())}")


def entry(branch: Any, index: int) -> Any:
    """Return what a branch holds of entry ``index``."""
    return branch.array(entry_start=index, entry_stop=index + 1)[0]

"""larcv2 ROOT files: dense images of several planes and simulated particles, read through uproot
(pip install minicnn[root]).

Read here, for images of a producer NAME and particles of any (layout: DeepLearnPhysics/larcv2,
larcv/core/DataFormat):

    image2d_NAME_tree
        _image_v._img                           a vector of pixels per plane:
                                                flat[wire * ticks + tick]
        _image_v._meta._row_count, _col_count   ticks and wires of each plane
        _run, _subrun, _event
    particle_*_tree
        _part_v._pdg, _px, _py, _pz (GeV/c), _trackid, _parent_trackid, _process,
        _part_v._vtx._x, _end_pt._x ... (cm)

"mctruth" is taken where there are several particle trees. Without the counts of rows and columns
images are taken for square.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..axes import Axis, placed
from ..event import CLASS_OF_PDG, CLASSES, PARTICLE, Event, EventError
from .placement import lit_pixels, merge, place
from .reader import Reader, naming
from .truth import check_labels, label_of, particle_table

ENTRIES_AT_A_TIME = 1000


class Larcv2Root(Reader):
    """Events of a larcv2 ROOT file; the planes of one event are in memory at a time.

    producer: the NAME of the images, needed where there are several. plane: the index of a plane;
    or planes, several, one channel each; default: the last one of the first event. threshold:
    smallest pixel kept, in the file's units, None for all that are not 0. size: images are centred
    on size x size, larger ones summed in the smallest blocks that fit; default: the smallest square
    that holds the first event's image.

    The label is that of the primary particle of highest momentum, by ``label_of_pdg`` (PDG code ->
    index into ``class_names``), -1 where that knows none or the file has no particles.
    """

    name = "larcv2 (ROOT with image2d)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not Path(path).is_file():
            return False
        with open(path, "rb") as file:
            return file.read(4) == b"root"

    def __init__(
        self,
        path: str | Path,
        producer: str | None = None,
        plane: int | None = None,
        planes: Sequence[Any] | None = None,
        threshold: float | None = None,
        size: int | None = None,
        label_of_pdg: Mapping[int, int] = CLASS_OF_PDG,
        class_names: Sequence[str] = CLASSES,
    ) -> None:
        self.path, self.class_names, self.threshold, self._size = (
            Path(path),
            tuple(class_names),
            threshold,
            size,
        )
        self.planes = tuple(planes) if planes is not None else None if plane is None else (plane,)
        self._begin(_open(self.path), self._open_trees, producer, label_of_pdg)

    def _open_trees(self, producer, label_of_pdg):
        names = sorted({key.split(";")[0] for key in self._file.keys()})
        images = [
            name.removeprefix("image2d_").removesuffix("_tree")
            for name in names
            if name.startswith("image2d_")
        ]
        chosen = [name for name in images if producer in (None, name)]
        if not images:
            raise ValueError(
                "this ROOT file has no tree image2d_*_tree, it has "
                f"{', '.join(names) or 'nothing'}; of ROOT files "
                "minicnn reads larcv2 images"
            )
        if len(chosen) != 1:
            problem = (
                f"holds no images {producer!r}"
                if producer and not chosen
                else "holds the images of several producers"
            )
            raise ValueError(f"{problem}; choose by producer= one of {', '.join(images)}")
        self.producer, self._tree = chosen[0], self._file[f"image2d_{chosen[0]}_tree"]
        self._image = _branch(self._tree, "_image_v._img")
        self._counts = [
            _branch(self._tree, f"_image_v._meta.{name}", None)
            for name in ("_col_count", "_row_count")
        ]
        self._ids = [_branch(self._tree, name, None) for name in ("_run", "_subrun", "_event")]
        if not self._tree.num_entries:
            raise ValueError("the file holds no events")
        with naming(f"{self.path}, event 0"):
            shapes = self._shapes(0, _entry(self._image, 0))
        if self.planes is None:
            self.planes = (len(shapes) - 1,)
        if (
            not self.planes
            or not all(0 <= p < len(shapes) for p in self.planes)
            or len(set(self.planes)) != len(self.planes)
        ):
            raise ValueError(f"planes are 0 to {len(shapes) - 1}, each once; got {self.planes}")
        largest = [max(shapes[p][axis] for p in self.planes) for axis in (0, 1)]
        self._set_canvas(largest, self._size, len(self.planes))
        self.axes = placed(
            (Axis("wire"), Axis("tick")), shapes[self.planes[0]], self._edge, self._size
        )
        self.labels = np.full(self._tree.num_entries, -1, np.int32)
        trees = [name for name in names if name.startswith("particle_")]
        self._particles = None
        if trees:
            self._open_particles(
                "particle_mctruth_tree" if "particle_mctruth_tree" in trees else trees[0],
                label_of_pdg,
            )

    def _open_particles(self, name, label_of_pdg):
        tree = self._file[name]
        if tree.num_entries != len(self):
            raise ValueError(f"{name} has {tree.num_entries} entries for {len(self)} events")
        needed = [
            "_pdg",
            "_px",
            "_py",
            "_pz",
            "_trackid",
            "_parent_trackid",
            *(f"{point}.{axis}" for point in ("_vtx", "_end_pt") for axis in ("_x", "_y", "_z")),
        ]
        self._particles = {key: _branch(tree, f"_part_v.{key}") for key in needed}
        process = _branch(tree, "_part_v._process", None)
        if process is not None:
            self._particles["_process"] = process
        for start in range(0, len(self), ENTRIES_AT_A_TIME):
            stop = min(start + ENTRIES_AT_A_TIME, len(self))
            columns = {
                key: branch.array(entry_start=start, entry_stop=stop)
                for key, branch in self._particles.items()
            }
            for k in range(stop - start):
                with naming(f"{self.path}, event {start + k}"):
                    self.labels[start + k] = label_of(
                        _table({key: column[k] for key, column in columns.items()}), label_of_pdg
                    )
        check_labels(self.labels, self.class_names)

    def _shapes(self, i, planes):
        """[(wires, ticks)] of the planes of event ``i``."""
        if any(branch is None for branch in self._counts):
            sides = [math.isqrt(len(pixels)) for pixels in planes]
            shapes = [(side, side) for side in sides]
        else:
            shapes = list(zip(*([int(n) for n in _entry(branch, i)] for branch in self._counts)))
        if (
            not shapes
            or len(shapes) != len(planes)
            or any(w * t != len(p) for (w, t), p in zip(shapes, planes))
        ):
            raise ValueError(
                f"has planes of {[len(p) for p in planes]} pixels for images of {shapes}"
            )
        return shapes

    def _read(self, i):
        pixels = _entry(self._image, i)
        shapes = self._shapes(i, pixels)
        images = []
        for channel, plane in enumerate(self.planes):
            if plane >= len(shapes):
                raise ValueError(f"has no plane {plane}, it has {len(shapes)} planes")
            image = np.asarray(pixels[plane], np.float32).reshape(shapes[plane])
            lit = np.nonzero(image)
            image = lit_pixels(
                *lit, image[lit], (*image.shape, len(self.planes)), self.threshold, channel
            )
            images.append(place(image, self._edge, self._size))
        number = (
            (0, 0, i)
            if any(branch is None for branch in self._ids)
            else tuple(int(_entry(branch, i)) for branch in self._ids)
        )
        particles = np.zeros(0, PARTICLE)
        if self._particles:
            particles = _table({key: _entry(branch, i) for key, branch in self._particles.items()})
        return Event(merge(images), int(self.labels[i]), number, particles)


def _open(path):
    """The ROOT file, opened by uproot; EventError where uproot is missing or the file is
    damaged.
    """
    try:
        import uproot
    except ImportError as error:
        raise EventError(
            f"{path}: ROOT files are read through uproot, which is missing (pip install "
            "minicnn[root])"
        ) from error
    try:
        return uproot.open(path)
    except Exception as error:  # uproot has exceptions of its own for damaged files
        reason = str(error).strip().split("\n")[0]
        raise EventError(
            f"{path}: this ROOT file cannot be opened, it is truncated or damaged ({reason}); copy "
            "or make it again"
        ) from error


def _branch(tree, name, *default):
    """The branch whose own name is ``name``, wherever in the tree it is; ``default`` where there is
    none, else ValueError.
    """
    for key in tree.keys():
        if key.split("/")[-1] == name:
            return tree[key]
    if default:
        return default[0]
    raise ValueError(f"{tree.name} has no branch {name!r}, it has {', '.join(tree.keys())}")


def _entry(branch, i):
    return branch.array(entry_start=i, entry_stop=i + 1)[0]


def _table(columns):
    def points(*names):
        return np.stack([np.asarray(columns[name], np.float64) for name in names], 1)

    return particle_table(
        np.asarray(columns["_pdg"]),
        np.asarray(columns["_trackid"]),
        np.asarray(columns["_parent_trackid"]),
        points("_px", "_py", "_pz"),
        points("_vtx._x", "_vtx._y", "_vtx._z"),
        points("_end_pt._x", "_end_pt._y", "_end_pt._z"),
        columns.get("_process"),
    )

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

Momenta are in MeV/c where _energy_init and the masses say so. Without the counts of rows and
columns images are taken for square.
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
from .truth import check_labels, choose_particles, label_of, mev_per_unit, particle_table

ENTRIES_AT_A_TIME = 1000


class Larcv2Root(Reader):
    """Events of a larcv2 ROOT file; the planes of one event are in memory at a time.

    producer: the NAME of the images, needed where there are several. particles: that of the
    particles; default: the only ones, or mctruth. plane: the index of a plane; or planes, several,
    one channel each; default: the last one of the first event that has any. threshold: smallest
    pixel kept, in the file's units, None for all that are not 0. size: images are centred on size x
    size, larger ones summed in the smallest blocks that fit; default: the smallest square that
    holds all images of the file.

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
        particles: str | None = None,
    ) -> None:
        self.path, self.class_names, self.threshold, self._size = (
            Path(path),
            tuple(class_names),
            threshold,
            size,
        )
        self.planes = tuple(planes) if planes is not None else None if plane is None else (plane,)
        self._begin(_open(self.path), self._open_trees, producer, particles, label_of_pdg)

    def _open_trees(self, producer, particles, label_of_pdg):
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
        shapes = self._first_shapes()
        if self.planes is None:
            self.planes = (len(shapes) - 1,)
        if (
            not self.planes
            or not all(0 <= p < len(shapes) for p in self.planes)
            or len(set(self.planes)) != len(self.planes)
        ):
            raise ValueError(f"planes are 0 to {len(shapes) - 1}, each once; got {self.planes}")
        largest = self._largest(shapes)
        self._set_canvas(largest, self._size, len(self.planes))
        self.axes = placed(
            (Axis("wire"), Axis("tick")), shapes[self.planes[0]], self._edge, self._size
        )
        self.labels = np.full(self._tree.num_entries, -1, np.int32)
        trees = [
            name.removeprefix("particle_").removesuffix("_tree")
            for name in names
            if name.startswith("particle_")
        ]
        self._particles, chosen = None, choose_particles(trees, particles)
        if chosen is not None:
            self._open_particles(f"particle_{chosen}_tree", label_of_pdg)

    def _first_shapes(self):
        """Shapes of the planes of the first event that has any; the others are reported when they
        are read.
        """
        problem = None
        for i in range(self._tree.num_entries):
            try:
                with naming(f"{self.path}, event {i}"):
                    return self._shapes(i, _entry(self._image, i))
            except EventError as its_problem:
                problem = problem or its_problem
        raise problem

    def _largest(self, shapes):
        """(wires, ticks) of the largest image of the chosen planes; of the first event's where the
        file does not say the sizes of all.
        """
        chosen = [shapes[p] for p in self.planes]
        if all(branch is not None for branch in self._counts):
            for start in range(0, self._tree.num_entries, ENTRIES_AT_A_TIME):
                stop = min(start + ENTRIES_AT_A_TIME, self._tree.num_entries)
                columns = [
                    branch.array(entry_start=start, entry_stop=stop) for branch in self._counts
                ]
                for wires, ticks in zip(*columns):
                    sizes = list(zip(wires, ticks))
                    chosen += [sizes[p] for p in self.planes if p < len(sizes)]
        return [int(max(shape[axis] for shape in chosen)) for axis in (0, 1)]

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
        self._mev = self._unit_of_momentum(tree)
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
                        _table({key: column[k] for key, column in columns.items()}, self._mev),
                        label_of_pdg,
                    )
        check_labels(self.labels, self.class_names)

    def _unit_of_momentum(self, tree):
        """MeV/c of a unit of momentum in this file."""
        energy = _branch(tree, "_part_v._energy_init", None)
        if energy is None:
            return 1000.0
        stop = min(len(self), ENTRIES_AT_A_TIME)
        pdg, px, py, pz, total = (
            np.concatenate(
                [np.zeros(0), *map(np.asarray, branch.array(entry_start=0, entry_stop=stop))]
            )
            for branch in (*(self._particles[key] for key in ("_pdg", "_px", "_py", "_pz")), energy)
        )
        return mev_per_unit(pdg, np.stack([px, py, pz], 1), total)

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
            columns = {key: _entry(branch, i) for key, branch in self._particles.items()}
            particles = _table(columns, self._mev)
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
            '"minicnn[root]")'
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


def _table(columns, mev):
    def points(*names):
        return np.stack([np.asarray(columns[name], np.float64) for name in names], 1)

    return particle_table(
        np.asarray(columns["_pdg"]),
        np.asarray(columns["_trackid"]),
        np.asarray(columns["_parent_trackid"]),
        points("_px", "_py", "_pz") * (mev / 1000.0),
        (
            points("_vtx._x", "_vtx._y", "_vtx._z"),
            points("_end_pt._x", "_end_pt._y", "_end_pt._z"),
        ),
        columns.get("_process"),
    )

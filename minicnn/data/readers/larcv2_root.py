"""larcv2 ROOT files: images of several planes, dense, sparse or 3-D and projected, and simulated
particles, read through uproot (pip install "minicnn[root]").

Read here, for images of a producer NAME and particles of any (layout: DeepLearnPhysics/larcv2,
larcv/core/DataFormat):

    image2d_NAME_tree, sparse2d_NAME_tree, sparse3d_NAME_tree       see larcv2_products.py
        _run, _subrun, _event
    particle_*_tree
        _part_v._pdg, _px, _py, _pz (GeV/c), _trackid, _parent_trackid, _process,
        _part_v._vtx._x, _end_pt._x ... (cm)

Momenta are in MeV/c where _energy_init and the masses say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..axes import placed
from ..event import CLASS_OF_PDG, CLASSES, PARTICLE, Event, EventError
from .larcv2_products import ENTRIES_AT_A_TIME, KINDS, branch, entry
from .placement import shrink, shrink_labels
from .reader import Reader, naming
from .truth import check_labels, choose_particles, label_of, mev_per_unit, particle_table
from .voxel_planes import IN_3D, choose_semantics, image_of, pixel_labels

#: What names of images of labels, of voxels that belong together and of fits have in them.
NO_CHARGE = ("seg", "label", "semantics", "index", "chi2")


class Larcv2Root(Reader):
    """Events of a larcv2 ROOT file; the planes of one event are in memory at a time.

    producer: the NAME of the images, "wire" or "sparse2d_wire", needed where there are several of a
    kind; default: dense images before sparse ones, and these before 3-D ones; those with "seg",
    "label", "semantics", "index" or "chi2" in their name are not meant. particles: the NAME of the
    particles; default: the only ones, or mctruth. plane: the index of a plane, of 3-D tensors two
    of x, y, z, rows and columns, or 0, 1, 2 for "zx", "yx" and "zy"; or planes, several, one
    channel each; default: the last plane of the first event that has any, of 3-D tensors "zx".
    threshold: smallest pixel kept, in the file's units, None for all that are not 0. size: images
    are centred on size x size, larger ones summed in the smallest blocks that fit; default: the
    smallest square that holds all images of the file. pixel_labels: of 3-D tensors, label pixels
    as shower or track (PIXEL_CLASSES) by the semantic classes of their voxels: the NAME of the
    tensor that has these, or True for the only one with "semantics" in its name; a pixel has the
    class that most of its charge is of, IGNORED where that is a low-energy deposit or not known.

    Values of voxels behind each other are added up. The label is that of the primary particle of
    highest momentum, by ``label_of_pdg`` (PDG code -> index into ``class_names``), -1 where that
    knows none or the file has no particles.
    """

    name = "larcv2 (ROOT with image2d, sparse2d or sparse3d)"

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
        plane: int | str | None = None,
        planes: Sequence[Any] | None = None,
        threshold: float | None = None,
        size: int | None = None,
        label_of_pdg: Mapping[int, int] = CLASS_OF_PDG,
        class_names: Sequence[str] = CLASSES,
        particles: str | None = None,
        pixel_labels: bool | str = False,
    ) -> None:
        self.path, self.class_names, self.threshold, self._size = (
            Path(path),
            tuple(class_names),
            threshold,
            size,
        )
        self.planes = tuple(planes) if planes is not None else None if plane is None else (plane,)
        self._labelled = pixel_labels
        self._begin(_open(self.path), self._open_trees, producer, particles, label_of_pdg)

    def _open_trees(self, producer, particles, label_of_pdg):
        names = sorted({key.split(";")[0] for key in self._file.keys()})
        self.producer = _choose(names, producer)
        self._tree = self._file[f"{self.producer}_tree"]
        if not self._tree.num_entries:
            raise ValueError("the file holds no events")
        self._product = KINDS[self.producer.split("_")[0]](self._tree, self.path)
        self.planes = self._product.planes(self.planes)
        self._semantics = None
        if self._labelled:
            images = [name.removesuffix("_tree") for name in names if name.endswith("_tree")]
            chosen = choose_semantics(images, self._labelled, self.producer)
            self._semantics = KINDS[IN_3D](self._file[f"{chosen}_tree"], self.path)
            if self._semantics.entries != self._tree.num_entries:
                raise ValueError(
                    f"{chosen} has {self._semantics.entries} entries for {self._tree.num_entries} "
                    "events"
                )
        self._ids = [branch(self._tree, name, None) for name in ("_run", "_subrun", "_event")]
        self._set_canvas(self._product.largest(self.planes), self._size, len(self.planes))
        self.axes = placed(*self._product.axes(self.planes), self._edge, self._size)
        self.labels = np.full(self._tree.num_entries, -1, np.int32)
        trees = [
            name.removeprefix("particle_").removesuffix("_tree")
            for name in names
            if name.startswith("particle_")
        ]
        self._particles, chosen = None, choose_particles(trees, particles)
        if chosen is not None:
            self._open_particles(f"particle_{chosen}_tree", label_of_pdg)

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
        self._particles = {key: branch(tree, f"_part_v.{key}") for key in needed}
        self._mev = self._unit_of_momentum(tree)
        process = branch(tree, "_part_v._process", None)
        if process is not None:
            self._particles["_process"] = process
        for start in range(0, len(self), ENTRIES_AT_A_TIME):
            stop = min(start + ENTRIES_AT_A_TIME, len(self))
            columns = {
                key: column.array(entry_start=start, entry_stop=stop)
                for key, column in self._particles.items()
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
        energy = branch(tree, "_part_v._energy_init", None)
        if energy is None:
            return 1000.0
        stop = min(len(self), ENTRIES_AT_A_TIME)
        pdg, px, py, pz, total = (
            np.concatenate(
                [np.zeros(0), *map(np.asarray, column.array(entry_start=0, entry_stop=stop))]
            )
            for column in (*(self._particles[key] for key in ("_pdg", "_px", "_py", "_pz")), energy)
        )
        return mev_per_unit(pdg, np.stack([px, py, pz], 1), total)

    def _read(self, index):
        image = image_of(list(self._product.pixels(index, self.planes)), self._edge, self.threshold)
        small, labels = shrink(image, self.image_shape), None
        if self._semantics:
            classes = self._product.voxels(index), self._semantics.voxels(index)
            labels = shrink_labels(pixel_labels(image, *classes, self.planes), image, small)
        number = (
            (0, 0, index)
            if any(column is None for column in self._ids)
            else tuple(int(entry(column, index)) for column in self._ids)
        )
        particles = np.zeros(0, PARTICLE)
        if self._particles:
            columns = {key: entry(column, index) for key, column in self._particles.items()}
            particles = _table(columns, self._mev)
        return Event(small, int(self.labels[index]), number, particles, labels)


def _choose(names, producer):
    """Full name of the images to read among those of trees, as in "sparse3d_pcluster"."""
    images = [
        name.removesuffix("_tree")
        for kind in KINDS
        for name in names
        if name.startswith(f"{kind}_") and name.endswith("_tree")
    ]
    if not images:
        raise ValueError(
            f"this ROOT file has no tree {', '.join(f'{kind}_*_tree' for kind in KINDS)}, it has "
            f"{', '.join(names) or 'nothing'}; of ROOT files minicnn reads larcv2 images"
        )
    if producer is None:
        charges = [name for name in images if not any(word in name for word in NO_CHARGE)] or images
        kind = charges[0].split("_")[0]
        chosen = [name for name in charges if name.split("_")[0] == kind]
    else:
        chosen = [name for name in images if producer in (name, name.split("_", 1)[1])]
    if len(chosen) != 1:
        problem = (
            f"holds no images {producer!r}"
            if producer and not chosen
            else "holds the images of several producers"
        )
        raise ValueError(f"{problem}; choose by producer= one of {', '.join(images)}")
    return chosen[0]


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

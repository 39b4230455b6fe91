"""PILArNet and PILArNet-M HDF5 files: 3-D points with charge, projected onto a plane. Two layouts,
one entry per event:

    vlen (DeepLearnPhysics/PoLAr-MAE, Panda)
        point     8 numbers per point: x, y, z, energy, ?, time, electrons, dx
        cluster   5 numbers per cluster: size, fragment, group, interaction, semantic class; the
                  points follow in this order. 6 in PILArNet-M as published since: the last is the
                  particle, 0 photon, 1 electron, 2 muon, 3 pion, 4 proton, else none
        cluster_extra   beside clusters of 6, 5 numbers per cluster; not read (units unknown)
    flat (OmarAlterkait/pilarnet_w_larcv1), one *particle* per entry
        coordinates i2 (N, 3), charge f2 (N,), labels (PDG), with start_indices, end_indices (n,)

x, y, z are voxel numbers of a cube, 768 voxels of 3 mm a side in the published files. Semantic
classes: 0 shower, 1 track, 2 Michel electron, 3 delta ray, 4 low-energy deposit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..axes import Axis, placed
from ..event import CLASS_OF_PDG, CLASSES, IGNORED, PARTICLE, Event
from ..sparse import SparseImage
from .hdf5 import dataset, is_hdf5, open_hdf5
from .placement import pad, shrink, shrink_labels
from .reader import Reader, naming
from .truth import check_labels
from .voxel_planes import NEITHER, PIXEL_CLASS

VLEN, FLAT = (
    ("point", "cluster"),
    ("coordinates", "charge", "start_indices", "end_indices", "labels"),
)
#: Numbers per cluster of the vlen layout, without and with the particle, and per cluster_extra.
PLAIN, WITH_PARTICLE, EXTRA = 5, 6, 5
#: PDG codes of the particles of clusters.
PDG_OF_PARTICLE = (22, 11, 13, 211, 2212)
#: Events whose clusters are read at a time.
EVENTS_AT_A_TIME = 1000
PLANES = ("zx", "yx", "zy")
EXTRAS = "cluster_extra"
VOXEL_CM = 0.3


class Pilarnet(Reader):
    """Events (vlen layout) or particles (flat layout) of a PILArNet file, projected along an axis
    of the cube.

    plane: two of x, y, z: rows and columns of the image, or 0, 1, 2 for "zx" (z as the wires, x as
    the drift; default), "yx" and "zy"; or planes, several, one channel each. Energies of points in
    one pixel are added up; pixels that then are below ``threshold`` (None: that are 0) are dropped.
    extent: edge of the cube in voxels. without: semantic classes to leave out (vlen layout), (4,)
    for the low-energy deposits. size: images are centred on size x size, larger ones summed in the
    smallest blocks that fit; default: extent.

    single: give each particle of an event, the clusters of a group, as an event of its own with the
    id (0, event, group); for files that name particles. The label is that of the group's own
    fragment.

    Labels: of the flat layout and of single particles by ``label_of_pdg`` (PDG code -> index into
    ``class_names``), -1 where that knows none; events of the vlen layout are of several particles,
    so -1.
    pixel_labels: give each pixel the class, shower or track, with most energy in it, by the
    semantic classes of the vlen layout; IGNORED where low-energy deposits have most.
    """

    unit = "MeV"
    name = "PILArNet (HDF5 with point or coordinates)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file, naming(path):
            return all(name in file for name in VLEN) or all(name in file for name in FLAT)

    def __init__(
        self,
        path: str | Path,
        plane: int | str = 0,
        planes: Sequence[Any] | None = None,
        threshold: float | None = None,
        extent: int = 768,
        without: Sequence[int] = (),
        size: int | None = None,
        pixel_labels: bool = False,
        label_of_pdg: Mapping[int, int] = CLASS_OF_PDG,
        class_names: Sequence[str] = CLASSES,
        single: bool = False,
    ) -> None:
        self.path, self.class_names, self.threshold = Path(path), tuple(class_names), threshold
        self.planes = tuple(
            PLANES[p] if p in (0, 1, 2) else p for p in (planes if planes is not None else (plane,))
        )
        if not self.planes or any(
            len(set(p)) != 2 or len(p) != 2 or not set(p) <= set("xyz")
            for p in map(str, self.planes)
        ):
            raise ValueError(
                f"a plane is 0, 1, 2 or two of x, y, z such as 'zx'; got {self.planes}"
            )
        if extent < 1:
            raise ValueError(f"the extent of the cube is a positive number of voxels, got {extent}")
        self.extent, self._without = extent, tuple(without)
        self._labelled, self._single = bool(pixel_labels), bool(single)
        self._set_canvas((extent, extent), size, len(self.planes))
        names = zip(*self.planes)  # of the rows, and of the columns, in every channel
        voxels = [
            Axis(
                f"{'/'.join(dict.fromkeys(some))} voxel",
                length="/".join(dict.fromkeys(some)),
                cm=VOXEL_CM,
            )
            for some in names
        ]
        self.axes = placed(voxels, (extent, extent), self._edge, size)
        self._begin(open_hdf5(self.path), self._open, label_of_pdg)

    def _open(self, label_of_pdg):
        self._flat = FLAT[0] in self._file
        self._data = {name: dataset(self._file, name) for name in (FLAT if self._flat else VLEN)}
        entries = {name: len(self._data[name]) for name in (FLAT[2:] if self._flat else VLEN)}
        if len(set(entries.values())) != 1:
            raise ValueError(f"its tables differ in length: {entries}")
        self.labels = np.full(next(iter(entries.values())), -1, np.int32)
        if not self._flat:
            self._extra = dataset(self._file, EXTRAS) if EXTRAS in self._file else None
            if self._single:
                self._find_particles(len(self.labels), label_of_pdg)
            return
        if self._single:
            raise ValueError("holds single particles already (flat layout): single= is for events")
        if self._without or self._labelled:
            what = "without= leaves out" if self._without else "pixel_labels= needs"
            raise ValueError(
                f"{what} semantic classes, which this file (flat layout) does not have"
            )
        self._pdg = self._data["labels"][:].astype(np.int64)
        self._first, self._end = (
            self._data[name][:].astype(np.int64) for name in ("start_indices", "end_indices")
        )
        points = len(self._data["coordinates"])
        if len(self._data["charge"]) != points:
            raise ValueError(f"{points} coordinates, but {len(self._data['charge'])} charges")
        wrong = (self._first < 0) | (self._first > self._end) | (self._end > points)
        if wrong.any():
            k = int(wrong.argmax())
            raise ValueError(
                f"event {k} has the points {self._first[k]} to {self._end[k]} of {points}"
            )
        self.labels = np.array([label_of_pdg.get(int(pdg), -1) for pdg in self._pdg], np.int32)
        check_labels(self.labels, self.class_names)

    def _find_particles(self, events, label_of_pdg):
        """Set what events are: (event, group, PDG code) of each particle."""
        found = []
        for start in range(0, events, EVENTS_AT_A_TIME):
            for k, flat in enumerate(
                self._data["cluster"][start : start + EVENTS_AT_A_TIME], start
            ):
                if len(flat) % WITH_PARTICLE:
                    raise ValueError(
                        f"event {k} has {len(flat)} numbers for its clusters, no multiple of "
                        f"{WITH_PARTICLE}: single= needs clusters that name their particle"
                    )
                if not np.isfinite(flat).all():
                    raise ValueError(f"event {k} has a cluster of numbers that are not finite")
                clusters = np.asarray(flat).reshape(-1, WITH_PARTICLE).astype(np.int64)
                of_particles = (clusters[:, 5] >= 0) & (clusters[:, 5] < len(PDG_OF_PARTICLE))
                for group in np.unique(clusters[of_particles, 2]):
                    rows = clusters[of_particles & (clusters[:, 2] == group)]
                    own = rows[rows[:, 1] == group]
                    first = own[0] if len(own) else rows[rows[:, 0].argmax()]
                    found.append((k, group, PDG_OF_PARTICLE[first[5]]))
        self._places = np.array(found, np.int64).reshape(-1, 3)
        self._pdg = self._places[:, 2]
        self.labels = np.array([label_of_pdg.get(pdg, -1) for pdg in self._pdg.tolist()], np.int32)
        check_labels(self.labels, self.class_names)

    def _read(self, index):
        xyz, energy, semantic = self._particle(index) if self._flat else self._points(index)
        if not np.isfinite(xyz).all() or ((xyz < 0) | (xyz >= self.extent)).any():
            bad = xyz[~((xyz >= 0) & (xyz < self.extent)).all(1)][0]
            raise ValueError(
                f"has a point at {tuple(bad.tolist())}, outside the cube of {self.extent} voxels; "
                "is extent= right?"
            )
        voxel = xyz.astype(np.int64)
        rows, columns, values = [], [], []
        for channel, plane in enumerate(self.planes):
            rows.append(voxel[:, "xyz".index(plane[0])])
            columns.append(voxel[:, "xyz".index(plane[1])])
            values.append(np.zeros((len(voxel), len(self.planes)), np.float32))
            values[-1][:, channel] = energy
        image = SparseImage.from_pixels(
            np.concatenate(rows),
            np.concatenate(columns),
            np.concatenate(values),
            (self.extent, self.extent, len(self.planes)),
        )
        values = (
            image.values
            if self.threshold is None
            else np.where(image.values >= self.threshold, image.values, 0)
        )
        lit = (values != 0).any(1)
        labels = self._pixel_labels(image, rows, columns, energy, semantic)[lit]
        image = SparseImage(image.coords[lit], values[lit], image.shape)
        particles, number = np.zeros(int(self._flat or self._single), PARTICLE), (0, 0, index)
        if len(particles):
            particles["pdg"], particles["parent"] = self._pdg[index], -1
        if self._single:
            number = (0, *self._places[index, :2].tolist())
        padded = pad(image, self._edge, self._edge)
        small = shrink(padded, self.image_shape)
        known = shrink_labels(labels, padded, small) if self._labelled else None
        return Event(small, int(self.labels[index]), number, particles, known)

    def _pixel_labels(self, image, rows, columns, energy, semantic):
        """Return uint8 (n,): the class of each pixel of ``image``, from the points (m,) of each of
        its planes; all IGNORED where nobody asked.
        """
        labels = np.full(image.nnz, IGNORED, np.uint8)
        if not self._labelled:
            return labels
        kind = np.array([PIXEL_CLASS.get(int(k), NEITHER) for k in semantic], np.int64)
        sums = np.zeros((image.nnz, NEITHER + 1))
        for of_plane in zip(rows, columns):
            np.add.at(sums, (image.index_of(*of_plane), kind), energy)
        most = sums.argmax(1)
        labels[most < NEITHER] = most[most < NEITHER]
        return labels

    def _particle(self, index):
        points = slice(int(self._first[index]), int(self._end[index]))
        energy = self._data["charge"][points].astype(np.float32)
        return self._data["coordinates"][points].reshape(-1, 3), energy, None

    def _points(self, index):
        """(coordinates, energies, semantic classes) of the points of an event, or of one of its
        particles.
        """
        number = int(self._places[index, 0]) if self._single else index
        point = self._data["point"][number]
        if len(point) % 8:
            raise ValueError(f"has {len(point)} numbers for its points, no multiple of 8")
        point = point.reshape(-1, 8)
        cluster = self._clusters(number, len(point))
        size = cluster[:, 0].astype(np.int64)
        semantic = np.repeat(cluster[:, 4].astype(np.int64), size)
        keep = ~np.isin(semantic, self._without)
        if self._single:
            keep &= np.repeat(cluster[:, 2].astype(np.int64), size) == self._places[index, 1]
        return point[keep, :3], point[keep, 3], semantic[keep]

    def _clusters(self, number, points):
        """The clusters of an event of ``points`` points, a row each, of 5 or 6 columns: as many as
        cluster_extra says, or those by which the sizes add up.
        """
        flat, told = self._data["cluster"][number], []
        columns = (PLAIN, WITH_PARTICLE)
        if self._extra is not None:
            columns = (WITH_PARTICLE,)
            rows = len(self._extra[number]) // EXTRA
            if rows * WITH_PARTICLE != len(flat):
                raise ValueError(f"has {len(flat)} numbers for {rows} clusters of cluster_extra")
        for count in columns:
            if len(flat) % count:
                continue
            cluster = flat.reshape(-1, count)
            if not np.isfinite(cluster).all():
                raise ValueError("has a cluster of numbers that are not finite")
            size = cluster[:, 0].astype(np.int64)
            if not ((size < 0) | (size > points)).any() and size.sum() == points:
                return cluster
            told.append(f"{size.sum()} (of {count} numbers each)")
        raise ValueError(
            f"has {points} points, but its clusters count {' or '.join(told)}"
            if told
            else f"has {len(flat)} numbers for its clusters: no multiple of "
            f"{' nor '.join(map(str, columns))}"
        )

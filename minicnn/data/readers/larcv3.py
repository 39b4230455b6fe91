"""larcv3 HDF5 files: sparse and dense 2-D images of several projections (wire planes), 3-D tensors,
projected, and simulated particles.

Read here, for a product called NAME (layout: DeepLearnPhysics/larcv3, src/larcv3/core/dataformat):

    Events/event_id                              run, subrun, event
    Data/sparse2d_NAME_group/extents             first, N: rows of an event in the next two
                             voxel_extents       first, N, ID: rows in voxels of one projection
                             image_meta          projection_id, number_of_voxels (wires, ticks)
                             voxels              id = wire * ticks + tick, value
    Data/image2d_NAME_group/extents, image_extents, image_meta, images
                                                 the same; images are flat [wire, tick] pixels
    Data/sparse3d_NAME_group/extents, voxel_extents, image_meta, voxels
                                                 the same, one tensor per event with three numbers
                                                 of voxels; id = (x * ny + y) * nz + z
    Data/particle_NAME_group/extents, particles  pdg, trackid, parent_trackid, process,
                                                 px, py, pz (GeV/c), vtx, end_pt (cm)
Momenta are in MeV/c where energy_init and the masses say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..axes import Axis, placed
from ..event import CLASS_OF_PDG, CLASSES, PARTICLE, Event, EventError
from .hdf5 import dataset, is_hdf5, open_hdf5
from .placement import lit_pixels, merge, pad, shrink, shrink_labels
from .reader import Reader, naming
from .truth import check_labels, choose_particles, label_of, mev_per_unit, particle_table
from .voxel_planes import (
    IN_3D,
    Voxels,
    choose_semantics,
    image_of,
    pixel_labels,
    planes_of_volume,
    project,
    seen,
)

#: Kind of image -> (its table of projections, its pixels).
KINDS = {
    "sparse2d": ("voxel_extents", "voxels"),
    "image2d": ("image_extents", "images"),
    "sparse3d": ("voxel_extents", "voxels"),
}
#: What names of images of labels have in them, and of 3-D ones those of groups and of fits, too.
LABELS, LABELS_IN_3D = ("seg", "label"), ("seg", "label", "semantics", "index", "chi2")
FIELDS = ("pdg", "trackid", "parent_trackid", "px", "py", "pz", "vtx", "end_pt", "process")
EVENTS_AT_A_TIME = 1000


class Larcv3(Reader):
    """Events of a larcv3 HDF5 file; one projection of one event is in memory at a time.

    producer: the NAME of the images, "sbndwire" or "sparse2d_sbndwire"; needed where several could
    be meant (names with "seg" or "label" are taken for images of labels, and 3-D tensors are meant
    where there is nothing else). plane: a projection id, of 3-D tensors two of x, y, z, rows and
    columns, or 0, 1, 2 for "zx", "yx" and "zy"; or planes, several, one channel each; default: the
    last projection of the first event, by convention the collection plane, of 3-D tensors "zx",
    where values of voxels behind each other are added up. threshold: smallest pixel kept, in the
    file's units, None for all. size: images are centred on size x size, larger ones summed in the
    smallest blocks that fit; default: the smallest square that holds all images of the file.
    pixel_labels: of 3-D tensors, label pixels as shower or track (PIXEL_CLASSES) by the semantic
    classes of their voxels: the NAME of the tensor that has these, or True for the only one with
    "semantics" in its name; a pixel has the class that most of its charge is of, IGNORED where that
    is a low-energy deposit or not known.

    The label is that of the primary particle of highest momentum, by ``label_of_pdg`` (PDG code ->
    index into ``class_names``), -1 where that knows none (a neutrino, say) or the file has no
    particles.
    """

    name = "larcv3 (HDF5 with sparse2d, image2d or sparse3d)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file, naming(path):
            data = file.get("Data")
            return hasattr(data, "keys") and any(name.startswith(tuple(KINDS)) for name in data)

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
        self._begin(open_hdf5(self.path), self._open, producer, particles, label_of_pdg)

    def _open(self, producer, particles, label_of_pdg):
        self.producer = self._choose(producer)
        self._images, self._semantics = _Images(self._file["Data"], self.producer), None
        self._ids = dataset(self._file, "Events/event_id")[:]
        if self._labelled:
            chosen = choose_semantics(self._names(), self._labelled, self.producer)
            self._semantics = _Images(self._file["Data"], chosen)
        for images in filter(None, (self._images, self._semantics)):
            if len(self._ids) != len(images.extents):
                raise ValueError(
                    f"{len(self._ids)} event ids, but {images.name} has {len(images.extents)} "
                    "events"
                )
        if not len(self._ids):
            raise ValueError("the file holds no events")
        _, meta = self._images.rows(self._first_whole())
        if self._images.dimensions == 3:
            self._set_projections(meta)
        else:
            self._set_planes(meta)
        self.labels = np.full(len(self._ids), -1, np.int32)
        self._open_particles(particles, label_of_pdg)

    def _set_planes(self, meta):
        """Set planes, canvas and axes of 2-D images; ``meta``: of the first sound event."""
        known = meta["projection_id"].tolist()
        if self.planes is None:
            self.planes = (known[-1],)
        missing = [p for p in self.planes if p not in known]
        if missing or not self.planes or len(set(self.planes)) != len(self.planes):
            raise ValueError(f"planes are projections out of {known}, each once; got {self.planes}")
        every = self._images.meta[:]
        longest = every["number_of_voxels"][np.isin(every["projection_id"], self.planes)].max(0)
        self._set_canvas(longest.tolist(), self._size, len(self.planes))
        first = meta[np.isin(meta["projection_id"], self.planes)][0]
        shape = first["number_of_voxels"].tolist()
        self.axes = placed(_axes(first, ("wire", "tick")), shape, self._edge, self._size)

    def _set_projections(self, meta):
        """The same of 3-D tensors."""
        self.planes = planes_of_volume(self.planes)
        longest = self._images.meta["number_of_voxels"].max(0).tolist()
        largest = np.max([seen(longest, plane) for plane in self.planes], 0).tolist()
        self._set_canvas(largest, self._size, len(self.planes))
        axes = dict(zip("xyz", _axes(meta[0], ("x voxel", "y voxel", "z voxel"))))
        shape = seen(meta[0]["number_of_voxels"].tolist(), self.planes[0])
        chosen = [axes[axis] for axis in self.planes[0]]
        self.axes = placed(chosen, shape, self._edge, self._size)

    def _names(self):
        """Full names of the images in the file."""
        kinds = tuple(KINDS)
        return [
            name.removesuffix("_group") for name in self._file["Data"] if name.startswith(kinds)
        ]

    def _choose(self, producer):
        """Full name of the images to read, as in "sparse2d_sbndwire"."""
        names = self._names()
        if producer is None:
            images = [name for name in names if not name.startswith(IN_3D)]
            words = LABELS if images else LABELS_IN_3D
            images = images or names
            chosen = [n for n in images if not any(word in n for word in words)] or images
        else:
            chosen = [name for name in names if producer in (name, name.split("_", 1)[1])]
        if len(chosen) != 1:
            problem = (
                f"holds no images {producer!r}"
                if producer and not chosen
                else "holds the images of several producers"
            )
            raise ValueError(f"{problem}; choose by producer= one of {', '.join(names)}")
        return chosen[0]

    def _first_whole(self):
        """Number of the first event that has images; the others are reported when they are read."""
        problem = None
        for i in range(len(self._ids)):
            try:
                with naming(f"{self.path}, event {i}"):
                    self._images.rows(i)
                return i
            except EventError as its_problem:
                problem = problem or its_problem
        raise problem

    def _open_particles(self, wanted, label_of_pdg):
        groups = [
            name.removeprefix("particle_").removesuffix("_group")
            for name in self._file["Data"]
            if name.startswith("particle_")
        ]
        chosen, self._particles = choose_particles(groups, wanted), None
        if chosen is None:
            return
        name = f"particle_{chosen}_group"
        group = self._file["Data"][name]
        extents, table = dataset(group, "extents")[:], dataset(group, "particles")
        # Numbers from 2^63 on become negative ones, and sums of large ones do.
        first, count = extents["first"].astype(np.int64), extents["N"].astype(np.int64)
        most = len(table)
        wrong = (first < 0) | (first > most) | (count < 0) | (count > most - first)
        if len(extents) != len(self) or wrong.any():
            raise ValueError(
                f"{name} counts {count.sum()} particles in {len(extents)} events; the file "
                f"has {len(table)} particles and {len(self)} events"
            )
        missing = [field for field in FIELDS if field not in table.dtype.names]
        if missing:
            raise ValueError(
                f"{name}/particles has no field {', '.join(missing)}, it has "
                f"{', '.join(table.dtype.names)}"
            )
        self._particles = (table, first, count)
        self._mev = self._unit_of_momentum(table)
        for start in range(0, len(self), EVENTS_AT_A_TIME):
            some = slice(start, min(start + EVENTS_AT_A_TIME, len(self)))
            low, high = first[some].min(), (first[some] + count[some]).max()
            block = table.fields(FIELDS)[low:high]
            for k in range(some.start, some.stop):
                self.labels[k] = label_of(
                    _table(block[first[k] - low : first[k] - low + count[k]], self._mev),
                    label_of_pdg,
                )
        check_labels(self.labels, self.class_names)

    def _unit_of_momentum(self, table):
        """MeV/c of a unit of momentum in this file."""
        if "energy_init" not in table.dtype.names:
            return 1000.0
        rows = table.fields((*FIELDS, "energy_init"))[:EVENTS_AT_A_TIME]
        momentum = np.stack([rows["px"], rows["py"], rows["pz"]], 1)
        return mev_per_unit(rows["pdg"], momentum, rows["energy_init"])

    def _read(self, index):
        labels = None
        if self._images.dimensions == 3:
            voxels = self._images.voxels(index)
            seen_planes = [project(voxels, plane) for plane in self.planes]
            image = image_of(seen_planes, self._edge, self.threshold)
        else:
            image = self._image(index)
        small = shrink(image, self.image_shape)
        if self._semantics:
            found = pixel_labels(image, voxels, self._semantics.voxels(index), self.planes)
            labels = shrink_labels(found, image, small)
        particles = np.zeros(0, PARTICLE)
        if self._particles is not None:
            table, first, count = self._particles
            particles = _table(
                table.fields(FIELDS)[first[index] : first[index] + count[index]], self._mev
            )
        number = tuple(int(n) for n in self._ids[index])
        return Event(small, int(self.labels[index]), number, particles, labels)

    def _image(self, index):
        """Image (edge, edge, planes) of the planes of an event."""
        rows, meta = self._images.rows(index)
        images = []
        for channel, plane in enumerate(self.planes):
            places = np.flatnonzero(meta["projection_id"] == plane)
            if len(places) != 1:
                known = meta["projection_id"].tolist()
                raise ValueError(
                    f"has projection {plane} {len(places)} times; its projections are {known}"
                )
            image = self._plane_image(rows[places[0]], meta[places[0]], channel)
            images.append(pad(image, self._edge, self._edge))
        return merge(images)

    def _plane_image(self, row, meta, channel):
        wires, ticks = (int(n) for n in meta["number_of_voxels"])
        pixels, shape = self._images.pixels(row, meta), (wires, ticks, len(self.planes))
        count = len(pixels)
        if pixels.dtype.names is None:
            if count != wires * ticks:
                raise ValueError(
                    f"projection {meta['projection_id']} has {count} pixels for an image of "
                    f"{wires} x {ticks}"
                )
            image = pixels.reshape(wires, ticks)
            lit = np.nonzero(image)
            return lit_pixels(*lit, image[lit], shape, self.threshold, channel)
        number = _within(pixels["id"], (wires, ticks), meta)
        return lit_pixels(
            number // ticks, number % ticks, pixels["value"], shape, self.threshold, channel
        )


class _Images:
    """The images of one producer, by its full name.

    extents: (first, number) of the projections of each event. meta: what the file says of all
    projections. dimensions: 2 or 3.
    """

    def __init__(self, data: Any, name: str) -> None:
        group, self.name = data[f"{name}_group"], name
        projections, pixels = KINDS[name.split("_")[0]]
        for needed in ("extents", projections, "image_meta", pixels):
            if needed not in group:
                raise ValueError(
                    f"{name}_group has no dataset {needed!r}, it has {', '.join(group)}"
                )
        self.dimensions = 3 if name.startswith(IN_3D) else 2
        self.extents = dataset(group, "extents")[:]
        self._projections, self.meta, self._pixels = (
            dataset(group, needed) for needed in (projections, "image_meta", pixels)
        )

    def rows(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows in the pixels, meta) of the projections of event ``index``."""
        first, count = (int(n) for n in self.extents[index])
        rows, meta = self._projections[first : first + count], self.meta[first : first + count]
        if not count or len(rows) != count or len(meta) != count:
            raise ValueError(
                f"has {len(rows)} projections and {len(meta)} descriptions, the event should have "
                f"{max(count, 1)}"
            )
        if meta["number_of_voxels"].shape[1:] != (self.dimensions,):
            raise ValueError(
                f"has sizes {meta['number_of_voxels'].tolist()}, expected {self.dimensions} each"
            )
        return rows, meta

    def pixels(self, row: Any, meta: Any) -> np.ndarray:
        """Return what the file has of the pixels of one projection."""
        first, count = int(row["first"]), int(row["N"])
        pixels: np.ndarray = self._pixels[first : first + count]
        if len(pixels) != count:
            raise ValueError(
                f"projection {meta['projection_id']} has {len(pixels)} pixels, should have {count}"
            )
        return pixels

    def voxels(self, index: int) -> Voxels:
        """Return the one 3-D tensor of event ``index``."""
        rows, meta = self.rows(index)
        if len(rows) != 1:
            raise ValueError(f"has {len(rows)} tensors, expected 1")
        pixels = self.pixels(rows[0], meta[0])
        counts = [int(n) for n in meta[0]["number_of_voxels"]]
        number = _within(pixels["id"], counts, meta[0])
        ny, nz = max(counts[1], 1), max(counts[2], 1)
        places = {"x": number // (ny * nz), "y": number // nz % ny, "z": number % nz}
        return Voxels(number, pixels["value"], places, counts)


def _within(numbers, counts, meta):
    """Numbers of pixels int64 (n,); ValueError where one is not of an image of ``counts``."""
    numbers = numbers.astype(np.int64)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < math.prod(counts):
        raise ValueError(
            f"projection {meta['projection_id']} has the pixel id {numbers.max()} in an image of "
            f"{' x '.join(map(str, counts))}"
        )
    return numbers


def _axes(meta, names):
    """Axes of the first image as its meta has them; what its lengths are, wires and ticks or cm,
    the file does not say.
    """
    voxels = np.maximum(np.asarray(meta["number_of_voxels"], float), 1)
    steps, origin = (
        np.asarray(meta[name], float) if name in meta.dtype.names else None
        for name in ("image_sizes", "origin")
    )
    steps = np.ones(len(names)) if steps is None else steps / voxels
    origin = np.zeros(len(names)) if origin is None else origin
    return tuple(
        Axis(name, float(step) or 1.0, float(start))
        for name, step, start in zip(names, steps, origin)
    )


def _table(rows, mev):
    momentum = np.stack([rows["px"], rows["py"], rows["pz"]], 1) * (mev / 1000.0)
    start, end = (np.stack([rows[name][axis] for axis in "xyz"], 1) for name in ("vtx", "end_pt"))
    numbers = rows["pdg"], rows["trackid"], rows["parent_trackid"]
    return particle_table(*numbers, momentum, (start, end), rows["process"])

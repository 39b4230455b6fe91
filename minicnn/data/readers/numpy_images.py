"""Dense images in NumPy files: one .npy or .npz file, or a folder of them with a sub-folder per
class.

An image is (H, W) or (H, W, C) of any real type, or (C, H, W) where that is said. In an .npz it is
the array named by ``key``, else ``img``, ``image`` or the only one. Hidden files, as those that a
Mac puts beside others, are none. Sub-folders that all name particles (gamma, photon, e+-,
electron, mu+-, muon, pi+-, pion, K+, kaon) get minicnn's classes, others are the classes
themselves, in sorted order. Files directly in the folder have label -1.

The published preview of a MicroBooNE Open Samples event (uint8 ``img`` and int8 ``label``, both
3456 x 1067: ticks summed by 6, value * 100 / 255 = ADC) is known by its arrays and placed on 3600 x
3600 pixels at two ticks a column.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..axes import Axis, placed
from ..detector import (
    COLLECTION_WIRES,
    DETECTOR_SIZE,
    FIRST_WIRE_CM,
    MEASURED_CM_PER_TICK,
    TRIGGER_TICK,
    WIRE_PITCH_CM,
)
from ..event import CLASSES, Event, EventError
from ..sparse import SparseImage
from .npy import read_header
from .placement import pad, place, repeat_ticks
from .reader import Reader, naming

#: Most values of a dense image: a quarter of a gigabyte on disk may be a few kB in an .npz.
MOST_DENSE = 1 << 28
#: Most channels of an image; a third axis that is longer is one of rows, or of a stack of images.
MOST_CHANNELS = 16
#: A table has fewer columns than this, and many more rows.
FEWEST_PIXELS = 8
SUFFIXES = (".npy", ".npz")
FOLDER_NAMES = {
    "gamma": 0,
    "photon": 0,
    "e": 1,
    "e+-": 1,
    "electron": 1,
    "mu": 2,
    "mu+-": 2,
    "muon": 2,
    "pi": 3,
    "pi+-": 3,
    "pion": 3,
    "k": 4,
    "k+": 4,
    "kaon": 4,
}
#: of the preview: wires and sums of 6 ticks
PREVIEW_SHAPE = (COLLECTION_WIRES, 1067)
#: of the preview on its canvas, at two ticks a column; x is 0 at the trigger's tick
PREVIEW_AXES = placed(
    (
        Axis("wire", length="z", cm=WIRE_PITCH_CM, origin=FIRST_WIRE_CM),
        Axis(
            "tick",
            2.0,
            0.0,
            "x",
            2 * MEASURED_CM_PER_TICK,
            -TRIGGER_TICK * MEASURED_CM_PER_TICK,
        ),
    ),
    (COLLECTION_WIRES, 3 * PREVIEW_SHAPE[1]),
    DETECTOR_SIZE,
)
PREVIEW = {"img": (PREVIEW_SHAPE, np.dtype("u1")), "label": (PREVIEW_SHAPE, np.dtype("i1"))}


class NumpyImages(Reader):
    """Dense .npy / .npz images, each loaded when it is read; images are float32, lit where not 0.

    key: the array of an .npz. class_names: the classes, in the order of the labels, when the
    folders are not to decide. size: place every image, centred, on size x size pixels; larger
    images are summed by the smallest block that makes the largest one fit. Without it all images
    must have one shape, that of the first sound file. channels_first: images are (C, H, W).
    Raises EventError for damaged files.
    """

    name = "dense NumPy images (.npy, .npz or a folder of them, a sub-folder per class)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        path = Path(path)
        if path.is_dir():
            return bool(_files(path) or any(_files(folder) for folder in _folders(path)))
        with open(path, "rb") as file:
            start = file.read(6)
        with naming(path):
            return start == b"\x93NUMPY" or (start[:4] == b"PK\3\4" and bool(_headers(path)))

    def __init__(
        self,
        path: str | Path,
        key: str | None = None,
        class_names: Sequence[str] | None = None,
        size: int | None = None,
        channels_first: bool = False,
    ) -> None:
        self.path, self._key, self._channels_first = Path(path), key, channels_first
        self._sources = [(self.path, -1)]
        self.class_names = tuple(class_names or CLASSES)
        if self.path.is_dir():
            folders = [folder for folder in _folders(self.path) if _files(folder)]
            label_of = self._label_of([folder.name for folder in folders], class_names)
            self._sources = [(file, -1) for file in _files(self.path)]
            self._sources += [
                (file, label_of[folder.name]) for folder in folders for file in _files(folder)
            ]
        if not self._sources:
            raise EventError(f"{self.path}: no .npy or .npz file here nor in a sub-folder")
        self.labels = np.array([label for _, label in self._sources], np.int32)
        first, shapes = self._sound_shapes(all_files=size is not None)
        self._native, self._first, (h, w, c) = shapes[0], first, shapes[0]
        with naming(first):
            if _headers(first) == PREVIEW and key in (None, "img"):
                self.axes, self.unit = PREVIEW_AXES, "ADC"
            self.image_shape = self._native
            if size is not None:
                longest = max(max(shape[:2]) for shape in shapes)
                self._set_canvas((longest, longest), size, c)
                self.axes = placed(self.axes, (h, w), self._edge, size)

    def _sound_shapes(self, all_files):
        """(the first file whose header can be read, [its shape, and those of the others]); the
        others are reported when they are read.
        """
        first, shapes, problem = None, [], None
        for file, _ in self._sources:
            try:
                with naming(file):
                    shapes.append(self._shape(file))
            except EventError as its_problem:
                problem = problem or its_problem
                continue
            first = first or file
            if not all_files:
                break
        if first is None:
            raise problem
        return first, shapes

    def _label_of(self, names, class_names):
        if class_names is None and all(name.lower() in FOLDER_NAMES for name in names):
            return {name: FOLDER_NAMES[name.lower()] for name in names}
        if class_names is None:
            self.class_names = tuple(names)
        for name in names:
            if name not in self.class_names:
                raise EventError(
                    f"{self.path}: the sub-folder {name!r} is none of the classes "
                    f"{', '.join(self.class_names)}"
                )
        return {name: self.class_names.index(name) for name in names}

    def _shape(self, file):
        """(H, W, C) of the image in a file, from the array's header alone."""
        headers = _headers(file)
        if headers == PREVIEW and self._key in (None, "img"):
            return (DETECTOR_SIZE, DETECTOR_SIZE, 1)
        shape, dtype = headers[_choose(headers, self._key)]
        if dtype.names:
            raise ValueError(
                f"holds records of {len(dtype.names)} fields ({', '.join(dtype.names[:8])}), not "
                "an image"
            )
        if len(shape) not in (2, 3) or 0 in shape or dtype.kind not in "buif":
            raise ValueError(
                f"expected an image (H, W) or (H, W, C) of real numbers, got {dtype} {shape}"
            )
        if self._channels_first and len(shape) == 3:
            shape = (*shape[1:], shape[0])
        shape = shape if len(shape) == 3 else (*shape, 1)
        if shape[2] > MOST_CHANNELS:
            raise ValueError(
                f"{shape} would be an image of {shape[2]} channels: of a stack of images save each "
                "to a file of its own; where channels are first, say --option channels_first=true"
            )
        if min(shape[:2]) < FEWEST_PIXELS and max(shape[:2]) > 8 * min(shape[:2]):
            raise ValueError(f"{shape[0]} x {shape[1]} is a table, not an image")
        if math.prod(shape) > MOST_DENSE:
            raise ValueError(
                f"the image {shape} has more than {MOST_DENSE:,} values; dense images are read "
                "whole: cut it, or store its lit pixels in a minicnn event file"
            )
        return shape

    def _read(self, index):
        file, label = self._sources[index]
        with naming(
            f"{file}, event {index} of {self.path}"
            if file != self.path
            else f"{file}, event {index}"
        ):
            shape, headers = self._shape(file), _headers(file)
            if shape != self._native if not self._edge else shape[2] != self._native[2]:
                raise ValueError(
                    f"the image has shape {shape}, the first one, {self._first.name}, has "
                    f"{self._native}; give size= to place images of several shapes"
                )
            array = np.load(file, mmap_mode="r", allow_pickle=False)
            if isinstance(array, np.lib.npyio.NpzFile):
                with array:
                    array = array[_choose(headers, self._key)]
            if self._channels_first and array.ndim == 3:
                array = np.moveaxis(array, 0, -1)
            with np.errstate(over="ignore"):  # becomes infinite, which SparseImage refuses
                image = SparseImage.from_dense(array)
            if headers == PREVIEW and self._key in (None, "img"):
                adc = SparseImage(image.coords, image.values * np.float32(100 / 255), image.shape)
                image = pad(repeat_ticks(adc, 3), DETECTOR_SIZE, DETECTOR_SIZE)
            if self._edge:
                image = place(image, self._edge, self._size)
            return Event(image, label, (0, 0, index))


def _files(folder):
    files = (file for file in folder.iterdir() if not file.name.startswith("."))
    return sorted(file for file in files if file.suffix in SUFFIXES and file.is_file())


def _folders(folder):
    return sorted(
        inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith(".")
    )


def _headers(path):
    """Array name -> (shape, dtype) of an .npz; of an .npy, whose only array is called ''."""
    with open(path, "rb") as file:
        if file.read(1) == b"\x93":
            file.seek(0)
            header = read_header(file, path.stat().st_size)
            return {"": (header.shape, header.dtype)}
    with zipfile.ZipFile(path) as archive:
        headers = {}
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as member:
                    header = read_header(member, archive.getinfo(name).file_size)
                    headers[name.removesuffix(".npy")] = header.shape, header.dtype
        return headers


def _choose(headers, key):
    only = list(headers) if len(headers) == 1 else []
    for name in ["img", "image", *only] if key is None or "" in headers else [key]:
        if name in headers:
            return name
    raise ValueError(
        f"holds the arrays {', '.join(headers)}; say by key= which is the image"
        + (f" (there is no {key!r})" if key is not None else "")
    )

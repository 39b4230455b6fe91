"""kevlar HDF5: the files that the talk's own network was trained on (HEP-DL/kevlar, Converters).

Read here:

    image/wires     int32 (n, planes, ticks, wires), a chunk per event: deconvolved signals in
                    regions of interest, 0 elsewhere; 3 x 9600 x 3600 (or 3456) in their production
    label/type      int32 (n, species): how many particles of each species are in the event,
                    secondaries too; attributes label_index0, ... name them
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..axes import Axis, placed
from ..detector import WIRES_OF_PLANE
from ..event import CLASSES, Event
from .hdf5 import dataset, is_hdf5, open_hdf5
from .placement import lit_pixels, merge, place
from .reader import Reader, naming

IMAGES, SPECIES = "image/wires", "label/type"
#: Ticks of a whole readout, and those of it that the talk used: the drift behind the trigger.
READOUT, DRIFT = 9600, (2200, 5400)
CLASS_OF_SPECIES = {
    "gamma": 0,
    "e-": 1,
    "e+": 1,
    "mu-": 2,
    "mu+": 2,
    "pi-": 3,
    "pi+": 3,
    "K+": 4,
}


class Kevlar(Reader):
    """Events of a kevlar file; one plane of one event is in memory at a time, beside the chunk that
    it is in (415 MB in their production).

    plane: 0, 1 or 2; or planes, several, one channel each. threshold: smallest pixel kept, None for
    all that are not 0. ticks: (first, end) of those that are read; default: 2200 to 5400 of a
    readout of 9600, else all. size: images are centred on size x size, larger ones summed in the
    smallest blocks that fit; default: the smallest square that holds them.

    label: the class of all events of a file, by name: their files are of one species each. Without
    it an event has the label of the only species that is in it, and -1 where there are several: the
    counts do not tell a primary from what it makes.
    """

    unit = "ADC"
    name = "kevlar (HDF5 with image/wires)"

    @staticmethod
    def recognizes(path: str | Path) -> bool:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file, naming(path):
            return IMAGES in file and len(file[IMAGES].shape) == 4

    def __init__(
        self,
        path: str | Path,
        plane: int = 2,
        planes: Sequence[Any] | None = None,
        threshold: float | None = 40.0,
        ticks: Sequence[int] | None = None,
        size: int | None = None,
        label: str | None = None,
        class_names: Sequence[str] = CLASSES,
    ) -> None:
        self.path, self.class_names, self.threshold = Path(path), tuple(class_names), threshold
        self.planes = tuple(planes) if planes is not None else (plane,)
        if label is not None and label not in self.class_names:
            raise ValueError(
                f"label= is one of the classes {', '.join(self.class_names)}, got {label!r}"
            )
        self._begin(open_hdf5(self.path), self._open, ticks, size, label)

    def _open(self, ticks, size, label):
        self._images = dataset(self._file, IMAGES)
        if self._images.ndim != 4 or self._images.dtype.kind not in "iuf":
            raise ValueError(f"{IMAGES} is {self._images.dtype} {self._images.shape}")
        events, planes, readout, wires = self._images.shape
        if not set(self.planes) <= set(range(planes)) or len(set(self.planes)) != len(self.planes):
            raise ValueError(f"planes are 0 to {planes - 1}, each once; got {self.planes}")
        first, end = ticks or (DRIFT if readout == READOUT else (0, readout))
        if not 0 <= first < end <= readout:
            raise ValueError(f"ticks are (first, end) of {readout}, got {first}, {end}")
        self._ticks = slice(first, end)
        # Planes are stored as wide as the widest, or wider: what lies behind the wires is empty.
        known = WIRES_OF_PLANE if wires >= max(WIRES_OF_PLANE) else (wires,) * planes
        self._wires = [known[plane] for plane in self.planes]
        shape = (max(self._wires), end - first)
        self._set_canvas(shape, size, len(self.planes))
        axes = (Axis("wire"), Axis("tick", 1.0, float(first)))
        self.axes = placed(axes, shape, self._edge, size)
        labels = self._labels(events) if label is None else self.class_names.index(label)
        self.labels = np.full(events, labels, np.int32)

    def _labels(self, events):
        if SPECIES not in self._file:
            return -1
        table = dataset(self._file, SPECIES)
        if table.ndim != 2 or len(table) != events:
            raise ValueError(f"{SPECIES} has the shape {table.shape} for {events} events")
        names = [_text(table.attrs.get(f"label_index{k}", "")) for k in range(table.shape[1])]
        other = len(CLASS_OF_SPECIES)
        label_of = np.array([CLASS_OF_SPECIES.get(name, other + k) for k, name in enumerate(names)])
        labels = np.full(events, -1)
        for k, counts in enumerate(table[:]):
            kinds = set(label_of[counts > 0].tolist())
            if len(kinds) == 1 and (kind := kinds.pop()) < len(self.class_names):
                labels[k] = kind if kind < other else -1
        return labels

    def _read(self, index):
        images = []
        for channel, (plane, wires) in enumerate(zip(self.planes, self._wires)):
            image = self._images[index, plane, self._ticks]
            if image[:, wires:].any():
                behind = wires + int(image[:, wires:].any(0).argmax())
                raise ValueError(f"plane {plane} of {wires} wires has a signal on wire {behind}")
            ticks, wire_numbers = np.nonzero(image)
            shape = (wires, image.shape[0], len(self.planes))
            lit = lit_pixels(
                wire_numbers, ticks, image[ticks, wire_numbers], shape, self.threshold, channel
            )
            images.append(place(lit, self._edge, self._size))
        return Event(merge(images), int(self.labels[index]), (0, 0, index))


def _text(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.rstrip("\0 ")

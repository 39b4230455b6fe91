"""The reader of simulated events: ``Simulator(seed).read(i)``."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.axes import MICROBOONE
from ..data.event import PARTICLE, Event
from ..data.sparse import SparseImage
from .samples import DEFAULT_SAMPLE, SPECIES, Sample, sample_named

FEWEST_LIT = 10
#: Numbers of the readout that may be 0.
MAY_BE_ZERO = ("noise", "longitudinal", "transverse", "padding", "induced", "space_charge")


class Simulator:
    """An endless source of simulated LArTPC events of one particle; event number
    ``index`` depends on (seed, index) and on nothing else.

    seed: a non-negative integer. shape: (height, width, planes) of the image; (height, width) is
    one plane, and a number the edge of a square one. 3600 x 3600 is one pixel per wire and
    microsecond; a smaller size sums the full image's lit pixels over blocks, so the picture stays
    the same. One plane is the collection plane; three are collection, induction at +60 and at -60
    degrees, in this order. sample: what is shot, a Sample or the name of one (samples.py). classes:
    names out of the sample's, in the order of their labels; None: all of them. length: what
    ``len()`` says, for readers that want an end. dead_wires: fraction of wires without signal, the
    same ones in every event of a seed. full_noise: draw the noise of every pixel instead of that
    near charge and the expected number elsewhere; slow. pixel_truth: events come with
    ``pixel_labels``, the class (shower or track) that left most charge in each lit pixel, over all
    planes where there are several; IGNORED where noise made more than half of it. The images are
    the same bit for bit; it takes half as long again. cosmic_rate: muons of cosmic rays that cross
    the TPC, in kHz (MicroBooNE has about 5), laid over every event; ``particles`` does not tell of
    them. response: other keywords set the numbers of the readout by name, see
    ``detector.Response``: ``noise=0``, ``threshold=20``, ...

    An event with fewer than 10 lit pixels of charge in the full collection plane (its particle left
    at once) is drawn again from the same random numbers, its species kept. Raises ValueError for a
    sample, shape, class or keyword that does not exist.

    >>> event = Simulator(seed=1).read(0)
    """

    #: Raised with every change of what the same seed gives: files of before are then made anew.
    physics = 2
    unit = "ADC"
    concurrent = True  # threads may read at once: compiled code runs without the interpreter's lock

    def __init__(
        self,
        seed: int = 0,
        shape: int | Sequence[int] = (3600, 3600, 1),
        classes: Sequence[str] | None = None,
        *,
        sample: str | Sample = DEFAULT_SAMPLE,
        length: int | None = None,
        dead_wires: float = 0.0,
        full_noise: bool = False,
        pixel_truth: bool = False,
        cosmic_rate: float = 0.0,
        **response: float,
    ) -> None:
        # numba loads here, not with the package
        from . import detector, geometry, material, record, showers, transport

        self._modules = detector, geometry, record, transport
        self.seed = operator.index(seed)
        if self.seed < 0:
            raise ValueError(f"the seed is a non-negative integer, got {seed}")
        self.image_shape = _image_shape(shape)
        self.axes = tuple(
            axis.summed(geometry.FULL / max(n, 1)) for axis, n in zip(MICROBOONE, self.image_shape)
        )
        full = geometry.FULL
        if not all(1 <= n <= full for n in self.image_shape[:2]):
            raise ValueError(
                f"the shape is (height, width, planes), height and width 1 to {full}, got {shape}"
            )
        if self.image_shape[2] not in (1, 3):
            raise ValueError(
                "the planes are 1 (collection) or 3 (and two inductions), got "
                f"{self.image_shape[2]}"
            )
        self.sample = sample if isinstance(sample, Sample) else sample_named(sample)
        if classes is not None:
            self.sample = self.sample.only(classes)
        self.class_names = tuple(self.sample.classes)
        wrong = sorted(set(response) - set(detector.Response._fields))
        if wrong:
            named = "; the size of the images is shape=(height, width, planes)"
            raise ValueError(
                f"no setting {', '.join(wrong)}; the readout has "
                f"{', '.join(detector.Response._fields)}"
                + named
                * bool({"size", "image_shape", "height", "width"} & set(wrong))
            )
        self.response = detector.Response(
            **{name: float(value) for name, value in response.items()}
        )
        for name, value in self.response._asdict().items():
            least = 0.0 if name in MAY_BE_ZERO else 1e-6
            if not least <= value < math.inf:
                sign = "non-negative" if least == 0 else "positive"
                raise ValueError(f"{name} is a {sign} number, got {value}")
        self.length, self.full_noise = length, bool(full_noise)
        self.pixel_truth, self.cosmic_rate = bool(pixel_truth), float(cosmic_rate)
        if not 0 <= self.cosmic_rate <= 20:
            raise ValueError(f"cosmic_rate is 0 to 20 kHz, got {cosmic_rate}")
        self._pulses = detector.pulses(self.response)
        self._dead = self._dead_rows(float(dead_wires))
        self._noise = [
            detector.plane_noise(self.response, plane, dead)
            for plane, dead in enumerate(self._dead)
        ]
        self._stopping, self._photons = material.tables(), showers.photon_tables()
        self._scratch = threading.local()

    def __repr__(self) -> str:
        length = "" if self.length is None else f", length={self.length}"
        return (
            f"Simulator(seed={self.seed}, shape={self.image_shape}, classes={self.class_names}, "
            f"sample={self.sample.name!r}{length}{', pixel_truth=True' * self.pixel_truth})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in self.__dict__.items()
            if key not in ("_scratch", "_modules")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        from . import detector, geometry, record, transport

        self.__dict__.update({"pixel_truth": False, "cosmic_rate": 0.0, **state})
        self._modules, self._scratch = (detector, geometry, record, transport), threading.local()

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("a Simulator has no end; give it length=")
        return self.length

    def read(self, index: int) -> Event:
        """Return event ``index`` (>= 0); ValueError if a hundred attempts give fewer than 10 lit
        pixels (the threshold is too high).
        """
        event, signal = self._make(index, None, None, None, None)
        if signal < FEWEST_LIT:
            raise ValueError(
                f"event {index}: no particle of a hundred lights {FEWEST_LIT} pixels above a "
                f"threshold of {self.response.threshold} ADC; lower the threshold"
            )
        return event

    def simulate(
        self,
        index: int,
        pdg: int | None = None,
        momentum: float | None = None,
        position: Any = None,
        direction: Any = None,
    ) -> Event:
        """Return event ``index`` with some of its primary fixed: its PDG code ``pdg``, momentum
        (MeV/c), position (3,) in cm, direction (3,) of any length.

        What is given is not drawn. The label is -1 for a particle that is not of the classes (a
        proton, say). After a hundred attempts with fewer than 10 lit pixels the last one is
        returned as it is.
        """
        return self._make(index, pdg, momentum, position, direction)[0]

    def deposits(
        self,
        index: int,
        pdg: int | None = None,
        momentum: float | None = None,
        position: Any = None,
        direction: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (deposits, particles) of event ``index`` before the detector, for studies of the
        physics; pdg, momentum, position and direction as of ``simulate``.

        deposits float64 (n, 6): x, y, z in cm, time in us, energy in MeV, length in cm of every
        step in the TPC.
        """
        rng, _, draw = self._begin(index, pdg, momentum, position, direction)
        steps, particles = self._follow(rng, *draw())
        return steps.copy(), particles

    def _make(self, index, pdg, momentum, position, direction):
        """Return (event, its lit pixels of charge)."""
        rng, label, draw = self._begin(index, pdg, momentum, position, direction)
        for _ in range(100):
            steps, particles = self._follow(rng, *draw())
            planes, signal = self._expose(rng, index, steps)
            if signal >= FEWEST_LIT:
                break
        if self.cosmic_rate:
            steps = self._add_cosmics(index)
            planes, _ = self._expose(rng, index, steps)
        image, *pixels = self._image(planes)
        labels = self._pixel_labels(steps, planes, image, *pixels) if self.pixel_truth else None
        return Event(image, label, (1, 0, int(index)), particles, labels), signal

    def _begin(self, index, pdg, momentum, position, direction):
        """Return (the event's random numbers, its label, a function that draws the primary)."""
        from .particles import mass_of_pdg

        index = operator.index(index)
        if index < 0:
            raise IndexError(f"events are numbered from 0, got {index}")
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, index])))
        species = self.sample.draw_species(rng)
        if pdg is not None:
            mass_of_pdg(pdg)  # an unknown code is an error here
            species = next((name for name, code in SPECIES.items() if code == pdg), None)
        code = SPECIES[species] if species else int(pdg)

        def draw():
            p = self.sample.draw_momentum(rng, species) if momentum is None else float(momentum)
            point = (
                self.sample.draw_position(rng) if position is None else np.asarray(position, float)
            )
            way = (
                self.sample.draw_direction(rng)
                if direction is None
                else np.asarray(direction, float)
            )
            return code, p * way / math.sqrt(way @ way), point

        return rng, self.sample.label_of(species), draw

    def _follow(self, rng, pdg, p, point):
        """Return (deposits, truth table) of one primary; the deposits live in this thread's scratch
        memory.
        """
        _, _, record, transport = self._modules
        if not hasattr(self._scratch, "world"):
            steps = (8 if self.cosmic_rate else 1) * record.STEPS
            self._scratch.world = record.new_world(self._stopping, self._photons, steps)
        world = self._scratch.world
        transport.transport(rng, world, pdg, p, point)
        truth = world.truth[: world.n[1]]
        particles = np.empty(len(truth), PARTICLE)
        particles["pdg"], particles["parent"] = truth[:, 0], truth[:, 1]
        particles["momentum"], particles["start"], particles["end"] = (
            truth[:, 2:5],
            truth[:, 5:8],
            truth[:, 8:11],
        )
        return world.steps[: world.n[0]], particles

    def _add_cosmics(self, index):
        """Return the deposits of the event and of cosmic rays laid over it."""
        from . import cosmics
        from .kinematics import Point, Vector

        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, index, 3])))
        world, transport = self._scratch.world, self._modules[3]
        for _ in range(rng.poisson(cosmics.mean_number(self.cosmic_rate))):
            pdg, p, point, time = cosmics.draw_muon(rng)
            world.n[1] = 0  # the truth tells of the event alone
            transport.add(rng, world, pdg, Vector(*p), Point(*point, time))
        return world.steps[: world.n[0]]

    def _expose(self, rng, index, steps):
        """Return ([(coords, values) of the lit pixels of each full plane], lit pixels of the
        collection plane that are not noise far from any charge).
        """
        detector = self._modules[0]
        if not hasattr(self._scratch, "tiles"):
            from . import tiles

            self._scratch.tiles = tiles.new_tiles()
        planes = []
        for plane in range(self.image_shape[2]):
            # the collection plane goes on with the event's random numbers, so it is the same with
            # one plane and with three
            noise = (
                np.random.Generator(
                    np.random.PCG64(np.random.SeedSequence([self.seed, index, plane]))
                )
                if plane
                else rng
            )
            planes.append(
                detector.expose(
                    noise, steps, self._readout(plane), self._scratch.tiles, self.full_noise
                )
            )
        return [plane[:2] for plane in planes], planes[0][2]

    def _readout(self, plane):
        """Return how a plane is read."""
        return self._modules[0].Readout(
            plane, self.response, self._pulses, self._noise[plane], self._dead[plane]
        )

    def _image(self, planes):
        """Return (image, rows, columns): the image of the planes' lit pixels, and where each of
        these pixels lies on it, one plane after the other.
        """
        full = self._modules[1].FULL
        height, width, _ = self.image_shape
        coords = np.concatenate([coords for coords, _ in planes])
        rows, columns = coords[:, 0] * height // full, coords[:, 1] * width // full
        if self.image_shape == (full, full, 1):
            return SparseImage(*planes[0], self.image_shape), rows, columns
        values = np.zeros((len(coords), len(planes)), np.float32)
        start = 0
        for channel, (_, value) in enumerate(planes):
            values[start : start + len(value), channel] = value
            start += len(value)
        return SparseImage.from_pixels(rows, columns, values, self.image_shape), rows, columns

    def _pixel_labels(self, steps, planes, image, rows, columns):
        """Return uint8 (n,): the class of each lit pixel of ``image``, see pixel_truth."""
        from . import pixel_truth
        from .tiles import new_tiles

        if not hasattr(self._scratch, "class_tiles"):
            self._scratch.class_tiles = new_tiles()
        classes = self._scratch.world.classes[: len(steps)]
        charges = [
            pixel_truth.class_charges(
                coords, steps, classes, self._readout(plane), self._scratch.class_tiles
            )
            for plane, (coords, _) in enumerate(planes)
        ]
        return pixel_truth.pixel_labels(image, rows, columns, np.concatenate(charges))

    def _dead_rows(self, fraction):
        """Return bool (3, full): rows of each plane that read nothing."""
        if not 0 <= fraction < 1:
            raise ValueError(f"dead_wires is a fraction of 0 to 1, got {fraction}")
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, 0, 1])))
        return rng.random((3, self._modules[1].FULL)) < fraction


def _image_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return (height, width, planes) of a number, (height, width) or all three."""
    try:
        numbers = [operator.index(n) for n in shape]  # type: ignore[union-attr]
    except TypeError:
        numbers = [shape, shape] if isinstance(shape, (int, np.integer)) else []
    if len(numbers) == 2:
        numbers.append(1)
    if len(numbers) != 3:
        raise ValueError(
            "the shape is (height, width, planes), or the edge of a square image of one plane, "
            f"got {shape}"
        )
    return tuple(numbers)

"""What is shot into the detector: samples by name, each a short table with its source."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from zlib import crc32

import numpy as np

from .geometry import X_MAX, Y_MAX, Z_MAX

#: What can be shot, by name: PDG codes.
SPECIES = {
    "gamma": 22,
    "e-": 11,
    "e+": -11,
    "mu-": 13,
    "mu+": -13,
    "pi-": -211,
    "pi+": 211,
    "pi0": 111,
    "K+": 321,
    "K-": -321,
    "proton": 2212,
    "neutron": 2112,
}


@dataclass(frozen=True)
class Sample:
    """Single particles: which, how fast, from where and whereto.

    classes: by name of the class its species and their shares, whole numbers; an event's label is
    the number of its class here. momentum: (low, high) in MeV/c, uniform between them; of photons
    and electrons it is the energy. momenta: species with a range of their own. position: (x, y, z)
    in cm, None: uniform in the TPC. direction: (x, y, z) of any length, None: isotropic. spread:
    degrees, the standard deviation of Gaussians added to the direction's angles in the xz and yz
    planes, as LArSoft's generator of single particles does. source: where the table is from.
    Raises ValueError for a table that cannot be shot.
    """

    name: str
    source: str
    classes: Mapping[str, Mapping[str, int]]
    momentum: tuple[float, float]
    momenta: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    position: tuple[float, float, float] | None = None
    direction: tuple[float, float, float] | None = None
    spread: float = 0.0

    def __post_init__(self) -> None:
        kinds = [kind for species in self.classes.values() for kind in species]
        unknown = sorted({*kinds, *self.momenta} - set(SPECIES))
        if unknown:
            raise ValueError(
                f"no species {', '.join(unknown)}; a sample is made of {', '.join(SPECIES)}"
            )
        if not kinds or not all(self.classes.values()) or len(set(kinds)) < len(kinds):
            raise ValueError(
                "every class of a sample has species, and every species one class; got "
                f"{ {name: list(species) for name, species in self.classes.items()} }"
            )
        for species in self.classes.values():
            for kind, share in species.items():
                if share != int(share) or share < 1:
                    raise ValueError(f"shares are whole numbers from 1, got {share} for {kind}")
        for low, high in (self.momentum, *self.momenta.values()):
            if not 0 < low <= high < math.inf:
                raise ValueError(
                    f"the momentum is a range of positive MeV/c, low and high, got {low} and {high}"
                )
        for what, point in (("position", self.position), ("direction", self.direction)):
            if point is not None and not (len(point) == 3 and np.isfinite(point).all()):
                raise ValueError(f"the {what} is x y z, got {point}")
        if self.direction is not None and not any(self.direction):
            raise ValueError("the direction has no length")
        if self.position is not None and not _in_tpc(*self.position):
            raise ValueError(
                f"the position {self.position} is not in the TPC: x 0 to {X_MAX}, y -{Y_MAX} to "
                f"{Y_MAX}, z 0 to {Z_MAX} cm"
            )
        if not 0 <= self.spread < 90 or (self.spread and self.direction is None):
            raise ValueError(
                f"the spread is 0 to 90 degrees around a direction, got {self.spread} around "
                f"{self.direction or 'none'}"
            )

    # ------------------------------------------------------------------------------- other shares
    def with_shares(self, shares: Mapping[str, int]) -> Sample:
        """Return the sample of only these species with these shares; one that the sample does not
        have is a class of its own.
        """
        classes: dict[str, dict[str, int]] = {name: {} for name in self.classes}
        for kind, share in shares.items():
            classes.setdefault(self._class_of(kind) or kind, {})[kind] = share
        return replace(self, classes={name: kinds for name, kinds in classes.items() if kinds})

    def only(self, classes: Sequence[str]) -> Sample:
        """Return the sample of these classes alone, which are numbered in this order."""
        unknown = [name for name in classes if name not in self.classes]
        if unknown or not len(classes) or len(set(classes)) < len(classes):
            raise ValueError(
                f"classes of the sample {self.name} are different names out of "
                f"{tuple(self.classes)}, got {tuple(classes)}"
            )
        return replace(self, classes={name: self.classes[name] for name in classes})

    # -------------------------------------------------------------------------------------- drawing
    def draw_species(self, rng: Any) -> str:
        """Return a species, drawn by the shares: first its class, then which one of that."""
        classes = list(self.classes.values())
        species = classes[_draw([sum(kinds.values()) for kinds in classes], rng)]
        return list(species)[_draw(list(species.values()), rng)]

    def label_of(self, species: str | None) -> int:
        """Return the number of a species' class, -1 where the sample has none."""
        name = self._class_of(species)
        return -1 if name is None else list(self.classes).index(name)

    def _class_of(self, species: str | None) -> str | None:
        return next((name for name, kinds in self.classes.items() if species in kinds), None)

    def draw_momentum(self, rng: Any, species: str | None) -> float:
        """Return a momentum in MeV/c."""
        return float(rng.uniform(*self.momenta.get(species or "", self.momentum)))

    def draw_position(self, rng: Any) -> np.ndarray:
        """Return a point (3,) in cm."""
        if self.position is not None:
            return np.array(self.position, float)
        return rng.random(3) * np.array([X_MAX, 2 * Y_MAX, Z_MAX]) - (0.0, Y_MAX, 0.0)

    def draw_direction(self, rng: Any) -> np.ndarray:
        """Return a vector (3,) of any length."""
        if self.direction is None:
            return np.asarray(rng.standard_normal(3))
        way = np.array(self.direction, float)
        if not self.spread:
            return way
        x, y, z = way / math.sqrt(way @ way)
        xz, yz = np.array([math.atan2(x, z), math.asin(y)]) + math.radians(
            self.spread
        ) * rng.standard_normal(2)
        return np.array([math.sin(xz) * math.cos(yz), math.sin(yz), math.cos(xz) * math.cos(yz)])

    # ------------------------------------------------------------------------------------- telling
    def record(self) -> dict[str, Any]:
        """Return the table as files keep it (JSON): equal if the samples are, but for the order of
        their classes."""
        table = asdict(self)
        del table["source"]
        return dict(json.loads(json.dumps(table)))

    @property
    def label(self) -> str:
        """The name, with a mark of what was changed where something was: for file names."""
        if self.name in SAMPLES and self.record() == SAMPLES[self.name].record():
            return self.name
        return f"{self.name}-{crc32(json.dumps(self.record()).encode()):08x}"


def _in_tpc(x: float, y: float, z: float) -> bool:
    return 0 <= x <= X_MAX and abs(y) <= Y_MAX and 0 <= z <= Z_MAX


def _draw(shares: list[int], rng: Any) -> int:
    """Return a number 0, 1, ... with probabilities in proportion to the shares."""
    parts = np.array(shares) // math.gcd(*shares)
    return int(np.searchsorted(np.cumsum(parts), rng.integers(int(parts.sum())), side="right"))


#: e- and e+ are one class of the talk; its "mu+-" is mu- alone and its "pi+-" is pi- alone.
_TALK = {
    "gamma": {"gamma": 1},
    "e+-": {"e-": 1, "e+": 1},
    "mu+-": {"mu-": 1},
    "pi+-": {"pi-": 1},
    "K+": {"K+": 1},
}
_BEAM = (0.0, 0.0, 1.0)

SAMPLES = {
    sample.name: sample
    for sample in (
        Sample(
            "talk",
            "the talk's job files: HEP-DL/kevlar, fcl/prod_single_dl.fcl of March 2017, six equal "
            "samples",
            _TALK,
            momentum=(1500.0, 1500.0),
            position=(100.0, 0.0, 50.0),
            direction=_BEAM,
            spread=5.0,
        ),
        Sample(
            "talk-6gev",
            "HEP-DL/kevlar, fcl/prod_single_dl.fcl of July 2017",
            _TALK,
            momentum=(6000.0, 6000.0),
            position=(125.0, 0.0, 50.0),
            direction=_BEAM,
        ),
        Sample(
            "isotropic",
            "minicnn: both charges, all directions, anywhere in the TPC; kaons and protons from "
            "300 MeV/c, below which they are dots",
            {
                "gamma": {"gamma": 2},
                "e+-": {"e-": 1, "e+": 1},
                "mu+-": {"mu-": 1, "mu+": 1},
                "pi+-": {"pi+": 1, "pi-": 1},
                "K+": {"K+": 2},
            },
            momentum=(100.0, 1000.0),
            momenta={"K+": (300.0, 1000.0), "K-": (300.0, 1000.0), "proton": (300.0, 1000.0)},
        ),
        Sample(
            "microboone-paper",
            "MicroBooNE, Convolutional neural networks applied to neutrino events in a liquid "
            "argon time projection chamber, JINST 12 (2017) P03011, arXiv:1611.05531",
            {name: {name: 1} for name in ("e-", "gamma", "mu-", "pi-", "proton")},
            momentum=(100.0, 1000.0),
        ),
    )
}
DEFAULT_SAMPLE = "talk"


def sample_named(name: str) -> Sample:
    """Return a sample by name; ValueError where there is none."""
    if name not in SAMPLES:
        raise ValueError(f"there is no sample {name!r}; there are {', '.join(SAMPLES)}")
    return SAMPLES[name]


def sample_text(record: Mapping[str, Any] | None) -> str:
    """Return what a file's record of its sample says, in a few words."""
    if not record:
        return "unknown sample"
    usual = SAMPLES[record["name"]].record() if record["name"] in SAMPLES else {}
    changes = [f"{key} {_words(record[key])}" for key in record if record[key] != usual.get(key)]
    return f"sample {record['name']}" + (f" with {', '.join(changes)}" if changes else "")


def mirror_of(record: Mapping[str, Any] | None) -> float | None:
    """Return the x in cm about which an event of this sample can be mirrored along the drift and is
    still one of it: where all start, if their directions are as often to one side as to the other.
    """
    if not record or not record.get("position"):
        return None
    straight = not record.get("direction") or record["direction"][0] == 0
    return float(record["position"][0]) if straight else None


def _words(value: Any) -> str:
    """Return a part of a sample's record without brackets and quotes."""
    if isinstance(value, Mapping):
        inner = {key: _words(part) for key, part in value.items()}
        nested = any(isinstance(part, Mapping) for part in value.values())
        form = "{}({})" if nested else "{}={}"
        return " ".join(form.format(*item) for item in inner.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(_words, value))
    return "any" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

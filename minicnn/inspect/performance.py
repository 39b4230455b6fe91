"""The performance model: what a training step and an epoch take on N ranks, from what was measured
on a few.

A step of rank r with b events takes S_r = slowdown * (fixed + t_1 + ... + t_b): ``fixed`` once per
update (weight packing, resting tables, checks, update) and a time t per event, whose distribution
is measured: events differ in how much is lit. All ranks wait for the last,

    step(N) = E[max over N ranks of S_r] + communication that nothing hides.

Where events are dealt evenly (data.balance) the sums are the same on all ranks as far as the costs
tell: what is left of the spread of S_r is normal, sqrt(b) times what they do not tell of an event.

What communication takes is in allreduce_costs.py.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import NormalDist

import numpy as np

from ..files import StrPath, read_json, write_json
from .allreduce_costs import ALGORITHMS, Link, allreduce


def expected_maximum(sample: Sequence[float] | np.ndarray, ranks: int) -> float:
    """Return E[max of ``ranks`` independent draws] from the sample's empirical distribution,
    exactly: sum x_(i) ((i/M)^N - ((i-1)/M)^N).
    """
    x = np.sort(np.asarray(sample, np.float64))
    edges = (np.arange(len(x) + 1) / len(x)) ** ranks
    return float(x @ np.diff(edges))


def like(points: Sequence[tuple[int, float]], p: int, n: int, setting: "Setting") -> str:
    """Return the algorithm that takes most nearly as long as the measured Allreduce [(bytes,
    seconds)] of n bytes on p ranks.
    """
    measured = dict(points)[n]

    def ratio(name: str) -> float:
        predicted = allreduce(name, p, n, setting.fabric, setting.inner, setting.per_node)
        return abs(math.log(predicted / measured))

    return min(ALGORITHMS, key=ratio)


@dataclass
class Calibration:
    """What was measured on this machine; seconds and bytes. ``slowdown[r]``: how much longer r
    ranks that compute at once on this node take than one alone."""

    machine: str
    cores: int
    threads: int
    size: int
    batch: int
    parameters: int
    events: list[float]  # seconds of single events, forward and backward
    fixed: float  # seconds once per update
    backward: (
        float  # seconds of one event's backward pass and the resting tables: hide communication
    )
    load: float  # seconds to fetch and decompress an event
    gamma: float  # seconds to add a byte of gradients
    memory_bandwidth: float  # bytes/s of a copy, read and written
    slowdown: dict[int, float] = field(default_factory=dict)
    alpha: float = 2e-6  # between ranks of a node
    beta: float = 2e-10
    fabric_alpha: float | None = None  # between nodes; None: not measured
    fabric_beta: float | None = None
    algorithm: str = "best"  # of the Allreduce, as far as its time tells
    nodes: dict[int, list[int]] = field(default_factory=dict)  # {ranks: ranks of each node}
    allreduce: dict[int, list[tuple[int, float]]] = field(
        default_factory=dict
    )  # {ranks: [(bytes, seconds)]}, as measured
    measured: dict[int, dict[str, float]] = field(
        default_factory=dict
    )  # {ranks: {"step", "compute", "wait", "communication"}} of real training
    #: Standard deviation of what its cost does not tell of an event's seconds; None: not measured.
    unexplained: float | None = None
    #: Bytes of a rank without events, of an event in its memory and in the file, and seconds to
    #: read and compress one; None: not measured.
    rank_bytes: float | None = None
    event_bytes: float | None = None
    file_bytes: float | None = None
    read: float | None = None

    @property
    def inner(self) -> Link:
        """The Link between ranks of a node."""
        return Link(self.alpha, self.beta, self.gamma)

    @property
    def fabric(self) -> Link | None:
        """The Link between nodes, None where it has not been measured."""
        if self.fabric_alpha is None or self.fabric_beta is None:
            return None
        return Link(self.fabric_alpha, self.fabric_beta, self.gamma)

    def measured_setting(self, ranks: int) -> "Setting":
        """Return where the measurement on so many ranks was made."""
        sizes = self.nodes.get(ranks, [ranks])
        fabric = self.fabric if len(sizes) > 1 and self.fabric else self.inner
        return Setting(
            fabric,
            max(sizes),
            self.algorithm,
            cores=self.cores,
            inner=self.inner,
            balanced=self.unexplained is not None,
        )

    @property
    def bytes(self) -> int:
        """Bytes of the gradient buffer."""
        return 4 * (self.parameters + 4)

    def save(self, path: StrPath) -> None:
        """Write JSON, all at once."""
        write_json(path, asdict(self))

    @classmethod
    def load_file(cls, path: StrPath) -> "Calibration":
        """Read what ``save`` wrote; raises ValueError where it is something else."""
        try:
            values = read_json(path)
            values["slowdown"] = {int(r): float(s) for r, s in values["slowdown"].items()}
            values["allreduce"] = {
                int(r): [tuple(p) for p in points] for r, points in values["allreduce"].items()
            }
            values["measured"] = {int(r): dict(parts) for r, parts in values["measured"].items()}
            values["nodes"] = {int(r): list(n) for r, n in values.get("nodes", {}).items()}
            found = cls(**values)
        except (TypeError, KeyError, AttributeError, ValueError) as problem:
            raise ValueError(
                f"{path}: not a calibration of minicnn model ({problem!r})"
            ) from problem
        if not found.events or min(found.events) < 0:
            raise ValueError(f"{path}: a calibration needs times of events, all >= 0")
        return found


@dataclass(frozen=True)
class Setting:
    """Where a prediction is for: the fabric between nodes, ranks per node, algorithm, overlap of
    communication with the backward pass; inner: the link within a node (None: the calibration's);
    balanced: events are dealt evenly, not as they come.
    """

    fabric: Link
    per_node: int
    algorithm: str = "best"
    overlap: bool = False
    cores: int = 0  # of a node; 0: enough for its ranks
    inner: Link | None = None
    balanced: bool = False


@dataclass(frozen=True)
class Step:
    """Seconds of a predicted step. ``wait`` is the mean over ranks of waiting for the slowest."""

    ranks: int
    batch: float
    compute: float
    wait: float
    communication: float
    exposed: float

    @property
    def total(self) -> float:
        """Duration of the step."""
        return self.compute + self.wait + self.exposed

    @property
    def rate(self) -> float:
        """Events per second of all ranks."""
        return self.ranks * self.batch / self.total


class ScalingModel:
    """Predictions from a Calibration; ``draws`` sums of events are drawn once per batch size
    (seeded).
    """

    def __init__(self, calibration: Calibration, draws: int = 100_000, seed: int = 0) -> None:
        self.calibration, self.draws, self.seed = calibration, draws, seed
        self._sums: dict[int, np.ndarray] = {}  # by batch size

    def compute(self, batch: int, ranks_on_node: int = 1, cores: int = 0) -> np.ndarray:
        """Return (draws,) seconds of computing a step of ``batch`` events on a node with so many
        ranks; too few cores are shared.
        """
        calibration = self.calibration
        if batch not in self._sums:
            events = np.asarray(calibration.events)
            rng = np.random.default_rng([self.seed, batch])
            total = np.zeros(self.draws)
            for _ in range(batch):
                total += events[rng.integers(0, len(events), self.draws)]
            self._sums[batch] = total
        cores = cores or ranks_on_node * calibration.threads
        shared = max(1.0, ranks_on_node * calibration.threads / cores)
        loading = (
            calibration.load * batch if ranks_on_node * calibration.threads >= cores else 0.0
        )  # no core is free to do it beside
        return shared * (
            self.slowdown(min(ranks_on_node, max(cores // calibration.threads, 1)))
            * (calibration.fixed + self._sums[batch])
            + loading
        )

    @cached_property
    def normal(self) -> np.ndarray:
        """(draws,) numbers of a normal distribution, at equal distances of probability."""
        probabilities = (np.arange(self.draws) + 0.5) / self.draws
        return np.array([NormalDist().inv_cdf(p) for p in probabilities.tolist()])

    def uneven(self, batch: int) -> float:
        """Return the standard deviation of a step's computation on a rank whose batches have equal
        costs, as a part of its mean; ValueError where it was not measured.
        """
        c = self.calibration
        if c.unexplained is None:
            raise ValueError(
                "this calibration does not say what costs leave unexplained: measure it anew"
            )
        return c.unexplained * batch**0.5 / (c.fixed + batch * float(np.mean(c.events)))

    def slowdown(self, ranks: float) -> float:
        """Return the slowdown by ``ranks`` on one node: as measured, between and beyond these
        points linear, then constant.
        """
        known = {1: 1.0, **self.calibration.slowdown}
        counts = sorted(known)
        return float(np.interp(ranks, counts, [known[r] for r in counts]))

    def step(self, ranks: int, batch: int, setting: Setting) -> Step:
        """Return the Step of ``ranks`` with ``batch`` events each."""
        on_node = min(ranks, setting.per_node)
        times = self.compute(batch, on_node, setting.cores)
        mean, last = float(times.mean()), expected_maximum(times, ranks)
        c = self.calibration
        if setting.balanced:
            last = mean * (1 + self.uneven(batch) * expected_maximum(self.normal, ranks))
        inner = setting.inner or c.inner
        communication, latency = (
            allreduce(setting.algorithm, ranks, n, setting.fabric, inner, setting.per_node)
            for n in (c.bytes, 0.0)
        )
        exposed = (
            max(communication - c.backward, min(latency, communication))
            if setting.overlap
            else communication
        )
        return Step(ranks, batch, mean, max(last - mean, 0.0), communication, exposed)

    def weak(self, counts: Sequence[int], batch: int, setting: Setting) -> list[Step]:
        """Return the Steps for each rank count at ``batch`` events per rank."""
        return [self.step(n, batch, setting) for n in counts]

    def strong(self, counts: Sequence[int], total: int, setting: Setting) -> list[Step]:
        """Return the Steps for each rank count that divides the events of an update, ``total``,
        evenly.
        """
        return [self.step(n, total // n, setting) for n in counts if n <= total and total % n == 0]


def efficiency(steps: Sequence[Step]) -> list[float]:
    """Return events per second and rank of each Step, relative to the first."""
    return [(s.rate / s.ranks) / (steps[0].rate / steps[0].ranks) for s in steps]


def epoch_seconds(step: Step, events: int) -> float:
    """Return the seconds of an epoch of so many training events: whole steps of all ranks."""
    return math.ceil(events / (step.ranks * step.batch)) * step.total


__all__ = [
    "Calibration",
    "ScalingModel",
    "Setting",
    "Step",
    "efficiency",
    "epoch_seconds",
    "expected_maximum",
    "like",
]

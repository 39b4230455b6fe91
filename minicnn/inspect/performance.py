"""The performance model: what a training step and an epoch take on N ranks, from what was measured
on a few.

A step of rank r with b events takes S_r = slowdown * (fixed + t_1 + ... + t_b): ``fixed`` once per
update (weight packing, resting tables, checks, update) and a time t per event, whose distribution
is measured: events differ in how much is lit. All ranks wait for the last,

    step(N) = E[max over N ranks of S_r] + communication that nothing hides.

Where events are dealt evenly (data.balance) the sums are the same on all ranks as far as the costs
tell: what is left of the spread of S_r is normal, sqrt(b) times what they do not tell of an event.

Communication is Hockney's: a message of n bytes takes alpha + n * beta, adding n bytes gamma * n
(R. W. Hockney, Parallel Computing 20, 1994). Costs of the Allreduce algorithms: R. Thakur, R.
Rabenseifner, W. Gropp, Int. J. High Perf. Comput. Appl. 19, 2005; R. Rabenseifner, ICCS 2004; ring:
P. Patarasuk, X. Yuan, J. Parallel Distrib. Comput. 69, 2009.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import NormalDist

import numpy as np

from ..files import StrPath, read_json, write_json


@dataclass(frozen=True)
class Link:
    """A connection: ``alpha`` seconds of latency per message, ``beta`` seconds per byte, ``gamma``
    seconds to add a byte.
    """

    alpha: float
    beta: float
    gamma: float = 0.0


def log2ceil(p: int) -> int:
    """Return the smallest k with 2^k >= p."""
    return (p - 1).bit_length()


def ring(p: int, n: float, link: Link) -> float:
    """2 (p - 1) messages of n / p bytes: 2 (p-1) alpha + 2 (p-1)/p n beta + (p-1)/p n gamma."""
    return 2 * (p - 1) * link.alpha + (p - 1) / p * n * (2 * link.beta + link.gamma)


def recursive_doubling(
    p: int, n: float, link: Link, inner: Link | None = None, per_node: int = 1
) -> float:
    """ceil(log2 p) exchanges of all n bytes; the ranks beyond a power of two first add theirs to a
    neighbour's and get the result last.

    inner, per_node: ranks that sit on one node exchange over ``inner``; of exchanges between nodes,
    all of a node's ranks make one at the same time and share its link.
    """
    steps = [n] * (p.bit_length() - 1)
    return _exchanges(steps, steps, link, inner, per_node) + _fold(p, n, link)


def rabenseifner(
    p: int, n: float, link: Link, inner: Link | None = None, per_node: int = 1
) -> float:
    """Recursive halving (a reduce-scatter), then doubling (an allgather): 2 log2 p alpha + 2
    (p-1)/p n beta + (p-1)/p n gamma.
    """
    # With the nearest rank first, half the buffer: the far exchanges are the small ones.
    halves = [n / 2 ** (k + 1) for k in range(p.bit_length() - 1)]
    return (
        _exchanges(halves, halves, link, inner, per_node)
        + _exchanges(halves, [0.0] * len(halves), link, inner, per_node)
        + _fold(p, n, link)
    )


def hierarchical(p: int, n: float, link: Link, inner: Link, per_node: int) -> float:
    """Reduce to one leader per node, Allreduce between leaders by the better of ring and
    Rabenseifner, broadcast within the node.
    """
    q = min(per_node, p)
    nodes = -(-p // q)
    within = log2ceil(q) * (2 * (inner.alpha + n * inner.beta) + n * inner.gamma)
    return within + (min(ring(nodes, n, link), rabenseifner(nodes, n, link)) if nodes > 1 else 0.0)


def _exchanges(
    sizes: Sequence[float],
    added: Sequence[float],
    link: Link,
    inner: Link | None,
    per_node: int,
) -> float:
    """Return the time of a chain of pairwise exchanges; the log2(per_node) nearest ones stay on the
    node.
    """
    near = min(log2ceil(per_node), len(sizes)) if inner else 0
    total = 0.0
    for k, (n, plus) in enumerate(zip(sizes, added)):
        path, share = link, per_node if inner else 1
        if k < near and inner:
            path, share = inner, 1
        total += path.alpha + n * path.beta * share + plus * path.gamma
    return total


def _fold(p, n, link):
    """Ranks beyond the last power of two: one message before, with a sum, and one after."""
    return 0.0 if p & (p - 1) == 0 else 2 * (link.alpha + n * link.beta) + n * link.gamma


ALGORITHMS = ("ring", "recursive doubling", "rabenseifner", "hierarchical")


def allreduce(
    algorithm: str, p: int, n: float, link: Link, inner: Link | None = None, per_node: int = 1
) -> float:
    """Return the seconds of an Allreduce of n bytes over p ranks, ``per_node`` on each node and
    connected there by ``inner``.

    algorithm: one of ALGORITHMS, or "best" for the fastest. All of one node: ``inner`` alone
    counts.
    """
    if p == 1:
        return 0.0
    if algorithm == "best":
        return min(allreduce(name, p, n, link, inner, per_node) for name in ALGORITHMS)
    inner, per_node = inner or link, max(per_node, 1)
    if p <= per_node:
        link, per_node = inner, 1
    if algorithm == "ring":
        if per_node > 1:  # the slowest of its links sets the pace of a ring
            link = Link(max(link.alpha, inner.alpha), max(link.beta, inner.beta), link.gamma)
        return ring(p, n, link)
    if algorithm == "recursive doubling":
        return recursive_doubling(p, n, link, inner, per_node)
    if algorithm == "rabenseifner":
        return rabenseifner(p, n, link, inner, per_node)
    if algorithm == "hierarchical":
        return hierarchical(p, n, link, inner, per_node)
    raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)} or best, got {algorithm!r}")


def expected_maximum(sample: Sequence[float] | np.ndarray, ranks: int) -> float:
    """Return E[max of ``ranks`` independent draws] from the sample's empirical distribution,
    exactly: sum x_(i) ((i/M)^N - ((i-1)/M)^N).
    """
    x = np.sort(np.asarray(sample, np.float64))
    edges = (np.arange(len(x) + 1) / len(x)) ** ranks
    return float(x @ np.diff(edges))


def link_of(points: Sequence[tuple[int, float]], n: int, gamma: float) -> Link:
    """Return the Link through which exchanges take the measured [(bytes, seconds)]: its latency is
    that of the smallest message, its bandwidth that of n bytes, which must be among them.
    """
    seconds = dict(points)
    alpha = min(seconds.values())
    return Link(alpha, max((seconds[n] - alpha) / n, 1e-15), gamma)


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
        c = self.calibration
        if batch not in self._sums:
            events = np.asarray(c.events)
            rng = np.random.default_rng([self.seed, batch])
            total = np.zeros(self.draws)
            for _ in range(batch):
                total += events[rng.integers(0, len(events), self.draws)]
            self._sums[batch] = total
        cores = cores or ranks_on_node * c.threads
        shared = max(1.0, ranks_on_node * c.threads / cores)
        loading = (
            c.load * batch if ranks_on_node * c.threads >= cores else 0.0
        )  # no core is free to do it beside
        return shared * (
            self.slowdown(min(ranks_on_node, max(cores // c.threads, 1)))
            * (c.fixed + self._sums[batch])
            + loading
        )

    @cached_property
    def normal(self) -> np.ndarray:
        """(draws,) numbers of a normal distribution, at equal distances of probability."""
        at = (np.arange(self.draws) + 0.5) / self.draws
        return np.array([NormalDist().inv_cdf(p) for p in at.tolist()])

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
        at = sorted(known)
        return float(np.interp(ranks, at, [known[r] for r in at]))

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
    "ALGORITHMS",
    "Calibration",
    "Link",
    "ScalingModel",
    "Setting",
    "Step",
    "allreduce",
    "efficiency",
    "epoch_seconds",
    "expected_maximum",
    "hierarchical",
    "like",
    "link_of",
    "rabenseifner",
    "recursive_doubling",
    "ring",
]

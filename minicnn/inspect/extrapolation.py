"""What the performance model says of many ranks: a question, and the answer in numbers."""

from dataclasses import dataclass, field
from typing import Any

from .allreduce_costs import ALGORITHMS, Link, allreduce
from .costs import Campaign, Study, TrainingCost, seconds_to_loss, training_cost
from .performance import Calibration, ScalingModel, Setting, Step

#: The fabric where none has been measured: microseconds, GB/s.
LATENCY, BANDWIDTH = 1.5, 12.5


@dataclass(frozen=True)
class Question:
    """What is asked: rank counts 1, 2, 4 ... ``most_ranks``, for weak scaling with ``batch`` events
    per rank and for strong scaling with ``global_batch`` events per update of all ranks together.

    latency (microseconds) and bandwidth (GB/s, node and direction) are those of the fabric between
    nodes; None: as measured, or else LATENCY and BANDWIDTH. per_node: ranks of a node; None: as
    measured on several nodes, or else its cores / threads. training_events: of an epoch.
    balanced: events are dealt evenly, as training does, where the calibration tells what is left.
    campaign: what a training is. study, loss: trainings with steps of several sizes, and the
    validation loss that is asked for (None: the lowest that two of them reach).
    """

    batch: int = 32
    global_batch: int = 4096
    most_ranks: int = 4096
    per_node: int | None = None
    latency: float | None = None
    bandwidth: float | None = None
    training_events: int = 30_000
    balanced: bool = True
    campaign: Campaign = field(default_factory=Campaign)
    study: Study | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Extrapolation:
    """The answer. fabric: the link between nodes. weak, strong: {overlap: [Step]}, of the rank
    counts ``counts``; strong leaves out those that do not divide the global batch. costs:
    {algorithm: seconds of an Allreduce of the gradients, for each of counts}. balanced: whether all
    of it is for events that are dealt evenly. as_they_come: the last of weak without overlap for
    events that are not. measured: {ranks: (seconds of the parts of a step as measured, Step as
    predicted)}. reductions: {ranks: [(bytes, seconds measured, seconds predicted)]}. training: the
    cost of a whole one with the steps of weak scaling. to_loss: (the loss, what seconds_to_loss
    says), None without a study.
    """

    question: Question
    calibration: Calibration
    fabric: Link
    per_node: int
    counts: list[int]
    weak: dict[bool, list[Step]]
    strong: dict[bool, list[Step]]
    balanced: bool
    as_they_come: Step
    costs: dict[str, list[float]]
    measured: dict[int, tuple[dict[str, float], Step]]
    reductions: dict[int, list[tuple[int, float, float]]]
    training: list[TrainingCost]
    to_loss: tuple[float, dict[int, dict[str, Any]]] | None


def extrapolate(calibration: Calibration, question: Question) -> Extrapolation:
    """Return what the model says of the question, and of what was measured itself."""
    c = calibration
    known = c.fabric or Link(1e-6 * LATENCY, 1e-9 / BANDWIDTH, c.gamma)
    alpha = known.alpha if question.latency is None else 1e-6 * question.latency
    beta = known.beta if question.bandwidth is None else 1e-9 / question.bandwidth
    fabric = Link(alpha, beta, c.gamma)
    several = [max(sizes) for sizes in c.nodes.values() if len(sizes) > 1]
    per_node = question.per_node or max(several, default=max(c.cores // c.threads, 1))
    model = ScalingModel(c)
    balanced = question.balanced and c.unexplained is not None
    settings = {
        overlap: Setting(fabric, per_node, overlap=overlap, balanced=balanced)
        for overlap in (False, True)
    }
    counts = [1 << k for k in range(question.most_ranks.bit_length())]
    weak = {o: model.weak(counts, question.batch, s) for o, s in settings.items()}
    to_loss = None
    if question.study:
        loss = question.study.common_loss() if question.loss is None else question.loss
        seconds = seconds_to_loss(model, question.study, loss, counts, settings[False])
        to_loss = loss, seconds
    return Extrapolation(
        question,
        c,
        fabric,
        per_node,
        counts,
        weak=weak,
        strong={o: model.strong(counts, question.global_batch, s) for o, s in settings.items()},
        balanced=balanced,
        as_they_come=model.step(counts[-1], question.batch, Setting(fabric, per_node)),
        costs={
            name: [allreduce(name, n, c.bytes, fabric, c.inner, per_node) for n in counts]
            for name in ALGORITHMS
        },
        measured={
            ranks: (parts, model.step(ranks, c.batch, c.measured_setting(ranks)))
            for ranks, parts in sorted(c.measured.items())
        },
        reductions={
            ranks: [(n, t, _reduction(c, ranks, n)) for n, t in points]
            for ranks, points in c.allreduce.items()
        },
        training=[
            training_cost(c, step, per_node, question.training_events, question.campaign)
            for step in weak[False]
        ],
        to_loss=to_loss,
    )


def _reduction(calibration: Calibration, ranks: int, n: int) -> float:
    """Return the seconds of an Allreduce of n bytes where these ranks were measured."""
    setting = calibration.measured_setting(ranks)
    return allreduce(
        setting.algorithm, ranks, n, setting.fabric, calibration.inner, setting.per_node
    )

"""What a whole training costs: hours, memory, failures; and how long a given loss takes.

Failures come at random, on average every M seconds of a job: M is a node's mean time between
failures over the number of nodes. Saved every tau seconds, which takes delta, and started again in
R, a computation of T seconds takes

    M exp(R / M) (exp((tau + delta) / M) - 1) T / tau

and the best tau is about sqrt(2 delta M) - delta: J. W. Young, Comm. ACM 17, 1974; J. T. Daly,
Future Generation Computer Systems 22, 2006.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..files import StrPath, read_json
from .performance import Calibration, ScalingModel, Setting, Step, epoch_seconds

YEAR = 365.25 * 86400


@dataclass(frozen=True)
class Campaign:
    """What a training is: ``epochs`` of the question's events; saved every ``save_every`` seconds,
    which takes ``save``; started again in ``restart`` seconds. node_mtbf: seconds between two
    failures of a node, on average. file_system: bytes/s that it gives to all nodes together.
    """

    epochs: int = 10
    save_every: float = 300.0
    save: float = 1.0
    restart: float = 60.0
    node_mtbf: float = 5 * YEAR
    file_system: float = 10e9


@dataclass(frozen=True)
class TrainingCost:
    """Seconds of reading the events and of training, expected failures, the part of the time that
    they and saving add, and the seconds between two saves that would make it least. memory: bytes
    on a node, None where the calibration does not tell.
    """

    step: Step
    nodes: int
    memory: float | None
    reading: float | None
    training: float
    failures: float
    lost: float
    best_save_every: float

    @property
    def node_hours(self) -> float:
        """Hours that all nodes are taken, together."""
        return self.nodes * ((self.reading or 0.0) + self.training * (1 + self.lost)) / 3600


def lost_part(campaign: Campaign, mtbf: float) -> float:
    """Return by which part failures every ``mtbf`` seconds, and saving, make a job longer."""
    tau, delta = campaign.save_every, campaign.save
    exponent = (tau + delta) / mtbf
    return mtbf * math.exp(campaign.restart / mtbf) * math.expm1(exponent) / tau - 1


def best_save_every(campaign: Campaign, mtbf: float) -> float:
    """Return Daly's estimate of the best time between two saves, seconds."""
    delta = campaign.save
    if delta >= 2 * mtbf:
        return mtbf
    part = math.sqrt(delta / (2 * mtbf))
    return math.sqrt(2 * delta * mtbf) * (1 + part / 3 + part * part / 9) - delta


def training_cost(
    calibration: Calibration, step: Step, per_node: int, events: int, campaign: Campaign
) -> TrainingCost:
    """Return what a training of ``events`` per epoch costs with steps like this."""
    c, nodes = calibration, -(-step.ranks // per_node)
    memory = reading = None
    own = -(-events // step.ranks)  # events of a rank
    if c.rank_bytes is not None and c.event_bytes is not None:
        memory = min(per_node, step.ranks) * (c.rank_bytes + own * c.event_bytes)
    if c.read is not None and c.file_bytes is not None:
        reading = max(own * c.read, events * c.file_bytes / campaign.file_system)
    training = campaign.epochs * epoch_seconds(step, events)
    mtbf = campaign.node_mtbf / nodes
    return TrainingCost(
        step,
        nodes,
        memory,
        reading,
        training,
        training / mtbf,
        lost_part(campaign, mtbf),
        best_save_every(campaign, mtbf),
    )


# ------------------------------------------------------------------------------- to a given loss
@dataclass(frozen=True)
class Study:
    """Validation losses by epoch of trainings that differ in the events of a step, {events:
    [loss]}, with ``train`` events per epoch: what benchmarks/study.py steps writes.
    """

    train: int
    losses: dict[int, list[float]]

    @classmethod
    def load(cls, path: StrPath) -> Study:
        """Read what ``study.py steps --json`` wrote; ValueError where it is something else."""
        try:
            found = read_json(path)
            rows = {int(row["events_per_step"]): row["val_loss"] for row in found["rows"]}
            losses = {events: [float(loss) for loss in rows[events]] for events in sorted(rows)}
            study = cls(int(found["train"]), losses)
        except (TypeError, KeyError, AttributeError, ValueError) as problem:
            raise ValueError(
                f"{path}: not the figures of benchmarks/study.py steps ({problem!r})"
            ) from problem
        if not losses or not all(losses.values()) or study.train < 1:
            raise ValueError(f"{path}: a study needs trainings with losses")
        return study

    def common_loss(self) -> float:
        """Return the lowest loss that two of the trainings reach (or the only one)."""
        least = sorted(min(of_steps) for of_steps in self.losses.values())
        return least[min(1, len(least) - 1)]

    def epochs_to(self, events: int, loss: float) -> float | None:
        """Return the epochs that steps of so many events take to this loss, between two epochs
        along a line; None where it was not reached.
        """
        before: float | None = None
        for epoch, after in enumerate(self.losses[events], 1):
            if after <= loss:
                if before is None:
                    return float(epoch)
                return epoch - (loss - after) / max(before - after, 1e-12)
            before = after
        return None


def seconds_to_loss(
    model: ScalingModel, study: Study, loss: float, counts: Sequence[int], setting: Setting
) -> dict[int, dict[str, Any]]:
    """Return {events of a step: {"epochs": to the loss or None, "seconds": {ranks: seconds}}}; a
    rank has at least one event of each step.
    """
    found: dict[int, dict[str, Any]] = {}
    for events in study.losses:
        epochs = study.epochs_to(events, loss)
        found[events] = {"epochs": epochs, "seconds": {}}
        if epochs is not None:
            updates = epochs * study.train / events
            found[events]["seconds"] = {
                ranks: updates * model.step(ranks, events // ranks, setting).total
                for ranks in counts
                if events % ranks == 0
            }
    return found

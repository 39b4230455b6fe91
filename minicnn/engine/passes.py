"""What goes with one pass of a batch through a plan: what backward needs, targets, progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..kernels.types import Array, Shape
from ..nn.losses import Loss, LossResult, SoftmaxCrossEntropy
from .plan import Plan
from .stages import Stage


@dataclass
class Pass:
    """What the forward pass number ``number`` of a model over ``events`` events left for
    backward.
    """

    plan: Plan
    number: int
    events: int
    saved: list[Any] = field(default_factory=list)
    #: The LitMaps of outputs that became arrays for their loss, None for others.
    lit_outputs: list[Any] = field(default_factory=list)


class Targets:
    """The losses of a model, one per output, and the slots behind its gradients.

    tail: "events", "loss" (the sum of all losses), the figures of the losses, "not_finite". With
    several outputs the figures are called "<output>/loss", "<output>/correct", ...
    """

    def __init__(
        self, losses: Loss | Sequence[Loss] | None, shapes: list[Shape], names: list[str]
    ) -> None:
        if losses is None:
            losses = [SoftmaxCrossEntropy() for _ in shapes]
        self.losses = [losses] if isinstance(losses, Loss) else list(losses)
        if len(self.losses) != len(shapes) or not all(isinstance(n, Loss) for n in self.losses):
            raise ValueError(
                f"a model of {len(shapes)} output{'s' * (len(shapes) > 1)} needs as many losses, "
                f"got {losses!r}"
            )
        for loss, shape in zip(self.losses, shapes):
            loss.check_output(shape)
        self.shapes, self.names = shapes, names
        self.several = len(shapes) > 1
        own: list[str] = []
        for loss, name in zip(self.losses, names):
            figures = ("loss", *loss.figures) if self.several else loss.figures
            own += [f"{name}/{figure}" if self.several else figure for figure in figures]
        self.tail = ("events", "loss", *own, "not_finite")

    def check(self, y: Any, weights: Any, count: int) -> tuple[list[Any], np.ndarray | None]:
        """Return (checked targets of each output, weights float64 (N,) or None); ValueError naming
        the first event whose target or weight is wrong.
        """
        targets = list(y) if self.several else [y]
        if len(targets) != len(self.losses):
            raise ValueError(
                f"this model has {len(self.losses)} outputs: targets are a tuple of as many, got "
                f"{len(targets)}"
            )
        checked = [
            loss.check_targets(target, count, shape)
            for loss, target, shape in zip(self.losses, targets, self.shapes)
        ]
        if weights is None:
            return checked, None
        weights = np.asarray(weights, np.float64)
        if weights.shape != (count,) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(f"sample weights must be {count} finite numbers >= 0, got {weights!r}")
        return checked, weights

    def values(
        self,
        kernels: Any,
        outputs: Sequence[Array],
        targets: Sequence[Any],
        weights: np.ndarray | None,
        events: Sequence[Any],
        gradient: bool = True,
    ) -> list[LossResult]:
        """Return the LossResult of each output, weighted if it has gradients."""
        images = events[0]
        if gradient:
            return [
                loss.weighted(kernels, output, target, weights, images)
                for loss, output, target in zip(self.losses, outputs, targets)
            ]
        return [
            loss.forward(kernels, output, target, images, gradient=False)
            for loss, output, target in zip(self.losses, outputs, targets)
        ]

    def losses_of(self, results: Sequence[LossResult]) -> np.ndarray:
        """Return the loss (n,) of every event, summed over outputs."""
        return np.sum([result.losses for result in results], axis=0)

    def figures(self, results: Sequence[LossResult]) -> np.ndarray:
        """Return the slots of the tail, float64, for the results of one piece."""
        sums = [float(np.sum(result.losses, dtype=np.float64)) for result in results]
        own: list[float] = []
        for loss, result, total in zip(self.losses, results, sums):
            own += [total] if self.several else []
            own += [result.figures[name] for name in loss.figures]
        bad = not np.isfinite(sum(sums))
        return np.array([len(results[0].losses), sum(sums), *own, bad], np.float64)

    def summary(self, sums: dict[str, float]) -> dict[str, float]:
        """Return the means of summed tails: {"loss": ..., "accuracy": ...}."""
        if not self.several:
            return self.losses[0].summary(sums)
        means = {"loss": sums["loss"] / max(sums["events"], 1)}
        for loss, name in zip(self.losses, self.names):
            own = {k.split("/", 1)[1]: v for k, v in sums.items() if k.startswith(name + "/")}
            part = loss.summary({"events": sums["events"], **own})
            means |= {f"{name}/{key}": value for key, value in part.items()}
        return means

    def join(self, predictions: list[list[Any]]) -> list[Any]:
        """Return the predictions of each output over all pieces."""
        return [
            loss.join(pieces, shape)
            for loss, pieces, shape in zip(self.losses, predictions, self.shapes)
        ]

    def config(self) -> list[dict[str, Any]]:
        """Return the losses, JSON-ready."""
        return [{"type": type(loss).__name__, **loss.config()} for loss in self.losses]


class GradientProgress:
    """Tells, as a backward pass goes on, from where on the flat gradients are final: no stage that
    is still to come adds to a parameter there.
    """

    def __init__(self, plan: Plan, progress: Callable[[int], None] | None) -> None:
        self.progress = progress
        self.stop_of: dict[Stage, int] = {}
        if progress:
            self.stop_of = {stage: plan.stop_offset(stage.context) for stage in plan.stages}

    def stage_done(self, stage: Stage) -> None:
        """Count a stage whose backward pass is over."""
        assert self.progress is not None
        self.stop_of.pop(stage, None)
        self.progress(max(self.stop_of.values(), default=0))

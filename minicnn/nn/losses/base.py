"""The contract of a loss.

A loss owns everything that depends on what the targets are: the check of the targets and of the
model's output, the value and its gradient, what ``model.predict`` returns, the figures that ride
behind the gradients in the one Allreduce of a step, and the evaluation of a data set.

Values are *summed* over events: averages are taken after the reduction over ranks, so that unequal
batches stay exact. To add a loss: derive from Loss, define ``check_output``, ``check_targets``,
``forward`` and, for figures beyond the mean loss, ``figures``, ``summary`` and ``evaluation``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...kernels.types import Array, Shape

#: Loss classes by name: how a model file finds them.
LOSSES: dict[str, type[Loss]] = {}


@dataclass
class LossResult:
    """losses: (N,) on the host, before weights. predictions: as ``Loss.predict`` returns them.
    gradient: of the weighted *sum* of the losses with respect to the outputs, on the device; None
    unless it was asked for. figures: sums over events, by the names in ``Loss.figures``.
    """

    losses: np.ndarray
    predictions: Any
    gradient: Array | None = None
    figures: dict[str, float] = field(default_factory=dict)


class MeanLoss:
    """The evaluation of a loss without figures of its own: sums that add up over ranks."""

    def __init__(self) -> None:
        self.loss_sum, self.events = 0.0, 0

    def add(self, targets: Any, losses: np.ndarray, predictions: Any) -> None:
        """Count the events of one batch."""
        self.loss_sum += float(np.sum(losses, dtype=np.float64))
        self.events += len(losses)

    def flat(self) -> np.ndarray:
        """Return all sums as one float64 vector, for a reduction over ranks."""
        return np.array([self.loss_sum, self.events], np.float64)

    def load(self, sums: np.ndarray) -> None:
        """Take the sums of a vector like ``flat``'s."""
        self.loss_sum, self.events = float(sums[0]), round(sums[1])

    @property
    def loss(self) -> float:
        """Mean loss; nan without events."""
        return self.loss_sum / self.events if self.events else float("nan")

    def figures(self) -> dict[str, float]:
        """Return {"loss": mean loss, ...}: what histories call val_loss, ..."""
        return {"loss": self.loss}


class Loss:
    """Base of all losses. ``figures``: names of further sums per step, see ``summary``."""

    figures: tuple[str, ...] = ()
    #: Whether ``outputs`` may be a LitMap (engine/lit/map.py), as a model of images gives: a loss
    #: that looks at some positions then asks it for these, and its gradient is a LitGradient.
    takes_maps = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        other = LOSSES.get(cls.__name__)
        if other is not None and other.__module__ != cls.__module__:
            raise ValueError(
                f"a loss named {cls.__name__} is there already, in {other.__module__}: models are "
                "saved and loaded by this name, so choose another one"
            )
        LOSSES[cls.__name__] = cls

    # ------------------------------------------------------------------------------- to be defined
    def check_output(self, shape: Shape) -> None:
        """Raise ValueError unless a model whose output has this shape can have this loss."""

    def check_targets(self, targets: Any, count: int, shape: Shape) -> Any:
        """Return the targets of ``count`` events in the form that ``forward`` takes (something that
        slices like a list); ValueError naming the first event whose target is wrong. shape: of the
        model's output for one event.
        """
        raise NotImplementedError(f"{type(self).__name__}.check_targets")

    def forward(
        self,
        kernels: Any,
        outputs: Array,
        targets: Any,
        events: Sequence[Any] | None = None,
        gradient: bool = True,
    ) -> LossResult:
        """Return losses, predictions and, if asked for, the gradient, for outputs (N, ...) on the
        device. kernels: the backend. targets: of these events, as ``check_targets`` returns them.
        events: the images, for losses that look at their lit pixels.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")

    # --------------------------------------------------------------------- sensible for most losses
    def predict(self, kernels: Any, outputs: Array, events: Sequence[Any] | None = None) -> Any:
        """Return what the model predicts for outputs (N, ...) of the backend ``kernels``, on the
        host: by default the outputs themselves. events: the images, as of ``forward``.
        """
        return np.array(kernels.to_host(outputs))

    def join(self, predictions: list[Any], shape: Shape) -> Any:
        """Return the predictions of several pieces as those of the whole batch; shape: of the
        model's output for one event.
        """
        if not predictions:
            return np.zeros((0, *shape), np.float32)
        return np.concatenate(predictions)

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Return {"loss": mean, ...} for histories and progress; ``sums``: "events", "loss" and
        ``figures``, summed over steps.
        """
        return {"loss": sums["loss"] / max(sums["events"], 1)}

    def evaluation(self, shape: Shape) -> Any:
        """Return the evaluation of no events, like MeanLoss, for outputs of this shape."""
        return MeanLoss()

    def chance(self, shape: Shape) -> float | None:
        """Return the mean loss of a network that has learned nothing but to be indifferent, if
        there is such a figure. shape: of the model's output for one event.
        """
        return None

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-ready."""
        return dict(vars(self))

    # -------------------------------------------------------------------------- the same for all
    def weighted(
        self,
        kernels: Any,
        outputs: Array,
        targets: Any,
        weights: np.ndarray | None = None,
        events: Sequence[Any] | None = None,
    ) -> LossResult:
        """Return what ``forward`` does for kernels, outputs, targets and events, with losses and
        gradient times the weights (N,) of the events.
        """
        result = self.forward(kernels, outputs, targets, events)
        if weights is not None:
            result.losses = result.losses * weights
            each = (len(weights),) + (1,) * (outputs.ndim - 1)
            scale = kernels.asarray(np.asarray(weights, outputs.dtype).reshape(each))
            assert result.gradient is not None
            result.gradient = result.gradient * scale
        return result

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.config().items() if v is not None)
        return f"{type(self).__name__}({shown})"


def loss_from_config(config: Mapping[str, Any]) -> Loss:
    """Return the loss of ``config``, {"type": class name, **arguments}; ValueError where there is
    no such class.
    """
    options = dict(config)
    kind = options.pop("type")
    if kind not in LOSSES:
        raise ValueError(
            f"there is no loss class named {kind}: import the module that defines it first"
        )
    return LOSSES[kind](**options)


def float_targets(targets: Any, count: int, shape: Shape) -> np.ndarray:
    """Return targets as floats (count, *shape); ValueError for another shape or a value that is not
    finite.
    """
    array = np.asarray(targets)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"targets must be numbers, got an array of {array.dtype}")
    if array.shape == (count,) and shape == (1,):
        array = array[:, None]
    if array.shape != (count, *shape):
        raise ValueError(
            f"targets must have the shape {(count, *shape)}, one for each of {count} events, got "
            f"{array.shape}"
        )
    array = array.astype(np.float64)
    bad = ~np.isfinite(array.reshape(count, -1)).all(1)
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(f"event {i} of the batch has the target {array[i].tolist()}")
    return array

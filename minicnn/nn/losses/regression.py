"""Numbers per event, as the momentum of a particle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...kernels.types import Array, Shape
from .base import Loss, LossResult, float_targets


class Errors:
    """The evaluation of a regression: sums over events of the errors e = prediction - target.

    error_sum, absolute_sum, square_sum: (D,), in the units of the targets.
    """

    def __init__(self, outputs: int) -> None:
        self.loss_sum, self.events = 0.0, 0
        self.error_sum, self.absolute_sum, self.square_sum = np.zeros((3, outputs))

    def add(self, targets: np.ndarray, losses: np.ndarray, predictions: np.ndarray) -> None:
        """Count events with targets and predictions (N, D) and losses (N,)."""
        error = np.asarray(predictions, np.float64) - targets
        self.loss_sum += float(np.sum(losses, dtype=np.float64))
        self.events += len(losses)
        self.error_sum = self.error_sum + error.sum(0)
        self.absolute_sum = self.absolute_sum + np.abs(error).sum(0)
        self.square_sum = self.square_sum + (error**2).sum(0)

    def flat(self) -> np.ndarray:
        """Return all sums as one float64 vector, for a reduction over ranks."""
        sums = (self.error_sum, self.absolute_sum, self.square_sum)
        return np.concatenate([[self.loss_sum, self.events], *sums])

    def load(self, sums: np.ndarray) -> None:
        """Take the sums of a vector like ``flat``'s."""
        self.loss_sum, self.events = float(sums[0]), round(sums[1])
        self.error_sum, self.absolute_sum, self.square_sum = sums[2:].reshape(3, -1)

    @property
    def loss(self) -> float:
        """Mean loss; nan without events."""
        return self.loss_sum / self.events if self.events else float("nan")

    @property
    def bias(self) -> np.ndarray:
        """Mean error (D,)."""
        return self.error_sum / max(self.events, 1)

    @property
    def mean_absolute_error(self) -> np.ndarray:
        """Mean |error| (D,)."""
        return self.absolute_sum / max(self.events, 1)

    @property
    def root_mean_squared_error(self) -> np.ndarray:
        """Square root of the mean squared error (D,)."""
        return np.sqrt(self.square_sum / max(self.events, 1))

    def figures(self) -> dict[str, float]:
        """Return the loss and the means over outputs of the errors."""
        return {
            "loss": self.loss,
            "mean_absolute_error": float(self.mean_absolute_error.mean()),
            "root_mean_squared_error": float(self.root_mean_squared_error.mean()),
            "bias": float(self.bias.mean()),
        }


class _Regression(Loss):
    """A loss of the difference d = output - target / scale, averaged over the outputs of an
    event.
    """

    figures = ("absolute_error",)

    def __init__(self, scale: float = 1.0) -> None:
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a finite number above 0, got {scale}")
        self.scale = float(scale)

    def of_difference(self, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (loss, derivative) of every difference, both like d."""
        raise NotImplementedError

    def check_output(self, shape: Shape) -> None:
        if len(shape) != 1:
            raise ValueError(
                f"the last layer must give (outputs,), got {shape}: add Flatten, Dense"
            )

    def check_targets(self, targets: Any, count: int, shape: Shape) -> np.ndarray:
        return float_targets(targets, count, shape)

    def forward(
        self,
        kernels: Any,
        outputs: Array,
        targets: np.ndarray,
        events: Sequence[Any] | None = None,
        gradient: bool = True,
    ) -> LossResult:
        host = np.asarray(kernels.to_host(outputs), np.float64)
        losses, slopes = self.of_difference(host - targets / self.scale)
        predictions = host * self.scale
        slope = (
            kernels.asarray((slopes / host.shape[1]).astype(outputs.dtype)) if gradient else None
        )
        absolute = float(np.abs(predictions - targets).mean(1).sum())
        return LossResult(losses.mean(1), predictions, slope, {"absolute_error": absolute})

    def predict(self, kernels: Any, outputs: Array, events: Any = None) -> np.ndarray:
        return np.array(kernels.to_host(outputs)) * outputs.dtype.type(self.scale)

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        n = max(sums["events"], 1)
        return {"loss": sums["loss"] / n, "mean_absolute_error": sums["absolute_error"] / n}

    def evaluation(self, shape: Shape) -> Errors:
        return Errors(shape[0])


class MeanSquaredError(_Regression):
    """mean over outputs of (output - target / scale)^2.

    scale: the size of the targets, so that the network works with numbers of order 1; predictions
    are output * scale, in the units of the targets.
    """

    def of_difference(self, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return d * d, 2 * d


class Huber(_Regression):
    """mean over outputs of h(output - target / scale), h(d) = d^2 / 2 where |d| <= delta, else
    delta (|d| - delta / 2)  (Huber 1964): far outliers pull with a constant force.
    """

    def __init__(self, delta: float = 1.0, scale: float = 1.0) -> None:
        super().__init__(scale)
        if not delta > 0:
            raise ValueError(f"delta must be > 0, got {delta}")
        self.delta = float(delta)

    def of_difference(self, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inside = np.abs(d) <= self.delta
        outside = self.delta * (np.abs(d) - self.delta / 2)
        return np.where(inside, d * d / 2, outside), np.clip(d, -self.delta, self.delta)

"""One class per event."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...kernels.types import Array, Shape
from .base import Loss, LossResult
from .evaluation import Evaluation


class SoftmaxCrossEntropy(Loss):
    """-log p[label] with p = softmax(outputs); targets are integers 0 .. classes - 1.

    class_weights: (classes,) factors by the true class. label_smoothing s: the target is 1 - s on
    the true class and s / classes everywhere besides (Szegedy et al. 2016). focal g: each loss
    times (1 - p[label])^g, which leaves out events that are told already (Lin et al. 2017).
    Predictions are the softmax scores (N, classes).
    """

    figures = ("correct",)

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        focal: float = 0.0,
    ) -> None:
        if class_weights is not None:
            class_weights = [float(weight) for weight in class_weights]
            if not all(weight >= 0 for weight in class_weights):
                raise ValueError(f"class_weights must be >= 0, got {class_weights}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        if not focal >= 0:
            raise ValueError(f"focal must be >= 0, got {focal}")
        if focal and label_smoothing:
            raise ValueError("focal goes with label_smoothing=0: it looks at the true class alone")
        self.class_weights = class_weights
        self.label_smoothing, self.focal = float(label_smoothing), float(focal)

    def check_output(self, shape: Shape) -> None:
        if len(shape) != 1:
            raise ValueError(
                f"the last layer must give (classes,), got {shape}: add Flatten and Dense, or "
                "another loss"
            )
        if self.class_weights is not None and len(self.class_weights) != shape[0]:
            raise ValueError(
                f"{len(self.class_weights)} class_weights for a network of {shape[0]} classes"
            )

    def check_targets(self, targets: Any, count: int, shape: Shape) -> np.ndarray:
        return check_labels(targets, count, shape[0])

    def forward(
        self,
        kernels: Any,
        outputs: Array,
        targets: np.ndarray,
        events: Sequence[Any] | None = None,
        gradient: bool = True,
    ) -> LossResult:
        labels = kernels.asarray(targets)
        losses, scores = kernels.softmax_cross_entropy(outputs, labels)
        plain = self.class_weights is None and not self.label_smoothing and not self.focal
        dlogits = None
        if gradient and plain:
            dlogits = kernels.softmax_cross_entropy_backward(scores, labels)
        losses, scores = kernels.to_host(losses), kernels.to_host(scores)
        if not plain:
            losses, slope = self._modified(np.asarray(scores, np.float64), targets)
            if gradient:
                dlogits = kernels.asarray(slope.astype(outputs.dtype))
        correct = float((scores.argmax(1) == targets).sum()) if len(targets) else 0.0
        return LossResult(losses, scores, dlogits, {"correct": correct})

    def _modified(self, p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (losses (N,), gradients (N, classes)) with weights, smoothing and focus, for
        scores p; on the host, because both are small.
        """
        rows, classes = np.arange(len(labels)), p.shape[1]
        log_p = np.log(np.maximum(p, np.finfo(np.float64).tiny))
        target = np.full_like(p, self.label_smoothing / classes)
        target[rows, labels] += 1 - self.label_smoothing
        losses, slope = -(target * log_p).sum(1), p - target
        if self.focal:
            # q = p[label], dq/dz = q (one_hot - p), and d/dq of -(1 - q)^g log q by the product
            # rule. Where q = 1 the logarithm is 0, so that any finite value of rest^(g - 1) will
            # do.
            q, g = p[rows, labels], self.focal
            rest, log_q = 1 - q, log_p[rows, labels]
            losses = -(rest**g) * log_q
            power = np.where(rest > 0, rest, 1) ** (g - 1)
            slope = (target - p) * (g * power * q * log_q - rest**g)[:, None]
        if self.class_weights is not None:
            weights = np.asarray(self.class_weights)[labels]
            losses, slope = losses * weights, slope * weights[:, None]
        return losses, slope

    def predict(self, kernels: Any, outputs: Array, events: Any = None) -> np.ndarray:
        return np.array(kernels.to_host(softmax(kernels, outputs)))

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        n = max(sums["events"], 1)
        return {"loss": sums["loss"] / n, "accuracy": sums["correct"] / n}

    def evaluation(self, shape: Shape) -> Evaluation:
        return Evaluation.empty(shape[0])

    def chance(self, shape: Shape) -> float | None:
        return math.log(shape[0])


def softmax(kernels: Any, logits: Array) -> Array:
    """Return the softmax scores (N, classes) of the logits."""
    return kernels.softmax_cross_entropy(logits, kernels.zeros((len(logits),), np.int64))[1]


def check_labels(labels: Any, count: int, classes: int) -> np.ndarray:
    """Return labels as int64 (count,); raises ValueError naming the first one out of 0 .. classes -
    1.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be {count} integers, got shape {labels.shape} of {labels.dtype}; a "
            "regression has another loss, as mc.MeanSquaredError()"
        )
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(
            f"event {i} of the batch has the label {labels[i]}; the network has the classes 0 to "
            f"{classes - 1}"
        )
    return labels.astype(np.int64)

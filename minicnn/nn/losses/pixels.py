"""One class per lit pixel, as track or shower."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...data.pixel_classes import IGNORED
from ...kernels.types import Array, Shape
from .base import Loss, LossResult
from .evaluation import Evaluation


class PixelEvaluation(Evaluation):
    """An Evaluation whose entries are pixels; its loss is the mean over events."""

    loss_events: int = 0

    def add(self, y: Any, losses: np.ndarray, scores: Any) -> None:
        """Count events with lists of labels (n,) and scores (n, C) of their pixels."""
        self.loss_sum += float(np.sum(losses, dtype=np.float64))
        self.loss_events += len(losses)
        for labels, p in zip(y, scores):
            labels, p = np.ravel(labels), p.reshape(-1, p.shape[-1])
            counted = labels != IGNORED
            np.add.at(self.confusion, (labels[counted], p[counted].argmax(1)), 1)
            np.add.at(self.score_sums, labels[counted], p[counted].astype(np.float64))

    def flat(self) -> np.ndarray:
        return np.concatenate([super().flat(), [self.loss_events]])

    def load(self, sums: np.ndarray) -> None:
        super().load(sums[:-1])
        self.loss_events = round(sums[-1])

    @property
    def loss(self) -> float:
        return self.loss_sum / self.loss_events if self.loss_events else float("nan")


class PixelCrossEntropy(Loss):
    """The mean over an event's labelled pixels of -log p[label], p = softmax of the output there.

    The output is (H, W, classes). The target of an event is a vector of labels in the order of its
    SparseImage's ``coords``, or an array (H, W); the label 255 leaves a pixel out. An event without
    labelled pixels has the loss 0. class_weights: (classes,) factors by the true class.
    Predictions: for each event the scores (n, classes) at the pixels that it lists, (H, W, classes)
    for an array.
    """

    figures = ("correct_pixels", "pixels")
    takes_maps = True

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]

    def check_output(self, shape: Shape) -> None:
        if len(shape) != 3:
            raise ValueError(f"the last layer must give (height, width, classes), got {shape}")
        if self.class_weights is not None and len(self.class_weights) != shape[2]:
            raise ValueError(
                f"{len(self.class_weights)} class_weights for a network of {shape[2]} classes"
            )

    def check_targets(self, targets: Any, count: int, shape: Shape) -> list[np.ndarray]:
        if len(targets) != count:
            raise ValueError(f"{count} events, but labels of {len(targets)}")
        checked = []
        for i, labels in enumerate(targets):
            labels = np.asarray(labels)
            if labels.dtype.kind not in "iu":
                raise ValueError(
                    f"event {i} of the batch: pixel labels must be integers, got {labels.dtype}"
                )
            bad = (labels < 0) | ((labels >= shape[2]) & (labels != IGNORED))
            if bad.any():
                raise ValueError(
                    f"event {i} of the batch has a pixel of label {labels[bad][0]}; the network "
                    f"has the classes 0 to {shape[2] - 1}, and {IGNORED} leaves a pixel out"
                )
            checked.append(labels.astype(np.int64))
        return checked

    def forward(
        self,
        kernels: Any,
        outputs: Any,
        targets: list[np.ndarray],
        events: Sequence[Any] | None = None,
        gradient: bool = True,
    ) -> LossResult:
        scale = np.ones(len(outputs)) if gradient else None
        return self._result(kernels, outputs, targets, events, scale)

    def weighted(
        self,
        kernels: Any,
        outputs: Any,
        targets: list[np.ndarray],
        weights: np.ndarray | None = None,
        events: Sequence[Any] | None = None,
    ) -> LossResult:
        # The gradient of a LitMap is in part a sum over events: their weights must be in it before.
        scale = np.ones(len(outputs)) if weights is None else weights
        result = self._result(kernels, outputs, targets, events, scale)
        result.losses = result.losses * scale
        return result

    def _result(
        self,
        kernels: Any,
        outputs: Any,
        targets: list[np.ndarray],
        events: Sequence[Any] | None,
        scale: np.ndarray | None,
    ) -> LossResult:
        """Return the LossResult, with the gradient of the sum of ``scale`` (N,) times the
        losses.
        """
        n, height, width, classes = outputs.shape
        positions = _on_one_list(
            [_positions(t, i, events, (height, width)) for i, t in enumerate(targets)], height
        )
        # All listed pixels, so that the scores are there to be shown; what is ignored gets weight
        # 0.
        flat = np.concatenate([t.ravel() for t in targets]) if targets else np.zeros(0, np.int64)
        counted = flat != IGNORED
        labels = np.where(counted, flat, 0)
        event = np.repeat(np.arange(n), [t.size for t in targets])
        weights = counted.astype(np.float64)
        if self.class_weights is not None:
            weights *= np.asarray(self.class_weights)[labels]
        weights /= np.maximum(np.bincount(event, counted, n), 1)[event]
        logits, gradient_of = _pick(kernels, outputs, kernels.asarray(positions))
        device_labels = kernels.asarray(labels)
        pixel_losses, scores = kernels.softmax_cross_entropy(logits, device_labels)
        slope = None
        if scale is not None:
            each = kernels.softmax_cross_entropy_backward(scores, device_labels)
            factors = (weights * scale[event])[:, None].astype(logits.dtype)
            slope = gradient_of(each * kernels.asarray(factors))
        losses = np.bincount(event, np.asarray(kernels.to_host(pixel_losses)) * weights, n)
        host = np.asarray(kernels.to_host(scores))
        correct = float(((host.argmax(1) == flat) & counted).sum()) if len(flat) else 0.0
        figures = {"correct_pixels": correct, "pixels": float(counted.sum())}
        shapes = [(*t.shape, classes) for t in targets]
        return LossResult(losses, _split(host, shapes), slope, figures)

    def predict(
        self, kernels: Any, outputs: Any, events: Sequence[Any] | None = None
    ) -> list[np.ndarray]:
        n, height, width, classes = outputs.shape
        coords = [
            getattr(events[i], "coords", None) if events is not None else None for i in range(n)
        ]
        places = [_everywhere((height, width)) if c is None else c for c in coords]
        logits, _ = _pick(kernels, outputs, kernels.asarray(_on_one_list(places, height)))
        scores = kernels.softmax_cross_entropy(logits, kernels.zeros((len(logits),), np.int64))[1]
        shapes = [(height, width, classes) if c is None else (len(c), classes) for c in coords]
        return _split(np.asarray(kernels.to_host(scores)), shapes)

    def join(self, predictions: list[Any], shape: Shape) -> list[np.ndarray]:
        return [scores for piece in predictions for scores in piece]

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {
            "loss": sums["loss"] / max(sums["events"], 1),
            "accuracy": sums["correct_pixels"] / max(sums["pixels"], 1),
        }

    def evaluation(self, shape: Shape) -> PixelEvaluation:
        return PixelEvaluation.empty(shape[2])  # type: ignore[return-value]


def _positions(
    labels: np.ndarray, number: int, events: Sequence[Any] | None, size: tuple[int, int]
) -> np.ndarray:
    """Return the positions (n, 2) that the labels of an event belong to, in their order."""
    if labels.shape == size:
        return _everywhere(size)
    coords = getattr(events[number], "coords", None) if events is not None else None
    if labels.ndim != 1 or coords is None or len(coords) != len(labels):
        raise ValueError(
            f"event {number} of the batch: pixel labels of shape {labels.shape} are neither those "
            f"of {'an array' if coords is None else f'its {len(coords)} listed pixels'} nor of an "
            f"image {size}"
        )
    return coords


def _everywhere(size: tuple[int, int]) -> np.ndarray:
    return np.indices(size).reshape(2, -1).T


def _on_one_list(places: list[np.ndarray], height: int) -> np.ndarray:
    """Return the positions of all events, int32 (m, 2); rows count on through the events."""
    rows = [
        positions + np.array([i * height, 0], positions.dtype) for i, positions in enumerate(places)
    ]
    return np.concatenate(rows).astype(np.int32) if rows else np.zeros((0, 2), np.int32)


def _split(scores: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
    """Return the scores (m, classes) of each event, in its shape."""
    cuts = np.cumsum([math.prod(shape[:-1]) for shape in shapes])[:-1].astype(int)
    return [p.reshape(shape).copy() for p, shape in zip(np.split(scores, cuts), shapes)]


def _pick(kernels: Any, outputs: Any, positions: Array) -> tuple[Array, Callable[[Array], Any]]:
    """Return the outputs (m, classes) at these positions, and the function that makes the gradient
    of all outputs of that of these.
    """
    if hasattr(outputs, "pick"):
        return outputs.pick(positions)

    def gradient(slope: Array) -> Array:
        return kernels.put_pixels(kernels.zeros(outputs.shape, outputs.dtype), positions, slope)

    return kernels.take_pixels(outputs, positions), gradient

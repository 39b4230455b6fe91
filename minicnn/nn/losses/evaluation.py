"""What a classifier did: loss, accuracy, confusion, and the talk's table of summed scores."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Evaluation:
    """Sums over events, so that the evaluations of several ranks add up.

    loss_sum: summed cross-entropy. confusion (C, C): events of truth i whose highest score was j.
    score_sums (C, C): summed softmax score j over events of truth i.
    """

    loss_sum: float
    confusion: np.ndarray
    score_sums: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> "Evaluation":
        """Return the evaluation of no events with labels 0 to ``classes`` - 1."""
        return cls(0.0, np.zeros((classes, classes)), np.zeros((classes, classes)))

    def add(self, y: np.ndarray, losses: np.ndarray, scores: np.ndarray) -> None:
        """Count events with labels y (N,), losses (N,) and scores (N, C)."""
        self.loss_sum += float(np.sum(losses, dtype=np.float64))
        np.add.at(self.confusion, (y, scores.argmax(1)), 1)
        np.add.at(self.score_sums, y, scores.astype(np.float64))

    def flat(self) -> np.ndarray:
        """Return all sums as one float64 vector, for a reduction over ranks."""
        return np.concatenate([[self.loss_sum], self.confusion.ravel(), self.score_sums.ravel()])

    @classmethod
    def from_flat(cls, sums: np.ndarray) -> "Evaluation":
        """Return the evaluation whose ``flat`` is ``sums``."""
        classes = round(((len(sums) - 1) / 2) ** 0.5)
        confusion, scores = sums[1:].reshape(2, classes, classes)
        return cls(float(sums[0]), confusion.copy(), scores.copy())

    def load(self, sums: np.ndarray) -> None:
        """Take the sums of a vector like ``flat``'s."""
        other = self.from_flat(sums)
        self.loss_sum, self.confusion = other.loss_sum, other.confusion
        self.score_sums = other.score_sums

    def figures(self) -> dict[str, float]:
        """Return {"loss": mean loss, "accuracy": fraction right}."""
        return {"loss": self.loss, "accuracy": float(self.accuracy)}

    @property
    def counts(self) -> np.ndarray:
        """Events per truth class."""
        return self.confusion.sum(1).astype(int)

    @property
    def correct(self) -> np.ndarray:
        """Events per truth class whose highest score was right."""
        return np.diag(self.confusion).astype(int)

    @property
    def events(self) -> int:
        """Number of events."""
        return int(self.confusion.sum())

    @property
    def loss(self) -> float:
        """Mean loss; nan without events."""
        return self.loss_sum / self.events if self.events else float("nan")

    @property
    def accuracy(self) -> float:
        """Fraction right; nan without events."""
        return self.correct.sum() / self.events if self.events else float("nan")

    @property
    def efficiency(self) -> np.ndarray:
        """Per truth class: fraction that was recognised; nan where there is none."""
        return _ratio(self.correct, self.counts)

    @property
    def purity(self) -> np.ndarray:
        """Per predicted class: fraction that was right; nan where nothing was predicted."""
        return _ratio(self.correct, self.confusion.sum(0))


def _ratio(part, whole):
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=np.asarray(whole) > 0)

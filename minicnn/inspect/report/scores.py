"""What a classifier's scores are worth: the figures that physicists ask for.

Fractions k of n come with the Wilson interval of 68.3 %, which stays within 0 and 1 and is right
for few events too (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...files import StrPath
from .figures import save_figure

#: Cells of the reliability diagram, and cuts that are tried.
CALIBRATION_BINS, CUTS = 10, 101


@dataclass(frozen=True)
class ScoredEvents:
    """Events of known truth with their scores. labels int64 (n,), scores float64 (n, C), softmax.
    quantities: {name and unit: float64 (n,)}, nan where it is not known.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    quantities: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (len(self.labels), len(self.class_names))
        if self.scores.shape != expected:
            raise ValueError(f"scores of shape {self.scores.shape}, expected {expected}")

    @property
    def predicted(self) -> np.ndarray:
        """The class with the highest score, int64 (n,)."""
        return self.scores.argmax(1)


def binomial(k: Any, n: Any, z: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (fraction, low, high) of ``k`` out of ``n``: the Wilson interval of z standard
    deviations, nan where n is 0.
    """
    k, n = np.asarray(k, np.float64), np.asarray(n, np.float64)
    known = np.where(n > 0, n, np.nan)
    fraction = k / known
    middle = (fraction + z * z / (2 * known)) / (1 + z * z / known)
    half = (
        z
        / (1 + z * z / known)
        * np.sqrt(fraction * (1 - fraction) / known + z * z / (4 * known**2))
    )
    return fraction, middle - half, middle + half


def roc(events: ScoredEvents, label: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (efficiency for class k, efficiency for all others, area under the curve) as the cut
    on score k falls from above the highest to 0; events of equal scores pass together. nan where
    class k or the others have no events.
    """
    signal = events.labels == label
    score = events.scores[:, label]
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)[: len(score)]
    with np.errstate(invalid="ignore", divide="ignore"):
        kept, mistaken = (
            np.concatenate([[0.0], np.cumsum(chosen[order])[ends] / np.sum(chosen)])
            for chosen in (signal, ~signal)
        )
    return kept, mistaken, float(np.trapezoid(kept, mistaken))


@dataclass(frozen=True)
class Cuts:
    """What is left above each cut on a class's score: efficiency and purity, each (fraction, low,
    high), arrays (CUTS,).
    """

    cut: np.ndarray
    efficiency: tuple[np.ndarray, np.ndarray, np.ndarray]
    purity: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def best(self) -> int:
        """The index of the largest efficiency times purity; 0 where there is none."""
        product = np.nan_to_num(self.efficiency[0] * self.purity[0], nan=-1.0)
        return int(product.argmax())


def cuts(events: ScoredEvents, label: int) -> Cuts:
    """Return efficiency and purity of class k above each of CUTS cuts from 0 to 1."""
    cut = np.linspace(0, 1, CUTS)
    passing, right = (
        len(chosen) - np.searchsorted(np.sort(chosen), cut, "left")
        for chosen in (events.scores[:, label], events.scores[events.labels == label, label])
    )
    total = np.sum(events.labels == label)
    return Cuts(cut, binomial(right, np.full(CUTS, total)), binomial(right, passing))


def calibration(events: ScoredEvents) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return (mean of the highest score, events, events that are right, expected calibration error)
    in CALIBRATION_BINS cells of the highest score from 0 to 1: the error is the mean distance of
    score and fraction right, by events (Naeini et al. 2015).
    """
    highest = events.scores.max(1, initial=0.0)
    cell = np.minimum((CALIBRATION_BINS * highest).astype(int), CALIBRATION_BINS - 1)
    right = events.predicted == events.labels
    n, k, total = (
        np.bincount(cell, weights, CALIBRATION_BINS) for weights in (None, right, highest)
    )
    mean = np.divide(total, n, out=np.full(CALIBRATION_BINS, np.nan), where=n > 0)
    error = np.abs(total - k).sum() / max(n.sum(), 1)
    return mean, n, k, float(error)


def scores_table(events: ScoredEvents) -> str:
    """Return a line per class as text: efficiency and purity of the highest score with errors, the
    area under the ROC curve, and the cut with the largest efficiency times purity.
    """
    width = max(5, *map(len, events.class_names)) + 2
    lines = [
        f"{'class':{width}}{'events':>7}{'efficiency':>22}{'purity':>22}{'ROC area':>10}"
        f"{'best cut':>10}{'efficiency':>12}{'purity':>9}"
    ]
    for k, name in enumerate(events.class_names):
        truth, taken = events.labels == k, events.predicted == k
        right = np.sum(truth & taken)
        of_class = cuts(events, k)
        best = of_class.best
        lines.append(
            f"{name:{width}}{np.sum(truth):>7,}{_with_error(right, np.sum(truth)):>22}"
            f"{_with_error(right, np.sum(taken)):>22}{roc(events, k)[2]:>10.4f}"
            f"{of_class.cut[best]:>10.2f}{_percent(of_class.efficiency[0][best]):>12}"
            f"{_percent(of_class.purity[0][best]):>9}"
        )
    mean_error = 100 * calibration(events)[3]
    return "\n".join(
        [
            *lines,
            "",
            "efficiency and purity of the highest score, errors of 68.3 % (Wilson); the best cut",
            "on a class's score is the one with the largest efficiency times purity;",
            f"expected calibration error {mean_error:.2f} %",
        ]
    )


def _with_error(k: Any, n: Any) -> str:
    fraction, low, high = (float(100 * part) for part in binomial(k, n))
    if not np.isfinite(fraction):
        return "-"
    return f"{fraction:.1f} +{high - fraction:.1f} -{fraction - low:.1f} %"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %" if np.isfinite(fraction) else "-"


# ---------------------------------------------------------------------------------------- pictures
def draw_roc(path: StrPath, events: ScoredEvents) -> StrPath:
    """Draw for each class what part of the other events a cut keeps against what it keeps of the
    class's own; returns ``path``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    least = 1.0
    for k, name in enumerate(events.class_names):
        kept, mistaken, area = roc(events, k)
        if np.isfinite(area):
            axes.step(kept, mistaken, where="post", label=f"{name}: area {area:.4f}")
            least = min(least, np.min(mistaken[mistaken > 0], initial=1.0))
    axes.set_yscale("log")
    axes.set_ylim(least / 2, 1.2)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("efficiency for the class")
    axes.set_ylabel("efficiency for all others")
    _finish(axes)
    return save_figure(figure, path)


def draw_cuts(path: StrPath, events: ScoredEvents) -> StrPath:
    """Draw for each class efficiency, purity and their product against the cut on its score, with
    errors; returns ``path``.
    """
    from matplotlib.figure import Figure

    n = len(events.class_names)
    columns = min(n, 3)
    lines = -(-n // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * lines), dpi=110, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for label, (axes, name) in enumerate(zip(panels, events.class_names)):
        found = cuts(events, label)
        for what, (fraction, low, high), colour in (
            ("efficiency", found.efficiency, "C0"),
            ("purity", found.purity, "C1"),
        ):
            axes.fill_between(found.cut, low, high, color=colour, alpha=0.25, linewidth=0)
            axes.plot(found.cut, fraction, color=colour, label=what)
        product = found.efficiency[0] * found.purity[0]
        axes.plot(found.cut, product, color="C2", label="product")
        axes.axvline(found.cut[found.best], color="grey", linestyle=":")
        axes.set_title(f"{name}: best above {found.cut[found.best]:.2f}", fontsize=10)
        axes.set_xlabel(f"cut on the score of {name}")
        _finish(axes, label == 0)
    for axes in panels[n:]:
        axes.set_axis_off()
    panels[0].set_ylim(-0.02, 1.02)
    return save_figure(figure, path)


def draw_calibration(path: StrPath, events: ScoredEvents) -> StrPath:
    """Draw the reliability diagram: what part of the events with a highest score of so much is
    right, with errors, and how many there are; returns ``path``.
    """
    from matplotlib.figure import Figure

    mean, n, k, error = calibration(events)
    figure = Figure(figsize=(5.6, 5.6), dpi=120, layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    fraction, low, high = binomial(k, n)
    filled = n > 0
    errors = np.maximum([(fraction - low)[filled], (high - fraction)[filled]], 0)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="as often right as it says")
    axes.errorbar(mean[filled], fraction[filled], errors, fmt="o-", capsize=3, label="this model")
    axes.set_ylabel("fraction that is right")
    axes.set_ylim(-0.02, 1.02)
    axes.set_title(f"expected calibration error {100 * error:.2f} %", fontsize=10)
    _finish(axes)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    below.bar(edges[:-1], n, width=1 / CALIBRATION_BINS, align="edge", edgecolor="white")
    below.set_ylabel("events")
    below.set_xlabel("highest score")
    below.grid(alpha=0.3)
    return save_figure(figure, path)


def _finish(axes: Any, legend: bool = True) -> None:
    axes.grid(alpha=0.3)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9)

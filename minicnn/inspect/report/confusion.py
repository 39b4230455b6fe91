"""What was taken for what: the talk's validation table, a CSV file and a picture.

Everywhere row = truth, column = prediction, both in the order of ``class_names``.
"""

import csv
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...files import StrPath, atomic_file
from .figures import save_figure
from .scores import binomial


def talk_table(
    scores_sum: ArrayLike, correct: ArrayLike, counts: ArrayLike, class_names: Sequence[str]
) -> str:
    """Return the talk's validation table as text.

    The first line counts the events of each class. Then, a line per truth class: the softmax score
    of each class, summed over its events (scores_sum (C, C)), and for how many of them the highest
    score was correct (C,).
    """
    scores_sum, correct, counts = _checked(class_names, scores_sum, correct, counts)
    first = max(5, *map(len, class_names)) + 2
    widths = [
        max(len(name), *(len(f"{score:.2f}") for score in column)) + 2
        for name, column in zip(class_names, scores_sum.T)
    ]
    lines = [
        " ".join(f"{name}: {count:.2f}" for name, count in zip(class_names, counts)),
        "",
        f"{'Truth':{first}}{'  Prediction':{sum(widths)}}  highest score",
        " " * first
        + "".join(f"{name:>{width}}" for name, width in zip(class_names, widths))
        + "  was correct:",
    ]
    for name, scores, right in zip(class_names, scores_sum, correct):
        lines.append(
            f"{name:{first}}"
            + "".join(f"{score:{width}.2f}" for score, width in zip(scores, widths))
            + f"  {round(right):>12}"
        )
    return "\n".join(lines)


def write_confusion_csv(
    path: StrPath, confusion: ArrayLike, scores_sum: ArrayLike, class_names: Sequence[str]
) -> StrPath:
    """Write a CSV file with a line per truth class; returns ``path``.

    Columns: truth, events, correct, efficiency, purity, then per class the number of events for
    which it had the highest score ("predicted gamma" ...; confusion (C, C)) and its summed softmax
    score ("score gamma" ...).
    """
    scores_sum, confusion = _checked(class_names, scores_sum, confusion)
    efficiency, purity = _efficiency_purity(confusion)
    with atomic_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "truth",
                "events",
                "correct",
                "efficiency",
                "purity",
                *(f"predicted {name}" for name in class_names),
                *(f"score {name}" for name in class_names),
            ]
        )
        for k, name in enumerate(class_names):
            writer.writerow(
                [
                    name,
                    round(confusion[k].sum()),
                    round(confusion[k, k]),
                    f"{efficiency[k]:.6f}",
                    f"{purity[k]:.6f}",
                    *(round(count) for count in confusion[k]),
                    *(f"{score:.6f}" for score in scores_sum[k]),
                ]
            )
    return path


def draw_confusion(
    path: StrPath, confusion: ArrayLike, class_names: Sequence[str], title: str | None = None
) -> StrPath:
    """Draw a confusion matrix (C, C) to ``path``: colour is the fraction of the row; returns
    ``path``.

    Numbers are that fraction and the number of events. Beside it the efficiency (of the events of a
    class, the fraction that was recognised), below it the purity (of those taken for a class, the
    fraction that is of it).
    """
    from matplotlib.figure import Figure

    (confusion,) = _checked(class_names, confusion)
    efficiency, purity = _efficiency_purity(confusion)
    counts, n = confusion.sum(1), len(class_names)
    fraction = confusion / np.where(counts > 0, counts, 1)[:, None]
    figure = Figure(figsize=(2.9 + 1.05 * n, 1.9 + 0.85 * n), dpi=120, layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(n, n):
        axes.text(
            j,
            i,
            f"{fraction[i, j]:.2f}\n{confusion[i, j]:g}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if fraction[i, j] > 0.6 else "black",
        )
    axes.set_yticks(range(n), [f"{name}\n({count:g})" for name, count in zip(class_names, counts)])
    axes.set_xticks(
        range(n), [f"{name}\npurity {_percent(p)}" for name, p in zip(class_names, purity)]
    )
    axes.set_ylabel("truth (events)")
    axes.set_xlabel("highest score")
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(n), [_percent(e) for e in efficiency])
    right.set_ylabel("efficiency")
    figure.colorbar(picture, ax=axes, label="fraction of the truth class", shrink=0.9)
    total = confusion.sum()
    accuracy = (
        f"accuracy {_percent(np.trace(confusion) / total)} of {total:g} events"
        if total
        else "no events"
    )
    axes.set_title(f"{title}: {accuracy}" if title else accuracy)
    return save_figure(figure, path)


#: Events that a point of ``draw_accuracy`` needs, to say anything.
FEWEST = 5


def draw_accuracy(
    path: StrPath,
    quantities: Mapping[str, ArrayLike],
    labels: ArrayLike,
    predicted: ArrayLike,
    class_names: Sequence[str],
    bins: int = 8,
) -> StrPath:
    """Draw against each quantity, class by class, what fraction of the events was recognised;
    returns ``path``.

    quantities: {name: values (N,)}, a panel each, two in a row; where a value is nan, its panel
    leaves the event out; one that is never known, or the same for all, has no panel. labels,
    predicted: (N,). Bins hold equally many events of all classes together; where a class has fewer
    than FEWEST of them, it has no point if it has others. A point is at the median of its events.
    Bars are Wilson intervals of 68.3 %.
    Raises ValueError without events.
    """
    from matplotlib.figure import Figure

    labels, right, values = (
        np.asarray(labels),
        np.equal(labels, predicted),
        np.array(list(quantities.values()), np.float64),
    )
    known = np.isfinite(values)
    drawn = {name: k for k, name in enumerate(quantities) if known[k].any()}
    varied = {name: k for name, k in drawn.items() if _varies(values[k, known[k]])}
    drawn = varied or drawn
    if not drawn:
        raise ValueError(f"{path}: no events of known {' and '.join(quantities)} to draw")
    columns = min(len(drawn), 2)
    lines = -(-len(drawn) // columns)
    size = (6.5 * columns, 4.5 * lines)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, k) in zip(panels, drawn.items()):
        chosen = known[k]
        _accuracy_against(axes, values[k, chosen], labels[chosen], right[chosen], class_names, bins)
        axes.set_xlabel(name)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("fraction with the highest score for the truth")
    panels[0].legend()
    for axes in panels[len(drawn) :]:
        axes.set_axis_off()
    right = right[known.any(0)]
    figure.suptitle(f"accuracy {_percent(right.mean())} of {len(right)} events")
    return save_figure(figure, path)


def _varies(value):
    """Tell whether values differ by more than rounding: a beam has one momentum."""
    return np.ptp(value) > 1e-3 * np.abs(value).max()


def _accuracy_against(axes, value, labels, right, class_names, bins):
    edges = np.quantile(value, np.linspace(0, 1, bins + 1))
    cell = np.clip(np.searchsorted(edges, value, "right") - 1, 0, bins - 1)
    for k, name in enumerate(class_names):
        n, correct = (
            np.bincount(cell[chosen], minlength=bins)
            for chosen in (labels == k, (labels == k) & right)
        )
        enough = n >= max(min(FEWEST, n.max()), 1)
        p, low, high = binomial(correct[enough], n[enough])
        own = [np.median(value[(labels == k) & (cell == i)]) for i in np.flatnonzero(enough)]
        beside = (k - len(class_names) / 2) * (edges[-1] - edges[0]) / 400  # not on one another
        axes.errorbar(
            np.add(own, beside),
            p,
            np.maximum([p - low, high - p], 0),
            fmt="o-",
            markersize=4,
            capsize=2,
            label=name,
        )


def _efficiency_purity(confusion):
    right = np.diag(confusion)
    return [
        np.divide(right, total, out=np.full(len(right), np.nan), where=total > 0)
        for total in (confusion.sum(1), confusion.sum(0))
    ]


def _percent(fraction):
    return f"{100 * fraction:.1f} %" if np.isfinite(fraction) else "-"


def _checked(class_names: Sequence[str], matrix: ArrayLike, *more: ArrayLike) -> list[np.ndarray]:
    """All as float64 arrays; ValueError where a shape does not go with the class names."""
    n = len(class_names)
    arrays = [np.asarray(array, np.float64) for array in (matrix, *more)]
    for array in arrays:
        if array.shape not in ((n, n), (n,)) or arrays[0].ndim != 2:
            raise ValueError(
                f"{n} classes ({', '.join(class_names)}) need arrays of {n} x {n} or {n}, "
                f"got {array.shape}"
            )
    return arrays

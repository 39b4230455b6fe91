"""Several runs in one picture: curves above, where the time went below."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...files import StrPath
from .figures import save_figure
from .timeline import COLOURS, REST


def draw_comparison(
    path: StrPath,
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    parts: Mapping[str, Mapping[str, float]],
    rates: Mapping[str, float],
) -> StrPath:
    """Draw runs to ``path``; returns it. histories: {run: rows with epoch, loss, accuracy,
    val_loss, val_accuracy}. parts: {run: {part of the ledger: ms per event and rank}}, {} of a run
    without. rates: {run: events/s}.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 8.5), dpi=110, layout="constrained")
    (losses, accuracies), (speed, ledger) = figure.subplots(2, 2)
    for axes, key in ((losses, "loss"), (accuracies, "accuracy")):
        for number, (name, rows) in enumerate(histories.items()):
            for prefix, style in (("", "-"), ("val_", "--")):
                _curve(
                    axes, rows, prefix + key, style, f"C{number % 10}", name if not prefix else ""
                )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylabel(f"{key} (dashed: validation)")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=9)
    names = list(histories)
    speed.barh(
        names,
        [_finite(rates[name]) for name in names],
        color=[f"C{k % 10}" for k in range(len(names))],
    )
    for row, name in enumerate(names):
        speed.text(_finite(rates[name]), row, f" {rates[name]:.4g}", va="center", fontsize=9)
    speed.set_xlabel("events/s of all ranks, median epoch")
    _draw_parts(ledger, names, parts)
    for axes in (speed, ledger):
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)


def _curve(
    axes: Any, rows: Sequence[Mapping[str, float]], key: str, style: str, colour: str, label: str
) -> None:
    """Draw a column of a history against the epoch, with gaps where it has no number."""
    values = [row.get(key, math.nan) for row in rows]
    if any(map(math.isfinite, values)):
        epochs = [row["epoch"] for row in rows]
        axes.plot(
            epochs, values, style, color=colour, label=label or None, marker="o", markersize=3
        )


def _draw_parts(axes: Any, names: Sequence[str], parts: Mapping[str, Mapping[str, float]]) -> None:
    """Draw a bar per run, divided into the parts of its ledger."""
    known = [name for name in names if parts[name]]
    if not known:
        axes.text(0.5, 0.5, "no ledger: train with --ledger", ha="center", va="center")
        axes.set_axis_off()
        return
    left = dict.fromkeys(known, 0.0)
    for part in dict.fromkeys(part for name in known for part in parts[name]):
        widths = [parts[name].get(part, 0.0) for name in known]
        colour = COLOURS.get(part, REST)
        axes.barh(
            known,
            widths,
            left=list(left.values()),
            color=colour,
            edgecolor="white",
            linewidth=0.4,
            label=part,
        )
        for name, width in zip(known, widths):
            left[name] += width
    axes.set_xlabel("ms per event and rank")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0

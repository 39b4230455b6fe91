"""Learning curves."""

import math

from .figures import save_figure


def draw_history(rows, path):
    """Draw loss and accuracy against epoch, training and validation, to ``path`` (.png, .pdf ...);
    returns ``path``.

    rows: dicts with epoch, loss, accuracy and, where there was a validation, val_loss and
    val_accuracy (numbers, or the strings of a history.csv). Missing and non-finite values leave
    gaps. Raises ValueError without rows.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = list(rows)
    if not rows:
        raise ValueError(f"{path}: the history has no epochs to draw")
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        for name, prefix, style in (("training", "", "o-"), ("validation", "val_", "s--")):
            values = [_number(row.get(prefix + key)) for row in rows]
            if any(math.isfinite(value) for value in values):
                axes.plot(
                    [_number(row["epoch"]) for row in rows],
                    values,
                    style,
                    label=name,
                    markersize=4,
                    color="C1" if prefix else "C0",
                )
        axes.set_xlabel("epoch")
        axes.set_ylabel({"loss": "cross-entropy per event", "accuracy": "fraction correct"}[key])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    axes.set_ylim(-0.02, 1.02)
    return save_figure(figure, path)


def _number(value):
    value = math.nan if value in (None, "") else float(value)
    return value if math.isfinite(value) else math.nan

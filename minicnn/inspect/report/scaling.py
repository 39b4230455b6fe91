"""The performance model's picture: efficiency, throughput, what a step is made of, and what an
Allreduce costs.
"""

from ...files import StrPath
from ..extrapolation import Extrapolation
from ..performance import efficiency
from .figures import save_figure


def draw_scaling(path: StrPath, answer: Extrapolation) -> StrPath:
    """Draw four panels to ``path``; returns it.

    What was measured is drawn as points, hollow where there are more threads than cores.
    """
    from matplotlib.figure import Figure

    counts, weak, strong, measured = answer.counts, answer.weak, answer.strong, answer.measured
    batch, costs = answer.question.batch, answer.costs
    calibration = answer.calibration
    crowded = {
        ranks: max(calibration.nodes.get(ranks, [ranks])) * calibration.threads > calibration.cores
        for ranks in measured
    }
    figure = Figure(figsize=(12, 8.6), dpi=110, layout="constrained")
    (a, b), (c, d) = figure.subplots(2, 2)
    styles = {
        False: ("-", "C0", "exchange after the backward pass"),
        True: ("--", "C1", "exchange overlapped"),
    }
    for overlap, (line, colour, label) in styles.items():
        a.plot(
            counts, [100 * e for e in efficiency(weak[overlap])], line, color=colour, label=label
        )
    first = min(measured, default=0)
    for r, (parts, _) in measured.items():
        rate = measured[first][0]["step"] / parts["step"]
        a.plot(
            r,
            100 * rate,
            "o",
            color="k",
            fillstyle="none" if crowded[r] else "full",
            label={first: "measured"}.get(
                r, "measured, more threads than cores" if crowded[r] else None
            ),
        )
    a.set(title=f"weak scaling, {batch} events per rank", ylabel="efficiency, %", ylim=(0, 105))
    for overlap, (line, colour, label) in styles.items():
        steps = strong[overlap]
        b.plot([s.ranks for s in steps], [s.rate for s in steps], line, color=colour, label=label)
    steps = strong[False]
    if steps:
        b.plot(
            [s.ranks for s in steps],
            [steps[0].rate * s.ranks / steps[0].ranks for s in steps],
            ":",
            color="0.5",
            label="ideal",
        )
        b.set(
            title=f"strong scaling, {steps[0].ranks * steps[0].batch:.0f} events per update",
            ylabel="events/s",
            yscale="log",
        )
    stacked = [
        [1e3 * getattr(s, name) for s in weak[False]] for name in ("compute", "wait", "exposed")
    ]
    c.stackplot(
        counts,
        stacked,
        labels=("computing", "waiting for the slowest rank", "communication"),
        colors=("#4c78a8", "#e45756", "#b279a2"),
    )
    c.set(title=f"what a step is made of, {batch} events per rank", ylabel="ms")
    for name, seconds in costs.items():
        d.plot(counts[1:], [1e3 * s for s in seconds[1:]], label=name)
    d.set(title="Allreduce of the gradients", ylabel="ms", yscale="log")
    for axes in (a, b, c, d):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("ranks")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="lower left" if axes in (a, c) else "upper left")
    return save_figure(figure, path)

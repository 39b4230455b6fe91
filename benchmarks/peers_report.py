"""What peers.py tells: the table, the figures that minicnn must reach, and the picture."""

from peers_engines import ENGINES, OURS, fp32_peer
from peers_events import lit_fraction

from minicnn.inspect.report.figures import save_figure

#: Where minicnn must be how many times faster than the fastest float32 peer at its best batch of
#: at most LARGEST: (engine, events, batch, times).
GOALS = (
    (OURS[1], "simulated", 8, 150),
    (OURS[1], "simulated", 1, 100),
    (OURS[1], "real", 8, 40),
    (OURS[1], "real", 1, 35),
    (OURS[1], "talk", 8, 60),
    (OURS[1], "planes", 8, 60),
    (OURS[0], "simulated", 8, 2.8),
    (OURS[2], "simulated", 8, 4),
)
#: And how many times faster than spconv on the same events, at this batch.
AHEAD_OF_SPCONV, SPCONV_BATCH = 1.5, 8
LARGEST = 8


def fastest_peer(rows, events):
    """Return the row of the float32 peer with the least time per event, None without peers; from
    the first set what this one lacks, as what a peer needs does not depend on what is lit. Three
    planes are another network and borrow nothing.
    """
    peers = [r for r in rows if fp32_peer(r["engine"])]
    rows_of_events = [r for r in peers if r["events"] == events]
    known = {(r["engine"], r["batch"]) for r in rows_of_events}
    if events != "planes":
        rows_of_events += [
            r
            for r in peers
            if r["events"] == rows[0]["events"] and (r["engine"], r["batch"]) not in known
        ]
    return min(rows_of_events, key=lambda r: r["median"], default=None)


def print_table(rows, sets):
    for events, (images, _) in sets.items():
        peer = fastest_peer(rows, events)
        print(
            f"\n{events}: {len(images)} events, {100 * lit_fraction(images):.3g} % of the pixels "
            "lit"
        )
        print(
            f"{'engine':<26}{'batch':>6}{'ms per event':>14}{'min':>9}{'max':>9}{'peak MB':>9}"
            f"{'times faster than the fastest fp32 peer':>41}"
        )
        for r in sorted(
            (r for r in rows if r["events"] == events), key=lambda r: (r["batch"], -r["median"])
        ):
            ratio = f"{peer['median'] / r['median']:.2f}" if peer else "-"
            print(
                f"{r['engine']:<26}{r['batch']:>6}{1e3 * r['median']:>14.1f}{1e3 * r['min']:>9.1f}"
                f"{1e3 * r['max']:>9.1f}"
                f"{r['memory']:>9.0f}{ratio:>41}  {ENGINES[r['engine']].mark}".rstrip()
            )


def goals(rows):
    """Return [(what, required, measured, reached)] of the figures that minicnn must reach, of those
    whose rows were measured.
    """
    rows = [r for r in rows if r["batch"] <= LARGEST]
    row_of = {(r["engine"], r["events"], r["batch"]): r for r in rows}
    wanted = [(*goal, fastest_peer(rows, goal[1])) for goal in GOALS]
    wanted += [
        (
            OURS[1],
            events,
            SPCONV_BATCH,
            AHEAD_OF_SPCONV,
            row_of.get(("spconv", events, SPCONV_BATCH)),
        )
        for events in dict.fromkeys(r["events"] for r in rows)
    ]
    out = []
    for engine, events, batch, required, other in wanted:
        r = row_of.get((engine, events, batch))
        if r and other:
            ratio, least = other["median"] / r["median"], other["min"] / r["min"]
            out.append(
                (
                    f"{engine}, {events}, batch {batch}: times faster than {other['engine']} "
                    f"(batch {other['batch']})",
                    f">= {required}, by the least times {least:.1f}",
                    f"{ratio:.2f}",
                    ratio >= required,
                )
            )
    return out


def color_of(engine):
    """Return the colour of an engine's bars: green is ours, grey a peer, blue one with a mark."""
    return "tab:green" if engine in OURS else "tab:blue" if ENGINES[engine].mark else "tab:gray"


def draw(rows, path):
    """Write a picture of time and memory per engine; time on a logarithmic axis."""
    from matplotlib.figure import Figure

    sets = list(dict.fromkeys(r["events"] for r in rows))
    figure = Figure(figsize=(11, 1.2 + 0.28 * len(rows)), dpi=120, layout="constrained")
    axes = figure.subplots(len(sets), 2, squeeze=False, sharex="col")
    for (left, right), events in zip(axes, sets):
        some = sorted((r for r in rows if r["events"] == events), key=lambda r: -r["median"])
        names = [
            f"{r['engine']}{'*' * bool(ENGINES[r['engine']].mark)}, batch {r['batch']}"
            for r in some
        ]
        colors = [color_of(r["engine"]) for r in some]
        for axis, values, text in (
            (left, [1e3 * r["median"] for r in some], "ms per event"),
            (right, [r["memory"] for r in some], "peak memory, MB"),
        ):
            bars = axis.barh(names, values, color=colors)
            axis.bar_label(
                bars,
                [f"{v:,.0f}" if v >= 100 else f"{v:.1f}" for v in values],
                padding=2,
                fontsize=7,
            )
            axis.set_xscale("log")
            axis.set_xlabel(text)
            axis.margins(x=0.15)
        left.set_title(events, loc="left", fontsize=10)
        left.tick_params(labelsize=8)
        right.set_yticks([])
    marks = dict.fromkeys(m for r in rows if (m := ENGINES[r["engine"]].mark))
    if marks:
        figure.supxlabel("* " + "; ".join(marks), fontsize=7)
    save_figure(figure, path)

"""What peers.py tells: the table, the figures that minicnn must reach, and the picture."""

import statistics

import numpy as np
from peers_engines import OURS

from minicnn.inspect.report.figures import save_figure


def fastest_peer(rows, events):
    """Return the row of the peer with the least time per event, None without peers; from the first
    set what this one lacks.
    """
    peers = [r for r in rows if r["engine"] not in OURS]
    here = [r for r in peers if r["events"] == events]
    known = {(r["engine"], r["batch"]) for r in here}
    here += [
        r
        for r in peers
        if r["events"] == rows[0]["events"] and (r["engine"], r["batch"]) not in known
    ]
    return min(here, key=lambda r: r["median"], default=None)


def print_table(rows, sets):
    for events, (images, _) in sets.items():
        lit = np.mean(
            [
                np.count_nonzero(image) / image.size
                if isinstance(image, np.ndarray)
                else image.nnz / np.prod(image.shape[:2])
                for image in images
            ]
        )
        peer = fastest_peer(rows, events)
        print(f"\n{events}: {len(images)} events, {100 * lit:.3g} % of the pixels lit")
        print(
            f"{'engine':<26}{'batch':>6}{'ms per event':>14}{'min':>9}{'max':>9}{'peak MB':>9}"
            f"{'times faster than the fastest peer':>36}"
        )
        for r in sorted(
            (r for r in rows if r["events"] == events), key=lambda r: (r["batch"], -r["median"])
        ):
            ratio = f"{peer['median'] / r['median']:.2f}" if peer else "-"
            print(
                f"{r['engine']:<26}{r['batch']:>6}{1e3 * r['median']:>14.1f}{1e3 * r['min']:>9.1f}"
                f"{1e3 * r['max']:>9.1f}"
                f"{r['memory']:>9.0f}{ratio:>36}"
            )


def goals(rows):
    """Return [(what, required, measured, reached)] of the figures that minicnn must reach."""
    out = []

    def row(engine, batch, events):
        return next(
            (r for r in rows if (r["engine"], r["batch"], r["events"]) == (engine, batch, events)),
            None,
        )

    def faster(engine, batch, events, required):
        r, peer = row(engine, batch, events), fastest_peer(rows, events)
        if r and peer:
            ratio, least = peer["median"] / r["median"], peer["min"] / r["min"]
            out.append(
                (
                    f"{engine}, {events}, batch {batch}: times faster than {peer['engine']} "
                    f"(batch {peer['batch']})",
                    f">= {required}, by the least times {least:.1f}",
                    f"{ratio:.2f}",
                    ratio >= required,
                )
            )

    first = rows[0]["events"] if rows else ""
    dense_, sparse = OURS
    batches = sorted({r["batch"] for r in rows})
    for batch in batches:
        faster(dense_, batch, first, 5)
    for batch in batches:
        faster(sparse, batch, first, 40 if batch == 1 else 50)
    for batch in batches:
        faster(sparse, batch, "real", 15)
    for batch in batches:
        a, b = row(sparse, batch, "noise"), row(dense_, batch, "noise")
        if a and b:
            # Both take their turns one after the other, so each pair of turns has a ratio.
            ratio = statistics.median(x / y for x, y in zip(a["samples"], b["samples"]))
            out.append(
                (
                    f"{sparse}, noise, batch {batch}: time relative to {dense_}",
                    "<= 1.05",
                    f"{ratio:.3f}",
                    ratio <= 1.05,
                )
            )
    for engine, limit in ((sparse, 400), (dense_, 600)):
        r = row(engine, batches[-1] if batches else 0, first)
        if r:
            out.append(
                (
                    f"{engine}, {first}, batch {r['batch']}: peak memory in MB",
                    f"<= {limit}",
                    f"{r['memory']:.0f}",
                    r["memory"] <= limit,
                )
            )
    return out


def draw(rows, path):
    """Write a picture of time and memory per engine; time on a logarithmic axis."""
    from matplotlib.figure import Figure

    sets = list(dict.fromkeys(r["events"] for r in rows))
    figure = Figure(figsize=(11, 1.2 + 0.28 * len(rows)), dpi=120, layout="constrained")
    axes = figure.subplots(len(sets), 2, squeeze=False, sharex="col")
    for (left, right), events in zip(axes, sets):
        some = sorted((r for r in rows if r["events"] == events), key=lambda r: -r["median"])
        names = [f"{r['engine']}, batch {r['batch']}" for r in some]
        colors = ["tab:green" if r["engine"] in OURS else "tab:gray" for r in some]
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
    save_figure(figure, path)

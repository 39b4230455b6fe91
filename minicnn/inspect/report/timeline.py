"""The ledger for people: a table per epoch, a timeline that https://ui.perfetto.dev opens, and a
picture of one step.
"""

import json
import statistics

from ...files import atomic_file
from ..trace import COMMUNICATION, OTHER, WAIT
from .figures import save_figure

BLOCKS = " ▏▎▍▌▋▊▉█"
#: Colours of the picture: what computes is blue or green, what waits red, what moves data orange.
COLOURS = {
    "forward": "#4c78a8",
    "backward": "#72b7b2",
    "loss": "#54a24b",
    "update": "#2f6b4f",
    "transfer": "#eeca3b",
    "wait for data": "#f58518",
    "read": "#f2a65a",
    "decompress": "#c77a2a",
    "augment": "#ffbf79",
    "pack weights": "#9d755d",
    "pack": "#9d755d",
    "clear gradients": "#d8b5a5",
    "check finite": "#8ca252",
    WAIT: "#e45756",
    "allreduce": "#b279a2",
    "exposed communication": "#b279a2",
}
REST = "#bab0ac"


def ledger_table(summary, title):
    """Return the epoch's trace.Summary as text: ms per step and share of every part, mean over
    ranks and slowest rank, then hidden work.

    Layers of a part are indented below its total. Layers that together take less than a thousandth
    of the step share a line.
    """
    several = summary.ranks > 1
    total = max(sum(summary.mean.values()), 1e-12)
    rows, hidden = (
        _rows(summary.mean, summary.parts_slowest, total),
        _rows(summary.hidden, summary.hidden_slowest, total),
    )
    width = max(len(label) for label, *_ in (*rows, *hidden, (WAIT,)))
    rule = "  " + "-" * (width + (45 if several else 21))

    def line(label, mean, share="", bar="", slowest=""):
        return f"  {label:<{width}}{mean:>10}{share:>9}  {bar:<10}{slowest if several else '':>14}".rstrip()

    def lines(rows):
        return [
            line(
                label,
                f"{1e3 * s:.3f}",
                f"{100 * s / total:.1f} %",
                "" if label[0] == " " else _bar(s / total),
                f"{1e3 * of_slowest:.3f}",
            )
            for label, s, of_slowest in rows
        ]

    rank = f"rank {summary.slowest} *"
    out = [
        f"{title}: {summary.steps} step{'s' * (summary.steps != 1)} of {1e3 * summary.wall:.2f} ms on {summary.ranks} "
        f"rank{'s' * several}",
        line("", "ms/step", "share", "", rank),
        *lines(rows),
        rule,
        line(
            "sum of the parts",
            f"{1e3 * total:.3f}",
            "100.0 %",
            "",
            f"{1e3 * sum(summary.parts_slowest.values()):.3f}",
        ),
        line(
            "the step by the clock",
            f"{1e3 * summary.wall:.3f}",
            f"{100 * summary.wall / total:.1f} %",
            "",
            f"{1e3 * summary.wall_slowest:.3f}",
        ),
    ]
    if hidden:
        out += ["", line("hidden beside it", "ms/step", "of step", "", rank), *lines(hidden)]
    if several:
        exposed, waited = (
            sum(s for (name, _), s in summary.mean.items() if name in names)
            for names in (COMMUNICATION, (WAIT,))
        )
        out += [
            "",
            f"  exposed communication {100 * exposed / total:.2f} % of the step, waiting for the slowest rank "
            f"{100 * waited / total:.2f} %",
            "  * the rank that worked longest, without waiting and communication",
        ]
    return "\n".join(out)


def _rows(mean, slowest, total):
    """Return [(label, seconds, seconds of the slowest rank)]: a line per part, its layers indented
    below.
    """
    rows = []
    for name in dict.fromkeys(name for name, _ in mean):
        layers = [
            (layer, s, slowest.get((name, layer), 0.0))
            for (of, layer), s in mean.items()
            if of == name
        ]
        rows.append((name, sum(s for _, s, _ in layers), sum(s for *_, s in layers)))
        if len(layers) > 1 or layers[0][0]:
            small = [one for one in layers if one[1] < 0.001 * total]
            if len(small) > 1:
                layers = [one for one in layers if one not in small]
                layers.append(
                    (
                        f"{len(small)} small ones",
                        sum(s for _, s, _ in small),
                        sum(s for *_, s in small),
                    )
                )
            rows += [("  " + (layer or "itself"), *figures) for layer, *figures in layers]
    return rows


def _bar(share, width=10):
    eighths = round(8 * width * min(share, 1.0))
    return ("█" * (eighths // 8) + BLOCKS[eighths % 8]).strip()


def write_timeline(path, ranks):
    """Write ``timeline.json`` in the Chrome trace format from Ledger.gather: a process per rank, a
    track per thread; returns ``path``.

    Times are microseconds since the first piece, on rank 0's clock; Perfetto and chrome://tracing
    open it.
    """
    start = min((piece.start for _, _, pieces in ranks for piece in pieces), default=0.0)
    events = []
    for rank, host, pieces in ranks:
        lanes = _lanes(pieces)
        events.append(
            {
                "ph": "M",
                "name": "process_name",
                "pid": rank,
                "tid": 0,
                "args": {"name": f"rank {rank} on {host}"},
            }
        )
        events.append(
            {
                "ph": "M",
                "name": "process_sort_index",
                "pid": rank,
                "tid": 0,
                "args": {"sort_index": rank},
            }
        )
        events += [
            {"ph": "M", "name": "thread_name", "pid": rank, "tid": tid, "args": {"name": lane}}
            for lane, tid in lanes.items()
        ]
        for piece in sorted(pieces, key=lambda p: (lanes[p.lane], p.start, -p.end)):
            ts, end = (round(1e6 * (t - start), 3) for t in (piece.start, piece.end))
            events.append(
                {
                    "ph": "X",
                    "name": piece.label,
                    "cat": piece.name,
                    "pid": rank,
                    "tid": lanes[piece.lane],
                    "ts": ts,
                    "dur": round(end - ts, 3),
                    "args": {"step": piece.step},
                }
            )
    with atomic_file(path) as file:
        json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file, separators=(",", ":"))
    return path


def _lanes(pieces):
    """Return {lane: number}, the main thread first."""
    return {
        lane: tid
        for tid, lane in enumerate(dict.fromkeys(["main", *(piece.lane for piece in pieces)]))
    }


def typical_step(ranks):
    """Return the number of the step whose duration on the first rank is the (lower) median;
    ValueError where no step was kept.
    """
    walls = {p.step: p.end - p.start for p in (ranks[0][2] if ranks else ()) if p.name == "step"}
    if not walls:
        raise ValueError("the timeline holds no step: train with Ledger(detail=True) and keep >= 1")
    middle = statistics.median_low(walls.values())
    return next(step for step, wall in walls.items() if wall == middle)


def draw_step(path, ranks, step=None):
    """Draw one step (default: a typical one) from Ledger.gather to ``path``: a row per thread, of
    at most 8 ranks, time to the right, each part in its colour, innermost parts on top; returns
    ``path``."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    step = typical_step(ranks) if step is None else step
    ranks = ranks[:: -(-len(ranks) // 8)]
    rows = [
        (rank, lane, [p for p in pieces if p.lane == lane])
        for rank, _, pieces in ranks
        for lane in _lanes(pieces)
    ]
    spans = [p for _, lane, pieces in rows for p in pieces if lane == "main" and p.step == step]
    if not spans:
        raise ValueError(f"{path}: the timeline holds nothing of step {step}")
    begin, end = min(p.start for p in spans), max(p.end for p in spans)
    rows = [
        (rank, lane, [p for p in pieces if p.end > begin and p.start < end])
        for rank, lane, pieces in rows
    ]
    rows = [row for row in rows if row[2]]
    figure = Figure(figsize=(13, 1.6 + 0.55 * len(rows)), dpi=110, layout="constrained")
    axes, used, parts = figure.subplots(), {}, []
    for row, (_, lane, pieces) in enumerate(rows):
        height = 0.8 if lane == "main" else 0.45
        parts.append(
            f"rank {rows[row][0]}" + ("" if lane == "main" else f", {lane.replace('_', ' ')}")
        )
        for piece in sorted(pieces, key=lambda p: p.start - p.end):  # the longest below
            if piece.name == "step":
                continue
            colour = COLOURS.get(piece.name, REST)
            name = piece.name if piece.name in COLOURS else OTHER
            used.setdefault(name, colour)
            left, right = max(piece.start, begin), min(piece.end, end)
            axes.barh(
                row,
                1e3 * (right - left),
                left=1e3 * (left - begin),
                height=height,
                color=colour,
                edgecolor="white",
                linewidth=0.3,
            )
            inner = any(
                piece.start <= other.start and other.end <= piece.end and other is not piece
                for other in pieces
            )
            words = [
                *([piece.name] if not piece.layer or right - left > 0.08 * (end - begin) else []),
                *piece.layer.split("_")[:1],
            ]
            if (
                right - left > 0.01 * (end - begin) * max(map(len, words)) * 0.7
                and lane == "main"
                and not inner
            ):
                axes.text(
                    1e3 * ((left + right) / 2 - begin),
                    row,
                    "\n".join(words),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white",
                    clip_on=True,
                )
    axes.set_yticks(range(len(rows)), parts)
    axes.invert_yaxis()
    axes.set_xlim(0, 1e3 * (end - begin))
    axes.set_xlabel("ms since the first rank began the step")
    axes.set_title(
        f"one training step on {len(ranks)} rank{'s' * (len(ranks) > 1)} (step {step})", loc="left"
    )
    order = [name for name in (*COLOURS, OTHER) if name in used]
    axes.legend(
        handles=[Patch(color=used[name], label=name) for name in order],
        ncols=min(len(order), 6),
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.6 / (0.35 + 0.55 * len(rows))),
        frameon=False,
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return save_figure(figure, path)

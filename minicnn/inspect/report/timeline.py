"""The ledger for people: a table per epoch, a timeline that https://ui.perfetto.dev opens, and a
picture of one step.
"""

import json
import math
import statistics
import textwrap
from typing import Any, NamedTuple, TypeAlias

from ...files import StrPath, atomic_file
from ...text import bytes_text, counted
from ..parts import COMMUNICATION, OTHER, WAIT, Summary
from ..trace import Piece
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
RANKS_DRAWN = 8
#: What Ledger.gather returns: (rank, host, Pieces).
Timelines: TypeAlias = list[tuple[int, str, list[Piece]]]


def ledger_table(summary: Summary, title: str) -> str:
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

    def line(label: str, mean: str, share: str = "", bar: str = "", slowest: str = "") -> str:
        return (
            f"  {label:<{width}}{mean:>10}{share:>9}  {bar:<10}{slowest if several else '':>14}"
        ).rstrip()

    def lines(rows: list[tuple[str, float, float]]) -> list[str]:
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
        f"{title}: {counted(summary.steps, 'step')} of {1e3 * summary.wall:.2f} ms on "
        f"{counted(summary.ranks, 'rank')}",
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
            f"  exposed communication {100 * exposed / total:.2f} % of the step, waiting for the "
            f"slowest rank {100 * waited / total:.2f} %",
            "  * the rank that worked longest, without waiting and communication",
            *_exchange_lines(summary),
        ]
        if summary.straggler:
            text = summary.straggler.text()
            out += ["", *textwrap.wrap(text, 98, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(out)


def _exchange_lines(summary: Summary) -> list[str]:
    """Return a line per collective: how often, how much, how fast."""
    lines = []
    for (place, kind), traffic in summary.exchanges.items():
        per_step = traffic.calls / max(summary.steps, 1)
        lines.append(
            f"  {kind} ({place}): {per_step:.3g} a step of "
            f"{bytes_text(traffic.bytes / traffic.calls)}, "
            f"{1e3 * traffic.seconds / traffic.calls:.3f} ms each once all ranks are there, "
            f"bus bandwidth {1e-9 * traffic.bus_bandwidth(kind, summary.ranks):.2f} GB/s"
        )
    return lines


def _rows(mean, slowest, total):
    """Return [(label, seconds, seconds of the slowest rank)]: a line per part, its layers indented
    below.
    """
    rows = []
    for name in dict.fromkeys(name for name, _ in mean):
        layers = [
            (layer, s, slowest.get((name, layer), 0.0))
            for (span, layer), s in mean.items()
            if span == name
        ]
        rows.append((name, sum(s for _, s, _ in layers), sum(s for *_, s in layers)))
        if len(layers) > 1 or layers[0][0]:
            small = [layer for layer in layers if layer[1] < 0.001 * total]
            if len(small) > 1:
                layers = [layer for layer in layers if layer not in small]
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


def write_timeline(path: StrPath, ranks: Timelines) -> StrPath:
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


def typical_step(ranks: Timelines) -> int:
    """Return the number of the step whose duration on the first rank is the (lower) median;
    ValueError where no step was kept.
    """
    walls = {p.step: p.end - p.start for p in (ranks[0][2] if ranks else ()) if p.name == "step"}
    if not walls:
        raise ValueError("the timeline holds no step: train with Ledger(detail=True) and keep >= 1")
    middle = statistics.median_low(walls.values())
    return next(step for step, wall in walls.items() if wall == middle)


def draw_step(path: StrPath, ranks: Timelines, step: int | None = None) -> StrPath:
    """Draw one step (default: a typical one) from Ledger.gather to ``path``: a row per thread, of
    at most 8 ranks, time to the right, each part in its colour, innermost parts on top; returns
    ``path``."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    step = typical_step(ranks) if step is None else step
    every = max(1, math.ceil(len(ranks) / RANKS_DRAWN))
    ranks = ranks[::every]
    rows = _rows_of_step(ranks, step)
    if not rows:
        raise ValueError(f"{path}: the timeline holds nothing of step {step}")
    begin = min(row.begin for row in rows)
    end = max(row.end for row in rows)
    figure = Figure(figsize=(13, 1.6 + 0.55 * len(rows)), dpi=110, layout="constrained")
    axes = figure.subplots()
    used: dict[str, str] = {}
    for place, row in enumerate(rows):
        for piece in sorted(row.pieces, key=lambda p: p.start - p.end):  # the longest below
            if piece.name != "step":
                name = piece.name if piece.name in COLOURS else OTHER
                used[name] = COLOURS.get(name, REST)
                _draw_piece(axes, place, piece, row, (begin, end))
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1e3 * (end - begin))
    axes.set_xlabel("ms since the first rank began the step")
    axes.set_title(f"one training step on {counted(len(ranks), 'rank')} (step {step})", loc="left")
    order = [name for name in (*COLOURS, OTHER) if name in used]
    below = (0.5, -0.6 / (0.35 + 0.55 * len(rows)))
    axes.legend(
        handles=[Patch(color=used[name], label=name) for name in order],
        ncols=min(len(order), 6),
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=below,
        frameon=False,
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return save_figure(figure, path)


class _Row(NamedTuple):
    """A thread of a rank: its pieces of the step, and when the step begins and ends."""

    rank: int
    lane: str
    pieces: list[Piece]
    begin: float
    end: float

    @property
    def title(self) -> str:
        thread = "" if self.lane == "main" else f", {self.lane.replace('_', ' ')}"
        return f"rank {self.rank}{thread}"


def _rows_of_step(ranks: Timelines, step: int) -> list[_Row]:
    """Return the rows of a step: the threads that do something between its begin on the first and
    its end on the last rank.
    """
    main_pieces = [
        piece
        for _, _, pieces in ranks
        for piece in pieces
        if piece.lane == "main" and piece.step == step
    ]
    if not main_pieces:
        return []
    begin, end = min(p.start for p in main_pieces), max(p.end for p in main_pieces)
    rows = []
    for rank, _, pieces in ranks:
        for lane in _lanes(pieces):
            inside = [p for p in pieces if p.lane == lane and p.end > begin and p.start < end]
            if inside:
                rows.append(_Row(rank, lane, inside, begin, end))
    return rows


def _draw_piece(
    axes: Any, place: int, piece: Piece, row: _Row, limits: tuple[float, float]
) -> None:
    """Draw a piece in the row at ``place``, with its name where there is room for it."""
    begin, end = limits
    left, right = max(piece.start, begin), min(piece.end, end)
    axes.barh(
        place,
        1e3 * (right - left),
        left=1e3 * (left - begin),
        height=0.8 if row.lane == "main" else 0.45,
        color=COLOURS.get(piece.name, REST),
        edgecolor="white",
        linewidth=0.3,
    )
    share = (right - left) / (end - begin)
    words = piece.layer.split("_")[:1] if piece.layer else []
    if not piece.layer or share > 0.08:
        words = [piece.name, *words]
    holds_others = any(
        piece.start <= other.start and other.end <= piece.end and other is not piece
        for other in row.pieces
    )
    has_room = share > 0.007 * max(map(len, words))
    if has_room and row.lane == "main" and not holds_others:
        axes.text(
            1e3 * ((left + right) / 2 - begin),
            place,
            "\n".join(words),
            ha="center",
            va="center",
            fontsize=7,
            color="white",
            clip_on=True,
        )

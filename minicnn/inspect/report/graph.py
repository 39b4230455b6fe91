"""A picture of a model's graph."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...engine.engine import Engine

#: Colours by what a layer does: it learns, it joins, or neither.
COLOURS = {"input": "#dddddd", "learns": "#cfe3f7", "joins": "#fbe3c2", "other": "#f4f4f4"}
WIDTH, HEIGHT = 2.9, 0.62  # inches of a column and a row


def _rows(model: Engine) -> list[int]:
    """Return the row of every node: one below the lowest of its inputs."""
    rows: list[int] = []
    for sources in model.graph.sources:
        rows.append(1 + max((rows[source] for source in sources), default=-1))
    return rows


def _columns(model: Engine, rows: list[int]) -> list[float]:
    """Return the column of every node: a chain stays under its input, branches stand side
    by side.
    """
    graph = model.graph
    columns: list[float] = []
    taken: dict[int, list[float]] = defaultdict(list)
    for i, sources in enumerate(graph.sources):
        wish = min((columns[source] for source in sources), default=0.0)
        # A line that passes over rows, as a shortcut does, keeps the columns there free.
        while any(abs(wish - other) < 0.9 for other in taken[rows[i]]):
            wish += 1
        columns.append(wish)
        taken[rows[i]].append(wish)
    return columns


def _arrow(source: tuple[float, float], target: tuple[float, float]) -> dict[str, Any]:
    """Return how an arrow goes from box to box (column, row) without crossing those in between: one
    that passes rows in its own column bows out to the right, one that comes from a column further
    right goes down there and enters at the side.
    """
    (column, row), (to_column, to_row) = source, target
    passes, style = to_row - row > 1, "arc3,rad=0"
    start, end = (column, row + 0.32), (to_column, to_row - 0.32)
    if passes and column == to_column:
        start, end, style = (column + 0.45, row), (to_column + 0.45, to_row), "arc3,rad=-0.35"
    elif passes and column > to_column:
        end, style = (to_column + 0.45, to_row), "angle,angleA=90,angleB=0,rad=6"
    elif passes:
        start, style = (column + 0.45, row), "angle,angleA=0,angleB=90,rad=6"
    line = {"arrowstyle": "-|>", "color": "#555555", "linewidth": 0.8, "connectionstyle": style}
    return {"xy": end, "xytext": start, "zorder": 1, "arrowprops": line}


def draw_graph(model: Engine, path: str | Path) -> None:
    """Write a picture of the model's graph to ``path`` (.png, .pdf, .svg): a box for every node
    with its name, kind and output shape, inputs at the top. What learns is blue, what joins is
    orange, frozen layers have a dashed border.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    graph = model.graph
    rows = _rows(model)
    columns = _columns(model, rows)
    size = WIDTH * (max(columns) + 1.3), HEIGHT * (max(rows) + 1.6)
    figure = Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.65, max(columns) + 0.65)
    axes.set_ylim(max(rows) + 0.8, -0.8)
    axes.set_axis_off()
    for i, node in enumerate(graph.nodes):
        shapes = [source.shape for source in node.inputs]
        learns = bool(node.inputs) and bool(node.layer.parameters(*shapes))
        kind = "input" if not node.inputs else "learns" if learns else "other"
        kind = "joins" if len(node.inputs) > 1 else kind
        axes.add_patch(
            FancyBboxPatch(
                (columns[i] - 0.45, rows[i] - 0.32),
                0.9,
                0.64,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=COLOURS[kind],
                edgecolor="#666666",
                linestyle="-" if node.layer.trainable else "--",
                linewidth=0.8,
                zorder=2,
            )
        )
        text = f"{graph.node_name(node)} ({type(node.layer).__name__})"
        shape = " x ".join(map(str, node.shape))
        size_of_text = min(8.0, 8.0 * 38 / max(len(text), 1))
        axes.text(columns[i], rows[i] - 0.1, text, ha="center", va="center", fontsize=size_of_text)
        axes.text(columns[i], rows[i] + 0.17, shape, ha="center", va="center", fontsize=7)
        for source in graph.sources[i]:
            axes.annotate("", **_arrow((columns[source], rows[source]), (columns[i], rows[i])))
    figure.savefig(path, dpi=150)

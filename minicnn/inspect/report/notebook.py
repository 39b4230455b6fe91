"""What a notebook shows of an object that is the last line of a cell: HTML, or a picture."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ...data.store import EventStore
    from ...engine.engine import Engine
    from ...engine.plan import Plan
    from ...train.callbacks import History

#: Most rows of a table; of longer ones the ends are shown.
MOST_ROWS = 60


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> str:
    """Return an HTML table; all but the first ``left`` columns are set to the right."""

    def line(cells: Sequence[Any], tag: str) -> str:
        sides = ["left"] * left + ["right"] * (len(cells) - left)
        return "".join(
            f'<{tag} style="text-align:{side}">{html.escape(str(cell))}</{tag}>'
            for side, cell in zip(sides, cells)
        )

    rows = list(rows)
    if len(rows) > MOST_ROWS:
        gap = ["..."] * len(header)
        rows = [*rows[: MOST_ROWS // 2], gap, *rows[-MOST_ROWS // 2 :]]
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def picture(draw: Callable[[Path], Any], ending: str = ".png") -> bytes:
    """Return the bytes of the picture that ``draw(path)`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"picture{ending}"
        draw(path)
        return path.read_bytes()


def model_html(model: Engine) -> str:
    """Return the layers of a model: names, shapes, parameters, what each is connected to."""
    from ...engine.describe import summary_rows

    header, *rows = summary_rows(model)
    return f"<p>{html.escape(repr(model)[1:-1])}</p>{table(header, rows, left=2)}"


def plan_html(plan: Plan) -> str:
    """Return the stages of a plan with their work, and what it says beneath its table."""
    rows = [
        (
            row.layers,
            " x ".join(map(str, row.output)),
            f"{row.forward / 1e9:.3f}",
            f"{row.backward / 1e9:.3f}",
            f"{row.bytes / 1e6:.2f}",
            row.text(),
        )
        for row in plan.rows
    ]
    header = ("stage", "output", "forward GFLOP", "backward GFLOP", "saved MB", "note")
    return f"<p>{html.escape(str(plan).splitlines()[0])}</p>{table(header, rows)}"


def history_html(history: History) -> str:
    """Return the figures of every epoch, and the learning curves."""
    from .curves import draw_history

    if not history.rows:
        return "<p>a history of no epochs</p>"
    names = list(dict.fromkeys(key for row in history.rows for key in row))
    rows = [[f"{row[key]:.4g}" if key in row else "" for key in names] for row in history.rows]
    curves = picture(lambda path: draw_history(history.rows, path), ".svg").decode()
    return table(names, rows, left=0) + curves[curves.index("<svg") :]


def event_png(event: Any) -> bytes:
    """Return the picture of an Event or a SparseImage: the whole, and what is lit enlarged."""
    from .display import draw_event

    return picture(lambda path: draw_event(event, path))


def store_html(store: EventStore) -> str:
    """Return how many events of each class a store holds, and what they take."""
    text = f"<p>{html.escape(repr(store))}</p>"
    values, counts = np.unique(store.labels, return_counts=True)
    if not len(values):
        return text
    known = store.class_names
    names = [known[v] if 0 <= v < len(known) else "unknown" for v in values]
    return text + table(("class", "events"), zip(names, counts))

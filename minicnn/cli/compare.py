"""``compare``: runs side by side, as text and one picture."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .common import one_process, table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a comparison."""
    parser.epilog = "Changes are against the first run. Without --out no picture is drawn."
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, two or more")
    add("--out", type=Path, metavar="FILE.png", help="picture of curves, speed and ledgers")


def run(args: argparse.Namespace) -> int:
    """Print what differs, and draw it; return the exit status."""
    from ..jobs.compare import differing_settings, final_figures, ledgers, read_runs, timings

    one_process("compare")
    if len(args.runs) < 2:
        raise ValueError(f"compare takes two runs or more, got {args.runs[0]} alone")
    runs = read_runs(args.runs)
    names = [each.name for each in runs]
    for each in runs:
        if not each.record:
            print(f"{each.name} is not complete (no run.json): its settings are not known")
    settings = differing_settings(runs)
    if settings:
        _print("settings that differ", names, settings, _words)
    else:
        print("settings: all the same")
    for title, rows in (
        ("results", final_figures(runs)),
        ("timings", timings(runs)),
        ("ledger, ms per event and rank, median epoch", ledgers(runs)),
    ):
        if rows:
            print()
            _print(title, names, [(name, _changes(values)) for name, values in rows], str)
    if args.out:
        from ..inspect.report.comparison import draw_comparison

        draw_comparison(
            args.out,
            {each.name: each.epochs for each in runs},
            {each.name: each.parts() for each in runs},
            {each.name: each.median_epoch.get("events_per_second", math.nan) for each in runs},
        )
        print(f"\nwrote {args.out}")
    return 0


def _print(
    title: str,
    names: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Any]]],
    words: Callable[[Any], str],
) -> None:
    cells = [[name, *map(words, values)] for name, values in rows]
    table(title, ["", *names], cells, right=range(1, 1 + len(names)))


def _words(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 40 else text[:18] + " ... " + text[-17:]


def _changes(values: Sequence[float]) -> list[str]:
    """Return each value, those behind the first with their change against it."""
    texts = []
    for k, value in enumerate(values):
        text = "-" if math.isnan(value) else f"{value:.4g}"
        if k and math.isfinite(value) and math.isfinite(values[0]) and values[0]:
            text += f" ({100 * (value / values[0] - 1):+.1f} %)"
        texts.append(text)
    return texts

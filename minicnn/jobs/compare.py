"""Runs side by side: what differs in their settings, what came out, where the time went."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .run_folder import RunFolder, read_record

#: Figures of the last epoch that are set side by side.
FIGURES = {
    "loss": "loss of the last epoch",
    "accuracy": "accuracy of the last epoch",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
}


@dataclass(frozen=True)
class Run:
    """A run folder as it is. name: that tells it from the others. settings: {name: value}. epochs:
    the rows of the history, numbers. record: run.json, {} of a run that is not complete.
    """

    name: str
    settings: dict[str, Any]
    epochs: list[dict[str, float]]
    record: dict[str, Any]

    @property
    def last(self) -> dict[str, float]:
        """The figures of the last epoch."""
        return self.epochs[-1] if self.epochs else {}

    @property
    def median_epoch(self) -> dict[str, float]:
        """The epoch of (lower) median length: for timings."""
        by_length = sorted(self.epochs, key=lambda row: row.get("seconds", math.inf))
        return by_length[(len(by_length) - 1) // 2] if by_length else {}

    def parts(self) -> dict[str, float]:
        """Return {part of the ledger: milliseconds per event of a rank}, layers added up, of the
        median epoch; empty without a ledger.
        """
        row = self.median_epoch
        events = row.get("seconds", 0.0) * row.get("events_per_second", 0.0)
        share = events / max(int(self.record.get("ranks", 1)), 1)
        parts: dict[str, float] = {}
        for name, seconds in row.items():
            if name.startswith("seconds: ") and share > 0:
                part = _part(name.removeprefix("seconds: "))
                parts[part] = parts.get(part, 0.0) + 1e3 * seconds / share
        return parts


def _part(name: str) -> str:
    """Return the part of the ledger of a column, "forward" of "forward block1_conv1"."""
    from ..inspect.parts import ORDER

    known = [part for part in ORDER if name == part or name.startswith(part + " ")]
    return max(known, key=len, default=name)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Return the runs of the folders; ValueError naming a folder without a run."""
    names = _short_names(folders)
    return [_read(Path(folder), name) for folder, name in zip(folders, names)]


def _read(path: Path, name: str) -> Run:
    folder = RunFolder(path)
    if not folder.is_run:
        raise ValueError(
            f"{path}: no run has completed an epoch here (neither run.json nor history.csv)"
        )
    record = read_record(folder.marker) if folder.marker.exists() else {}
    rows = record.get("epochs") or (folder.read_history() if folder.history.exists() else [])
    epochs = [{key: _number(value) for key, value in row.items()} for row in rows]
    settings = dict(record.get("arguments", {})) | dict(record.get("recipe", {}))
    settings |= {key: record[key] for key in ("ranks", "threads") if key in record}
    settings |= {f"sample, {k}": v for k, v in (record.get("sample") or {}).items()}
    settings |= {f"machine, {k}": v for k, v in record.get("machine", {}).items() if k != "date"}
    settings |= {f"version of {k}": v for k, v in record.get("versions", {}).items()}
    return Run(name, settings, epochs, record)


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of the paths, as many as tell them apart; equal paths get numbers."""
    parts = [Path(folder).absolute().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({k + 1})" for k, name in enumerate(names)]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def differing_settings(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Return (name, value of each run) of the settings that are not the same in all; "-" where a
    run does not say.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings)
    rows = [(name, [run.settings.get(name, "-") for run in runs]) for name in names]
    return [(name, values) for name, values in rows if any(v != values[0] for v in values)]


def final_figures(runs: Sequence[Run]) -> list[tuple[str, list[float]]]:
    """Return (figure, value of each run), nan where a run has none."""
    rows = [
        (words, [run.last.get(name, math.nan) for run in runs]) for name, words in FIGURES.items()
    ]
    best = [
        min((row.get("val_loss", math.nan) for row in run.epochs), default=math.nan) for run in runs
    ]
    rows.append(("lowest validation loss of an epoch", best))
    return [row for row in rows if not all(map(math.isnan, row[1]))]


def timings(runs: Sequence[Run]) -> list[tuple[str, list[float]]]:
    """Return (what, value of each run) of the median epoch and of all."""
    rows: list[tuple[str, list[float]]] = [
        ("epochs", [float(len(run.epochs)) for run in runs]),
        (
            "events/s, median epoch",
            [run.median_epoch.get("events_per_second", math.nan) for run in runs],
        ),
        (
            "seconds of the median epoch",
            [run.median_epoch.get("seconds", math.nan) for run in runs],
        ),
        ("seconds in all", [_number(run.record.get("seconds")) for run in runs]),
        ("peak memory of a rank, MB", [_number(run.record.get("peak_memory_mb")) for run in runs]),
    ]
    return [row for row in rows if not all(map(math.isnan, row[1]))]


def ledgers(runs: Sequence[Run]) -> list[tuple[str, list[float]]]:
    """Return (part, ms per event and rank of each run), what changed most against the first run at
    the top; empty where fewer than two runs have a ledger.
    """
    parts = [run.parts() for run in runs]
    if sum(map(bool, parts)) < 2:
        return []
    names = dict.fromkeys(name for of_run in parts for name in of_run)
    rows = [
        (name, [of_run.get(name, 0.0) if of_run else math.nan for of_run in parts])
        for name in names
    ]
    changed = sorted(rows, key=lambda row: -max(abs(v - row[1][0]) for v in row[1] if v == v))
    total = [sum(of_run.values()) if of_run else math.nan for of_run in parts]
    return [*changed, ("all parts", total)]

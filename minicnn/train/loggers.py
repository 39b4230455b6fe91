"""Callbacks that write the figures of a training down: CSV, JSON lines, TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import atomic_write
from .callback import Callback

if TYPE_CHECKING:
    from ..engine.model import Model


class CSVLogger(Callback):
    """Writes the history to ``path`` after every epoch, whole or not at all, so that a job that is
    killed leaves what it has.

    ``rows`` are those of the file: training that begins at an ``initial_epoch`` keeps what is there
    of the epochs before.
    """

    remembered = ("rows",)

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_begin(self, model: Model, info: dict[str, Any]) -> None:
        super().on_train_begin(model, info)
        if info["initial_epoch"]:
            self.rows, problem = read_history(self.path, info["initial_epoch"])
            if problem and self.rank == 0:
                print(f"{self.path}: {problem}; training goes on", file=sys.stderr, flush=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.rows.append({"epoch": epoch + 1, **logs})
        if self.rank == 0:
            columns = dict.fromkeys(key for row in self.rows for key in row)
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, list(columns))
            writer.writeheader()
            writer.writerows(self.rows)
            atomic_write(self.path, text.getvalue().encode())


class JSONLines(Callback):
    """Appends a JSON object to ``path`` after every epoch, and every ``every`` steps if given: its
    "kind" is "epoch" or "step", "epoch" counts from 1, "update" all updates of the model; then the
    figures. A training that goes on appends; numbers that are not finite are null.
    """

    def __init__(self, path: str | Path, every: int = 0) -> None:
        self.path, self.every, self.epoch = Path(path), every, 0

    def on_epoch_begin(self, epoch: int) -> None:
        self.epoch = epoch

    def on_batch_end(self, step: int, logs: dict[str, float]) -> None:
        if self.every and (step + 1) % self.every == 0:
            self._write("step", {"step": step + 1, **logs})

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._write("epoch", logs)

    def _write(self, kind: str, figures: dict[str, Any]) -> None:
        if self.rank == 0:
            row = {"kind": kind, "epoch": self.epoch + 1, "update": self.model.updates}
            row |= {k: v if math.isfinite(v) else None for k, v in figures.items()}
            with open(self.path, "a", encoding="utf-8") as file:  # one call writes a whole line
                file.write(json.dumps(row, default=float) + "\n")


class TensorBoard(Callback):
    """Writes the figures of every epoch, and of every ``every`` steps if given, to ``folder`` for
    TensorBoard, on rank 0; needs the extra "tensorboard" (tensorboardX). The ledger's parts are
    "seconds/forward block1_conv1" and so on. Where a training goes on, what the folder has of
    updates behind that is hidden.
    """

    def __init__(self, folder: str | Path, every: int = 0) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as problem:
            raise ImportError(
                'TensorBoard needs tensorboardX: pip install "minicnn[tensorboard]"'
            ) from problem
        self.folder, self.every, self.make, self.writer = folder, every, SummaryWriter, None

    def on_train_begin(self, model: Model, info: dict[str, Any]) -> None:
        super().on_train_begin(model, info)
        if self.rank == 0:
            again = model.updates + 1 if model.updates else None
            self.writer = self.make(str(self.folder), purge_step=again)

    def on_batch_end(self, step: int, logs: dict[str, float]) -> None:
        if self.every and (step + 1) % self.every == 0:
            self._write({f"step/{name}": value for name, value in logs.items()})

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._write({name.replace(": ", "/"): value for name, value in logs.items()})

    def _write(self, figures: dict[str, float]) -> None:
        if self.writer is not None:
            for name, value in figures.items():
                self.writer.add_scalar(name, float(value), self.model.updates)
            self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def read_history(path: str | Path, epochs: int) -> tuple[list[dict[str, float]], str | None]:
    """Return the rows of the first ``epochs`` in the file ``path`` that CSVLogger wrote, and in
    words what is wrong with it: a damaged history keeps no training from going on.
    """
    rows: dict[int, dict[str, float]] = {}
    try:
        with open(path, newline="") as file:
            whole = file.read()
        table = csv.DictReader(io.StringIO(whole[: whole.rfind("\n") + 1]), restkey="", strict=True)
        for cells in table:
            row = {key: float(value) for key, value in cells.items() if value}
            number = int(row["epoch"])
            if number != row["epoch"] or len(cells) != len(table.fieldnames or ()):
                raise ValueError(f"line {table.line_num} is no row of it")
            rows[number] = {**row, "epoch": number}
    except (OSError, ValueError, TypeError, KeyError, OverflowError, csv.Error) as problem:
        reason = f"cannot be read ({problem!r})"
    else:
        reason = "is cut short"
    wanted = range(1, epochs + 1)
    missing = [number for number in wanted if number not in rows]
    lost = f"rows of epochs {', '.join(map(str, missing))} are missing: it {reason}"
    return [rows[number] for number in wanted if number in rows], lost if missing else None

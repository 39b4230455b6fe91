"""What happens around training: history, progress, checkpoints, early stopping. Derive from
Callback to add your own.

Callbacks run on every rank; ``self.rank`` and ``self.comm`` tell where. What they write, they write
on rank 0.
"""

import csv
import math
import os
from pathlib import Path

from ..progress import Meter


class Callback:
    """Does nothing; ``stop = True`` ends training after the epoch (set it from ``logs``, which are
    equal on all ranks).
    """

    stop = False

    def on_train_begin(self, model, info):
        """``info``: epochs, steps (per epoch), rank, ranks, comm, initial_epoch."""
        self.model, self.rank, self.comm = model, info["rank"], info["comm"]

    def on_epoch_begin(self, epoch):
        """Before the first step of ``epoch`` (from 0)."""

    def on_batch_end(self, step, logs):
        """After a step; ``logs``: mean loss and accuracy of the epoch so far, over all ranks."""

    def on_epoch_end(self, epoch, logs):
        """After validation; ``logs``: loss, accuracy, val_loss, val_accuracy, seconds and its
        parts, events_per_second.
        """

    def on_train_end(self):
        """After the last epoch."""


class History(Callback):
    """``rows``: one dictionary per epoch (key "epoch" counts from 1); ``history["loss"]`` is a
    column.
    """

    def __init__(self):
        self.rows = []

    def on_epoch_end(self, epoch, logs):
        self.rows.append({"epoch": epoch + 1, **logs})

    def __getitem__(self, key):
        return [row[key] for row in self.rows]

    def __contains__(self, key):
        return any(key in row for row in self.rows)


class CSVLogger(Callback):
    """Writes the history to ``path`` after every epoch, so that a job that is killed leaves what it
    has.

    ``rows`` are those of the file: training that begins at an ``initial_epoch`` keeps what is there
    of the epochs before.
    """

    def __init__(self, path):
        self.path, self.rows = path, []

    def on_train_begin(self, model, info):
        super().on_train_begin(model, info)
        if info["initial_epoch"] and os.path.exists(self.path):
            with open(self.path, newline="") as file:
                rows = [
                    {key: float(value) for key, value in row.items() if value}
                    for row in csv.DictReader(file)
                ]
            self.rows = [
                {**row, "epoch": int(row["epoch"])}
                for row in rows
                if row["epoch"] <= info["initial_epoch"]
            ]

    def on_epoch_end(self, epoch, logs):
        self.rows.append({"epoch": epoch + 1, **logs})
        if self.rank == 0:
            with open(self.path, "w", newline="") as file:
                writer = csv.DictWriter(
                    file, list(dict.fromkeys(key for row in self.rows for key in row))
                )
                writer.writeheader()
                writer.writerows(self.rows)


class ModelCheckpoint(Callback):
    """Saves the model to ``path`` after every epoch, or only where ``monitor`` is the best so far
    (``mode`` "min" or "max").
    """

    def __init__(self, path, monitor=None, mode="min"):
        self.path, self.monitor, self.sign = path, monitor, _sign(mode)
        self.best = math.inf

    def on_epoch_end(self, epoch, logs):
        if self.monitor is not None:
            value = self.sign * _monitored(logs, self.monitor)
            if not value < self.best:
                return
            self.best = value
        if self.rank == 0:
            self.model.save(self.path)


class EarlyStopping(Callback):
    """Stops when ``monitor`` has not improved by more than ``min_delta`` for ``patience`` epochs."""

    def __init__(self, monitor="val_loss", patience=3, min_delta=0.0, mode="min"):
        self.monitor, self.patience, self.min_delta, self.sign = (
            monitor,
            patience,
            min_delta,
            _sign(mode),
        )
        self.best, self.waited = math.inf, 0

    def on_epoch_end(self, epoch, logs):
        value = self.sign * _monitored(logs, self.monitor)
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
            self.stop = self.waited >= self.patience


class Progress(Callback):
    """A live bar on a terminal, plain lines elsewhere; after each epoch one line with loss,
    accuracy and rate. Rank 0 only.

    It says so when a network that had learned something is back at the loss of equal scores,
    ln(classes): its units are saturated, and nothing more will come. ledger: the trace.Ledger of
    the training, to see live where its time goes.
    """

    def __init__(self, file=None, ledger=None):
        self.file, self.meter, self.ledger, self.best = file, None, ledger, math.inf

    def on_train_begin(self, model, info):
        super().on_train_begin(model, info)
        self.info = info

    def on_epoch_begin(self, epoch):
        self.title = f"epoch {epoch + 1}/{self.info['epochs']}"
        self.meter = Meter(
            self.title, self.info["steps"], silent=self.rank > 0, file=self.file
        ).__enter__()

    def on_batch_end(self, step, logs):
        where = f"  |  {self.ledger.line()}" if self.ledger and self.meter.due else ""
        self.meter.update(
            step + 1, f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.3f}{where}"
        )

    def on_epoch_end(self, epoch, logs):
        self.meter.__exit__()
        if self.rank == 0:
            validation = (
                f"  |  validation loss {logs['val_loss']:.4f}  accuracy {logs['val_accuracy']:.3f}"
                if "val_loss" in logs
                else ""
            )
            print(
                f"{self.title}  loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.3f}{validation}"
                f"  |  {logs['seconds']:.1f} s, {logs['events_per_second']:.1f} events/s",
                file=self.file,
                flush=True,
            )
            chance = math.log(self.model.classes)
            if self.best < 0.97 * chance and logs["loss"] > 0.99 * chance:
                print(
                    f"the loss is back at that of equal scores, {chance:.3f}: this network will not learn any more. Begin anew with a "
                    "lower learning rate or a longer warm-up",
                    file=self.file,
                    flush=True,
                )
            self.best = min(self.best, logs["loss"])


class LedgerReport(Callback):
    """Prints the ledger's table after every epoch; at the end writes ``timeline.json`` and
    ``step.png`` of all ranks into ``folder``.
    """

    def __init__(self, ledger, folder, file=None):
        if not ledger.detail:
            raise ValueError("a LedgerReport needs a Ledger(detail=True)")
        self.ledger, self.folder, self.file = ledger, Path(folder), file

    def on_epoch_end(self, epoch, logs):
        if self.rank == 0:
            from ..inspect.report import ledger_table

            print(
                f"\n{ledger_table(self.ledger.summaries[-1], f'where the time went in epoch {epoch + 1}')}\n",
                file=self.file,
                flush=True,
            )

    def on_train_end(self):
        ranks = self.ledger.gather(self.comm)
        if self.rank == 0:
            from ..inspect.report import draw_step, write_timeline

            write_timeline(self.folder / "timeline.json", ranks)
            draw_step(self.folder / "step.png", ranks)
            print(
                f"timeline of {len(ranks)} rank{'s' * (len(ranks) > 1)} in {self.folder}/timeline.json (open it at "
                f"https://ui.perfetto.dev), a typical step in {self.folder}/step.png",
                file=self.file,
                flush=True,
            )


def _sign(mode):
    if mode not in ("min", "max"):
        raise ValueError(f'mode must be "min" or "max", got {mode!r}')
    return 1 if mode == "min" else -1


def _monitored(logs, key):
    if key not in logs:
        raise ValueError(
            f"no figure named {key!r} to monitor: there are {', '.join(logs)}"
            + (" (give validation_data)" if key.startswith("val_") else "")
        )
    return logs[key]

"""The folder of a run: what is in it under which name, and what says that the run is complete."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import StrPath, read_json, remove_partial_files, write_json

#: Pictures that a run makes of its validation events, and with --ledger of a step.
PICTURES = ("roc", "cuts", "calibration", "accuracy", "misclassified", "step")


@dataclass(frozen=True)
class RunFolder:
    """``RunFolder(Path("runs/mine")).model`` is the path of its model, and so on.

    A run is complete if and only if ``marker``, run.json, is there: it is taken away when a run
    begins and written last.
    """

    path: Path

    @property
    def marker(self) -> Path:
        """The record of a complete run."""
        return self.path / "run.json"

    @property
    def model(self) -> Path:
        """The model after the last complete epoch, with the state of its optimizer."""
        return self.path / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The folder of the step that --resume goes on with."""
        return self.path / "checkpoint"

    @property
    def marks(self) -> Path:
        """The folder in which ranks leave their marks for each other (minicnn/watch.py)."""
        return self.path / ".ranks"

    @property
    def history(self) -> Path:
        """Loss, accuracy and seconds of every epoch."""
        return self.path / "history.csv"

    @property
    def loss_curves(self) -> Path:
        """The picture of the history."""
        return self.path / "loss.png"

    @property
    def event_pictures(self) -> Path:
        """The picture of some validation events."""
        return self.path / "events.png"

    @property
    def predictions(self) -> Path:
        """The class scores of the events that were classified last."""
        return self.path / "predictions.csv"

    @property
    def validation(self) -> Path:
        """The class scores of every validation event."""
        return self.path / "validation.csv"

    @property
    def scores(self) -> Path:
        """Efficiency and purity with errors, area under the ROC curve, best cut of each class."""
        return self.path / "scores.txt"

    @property
    def ledger(self) -> Path:
        """Where the time went in the last epoch, with --ledger."""
        return self.path / "ledger.txt"

    @property
    def timeline(self) -> Path:
        """Every span of that epoch, for Perfetto."""
        return self.path / "timeline.json"

    @property
    def board(self) -> Path:
        """The folder of the event files for TensorBoard, with --tensorboard."""
        return self.path / "tensorboard"

    @property
    def page(self) -> Path:
        """All results on one page, without anything beside it."""
        return self.path / "report.html"

    def figure(self, what: str) -> Path:
        """One of PICTURES: of the validation events, or "step", with --ledger."""
        return self.path / f"{what}.png"

    @property
    def bad_events(self) -> Path:
        """The events that the training left out, and why; absent where there are none."""
        return self.path / "bad-events.csv"

    @property
    def bad_predictions(self) -> Path:
        """The events that could not be classified, and why; absent where there are none."""
        return self.path / "predictions-bad-events.csv"

    def confusion(self, kind: str) -> Path:
        """The validation table as "txt", "csv" or "png"."""
        return self.path / f"confusion.{kind}"

    def predicted(self, what: str) -> Path:
        """A picture of the events that were classified last."""
        return self.path / f"predicted-{what}.png"

    def begin(self, goes_on: bool = False) -> None:
        """Make the folder; take away the mark of an earlier run, its results that this one need not
        write again (without validation events, without a ledger) and would show as its own, and
        what a killed run left half written. goes_on: with that run, whose event files are kept.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.marker.unlink(missing_ok=True)
        pictures = map(self.figure, PICTURES)
        tables = (self.validation, *map(self.confusion, ("txt", "csv", "png")))
        texts = (self.scores, self.ledger, self.timeline, self.page)
        for left in (*tables, *texts, *pictures):
            left.unlink(missing_ok=True)
        for left in () if goes_on else self.board.glob("events.out.tfevents.*"):
            left.unlink()
        remove_partial_files(self.path)

    def finish(self, record: dict[str, Any]) -> None:
        """Write the mark of a complete run."""
        write_json(self.marker, record)

    @property
    def is_run(self) -> bool:
        """Whether a run has begun here and completed an epoch."""
        return self.marker.exists() or self.history.exists()

    def read_history(self) -> list[dict[str, str]]:
        """Return the rows of the history, all values as the texts that they are in the file."""
        with open(self.history, newline="") as file:
            return list(csv.DictReader(file))


def read_record(path: StrPath) -> dict[str, Any]:
    """Return what a run.json holds; ValueError naming the file where it is something else."""
    record = read_json(path)
    wanted = {"epochs": list, "arguments": dict}
    if not isinstance(record, dict) or not all(
        isinstance(record.get(name), kind) for name, kind in wanted.items()
    ):
        raise ValueError(f"{path}: not the record of a run, which has {' and '.join(wanted)}")
    return record

"""What a run leaves behind: tables, figures, and one page of all of it."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..files import atomic_write
from ..inspect import report
from ..inspect.report import html
from ..inspect.report.scores import scores_table
from ..text import counted, seconds_text
from .run_folder import RunFolder
from .scores import PredictionTable, draw_scores, worst_mistakes

#: Pictures of a run's page and what they show.
FIGURES = {
    "roc": "what a cut on a class's score keeps of the others against what it keeps of the class",
    "cuts": "efficiency and purity against the cut on the score, errors of 68.3 %; the dotted line "
    "is the largest efficiency times purity",
    "calibration": "how often the class with the highest score is right, by that score",
    "accuracy": "what fraction was recognised, against what is known of the event",
}


def command_line(ranks: int) -> str:
    """Return the command that runs here, as it may be typed again."""
    script, *arguments = sys.argv
    if Path(script).name == "__main__.py":
        words = ["python", "-m", "minicnn", *arguments]
    else:
        words = ["python", script, *arguments]
    return shlex.join(["mpiexec", "-n", str(ranks)] * (ranks > 1) + words)


def write_confusion(folder: RunFolder, result: Any, text: str, names: Sequence[str]) -> None:
    """Write the validation table, ``text``, also as CSV and picture; ``result``: an Evaluation of
    classes of these names.
    """
    atomic_write(folder.confusion("txt"), text)
    report.write_confusion_csv(folder.confusion("csv"), result.confusion, result.score_sums, names)
    report.draw_confusion(folder.confusion("png"), result.confusion, names)


def write_scores(folder: RunFolder, predictions: PredictionTable) -> None:
    """Write the scores of all validation events, and the figures made of them."""
    predictions.write(folder.validation)
    known = predictions.known()
    atomic_write(folder.scores, scores_table(known) + "\n")
    draw_scores(known, folder.figure)


def draw_mistakes(
    folder: RunFolder, predictions: PredictionTable, reopen: Callable[[], Any]
) -> None:
    """Draw the most confident mistakes; ``reopen`` opens the file of the events."""
    path = folder.figure("misclassified")
    path.unlink(missing_ok=True)
    chosen = worst_mistakes([prediction for *_, prediction in predictions.rows])
    if not chosen:
        return
    with reopen() as source:
        events = [source.read(prediction.number) for prediction in chosen]
    report.draw_events(
        events,
        path,
        titles=[f"event {prediction.number}" for prediction in chosen],
        scores=[prediction.scores for prediction in chosen],
        view=report.View(predictions.class_names),
        columns=4,
    )


def write_report(folder: RunFolder, record: dict[str, Any]) -> None:
    """Write the run's page, from ``record`` (what run.json holds) and what is in the folder."""
    epochs, last = record["epochs"], (record["epochs"] or [{}])[-1]
    accuracy = record.get("accuracy")
    result = "no validation events" if accuracy is None else f"accuracy {100 * accuracy:.1f} %"
    summary = f"{result} after {counted(len(epochs), 'epoch')}"
    if "ranks" in record:
        summary += f" on {counted(record['ranks'], 'rank')}"
    if "seconds" in record:
        summary += f", {seconds_text(record['seconds'])} in all"
    if "peak_memory_mb" in record:
        summary += f", peak memory of a rank {record['peak_memory_mb']:.0f} MB"
    columns = [name for name in last if ": " not in name]
    rows = [[_number(row.get(name)) for name in columns] for row in epochs]
    pictures = [html.picture_block(folder.figure(name), text) for name, text in FIGURES.items()]
    missed = "the most confident mistakes: what each was taken for, and how sure the network was"
    sections = {
        "Command": [html.command_block(record.get("command", "not recorded"))],
        "Curves": [
            html.picture_block(folder.loss_curves, "loss and accuracy, epoch by epoch"),
            html.table_block([name.replace("_", " ") for name in columns], rows),
        ],
        "Confusion": [
            _text_of(folder.confusion("txt")),
            html.picture_block(folder.confusion("png"), "row: truth, column: highest score"),
        ],
        "Scores": [_text_of(folder.scores), *pictures],
        "Mistakes": [html.picture_block(folder.figure("misclassified"), missed)],
        "Events": [html.picture_block(folder.event_pictures, "some validation events")],
        "Ledger": [
            _text_of(folder.ledger),
            html.picture_block(folder.figure("step"), "a typical step, a row per thread"),
        ],
        "Network and plan": [
            html.folded_block("layers, and what runs", html.text_block(record.get("network", "")))
        ],
        "Settings": [_settings(record.get("recipe") or record["arguments"])],
        "Machine and versions": [
            _settings({**record.get("machine", {}), **record.get("versions", {})})
        ],
    }
    atomic_write(folder.page, html.page(f"{folder.path.name}: a run of minicnn", summary, sections))


def _text_of(path: Path) -> str:
    return html.text_block(path.read_text(encoding="utf-8")) if path.exists() else ""


def _settings(values: dict[str, Any]) -> str:
    shown = {key: "-" if value is None else value for key, value in values.items()}
    return html.table_block((), list(shown.items())) if shown else ""


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, (int, float)) else "-"

"""The prediction job: class scores, pictures and, where the truth is known, how many are right."""

import csv
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import data, parallel
from ..engine.model import Model
from ..files import atomic_file
from ..inspect import report
from ..nn.losses import SoftmaxCrossEntropy
from ..nn.losses.evaluation import Evaluation
from ..progress import Meter, say
from ..train.checkpoint import load_model
from .bad_events import BadEvents
from .run_folder import RunFolder

EVENTS_DRAWN, EVENTS_PRINTED = 6, 20  # of each file
MOMENTUM = "momentum of the particle [MeV/c]"
ALONG_WIRES = "|cosine| between its direction and the vertical (the collection wires)"


@dataclass(frozen=True)
class PredictOptions:
    """Where the results go and what runs; weights None: the model in ``out``. threads: per rank;
    None: the cores of the node / its ranks. bad_events: "stop" at an event that cannot be read, or
    "skip" it (bad_events.py).
    """

    out: Path = Path("runs/microboone")
    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None
    bad_events: str = "stop"

    @property
    def model(self) -> Path:
        """The file of the model that predicts."""
        return self.weights or RunFolder(self.out).model


class Prediction(NamedTuple):
    """One classified event. number: in its file. truth: its label there, -1 where it has none.
    momentum, along_wires: of the primary particle, nan where they are not known.
    """

    number: int
    truth: int
    lit_pixels: int
    momentum: float
    along_wires: float
    scores: np.ndarray


def predict(comm: Any, files: Sequence[Path], options: PredictOptions) -> None:
    """Print and write the class scores of all events in ``files``, and draw the first few; where
    their truth is known, say how many are right.
    """
    rank = comm.rank if comm else 0
    folder = RunFolder(options.out)
    parallel.ordered(comm, lambda: folder.path.mkdir(parents=True, exist_ok=True))
    model = parallel.everywhere(comm, lambda: _classifier(options))
    model.kernels.set_threads(options.threads or parallel.threads_per_rank(comm))
    class_names = names_of_classes(model)
    bad = parallel.everywhere(comm, lambda: BadEvents(options.bad_events, folder.bad_predictions))
    rows: list[list[Any]] = []
    for path in files:
        source = parallel.everywhere(comm, partial(_open, path, model.input_shape[0], bad))
        with nullcontext() if source is None else source:
            if not all(parallel.agree(comm, value=source is not None)):
                continue
            work = partial(_classify, comm, model, source, path, folder, bad)
            per_rank = parallel.agree(comm, value=parallel.everywhere(comm, work))
        predictions = sorted(
            (one for of_rank in per_rank for one in of_rank), key=lambda one: one.number
        )
        rows += [_row(path, one, source.class_names) for one in predictions]
        for one in predictions[:EVENTS_PRINTED]:
            say(comm, _line(path, one, source.class_names, class_names))
        if len(predictions) > EVENTS_PRINTED:
            say(comm, f"{path.name}: {len(predictions) - EVENTS_PRINTED} more events")
    bad.settle(comm)
    if rank:
        return
    with atomic_file(folder.predictions) as file:
        writer = csv.writer(file)
        writer.writerow(
            ["file", "event", "truth", "lit pixels", MOMENTUM, ALONG_WIRES, *class_names]
        )
        writer.writerows(rows)
    _judge(folder, [row for row in rows if row[2] in class_names], class_names)
    print(f"scores in {folder.predictions}, pictures in {folder.predicted('*')}", flush=True)


def _classifier(options: PredictOptions) -> Model:
    """Return the model of the options; ValueError where it does not classify events."""
    model = load_model(options.model, device=options.device)
    outputs = [node.shape for node in model.graph.outputs]
    of_classes = isinstance(model.loss, SoftmaxCrossEntropy) and len(outputs[0]) == 1
    if len(model.graph.inputs) != 1 or len(outputs) != 1 or not of_classes:
        raise ValueError(
            f"{options.model} is no classifier of single images: its outputs are of "
            f"{', '.join(map(str, outputs))} with the loss {type(model.loss).__name__}; call "
            "model.predict from Python"
        )
    return model


def _open(path: Path, size: int, bad: BadEvents) -> Any:
    """Return the reader of a file; None where it cannot be opened and is left out."""
    try:
        return data.open_events(path, size=size)
    except data.EventError as problem:
        bad.of(path, "predicted")(-1, problem)
        return None


def names_of_classes(model: Model) -> tuple[str, ...]:
    """Return the names of a model's classes: its own, or those of the five particles where it has
    as many, or else numbers.
    """
    if model.class_names:
        return model.class_names
    if model.classes == len(data.CLASSES):
        return tuple(data.CLASSES)
    return tuple(f"class {k}" for k in range(model.classes))


def _classify(
    comm: Any, model: Model, source: Any, path: Path, folder: RunFolder, bad: BadEvents
) -> list[Prediction]:
    """Return the Predictions of this rank's events of a file; draw those among the first few."""
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    numbers, done = range(rank, len(source), ranks), []
    with Meter(f"classifying {path.name}", len(numbers), silent=rank > 0) as meter:
        for number in numbers:
            try:
                event = source.read(number)
            except data.EventError as problem:
                bad.of(path, "predicted")(number, problem)
                continue
            scores = model.predict([event.image])[0]
            done.append(
                Prediction(
                    number,
                    event.label,
                    event.image.nnz,
                    event.momentum,
                    abs(event.direction[1]),
                    scores,
                )
            )
            if number < EVENTS_DRAWN:
                report.draw_event(
                    event,
                    folder.predicted(f"{path.stem}-{number}"),
                    title=f"{path.name}, event {number}",
                    scores=scores,
                    view=report.View(names_of_classes(model)),
                )
            meter.update(len(done))
    return done


def _row(path: Path, one: Prediction, truth_names: Sequence[str]) -> list[Any]:
    """Return the line of predictions.csv of an event."""
    numbers = map(float, (one.momentum, one.along_wires, *one.scores))
    return [str(path), one.number, _truth(one, truth_names), one.lit_pixels, *numbers]


def _line(
    path: Path, one: Prediction, truth_names: Sequence[str], class_names: Sequence[str]
) -> str:
    """Return what is printed of an event."""
    scores = "  ".join(f"{name} {score:.3f}" for name, score in zip(class_names, one.scores))
    return (
        f"{path.name} event {one.number}: {one.lit_pixels} lit pixels, "
        f"truth {_truth(one, truth_names)}; {scores}"
    )


def _truth(one: Prediction, truth_names: Sequence[str]) -> str:
    return truth_names[one.truth] if one.truth >= 0 else "unknown"


def _judge(folder: RunFolder, rows: list[list[Any]], class_names: tuple[str, ...]) -> None:
    """Print the talk's table for predictions of known truth (lines of predictions.csv), and draw it
    and the accuracy against momentum and direction.
    """
    if not rows:
        return
    labels = np.array([class_names.index(row[2]) for row in rows])
    momentum_and_slope = np.array([row[4:6] for row in rows], np.float64)
    scores = np.array([row[6:] for row in rows], np.float64)
    of_truth = scores[np.arange(len(labels)), labels]
    result = Evaluation.empty(len(class_names))
    result.add(labels, -np.log(np.maximum(of_truth, 1e-30)), scores)
    print("\n" + report.talk_table(result.score_sums, result.correct, result.counts, class_names))
    print(
        f"\nof {result.events} events of known class {100 * result.accuracy:.1f} % have the "
        f"highest score there; loss {result.loss:.4f}"
    )
    report.draw_confusion(folder.predicted("confusion"), result.confusion, class_names)
    if np.isfinite(momentum_and_slope).all(1).any():
        report.draw_accuracy(
            folder.predicted("accuracy"),
            dict(zip((MOMENTUM, ALONG_WIRES), momentum_and_slope.T)),
            labels,
            scores.argmax(1),
            class_names,
        )

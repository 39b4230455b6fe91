"""The prediction job: class scores, pictures and, where the truth is known, how many are right."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, parallel
from ..data.transforms import mirror_images
from ..engine.model import Model
from ..inspect import report
from ..inspect.report.scores import ScoredEvents, scores_table
from ..nn.losses import SoftmaxCrossEntropy
from ..nn.losses.evaluation import Evaluation
from ..progress import Meter, say
from ..train.checkpoint import load_model
from .bad_events import BadEvents
from .run_folder import RunFolder
from .scores import Prediction, PredictionTable, draw_scores, quantities_of, truth_name

EVENTS_DRAWN, EVENTS_PRINTED = 6, 20  # of each file


@dataclass(frozen=True)
class PredictOptions:
    """Where the results go and what runs; weights None: the model in ``out``. threads: per rank;
    None: the cores of the node / its ranks. bad_events: "stop" at an event that cannot be read, or
    "skip" it (bad_events.py). mirrored: scores are the mean over an event and its mirror images.
    """

    out: Path = Path("runs/microboone")
    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None
    bad_events: str = "stop"
    mirrored: bool = False

    @property
    def model(self) -> Path:
        """The file of the model that predicts."""
        return self.weights or RunFolder(self.out).model


def predict(comm: Any, files: Sequence[Path], options: PredictOptions) -> None:
    """Print and write the class scores of all events in ``files``, and draw the first few; where
    their truth is known, say how many are right.
    """
    rank = parallel.as_comm(comm).rank
    folder = RunFolder(options.out)
    parallel.ordered(comm, lambda: folder.path.mkdir(parents=True, exist_ok=True))
    model = parallel.everywhere(comm, lambda: _classifier(options))
    model.kernels.set_threads(options.threads or parallel.threads_per_rank(comm))
    class_names = names_of_classes(model)
    table: PredictionTable | None = None
    bad = parallel.everywhere(comm, lambda: BadEvents(options.bad_events, folder.bad_predictions))
    for path in files:
        source = parallel.everywhere(comm, partial(_open, path, model.input_shape[0], bad))
        with nullcontext() if source is None else source:
            if not all(parallel.agree(comm, value=source is not None)):
                continue
            work = partial(_classify, comm, model, source, path, options, bad)
            per_rank = parallel.agree(comm, value=parallel.everywhere(comm, work))
        predictions = sorted(
            (prediction for of_rank in per_rank for prediction in of_rank),
            key=lambda prediction: prediction.number,
        )
        table = table or PredictionTable(class_names, source.axes)
        table.add(path, predictions, source.class_names, source.axes)
        for prediction in predictions[:EVENTS_PRINTED]:
            say(comm, _line(path, prediction, source.class_names, class_names))
        if len(predictions) > EVENTS_PRINTED:
            say(comm, f"{path.name}: {len(predictions) - EVENTS_PRINTED} more events")
    bad.settle(comm)
    if rank or table is None:
        return
    table.write(folder.predictions)
    _judge(folder, table.known())
    print(f"scores in {folder.predictions}, pictures in {folder.predicted('*')}", flush=True)


def _classifier(options: PredictOptions) -> Model:
    """Return the model of the options; ValueError where it does not classify events."""
    model = load_model(options.model, device=options.device)
    outputs = [node.shape for node in model.graph.outputs]
    of_classes = isinstance(model.loss, SoftmaxCrossEntropy) and len(outputs[0]) == 1
    planes = [node.shape[2] for node in model.graph.inputs]
    of_events = len(planes) == 1 or set(planes) == {1}
    if not of_events or len(outputs) != 1 or not of_classes:
        raise ValueError(
            f"{options.model} is no classifier of events: its inputs have {planes} planes, its "
            "outputs are of "
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
    comm: Any, model: Model, source: Any, path: Path, options: PredictOptions, bad: BadEvents
) -> list[Prediction]:
    """Return the Predictions of this rank's events of a file; draw those among the first few."""
    comm, folder = parallel.as_comm(comm), RunFolder(options.out)
    rank, ranks = comm.rank, comm.size
    numbers, done = range(rank, len(source), ranks), []
    with Meter(f"classifying {path.name}", len(numbers), silent=rank > 0) as meter:
        for number in numbers:
            try:
                event = source.read(number)
            except data.EventError as problem:
                bad.of(path, "predicted")(number, problem)
                continue
            images = mirror_images(event.image) if options.mirrored else [event.image]
            scores = model.predict(_as_inputs(model, images)).mean(0)
            known = quantities_of(event, source.axes)
            done.append(Prediction(number, event.label, known, scores))
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


def _as_inputs(model: Model, images: Sequence[data.SparseImage]) -> Any:
    """Return a batch of images: with one input for each of their planes where the model has."""
    count, planes = len(model.graph.inputs), images[0].shape[2]
    if count == 1:
        return images
    if planes != count:
        raise ValueError(f"the model takes {count} planes, the events have {planes}")
    return tuple(map(list, zip(*(image.planes() for image in images))))


def _line(
    path: Path, prediction: Prediction, truth_names: Sequence[str], class_names: Sequence[str]
) -> str:
    """Return what is printed of an event."""
    scores = "  ".join(f"{name} {score:.3f}" for name, score in zip(class_names, prediction.scores))
    return (
        f"{path.name} event {prediction.number}: {prediction.quantities.lit_pixels} lit pixels, "
        f"truth {truth_name(prediction, truth_names)}; {scores}"
    )


def _judge(folder: RunFolder, events: ScoredEvents) -> None:
    """Print the talk's table and efficiencies for events of known truth, and draw all figures."""
    labels, scores, class_names = events.labels, events.scores, events.class_names
    if not len(labels):
        return
    of_truth = scores[np.arange(len(labels)), labels]
    result = Evaluation.empty(len(class_names))
    result.add(labels, -np.log(np.maximum(of_truth, 1e-30)), scores)
    print("\n" + report.talk_table(result.score_sums, result.correct, result.counts, class_names))
    print(f"\n{scores_table(events)}")
    print(
        f"\nof {result.events} events of known class {100 * result.accuracy:.1f} % have the "
        f"highest score there; loss {result.loss:.4f}"
    )
    report.draw_confusion(folder.predicted("confusion"), result.confusion, class_names)
    draw_scores(events, folder.predicted)

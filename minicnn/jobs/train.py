"""The training job in six steps: open events, load them, build the model, fit, evaluate, report.

``train`` does them all; ``examples/microboone.py`` does them one by one. On several ranks all of
them call every step; rank 0 prints and writes.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, parallel
from ..engine.model import Model
from ..files import describe_machine
from ..inspect import report, trace
from ..inspect.report.ledger import LedgerReport
from ..locks import locked
from ..parallel.machine import peak_memory_bytes
from ..parallel.signals import Signals
from ..progress import Meter, say
from ..simulate.samples import DEFAULT_SAMPLE, mirror_of, sample_named, sample_text
from ..text import counted
from ..train import callbacks
from ..train.checkpoint import load_model
from ..train.evaluate import evaluate
from ..train.identity import compare_events
from ..train.step_checkpoint import StepCheckpoint
from ..watch import Watch
from .bad_events import BadEvents
from .events import check_sample, loaded_text, simulated, split_for_ranks
from .recipe import SIMULATED_TRAINING, SIMULATED_VALIDATION, Recipe, TrainOptions
from .results import command_line, draw_mistakes, write_confusion, write_report, write_scores
from .run_folder import RunFolder
from .scores import Noting, Prediction, PredictionTable

EVENTS_DRAWN, BOARD_STEPS = 6, 20


def train(
    comm: Any,
    recipe: Recipe,
    options: TrainOptions,
    extra_callbacks: Sequence[callbacks.Callback] = (),
) -> str:
    """Train as the recipe says, with all ranks of ``comm`` (None: one process); return the
    validation table, as text.
    """
    with TrainingJob(comm, recipe, options) as job:
        with job.open_events() as source:
            model = job.build_model(source)
            training, validation = job.load(source)
        job.fit(model, training, validation, extra_callbacks)
        return job.report(job.evaluate(model, validation))


class TrainingJob:
    """A job under way: its recipe and options, and what they led to on this machine. Within ``with
    TrainingJob(...) as job:`` the folder is the job's alone, a watchdog looks after its ranks, and
    a signal that asks it to end leaves the status of a job that may be started again.
    """

    def __init__(self, comm: Any, recipe: Recipe, options: TrainOptions) -> None:
        self.comm, self.recipe, self.options = comm, recipe, options
        self.rank: int = parallel.as_comm(comm).rank
        self.ranks: int = parallel.as_comm(comm).size
        self.started = time.perf_counter()
        self.folder = RunFolder(options.out)
        self.guards = ExitStack()
        saved, every, again = self.folder.checkpoint, options.save_every, options.resume
        self.checkpoint = parallel.everywhere(comm, lambda: StepCheckpoint(saved, every, again))
        if options.resume and not parallel.ordered(comm, self.checkpoint.path.exists):
            say(comm, f"no step is saved in {self.folder.checkpoint} yet: starting anew\n")
        if options.weights and recipe.shared_epochs is None:
            self.recipe = replace(recipe, shared_epochs=0)  # they have left that state behind
        # What does not exist is refused before any work is done: a sync mode, a store, a codec.
        o, bucket = options, 1024 * options.bucket if options.bucket else None
        sync_options = o.sync_every, bucket, o.transport, o.allow
        self.sync = parallel.everywhere(
            comm, lambda: parallel.make_sync(o.sync, comm, *sync_options)
        )
        parallel.everywhere(comm, self._new_store)
        self.bad = parallel.everywhere(
            comm, lambda: BadEvents(options.bad_events, self.folder.bad_events)
        )
        self.boards = parallel.everywhere(
            comm,
            lambda: (
                [callbacks.TensorBoard(self.folder.board, BOARD_STEPS)]
                if options.tensorboard
                else []
            ),
        )
        self.class_names: tuple[str, ...] = ()
        self.sample: dict[str, Any] | None = None  # the events', as their file says
        self.history: list[dict[str, Any]] = []
        self.network = ""  # layers and plan, as text
        self.predictions = PredictionTable(())
        self.threads = 0
        marks, seconds = self.folder.marks, 60 * options.stall_limit
        self.watch = parallel.everywhere(comm, lambda: Watch(marks, self.rank, self.ranks, seconds))
        # Before, between and behind steps; ``fit`` takes signals itself.
        self.signals = Signals(nothing_to_save=True, say=self.rank == 0)

    def _take_folder(self) -> None:
        """Keep other jobs out of the folder, and begin the run."""
        (path := self.folder.path).mkdir(parents=True, exist_ok=True)
        self.guards.enter_context(locked(path / ".lock", f"the results in {path}"))
        self.folder.begin(self.options.resume and self.checkpoint.path.exists())

    def __enter__(self) -> "TrainingJob":
        parallel.ordered(self.comm, self._take_folder)
        parallel.ordered(self.comm, lambda: self.watch.clear(self.folder.marks))
        for guard in (self.watch, self.signals):
            self.guards.enter_context(guard)
        return self

    def __exit__(self, *problem: Any) -> None:
        self.guards.__exit__(*problem)

    # ----------------------------------------------------------------------------------- events
    def open_events(self) -> Any:
        """Return the reader of the events, simulating them first where no file is named."""
        if self.options.events is None:
            path = self._simulate()
        else:
            path = self.options.events
        source = parallel.everywhere(
            self.comm, lambda: data.open_events(path, size=self.recipe.size)
        )
        self.events = path
        compare_events(self.comm, source)
        self.class_names = tuple(source.class_names)
        self.sample = getattr(source, "metadata", {}).get("sample")
        parallel.ordered(self.comm, lambda: check_sample(path, self.sample, self.options.sample))
        say(self.comm, f"events of {path}: {sample_text(self.sample)}\n")
        self.recipe = replace(
            self.recipe,
            planes=source.image_shape[2],
            classes=len(self.class_names),
            fixed_start=bool(self.sample and self.sample["position"]),
            mirror_x=mirror_of(self.sample) if self.recipe.mirror_start else None,
        )
        numbers = self.options.train, self.options.validation
        self.training_events, self.validation_events = parallel.ordered(
            self.comm, lambda: split_for_ranks(source, numbers, self.ranks, self.recipe.seed)
        )
        self.steps_per_epoch = self.recipe.steps_per_epoch(len(self.training_events), self.ranks)
        return source

    def _simulate(self) -> Path:
        """Return the file of simulated events, making it if it is not there yet."""
        options = self.options
        self.options = options = replace(
            options,
            sample=options.sample or sample_named(DEFAULT_SAMPLE),
            train=SIMULATED_TRAINING if options.train is None else options.train,
            validation=SIMULATED_VALIDATION if options.validation is None else options.validation,
        )
        simulator = data.Simulator(
            self.recipe.seed, (self.recipe.size, self.recipe.size, 1), sample=options.sample
        )
        return simulated(
            self.comm, simulator, (options.train or 0) + (options.validation or 0), options.cache
        )

    def _new_store(self) -> data.EventStore:
        """Return an empty store of the form and with the codec of the options."""
        codec, _, level = self.options.codec.partition(":")
        if level and not level.isdecimal():
            raise ValueError(f"codec {self.options.codec}: give NAME or NAME:LEVEL, as in zstd:5")
        chosen: dict[str, Any] = {"level": int(level)} if level else {}  # else the store's default
        return data.EventStore(codec, form=self.options.store, **chosen)

    def load(self, source: Any) -> tuple[Any, Any]:
        """Return this rank's training events, augmented as the recipe says, and its validation
        events, compressed in memory; draw some of the latter.
        """
        training = self._load(source, self.training_events, "training")
        self.noting = Noting(source)
        validation = self._load(self.noting, self.validation_events, "validation")
        self.bad.settle(self.comm)
        self.training_events = self.bad.without(self.training_events)
        self.validation_events = self.bad.without(self.validation_events)
        drawn = self.validation_events[:EVENTS_DRAWN]
        if self.rank == 0 and len(drawn):
            report.draw_events(
                [source.read(int(number)) for number in drawn],
                self.folder.event_pictures,
                view=report.View(self.class_names),
            )
        return self.recipe.for_training(training), self.recipe.for_validation(validation)

    def _load(self, source: Any, events: np.ndarray, what: str) -> Any:
        """Load this rank's share of the events and say what that took over all ranks."""
        store, own = self._new_store(), events
        if len(events):
            counts = getattr(source, "pixel_counts", None) if self.recipe.balance else None
            costs = None if counts is None else counts[events]
            own = events[data.shard(len(events), self.ranks, self.rank, self.recipe.seed, costs)]
        problem, bad_event = None, self.bad.of(source.path, what)
        with Meter(f"loading {what}", len(own), silent=self.rank > 0) as meter:
            try:
                store.load(source, own, lambda done, _: meter.update(done), bad=bad_event)
                if len(own) and not len(store):
                    problem = f"rank {self.rank}: none of its {len(own)} {what} events is left"
            except data.EventError as bad:
                problem = f"rank {self.rank}: {bad}"
        stats = parallel.agree(self.comm, problem, store.stats())
        total = {key: sum(of_rank[key] for of_rank in stats) for key in stats[0]}
        seconds = max(of_rank["seconds"] for of_rank in stats)
        if total["events"]:
            say(self.comm, loaded_text(store, what, total, seconds))
        if not (self.options.shared_store and self.comm):
            return store
        store = data.NodeStore(store, self.comm)
        say(self.comm, f"{what} events shared by {counted(store.ranks, 'rank')} of each node")
        return store

    # ----------------------------------------------------------------------------------- model
    def build_model(self, source: Any) -> Model:
        """Return the network for the events of ``source``, new or with the weights that the options
        name; print it, and what will run.
        """
        model = parallel.everywhere(self.comm, lambda: self._new_model(source))
        self.network = f"{model.summary_text()}\n\n{model.plan()}\n"
        say(self.comm, self.network)
        self.threads = self.options.threads or parallel.threads_per_rank(self.comm)
        model.kernels.set_threads(self.threads)
        say(
            self.comm,
            f"{counted(self.ranks, 'rank')} x {counted(self.threads, 'thread')}, "
            f"batch {self.recipe.batch_size} per rank, "
            f"{self.recipe.events_per_step(self.ranks)} events per step; sync: {self.options.sync}",
        )
        return model

    def _new_model(self, source: Any) -> Model:
        options, names, weights = self.options, self.class_names, self.options.weights
        optimizer = self.recipe.build_optimizer(self.steps_per_epoch, self.ranks)
        where = {"device": options.device, "precision": options.precision}
        if weights is None:
            return self.recipe.build_model(optimizer, class_names=names, **where)
        model = load_model(weights, optimizer=optimizer, **where)
        taken = [node.shape for node in model.graph.inputs]
        if (taken, model.classes) != (self.recipe.input_shapes, len(names)):
            planes, views = counted(self.recipe.planes, "plane"), " --views" * self.recipe.views
            raise ValueError(
                f"{weights} takes images of {' and '.join(map(str, taken))} in {model.classes} "
                f"classes; the events have --size {self.recipe.size}{views}, {planes} and "
                f"{len(names)} classes"
            )
        if model.class_names != names:
            known = ", ".join(model.class_names or ("without names",))
            if not self.rank:
                print(f"{weights} has the classes {known}; from here on {', '.join(names)}")
            model = load_model(weights, optimizer=optimizer, class_names=names, **where)
        # Not the updates that led to them.
        model.updates, optimizer.steps, optimizer.state = 0, 0, {}
        return model

    # -------------------------------------------------------------------------------- training
    def fit(
        self,
        model: Model,
        training: Any,
        validation: Any,
        extra_callbacks: Sequence[callbacks.Callback] = (),
    ) -> None:
        """Train; the history, the model and, with the ledger, its timeline go to the folder."""
        recipe = self.recipe
        self.checkpoint.settings = self._settings()
        table = callbacks.CSVLogger(self.folder.history)
        ledger = trace.Ledger(detail=self.options.ledger)
        chosen: list[callbacks.Callback] = [
            callbacks.Progress(ledger=ledger if self.options.ledger else None),
            table,
            callbacks.ModelCheckpoint(self.folder.model),
        ]
        if self.options.ledger:
            chosen.insert(1, LedgerReport(ledger, self.folder.path))
        model.fit(
            training,
            validation_data=validation if len(self.validation_events) else None,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            comm=self.comm,
            sync=self.sync,
            accumulate=recipe.accumulate,
            seed=recipe.seed,
            balance=recipe.balance,
            threads=self.threads,
            ledger=ledger,
            checkpoint=self.checkpoint,
            callbacks=[*chosen, *self.boards, *extra_callbacks],
        )
        self.history = table.rows

    def _settings(self) -> dict[str, Any]:
        """Return what must be the same where the job goes on, beside what fit compares."""
        strict = ("weights", "precision", "store", "codec", "shared_store")
        chosen = asdict(self.recipe) | {name: getattr(self.options, name) for name in strict}
        del chosen["epochs"]
        return {
            name.replace("_", " "): str(value) if isinstance(value, Path) else value
            for name, value in chosen.items()
        }

    def evaluate(self, model: Model, validation: Any) -> Any:
        """Return the Evaluation of the validation events of all ranks, None without such events."""
        if not len(self.validation_events):
            return None
        scores: list[np.ndarray] = []
        result = evaluate(
            model, validation, comm=self.comm, each=lambda _, found: scores.append(found.copy())
        )
        self._gather(validation, np.concatenate(scores) if scores else np.zeros((0, 0)))
        return result

    def _gather(self, validation: Any, scores: np.ndarray) -> None:
        """Collect the predictions of all ranks on rank 0."""
        numbers = validation.file_indices[: len(validation)].tolist()
        labels, known = validation.labels.tolist(), self.noting.noted
        own = [Prediction(n, k, known[n], row) for n, k, row in zip(numbers, labels, scores)]
        per_rank = parallel.as_comm(self.comm).gather(own)
        axes = self.noting.axes
        self.predictions = PredictionTable(self.class_names, axes)
        for found in per_rank or ():
            self.predictions.add(self.events, found, self.class_names, axes)
        self.predictions.rows.sort(key=lambda row: row[2].number)

    # -------------------------------------------------------------------------------- telling
    def report(self, result: Any) -> str:
        """Write curves, tables, figures, report.html and last run.json, the mark of a complete run;
        print and return the validation table. ``result``: what ``evaluate`` returned.
        """
        memory = max(parallel.agree(self.comm, value=peak_memory_bytes())) / 2**20
        seconds = time.perf_counter() - self.started
        table = "no validation events"
        if result is not None:
            table = report.talk_table(
                result.score_sums, result.correct, result.counts, self.class_names
            )
        if self.rank:
            return table
        report.draw_history(self.history, self.folder.loss_curves)
        if result is not None:
            self._write_validation(result, table)
        record = self._record(result, memory, seconds)
        write_report(self.folder, record)
        self.folder.finish(record)
        say(
            self.comm,
            f"\n{table}\n{sample_text(self.sample)}; peak memory of a rank {memory:.0f} MB; "
            f"{seconds:.0f} s in all; results in {self.folder.path}/, all of them on one page in "
            f"{self.folder.page.name}",
        )
        self.bad.say(self.comm)
        return table

    def _write_validation(self, result: Any, table: str) -> None:
        text = f"{table}\n\n{sample_text(self.sample)}\n"
        write_confusion(self.folder, result, text, self.class_names)
        write_scores(self.folder, self.predictions)

        def reopen() -> Any:
            return data.open_events(self.predictions.rows[0][0], size=self.recipe.size)

        draw_mistakes(self.folder, self.predictions, reopen)

    def _record(self, result: Any, memory: float, seconds: float) -> dict[str, Any]:
        """Return what run.json holds."""
        machine = describe_machine()
        return {
            "command": command_line(self.ranks),
            "arguments": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in (asdict(self.recipe) | asdict(self.options)).items()
            },
            "recipe": self.recipe.record(),
            "sample": self.sample,
            "ranks": self.ranks,
            "sync": {"mode": self.sync.mode} | self.sync.record,
            "threads": self.threads,
            "seconds": seconds,
            "peak_memory_mb": memory,
            "versions": machine.pop("versions"),
            "machine": machine,
            "network": self.network,
            "epochs": self.history,
            "bad_events": self.bad.record(),
            "loss": result.loss if result is not None else None,
            "accuracy": result.accuracy if result is not None else None,
        }

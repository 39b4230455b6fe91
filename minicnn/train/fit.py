"""The loop around the training step: epochs, validation, callbacks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np

from .. import watch
from ..data.batches import as_dataset, batches
from ..data.dataset import begin_epoch, content_digest, epoch_order, file_indices_of, order_name
from ..engine.model import Model
from ..inspect import trace
from ..parallel import AutoSync, agree, as_comm, threads_per_rank, together
from .averaged_weights import averaged, take_average
from .callbacks import Callback, History
from .choose_sync import as_sync, choose_sync
from .evaluate import evaluate, figures
from .identity import compare_ranks, facts_of
from .iterables import IterableData
from .optim import Optimizer
from .step import NotFiniteError, flush, train_step
from .step_checkpoint import Place, StepCheckpoint

__all__ = ["FitOptions", "NotFiniteError", "evaluate", "fit", "flush", "train_step"]


@dataclass(frozen=True)
class FitOptions:
    """The keyword arguments of ``fit``.

    validation_data: like ``train``. batch_size: per rank. optimizer: becomes the model's. comm: an
    mpi4py communicator or None. sync: what ranks exchange, a mode of parallel.sync ("gradients":
    one Allreduce per step; "overlap"; "weights": the mean of weights and optimizer state every
    ``sync_every`` steps, as MaTEx; "auto": the fastest with the update of "gradients", see
    choose_sync; ...) or what parallel.make_sync returned. accumulate: so many
    batches make one step, with one reduction and update. seed: of the order of events; every event
    is used once per epoch, in an order given by (seed, epoch, rank), or by the data set's own
    ``order(seed, epoch, events per step)``, as of a NodeStore. balance: steps get events of about
    equal work where the data set knows what they cost, as stores do, so that ranks do not wait for
    each other; how, and why gradients stay unbiased, is in data.balance. False: the plain
    permutation, as before there was balancing. initial_epoch: the first to run, of
    ``epochs`` in all. steps_per_epoch: for data that are an iterator without end. prefetch: batches
    that are read ahead. threads: per rank; by default the cores of the node are shared by its
    ranks, and one process keeps what it has. ledger: a trace.Ledger(detail=True), or True for one,
    books every step's time part by part, see trace; the history then has all parts. checkpoint: a
    StepCheckpoint saves and takes up single steps.
    """

    validation_data: Any = None
    epochs: int = 1
    batch_size: int = 1
    optimizer: Optimizer | None = None
    comm: Any = None
    sync: Any = "gradients"
    sync_every: int = 1
    callbacks: Sequence[Callback] = ()
    seed: int = 0
    balance: bool = True
    initial_epoch: int = 0
    steps_per_epoch: int | None = None
    prefetch: int = 1
    threads: int | None = None
    ledger: Any = None
    accumulate: int = 1
    checkpoint: StepCheckpoint | None = None


def fit(model: Model, train: Any, **options: Any) -> History:
    """Train ``model`` and return its History; ``options``: see FitOptions.

    train: this rank's events, as an EventStore (or any object with ``len`` and ``batch(indices) ->
    (x, y)`` or ``(x, y, sample weights)``); arrays (x, y) or (x, y, sample weights), the same on
    every rank, of which each rank takes its share; or any iterable of batches, as a generator or a
    torch DataLoader.

    Raises ValueError on all ranks when a rank has no events or less than a batch, or where ranks
    differ in model, optimizer, options or version; NotFiniteError on all ranks at the same step.
    """
    unknown = options.keys() - {f.name for f in fields(FitOptions)}
    if unknown:
        raise TypeError(
            f"fit has no option {', '.join(sorted(unknown))}; there are "
            + ", ".join(f.name for f in fields(FitOptions))
        )
    return _Fit(model, train, FitOptions(**options)).run()


class _Fit:
    """One call of ``fit``."""

    def __init__(self, model: Model, train: Any, options: FitOptions) -> None:
        self.model, self.options = model, options
        self.comm = comm = as_comm(options.comm)
        self.rank, self.ranks = comm.rank, comm.size
        if options.optimizer is not None:
            model.optimizer = options.optimizer
        self.optimizer = model.optimizer
        self.train = self._data(train)
        self.validation = None
        if options.validation_data is not None:
            held = options.validation_data
            if IterableData.takes(held):  # read once, for all epochs
                self.validation = IterableData(held).in_memory()
            else:
                self.validation = as_dataset(held, self.rank, self.ranks, options.seed)
        self.sync = as_sync(options.sync, comm, options.sync_every, self.train)
        if options.threads or comm:
            model.kernels.set_threads(options.threads or threads_per_rank(comm))
        self.steps = self._agree_steps()
        ledger = trace.Ledger(detail=True) if options.ledger is True else options.ledger
        self.ledger = ledger or trace.Ledger()
        self.ledger.synchronize = model.kernels.synchronize if self.ledger.detail else None
        self.history = History()
        self.callbacks = [self.history, *options.callbacks]

    def _data(self, data: Any) -> Any:
        if IterableData.takes(data):
            if self.ranks > 1 and not self.options.steps_per_epoch and not hasattr(data, "__len__"):
                raise ValueError(
                    "an iterator on several ranks needs steps_per_epoch: all ranks must make the "
                    "same number of steps"
                )
            return IterableData(data, self.options.steps_per_epoch)
        return as_dataset(data, self.rank, self.ranks, self.options.seed)

    def run(self) -> History:
        options, model, saver = self.options, self.model, self.options.checkpoint
        self.optimizer.bind(self.steps or 1)
        facts = self._facts() if saver or self.ranks > 1 else {}
        compare_ranks(self.comm, facts)
        self.sync.broadcast(model, self.optimizer)
        if isinstance(self.sync, AutoSync):
            facts |= self._choose_sync(self.sync)
        place = Place(options.initial_epoch)
        try:
            if saver:
                saver.begin(self.comm, facts | self._data_facts())
                place = saver.restore(model, self.sync) or place
            info = {
                "epochs": options.epochs,
                "steps": self.steps,
                "rank": self.rank,
                "ranks": self.ranks,
                "comm": self.comm,
                "initial_epoch": place.epoch,
            }
            self._call("on_train_begin", model, info)
            self._remind(place.callbacks)
            # Equal on all ranks: callbacks stop by reduced figures alone.
            while place.epoch < options.epochs and not any(
                getattr(c, "stop", False) for c in self.callbacks
            ):
                self._call("on_epoch_begin", place.epoch)
                self.begun = model.updates - place.step
                try:
                    logs = self._epoch(place)
                except NotFiniteError as problem:
                    raise together(NotFiniteError(f"{problem}{self._offenders()}")) from None
                with averaged(model):
                    self._call("on_epoch_end", place.epoch, logs)
                place = Place(place.epoch + 1)
                if saver:
                    saver.edge(partial(self._save, place), always=True)
            take_average(model)
            self._call("on_train_end")
        finally:
            if saver:
                saver.end(sys.exception())
            for callback in self.callbacks:
                close = getattr(callback, "close", None)
                if close:
                    close()
        return self.history

    def _choose_sync(self, auto: AutoSync) -> dict[str, Any]:
        """Take the mode that is fastest, or that of the saved step; returns the facts of it."""
        saver = self.options.checkpoint

        def read() -> list[Any]:
            _, source = self._batches(Place(self.options.initial_epoch))
            return list(islice(source, self.options.accumulate))

        saved = saver.saved_sync(self.comm) if saver else None
        self.sync = choose_sync(auto, self.model, read, saved)
        return {"sync": self._sync_facts(), "sync choice": auto.record}

    def _sync_facts(self) -> list[Any]:
        return [self.sync.mode, getattr(self.sync, "every", 1), *getattr(self.sync, "allow", ())]

    def _epoch(self, place: Place) -> dict[str, float]:
        """Train for the rest of an epoch and validate; returns the means and times of it."""
        model, ledger, comm, saver = self.model, self.ledger, self.comm, self.options.checkpoint
        started = time.perf_counter() - place.seconds
        ledger.align(comm)
        if place.books:
            ledger.reopen(place.books)
        total = place.total
        steps, source = self._batches(place)
        source = _timed(source, ledger)
        with ledger:
            while steps is None or place.step < steps:
                batch = next(source, None)
                if batch is None:
                    break
                tails = [self._step(batch, source)]
                place.step += 1
                if place.step == steps:
                    tails.append(flush(model, self.optimizer, self.sync, ledger))
                self._add(total, tails)
                with ledger.span("callbacks"):
                    self._call(
                        "on_batch_end", place.step - 1, model.targets.summary(_filled(model, total))
                    )
                ledger.step()
                watch.step(model.updates)
                if saver:
                    place.seconds = time.perf_counter() - started
                    saver.edge(partial(self._save, place))
            if steps is None:
                self._add(total, [flush(model, self.optimizer, self.sync, ledger)])
        logs = model.targets.summary(_filled(model, total))
        logs["seconds"] = time.perf_counter() - started
        logs["events_per_second"] = total.get("events", 0) / logs["seconds"]
        logs |= ledger.close(comm)
        self.sync.average_state(model)
        if self.validation is not None:
            with averaged(model):
                result = evaluate(model, self.validation, self.options.batch_size, comm)
            logs |= {f"val_{key}": value for key, value in figures(result).items()}
        return logs

    def _offenders(self) -> str:
        """Return which events of the file made a step not finite; their batch is written beside the
        checkpoint, on all ranks together.
        """
        suspect, saver, text = self.model.suspect, self.options.checkpoint, ""
        if suspect and not isinstance(self.train, IterableData):
            first = (suspect.update - self.begun) * self._per_step
            numbers = file_indices_of(self.train)[self.order[first : first + self._per_step]]
            chosen = numbers if suspect.event is None else numbers[[suspect.event]]
            text = f"; rank {self.rank}: event {', '.join(map(str, chosen[:20]))} of the file"
            if saver and suspect.images is not None:
                path = saver.folder / f"not-finite-rank-{self.rank}.npz"
                try:
                    saver.folder.mkdir(parents=True, exist_ok=True)
                    suspect.write(path)
                    text += f", its batch is in {path}"
                except OSError as failure:
                    text += f", its batch could not be written ({failure})"
        return "".join(agree(self.comm, value=text))

    def _remind(self, states: list[list[Any]]) -> None:
        """Give callbacks what they remembered, those of a kind in their order."""
        for callback in self.callbacks:
            own = next((each for each in states if each[0] == type(callback).__name__), None)
            if own:
                states.remove(own)
                callback.set_state(own[1])

    def _save(self, place: Place) -> str:
        """Save the step at ``place``; returns it in words."""
        saver = self.options.checkpoint
        assert saver is not None
        used = np.zeros(0, np.int64)
        if place.step:
            place.books = self.ledger.books(self.comm)
            if not isinstance(self.train, IterableData):
                used = file_indices_of(self.train)[self.order[: place.step * self._per_step]]
        place.callbacks = [[type(c).__name__, c.state()] for c in self.callbacks]
        saver.save(self.model, self.sync, place, used)
        if not place.step:
            return f"the end of epoch {place.epoch} of {self.options.epochs}"
        return f"step {place.step} of epoch {place.epoch + 1} of {self.options.epochs}"

    @property
    def _per_step(self) -> int:
        """Events of this rank in a step."""
        return self.options.batch_size * self.options.accumulate

    def _facts(self) -> dict[str, Any]:
        """Return what all ranks must have alike."""
        options = self.options
        return facts_of(
            self.model,
            self.optimizer,
            **{
                "sync": self._sync_facts(),
                "epochs": options.epochs,
                "initial epoch": options.initial_epoch,
                "steps per epoch": self.steps,
                "batch size": options.batch_size,
                "accumulate": options.accumulate,
                "seed": options.seed,
                "order of events": order_name(self.train, options.balance),
                "ranks": self.ranks,
            },
        )

    def _data_facts(self) -> dict[str, Any]:
        """Return the numbers and digests of all ranks' events."""
        facts = {}
        for name, dataset in (("training", self.train), ("validation", self.validation)):
            own = (0, 0)
            if dataset is not None and not isinstance(dataset, IterableData):
                own = (len(dataset), content_digest(dataset))
            per_rank = agree(self.comm, value=own)
            events, digest = (sum(values) for values in zip(*per_rank))
            facts[f"{name} events"] = f"{events} (digest {digest % 2**64:016x})"
        return facts

    def _step(self, batch: Any, source: Iterator[Any]) -> dict[str, float] | None:
        batches = chain([batch], islice(source, self.options.accumulate - 1))
        return train_step(self.model, batches, self.optimizer, self.sync, self.ledger)

    def _batches(self, place: Place) -> tuple[int | None, Iterator[Any]]:
        """Return how many steps the epoch has, and the batches of those that are left of it."""
        options, train = self.options, self.train
        if isinstance(train, IterableData):
            return self.steps, train.batches(place.epoch, place.step * options.accumulate)
        begin_epoch(train, place.epoch)  # augmentation draws anew in every epoch
        order = epoch_order(
            train, options.seed, place.epoch, self.rank, self._per_step, options.balance
        )
        steps = self.steps
        if place.used.any():  # by another number of ranks; what is left is dealt anew
            numbers = file_indices_of(train)[order]
            used = np.append(place.used, False)[np.minimum(numbers, len(place.used))]
            order = order[~used]
            steps = max(agree(self.comm, value=-(-len(order) // self._per_step)))
        assert steps is not None
        self.order, rest = order, order[place.step * self._per_step :]
        left = (steps - place.step) * options.accumulate
        return steps, batches(train, rest, options.batch_size, left, options.prefetch)

    def _agree_steps(self) -> int | None:
        """Return the steps per epoch, the same on all ranks: a rank that runs out of events takes
        part with an empty batch. None: until the data end.
        """
        options, rank, train = self.options, self.rank, self.train
        if isinstance(train, IterableData):
            if not train.steps:
                return None
            steps = max(agree(self.comm, None, -(-train.steps // options.accumulate)))
            train.steps = steps * options.accumulate  # all ranks make as many
            return steps
        problem, size = None, options.batch_size * options.accumulate
        several = f", {options.accumulate} of them per step" if options.accumulate > 1 else ""
        if options.batch_size < 1 or options.accumulate < 1:
            problem = (
                f"batch size {options.batch_size}, {options.accumulate} of them per step: both "
                "must be at least 1"
            )
        elif len(train) == 0:
            problem = f"rank {rank} has no events to train on: use fewer ranks or more events"
        elif size > len(train):
            problem = (
                f"batch size {options.batch_size}{several}{',' * bool(several)} is larger than the "
                f"{len(train)} events of rank {rank}: use a smaller batch or fewer ranks"
            )
        return max(agree(self.comm, problem, -(-len(train) // max(size, 1))))

    @staticmethod
    def _add(total: dict[str, float], tails: list[dict[str, float] | None]) -> None:
        for tail in filter(None, tails):
            for key, value in tail.items():
                total[key] = total.get(key, 0.0) + value

    def _call(self, name: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, name)(*args)


def _filled(model: Model, total: dict[str, float]) -> dict[str, float]:
    """Return the sums with 0 for figures that no step has reported yet."""
    return dict.fromkeys(model.targets.tail, 0.0) | total


def _timed(source: Iterator[Any], ledger: trace.Ledger) -> Iterator[Any]:
    """Yield what ``source`` yields, with the time that it takes in the ledger."""
    while True:
        with ledger.span("wait for data"):
            batch = next(source, None)
        if batch is None:
            return
        yield batch

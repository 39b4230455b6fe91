"""The loop around the training step: epochs, validation, callbacks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

from ..data.batches import as_dataset, batches
from ..data.dataset import begin_epoch, epoch_order
from ..engine.model import Model
from ..inspect import trace
from ..parallel import agree, as_comm, make_sync, threads_per_rank
from .callbacks import Callback, History
from .evaluate import evaluate, figures
from .iterables import IterableData
from .optim import Optimizer
from .step import NotFiniteError, flush, train_step

__all__ = ["FitOptions", "NotFiniteError", "evaluate", "fit", "flush", "train_step"]


@dataclass(frozen=True)
class FitOptions:
    """The keyword arguments of ``fit``.

    validation_data: like ``train``. batch_size: per rank. optimizer: becomes the model's. comm: an
    mpi4py communicator or None. sync: what ranks exchange, a mode of parallel.sync ("gradients":
    one Allreduce per step; "overlap"; "weights": the mean of weights and optimizer state every
    ``sync_every`` steps, as MaTEx; ...) or what parallel.make_sync returned. accumulate: so many
    batches make one step, with one reduction and update. seed: of the order of events; every event
    is used once per epoch, in an order given by (seed, epoch, rank), or by the data set's own
    ``order(seed, epoch, events per step)``, as of a NodeStore. initial_epoch: the first to run, of
    ``epochs`` in all. steps_per_epoch: for data that are an iterator without end. prefetch: batches
    that are read ahead. threads: per rank; by default the cores of the node are shared by its
    ranks, and one process keeps what it has. ledger: a trace.Ledger(detail=True), or True for one,
    books every step's time part by part, see trace; the history then has all parts.
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
    initial_epoch: int = 0
    steps_per_epoch: int | None = None
    prefetch: int = 1
    threads: int | None = None
    ledger: Any = None
    accumulate: int = 1


def fit(model: Model, train: Any, **options: Any) -> History:
    """Train ``model`` and return its History; ``options``: see FitOptions.

    train: this rank's events, as an EventStore (or any object with ``len`` and ``batch(indices) ->
    (x, y)`` or ``(x, y, sample weights)``); arrays (x, y) or (x, y, sample weights), the same on
    every rank, of which each rank takes its share; or any iterable of batches, as a generator or a
    torch DataLoader.

    Raises ValueError on all ranks when a rank has no events or less than a batch; NotFiniteError on
    all ranks at the same step.
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
        self.sync = _as_sync(options.sync, comm, options.sync_every)
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
        options, model = self.options, self.model
        self.optimizer.bind(self.steps or 1)
        self.sync.broadcast(model, self.optimizer)
        info = {
            "epochs": options.epochs,
            "steps": self.steps,
            "rank": self.rank,
            "ranks": self.ranks,
            "comm": self.comm,
            "initial_epoch": options.initial_epoch,
        }
        try:
            self._call("on_train_begin", model, info)
            for epoch in range(options.initial_epoch, options.epochs):
                self._call("on_epoch_begin", epoch)
                logs = self._epoch(epoch)
                self._call("on_epoch_end", epoch, logs)
                # Equal on all ranks: callbacks stop by reduced figures alone.
                if any(getattr(c, "stop", False) for c in self.callbacks):
                    break
            self._call("on_train_end")
        finally:
            for callback in self.callbacks:
                close = getattr(callback, "close", None)
                if close:
                    close()
        return self.history

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch and validate; returns the means and times of it."""
        model, ledger, comm = self.model, self.ledger, self.comm
        started = time.perf_counter()
        ledger.align(comm)
        total: dict[str, float] = {}
        source = _timed(self._batches(epoch), ledger)
        step = 0
        with ledger:
            while self.steps is None or step < self.steps:
                batch = next(source, None)
                if batch is None:
                    break
                tails = [self._step(batch, source)]
                step += 1
                if step == self.steps:
                    tails.append(flush(model, self.optimizer, self.sync, ledger))
                self._add(total, tails)
                with ledger.span("callbacks"):
                    self._call(
                        "on_batch_end", step - 1, model.targets.summary(_filled(model, total))
                    )
                ledger.step()
            if self.steps is None:
                self._add(total, [flush(model, self.optimizer, self.sync, ledger)])
        logs = model.targets.summary(_filled(model, total))
        logs["seconds"] = time.perf_counter() - started
        logs["events_per_second"] = total.get("events", 0) / logs["seconds"]
        logs |= ledger.close(comm)
        self.sync.average_state(model)
        if self.validation is not None:
            result = evaluate(model, self.validation, self.options.batch_size, comm)
            logs |= {f"val_{key}": value for key, value in figures(result).items()}
        return logs

    def _step(self, batch: Any, source: Iterator[Any]) -> dict[str, float] | None:
        x, y, *weights = batch
        more = islice(source, self.options.accumulate - 1)
        return train_step(
            self.model,
            x,
            y,
            self.optimizer,
            self.sync,
            self.rank,
            self.ledger,
            more,
            sample_weights=weights[0] if weights else None,
        )

    def _batches(self, epoch: int) -> Iterator[Any]:
        options, train = self.options, self.train
        if isinstance(train, IterableData):
            return train.batches()
        begin_epoch(train, epoch)  # augmentation draws anew in every epoch
        per_step = options.batch_size * options.accumulate
        order = epoch_order(train, options.seed, epoch, self.rank, per_step)
        assert self.steps is not None
        steps = self.steps * options.accumulate
        return batches(train, order, options.batch_size, steps, options.prefetch)

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


def _as_sync(sync: Any, comm: Any, every: int) -> Any:
    """Return ``sync``, made of its name if it is one; ValueError for one that belongs to other
    ranks, or an option it would ignore.
    """
    if isinstance(sync, str):
        return make_sync(sync, comm, every)
    if sync.comm is not comm or every != 1:
        raise ValueError(
            "a sync that is made already takes its communicator and sync_every from make_sync: "
            "give fit the same comm, and no sync_every"
        )
    return sync


def _timed(source: Iterator[Any], ledger: trace.Ledger) -> Iterator[Any]:
    """Yield what ``source`` yields, with the time that it takes in the ledger."""
    while True:
        with ledger.span("wait for data"):
            batch = next(source, None)
        if batch is None:
            return
        yield batch

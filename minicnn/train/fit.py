"""The training step, readable top to bottom, and the loops around it."""

import time
from functools import partial
from itertools import islice

import numpy as np

from ..data.batches import as_dataset, batches
from ..inspect import trace
from ..nn.losses import check_labels
from ..parallel import agree, make_sync, threads_per_rank, together
from .callbacks import History
from .metrics import Evaluation


class NotFiniteError(ArithmeticError):
    """The loss or a gradient is NaN or infinite; raised on all ranks at the same step."""


def train_step(model, x, y, optimizer, sync=None, rank=0, ledger=None, more=()):
    """Forward, loss, backward, allreduce, update for one batch of this rank (which may be empty).

    more: an iterator of further batches (x, y) whose gradients are added before the one reduction
    and update (gradient accumulation). Returns the reduced tail {"events", "loss" (summed),
    "correct", "not_finite"} over all ranks, or None where ``sync`` has not reduced yet (weights
    mode between two averages, the first step of delayed mode).
    """
    sync = sync or make_sync("gradients", None)
    ledger = ledger or trace.Ledger()
    with trace.span("clear gradients"):
        model.clear_gradients()
    with ledger.span("between layers" if ledger.detail else "forward+backward"):
        rng, progress = (
            np.random.default_rng([model.seed, rank, model.updates]),
            sync.progress and partial(sync.progress, model),
        )
        batch, more = (x, y), iter(more)
        while batch is not None:
            following = next(more, None)
            model.accumulate(*batch, rng, following is not None, progress)
            batch = following
        with trace.span("check finite"):
            finite = sync.finite(model) and model.kernels.finite(model.parameters)
        if not finite:
            model.gradients[-1] = (
                1  # a flag, and the weights too: pooling and MPI's MAX may lose a NaN, a count does not
            )
    with ledger.span("allreduce"):
        ready = sync.reduce_gradients(model)
    model.updates += 1
    return apply_gradients(model, optimizer, sync, ledger) if ready else None


def apply_gradients(model, optimizer, sync, ledger):
    """Update with the reduced gradients in the buffer; returns the tail, or raises NotFiniteError
    on all ranks.
    """
    tail = model.tail()
    if not tail["not_finite"] or sync.local:
        with ledger.span("update"):
            optimizer.update(model, tail["events"])
    with ledger.span("allreduce"):
        return check_finite(model, sync, sync.reduce_weights(model, optimizer, tail))


def flush(model, optimizer, sync, ledger):
    """End an epoch: apply gradients that are under way, average weights that differ; returns the
    tail of these steps, None without.
    """
    if sync.outstanding(model):
        return apply_gradients(model, optimizer, sync, ledger)
    return check_finite(model, sync, sync.flush(model, optimizer))


def check_finite(model, sync, tail):
    """Return ``tail``; raises NotFiniteError, on all ranks, where it says so."""
    if tail and tail["not_finite"]:
        sync.outstanding(model)  # nobody may free a buffer that MPI still writes to
        raise together(
            NotFiniteError(
                f"loss, gradient or weights not finite on {int(tail['not_finite'])} of {sync.size} ranks at update {model.updates} "
                f"(events {int(tail['events'])}, summed loss {tail['loss']}): lower the learning rate or check the data"
            )
        )
    return tail


def fit(
    model,
    train,
    validation_data=None,
    epochs=1,
    batch_size=1,
    optimizer=None,
    comm=None,
    sync="gradients",
    sync_every=1,
    callbacks=(),
    seed=0,
    initial_epoch=0,
    prefetch=1,
    threads=None,
    ledger=None,
    accumulate=1,
):
    """Train ``model`` and return its History.

    train, validation_data: this rank's events, as an EventStore (or any object with ``len`` and
    ``batch(indices) -> (x, y)``); or (x, y) arrays, the same on every rank, of which each rank
    takes its share. batch_size is per rank. comm: an mpi4py communicator or None. sync: what ranks
    exchange, a mode of parallel.sync ("gradients": one Allreduce per step; "overlap"; "weights":
    the mean of weights and optimizer state every ``sync_every`` steps, as MaTEx; ...) or what
    parallel.make_sync returned. accumulate: so many batches make one step, with one reduction and
    update. Every event is used once per epoch, in an order given by (seed, epoch, rank), or by the
    data set's own ``order(seed, epoch, events per step)``, as of a NodeStore. threads: per rank; by
    default the cores of the node are shared by its ranks, and one process keeps what it has.
    ledger: a trace.Ledger(detail=True) books every step's time part by part, see trace; the history
    then has all parts.

    Raises ValueError on all ranks when a rank has no events or less than a batch; NotFiniteError on
    all ranks at the same step.
    """
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    optimizer = optimizer or model.optimizer
    train = as_dataset(train, rank, ranks, seed)
    validation = (
        as_dataset(validation_data, rank, ranks, seed) if validation_data is not None else None
    )
    sync = _as_sync(sync, comm, sync_every)
    if threads or comm:
        model.kernels.set_threads(threads or threads_per_rank(comm))
    steps = _agree_steps(comm, rank, len(train), batch_size, accumulate)
    sync.broadcast(model, optimizer)
    history, ledger = History(), ledger or trace.Ledger()
    ledger.synchronize = model.kernels.synchronize if ledger.detail else None
    callbacks = [history, *callbacks]
    _call(
        callbacks,
        "on_train_begin",
        model,
        {
            "epochs": epochs,
            "steps": steps,
            "rank": rank,
            "ranks": ranks,
            "comm": comm,
            "initial_epoch": initial_epoch,
        },
    )
    for epoch in range(initial_epoch, epochs):
        started = time.perf_counter()
        ledger.align(comm)
        _call(callbacks, "on_epoch_begin", epoch)
        if hasattr(train, "epoch"):
            train.epoch = epoch  # augmentation draws anew in every epoch
        order = (
            train.order(seed, epoch, batch_size * accumulate)
            if hasattr(train, "order")
            else np.random.default_rng([seed, epoch, rank]).permutation(len(train))
        )
        total = dict.fromkeys(("events", "loss", "correct"), 0.0)
        source = _timed(batches(train, order, batch_size, steps * accumulate, prefetch), ledger)
        with ledger:
            for step in range(steps):
                tails = [
                    train_step(
                        model,
                        *next(source),
                        optimizer,
                        sync,
                        rank,
                        ledger,
                        islice(source, accumulate - 1),
                    )
                ]
                if step == steps - 1:
                    tails.append(flush(model, optimizer, sync, ledger))
                for tail in filter(None, tails):
                    total = {key: total[key] + tail[key] for key in total}
                with ledger.span("callbacks"):
                    _call(callbacks, "on_batch_end", step, _means(total))
                ledger.step()
        logs = _means(total)
        logs["seconds"] = time.perf_counter() - started
        logs["events_per_second"] = total["events"] / logs["seconds"]
        logs |= ledger.close(comm)
        if validation is not None:
            result = evaluate(model, validation, batch_size, comm)
            logs |= {"val_loss": result.loss, "val_accuracy": result.accuracy}
        _call(callbacks, "on_epoch_end", epoch, logs)
        if any(
            getattr(c, "stop", False) for c in callbacks
        ):  # equal on all ranks: it depends on reduced figures alone
            break
    _call(callbacks, "on_train_end")
    return history


def evaluate(model, data, batch_size=1, comm=None):
    """Return the Evaluation of a data set (given as to ``fit``), summed over all ranks; a rank may
    have no events.
    """
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    data = as_dataset(data, rank, ranks, 0)
    result = Evaluation.empty(model.classes)
    for x, y in batches(
        data, np.arange(len(data)), batch_size, -(-len(data) // batch_size), prefetch=1
    ):
        y = check_labels(y, len(x), model.classes)
        for part, images in model.microbatches(x):
            losses, scores = model.kernels.softmax_cross_entropy(
                model.forward(images)[0], model.kernels.asarray(y[part])
            )
            result.add(y[part], model.kernels.to_host(losses), model.kernels.to_host(scores))
    return Evaluation.from_flat(make_sync("gradients", comm).total(result.flat()))


def _as_sync(sync, comm, every):
    """Return ``sync``, made of its name if it is one; ValueError for one that belongs to other
    ranks, or an option it would ignore.
    """
    if isinstance(sync, str):
        return make_sync(sync, comm, every)
    if sync.comm is not comm or every != 1:
        raise ValueError(
            "a sync that is made already takes its communicator and sync_every from make_sync: give fit the same comm, and no "
            "sync_every"
        )
    return sync


def _timed(source, ledger):
    """Yield what ``source`` yields, with the time that it takes in the ledger."""
    while True:
        with ledger.span("wait for data"):
            batch = next(source, None)
        if batch is None:
            return
        yield batch


def _agree_steps(comm, rank, events, batch_size, accumulate=1):
    """Return the steps per epoch, the same on all ranks: a rank that runs out of events takes part
    with an empty batch.
    """
    problem, size = None, batch_size * accumulate
    if batch_size < 1 or accumulate < 1:
        problem = f"batch size {batch_size}, {accumulate} of them per step: both must be at least 1"
    elif events == 0:
        problem = f"rank {rank} has no events to train on: use fewer ranks or more events"
    elif size > events:
        problem = (
            f"batch size {batch_size}"
            + (f", {accumulate} of them per step," if accumulate > 1 else "")
            + f" is larger than the {events} events of rank {rank}: use a smaller batch or fewer ranks"
        )
    return max(agree(comm, problem, -(-events // max(size, 1))))


def _means(total):
    n = max(total["events"], 1)
    return {"loss": total["loss"] / n, "accuracy": total["correct"] / n}


def _call(callbacks, name, *args):
    for callback in callbacks:
        getattr(callback, name)(*args)

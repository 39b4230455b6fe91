"""The training step, readable top to bottom, and the loops around it."""
import time

import numpy as np

from .callbacks import History
from .data.batches import as_dataset, batches
from .losses import check_labels
from .metrics import Evaluation
from .parallel import agree, make_sync, threads_per_rank, together
from .trace import Ledger


class NotFiniteError(ArithmeticError):
    """The loss or a gradient is NaN or infinite; raised on all ranks at the same step."""


def train_step(model, x, y, optimizer, sync=None, rank=0, ledger=None):
    """Forward, loss, backward, allreduce, update for one batch of this rank (which may be empty).

    Returns the reduced tail {"events", "loss" (summed), "correct", "not_finite"} over all ranks, or None where ``sync`` has not
    reduced yet (weights mode between two averages).
    """
    sync = sync or make_sync("gradients", None)
    ledger = ledger or Ledger()
    model.gradients[...] = 0
    with ledger.span("forward+backward"):
        model.accumulate(x, y, np.random.default_rng([model.seed, rank, model.updates]))
        if not all(np.isfinite(model.kernels.to_host(a.sum())) for a in (model.gradients, model.parameters)):
            model.gradients[-1] = 1            # a flag, and the weights too: pooling and MPI's MAX may lose a NaN, a count does not
    with ledger.span("allreduce"):
        sync.reduce_gradients(model)
    tail = model.tail()
    if not tail["not_finite"] or sync.local:
        with ledger.span("update"):
            optimizer.update(model, tail["events"])
    model.updates += 1
    with ledger.span("allreduce"):
        tail = sync.reduce_weights(model, optimizer, tail)
    if tail and tail["not_finite"]:
        raise together(NotFiniteError(
            f"loss, gradient or weights not finite on {int(tail['not_finite'])} of {sync.size} ranks at update {model.updates} "
            f"(events {int(tail['events'])}, summed loss {tail['loss']}): lower the learning rate or check the data"))
    return tail


def fit(model, train, validation_data=None, epochs=1, batch_size=1, optimizer=None, comm=None, sync="gradients", sync_every=1,
        callbacks=(), seed=0, initial_epoch=0, prefetch=1, threads=None, transport="mpi"):
    """Train ``model`` and return its History.

    train, validation_data: this rank's events, as an EventStore (or any object with ``len`` and ``batch(indices) -> (x, y)``); or
    (x, y) arrays, the same on every rank, of which each rank takes its share. batch_size is per rank. comm: an mpi4py communicator
    or None. sync: "gradients" (one Allreduce per step) or "weights" (average weights and velocity every ``sync_every`` steps, as
    MaTEx). Every event is used once per epoch, in an order given by (seed, epoch, rank). threads: per rank; by default the cores of
    the node are shared by its ranks, and one process keeps what it has. transport: what adds up device buffers, "mpi" or "nccl".

    Raises ValueError on all ranks when a rank has no events or less than a batch; NotFiniteError on all ranks at the same step.
    """
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    optimizer = optimizer or model.optimizer
    train = as_dataset(train, rank, ranks, seed)
    validation = as_dataset(validation_data, rank, ranks, seed) if validation_data is not None else None
    sync = make_sync(sync, comm, sync_every, transport)
    if threads or comm:
        model.kernels.set_threads(threads or threads_per_rank(comm))
    steps = _agree_steps(comm, rank, len(train), batch_size)
    sync.broadcast(model, optimizer)
    history, ledger = History(), Ledger()
    callbacks = [history, *callbacks]
    _call(callbacks, "on_train_begin", model, {"epochs": epochs, "steps": steps, "rank": rank, "ranks": ranks, "comm": comm,
                                               "initial_epoch": initial_epoch})
    for epoch in range(initial_epoch, epochs):
        started = time.perf_counter()
        _call(callbacks, "on_epoch_begin", epoch)
        if hasattr(train, "epoch"):
            train.epoch = epoch                                   # augmentation draws anew in every epoch
        order = np.random.default_rng([seed, epoch, rank]).permutation(len(train))
        total = dict.fromkeys(("events", "loss", "correct"), 0.0)
        source = batches(train, order, batch_size, steps, prefetch)
        for step in range(steps):
            with ledger.span("wait for data"):
                x, y = next(source)
            tail = train_step(model, x, y, optimizer, sync, rank, ledger) or (sync.flush(model, optimizer) if step == steps - 1 else None)
            if tail:
                total = {key: total[key] + tail[key] for key in total}
            _call(callbacks, "on_batch_end", step, _means(total))
        logs = _means(total)
        logs["seconds"] = time.perf_counter() - started
        logs["events_per_second"] = total["events"] / logs["seconds"]
        logs |= {f"seconds: {name}": s for name, s in ledger.take().items()}
        if validation is not None:
            result = evaluate(model, validation, batch_size, comm)
            logs |= {"val_loss": result.loss, "val_accuracy": result.accuracy}
        _call(callbacks, "on_epoch_end", epoch, logs)
        if any(getattr(c, "stop", False) for c in callbacks):     # equal on all ranks: it depends on reduced figures alone
            break
    _call(callbacks, "on_train_end")
    return history


def evaluate(model, data, batch_size=1, comm=None):
    """Return the Evaluation of a data set (given as to ``fit``), summed over all ranks; a rank may have no events."""
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    data = as_dataset(data, rank, ranks, 0)
    result = Evaluation.empty(model.classes)
    for x, y in batches(data, np.arange(len(data)), batch_size, -(-len(data) // batch_size), prefetch=1):
        y = check_labels(y, len(x), model.classes)
        for part, images in model.microbatches(x):
            losses, scores = model.kernels.softmax_cross_entropy(model.forward(images)[0], model.kernels.asarray(y[part]))
            result.add(y[part], model.kernels.to_host(losses), model.kernels.to_host(scores))
    return Evaluation.from_flat(make_sync("gradients", comm).total(result.flat()))


def _agree_steps(comm, rank, events, batch_size):
    """Return the steps per epoch, the same on all ranks: a rank that runs out of events takes part with an empty batch."""
    problem = None
    if batch_size < 1:
        problem = f"batch size {batch_size}: it must be at least 1"
    elif events == 0:
        problem = f"rank {rank} has no events to train on: use fewer ranks or more events"
    elif batch_size > events:
        problem = f"batch size {batch_size} is larger than the {events} events of rank {rank}: use a smaller batch or fewer ranks"
    return max(agree(comm, problem, -(-events // max(batch_size, 1))))


def _means(total):
    n = max(total["events"], 1)
    return {"loss": total["loss"] / n, "accuracy": total["correct"] / n}


def _call(callbacks, name, *args):
    for callback in callbacks:
        getattr(callback, name)(*args)

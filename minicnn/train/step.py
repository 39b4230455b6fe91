"""The training step, readable top to bottom.

clear       gradients and the figures behind them
accumulate  forward, loss, backward, piece by piece
check       that gradients and weights are finite, else a flag behind the gradients
reduce      one Allreduce: gradients, figures and flag of all ranks
update      with the sum, the same on all ranks
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..engine.engine import Engine
from ..inspect import trace
from ..parallel import make_sync, together
from .not_finite import find_suspect
from .optim import Optimizer


class NotFiniteError(ArithmeticError):
    """The loss or a gradient is NaN or infinite; raised on all ranks at the same step."""


def train_step(
    model: Engine,
    batches: Iterable[Any],
    optimizer: Optimizer,
    sync: Any = None,
    ledger: trace.Ledger | None = None,
) -> dict[str, float] | None:
    """Forward, loss, backward, allreduce, update of ``model`` for this rank's share of a step.

    optimizer: what updates. ledger: where its time is booked, None for nowhere. batches: one, (x,
    y) or (x, y, sample weights), which may hold no event; of several, which are taken one after the
    other, the gradients are added before the one reduction and update (gradient accumulation).
    Returns the reduced tail {"events", "loss" (summed), figures of the loss, "not_finite"} over all
    ranks, or None where ``sync`` has not reduced yet (weights mode between two averages, the first
    step of delayed mode). ValueError without a batch.
    """
    sync = sync or make_sync("gradients", None)
    ledger = ledger or trace.Ledger()
    ready = reduce_gradients(model, batches, sync, ledger)
    model.updates += 1
    return apply_gradients(model, optimizer, sync, ledger) if ready else None


def reduce_gradients(
    model: Engine, batches: Iterable[Any], sync: Any, ledger: trace.Ledger
) -> bool:
    """The step without its update: forward, loss, backward, allreduce; tells whether there are
    sums to update with.
    """
    source: Iterator[Any] = iter(batches)
    first: Any = next(source, None)
    if first is None:
        raise ValueError("train_step needs a batch, got none: one of no event is (x[:0], y[:0])")
    with trace.span("clear gradients"):
        model.clear_gradients()
    with ledger.span("between layers" if ledger.detail else "forward+backward"):
        rng = np.random.default_rng([model.seed, sync.comm.rank, model.updates])
        progress = sync.on_gradients_ready and partial(sync.on_gradients_ready, model)
        flagged, several, batch = False, False, first
        while batch is not None:
            following = next(source, None)
            several |= following is not None
            images, targets, *weights = batch
            model.accumulate(images, targets, rng, following is not None, progress, *weights)
            batch = following
        with trace.span("check finite"):
            # A flag that is summed, instead of relying on NaN to spread: max pooling can drop a
            # NaN, and so can reductions of MPI. The weights are looked at as well, because a NaN
            # among them need not show in the gradients.
            if not (sync.finite(model) and model.kernels.finite(model.parameters)):
                model.mark_not_finite()
                flagged = True
    with ledger.span("allreduce"):
        ready: bool = sync.reduce_gradients(model)
    if flagged:  # only now: until here MPI may write to the gradients
        model.suspect = find_suspect(model, None if several else first[:2], rng)
    return ready


def apply_gradients(
    model: Engine, optimizer: Optimizer, sync: Any, ledger: trace.Ledger
) -> dict[str, float] | None:
    """Update with the reduced gradients in the buffer; returns the tail, or raises NotFiniteError
    on all ranks.
    """
    tail = model.tail()
    if not tail["not_finite"] or sync.updates_before_reduction:
        with ledger.span("update"):
            optimizer.update(model, tail["events"])
    with ledger.span("allreduce"):
        return check_finite(model, sync, sync.reconcile_weights(model, optimizer, tail))


def flush(
    model: Engine, optimizer: Optimizer, sync: Any, ledger: trace.Ledger
) -> dict[str, float] | None:
    """End an epoch: apply gradients that are under way, average weights that differ; returns the
    tail of these steps, None without.
    """
    if sync.collect_pending(model):
        return apply_gradients(model, optimizer, sync, ledger)
    return check_finite(model, sync, sync.finish_epoch(model, optimizer))


def check_finite(model: Engine, sync: Any, tail: dict[str, float] | None) -> Any:
    """Return ``tail``; raises NotFiniteError, on all ranks, where it says so."""
    if tail and tail["not_finite"]:
        sync.collect_pending(model)  # nobody may free a buffer that MPI still writes to
        suspect = model.suspect
        found = None
        if suspect:
            event = "" if suspect.event is None else f", event {suspect.event} of its batch"
            found = f"; rank {sync.comm.rank}: {suspect.where}{event}"
        where = "".join(filter(None, sync.comm.allgather(found)))
        raise together(
            NotFiniteError(
                f"loss, gradient or weights not finite on {int(tail['not_finite'])} of {sync.size} "
                f"ranks at update {model.updates} (events {int(tail['events'])}, summed loss "
                f"{tail['loss']}){where}; lower the learning rate or check the data"
            )
        )
    return tail

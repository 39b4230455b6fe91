"""What a model says of a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..data.batches import as_dataset, batches
from ..engine.model import Model
from ..parallel import as_comm, make_sync
from ..watch import beat


def evaluate(
    model: Model,
    data: Any,
    batch_size: int = 1,
    comm: Any = None,
    each: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """Return the evaluation of a data set (given as to ``fit``), ``batch_size`` events at a time,
    summed over all ranks of ``comm`` (None: there is one); a rank may have no events.

    What it is follows from the loss: of a classifier an Evaluation (loss, accuracy, confusion,
    ...). For a model of several outputs a dictionary {output: evaluation}. each: called with the
    targets and predictions of some events after the other, in the order of this rank's data, once
    for each output; what it wants to keep it copies.
    """
    comm = as_comm(comm)
    data = as_dataset(data, comm.rank, comm.size, 0)
    losses, sync = model.targets, make_sync("gradients", comm)
    results = [loss.evaluation(shape) for loss, shape in zip(losses.losses, losses.shapes)]
    steps = -(-len(data) // batch_size)
    for x, y, *_ in batches(data, np.arange(len(data)), batch_size, steps, prefetch=1):
        for _, targets, piece in model.loss_results(x, y):
            for result, target, found in zip(results, targets, piece):
                result.add(target, found.losses, found.predictions)
                if each:
                    each(target, found.predictions)
        beat()
    for result in results:
        result.load(sync.total(result.flat()))
    return dict(zip(losses.names, results)) if losses.several else results[0]


def figures(evaluation: Any) -> dict[str, float]:
    """Return {"loss": ..., "accuracy": ..., ...} of what ``evaluate`` returned."""
    if not isinstance(evaluation, dict):
        return evaluation.figures()
    parts = {name: of_output.figures() for name, of_output in evaluation.items()}
    total = {"loss": sum(part["loss"] for part in parts.values())}
    return total | {f"{name}/{k}": v for name, part in parts.items() for k, v in part.items()}

"""The mean of weights and optimizer state every k steps, as MaTEx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...inspect import trace
from .base import Sync, Tail

if TYPE_CHECKING:
    from ...engine.engine import Engine
    from ...train.optim import Optimizer


class WeightSync(Sync):
    """Every ``every`` steps weights and optimizer state become the mean over the ranks of ``comm``,
    weighted by the events each has seen since the last. transport: "mpi", or "nccl" between GPUs.

    At every = 1 this equals GradientSync up to rounding for SGD with momentum and weight decay,
    because both are linear in the gradients. The talk's "aggregate weights across nodes, average,
    update all nodes".
    """

    options = ("every", "transport")
    updates_before_reduction = True

    def __init__(self, comm: Any, every: int = 1, transport: str = "mpi") -> None:
        super().__init__(comm, transport)
        if every < 1:
            raise ValueError(f"weights are averaged every k >= 1 steps, got {every}")
        self.every, self.since = every, 0
        self.pending: Tail | None = None

    def reduce_gradients(self, model: Engine) -> bool:
        return True

    def reconcile_weights(self, model: Engine, optimizer: Optimizer, tail: Tail) -> Tail | None:
        self.pending = (
            tail if self.pending is None else {key: self.pending[key] + tail[key] for key in tail}
        )
        self.since += 1
        return self.finish_epoch(model, optimizer) if self.since >= self.every else None

    def finish_epoch(self, model: Engine, optimizer: Optimizer) -> Tail | None:
        if self.pending is None:
            return None
        own, self.pending, self.since = self.pending, None, 0
        kernels, vectors = model.kernels, [model.parameters, *optimizer.state.values()]
        with trace.span("pack"):
            rows = kernels.empty(
                (len(vectors), model.parameters.size + len(own)), model.parameters.dtype
            )
            for row, vector in zip(rows, vectors):
                row[: vector.size] = vector * own["events"]
                row[vector.size :] = kernels.asarray(np.array(list(own.values()), vector.dtype))
        self.allreduce(rows, kernels)
        with trace.span("pack"):
            total = dict(zip(own, map(float, kernels.to_host(rows[0, model.parameters.size :]))))
            if total["events"]:
                for row, vector in zip(rows, vectors):
                    vector[...] = row[: vector.size] / total["events"]
                model.weights_changed()
        return total

    def state(self, model: Engine) -> dict[str, np.ndarray]:
        """Return the number of steps of ``model`` since the last mean, and their figures."""
        if self.pending is None:
            return {}
        return {"pending": np.array([self.since, *self.pending.values()], np.float64)}

    def set_state(self, model: Engine, arrays: dict[str, np.ndarray]) -> None:
        """Carry on with ``model`` as many steps behind the last mean as ``arrays`` say."""
        if "pending" in arrays:
            since, *figures = arrays["pending"].tolist()
            self.since, self.pending = int(since), dict(zip(model.targets.tail, figures))

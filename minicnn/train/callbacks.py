"""What happens around training: history, progress, checkpoints, early stopping. Derive from
Callback to add your own.

Callbacks run on every rank; ``self.rank`` and ``self.comm`` tell where. What they write, they write
on rank 0.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..progress import Meter
from .callback import Callback, History
from .loggers import CSVLogger, JSONLines, TensorBoard, read_history

if TYPE_CHECKING:
    from ..engine.model import Model
    from ..inspect.trace import Ledger

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "JSONLines",
    "LayerStatistics",
    "ModelCheckpoint",
    "Progress",
    "ReduceLROnPlateau",
    "TensorBoard",
    "read_history",
]


class ModelCheckpoint(Callback):
    """Saves the model to ``path`` after every epoch, or only where ``monitor`` is the best so far
    (``mode`` "min" or "max").
    """

    remembered = ("best",)

    def __init__(self, path: str | Path, monitor: str | None = None, mode: str = "min") -> None:
        self.path, self.monitor, self.sign = path, monitor, _sign(mode)
        self.best = math.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        if self.monitor is not None:
            value = self.sign * _monitored(logs, self.monitor)
            if not value < self.best:
                return
            self.best = value
        if self.rank == 0:
            self.model.save(self.path)


class EarlyStopping(Callback):
    """Stops when ``monitor`` has not improved by more than ``min_delta`` for ``patience`` epochs.
    mode: "min" where less is better, as for a loss, or "max".
    """

    remembered = ("best", "waited", "stop")

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "min",
    ) -> None:
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.sign, self.best, self.waited = _sign(mode), math.inf, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        value = self.sign * _monitored(logs, self.monitor)
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
            self.stop = self.waited >= self.patience


class ReduceLROnPlateau(Callback):
    """Multiplies the optimizer's rate by ``factor`` when ``monitor`` has not improved by more than
    ``min_delta`` for ``patience`` epochs, down to ``min_factor`` of the schedule.
    """

    remembered = ("best", "waited")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 3,
        min_delta: float = 0.0,
        min_factor: float = 1e-4,
    ) -> None:
        if not 0 < factor < 1:
            raise ValueError(f"factor must lie between 0 and 1, got {factor}")
        self.monitor, self.factor, self.patience = monitor, factor, patience
        self.min_delta, self.min_factor = min_delta, min_factor
        self.best, self.waited = math.inf, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        value = _monitored(logs, self.monitor)
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            optimizer, self.waited = self.model.optimizer, 0
            optimizer.rate_factor = max(optimizer.rate_factor * self.factor, self.min_factor)


class LayerStatistics(Callback):
    """Keeps, every ``every`` steps, the norm of each parameter and of its mean gradient, and every
    epoch a histogram of each parameter in ``bins`` bins.

    norms: ``{"<layer>/w": [(step, |w|, |gradient|), ...]}``, steps counted through all epochs.
    histograms: ``{"<layer>/w": [(counts, edges), ...]}``, one pair per epoch, as numpy.histogram.
    Gradients are those of this step's reduced sum; with sync "weights" they are this rank's own.
    """

    def __init__(self, every: int = 1, bins: int = 50) -> None:
        self.every, self.bins, self.count = every, bins, 0
        self.norms: dict[str, list[tuple[int, float, float]]] = {}
        self.histograms: dict[str, list[Any]] = {}

    def on_batch_end(self, step: int, logs: dict[str, float]) -> None:
        if self.count % self.every == 0:
            model = self.model
            events = max(model.tail()["events"], 1)
            for name, w in model.weights.items():
                gradient = model.kernels.to_host(model.weight_gradients[name]) / events
                weight = float(np.linalg.norm(model.kernels.to_host(w)))
                row = (self.count, weight, float(np.linalg.norm(gradient)))
                self.norms.setdefault(name, []).append(row)
        self.count += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        for name, w in self.model.weights.items():
            counts = np.histogram(self.model.kernels.to_host(w), self.bins)
            self.histograms.setdefault(name, []).append(counts)


class Progress(Callback):
    """A live bar on a terminal and in a notebook, plain lines elsewhere; after each epoch one line
    with loss, figures and rate. Rank 0 only. file: where it is written, None for standard output.

    It says so when a network that had learned something is back at the loss of equal scores,
    ln(classes): its units are saturated, and nothing more will come. ledger: the trace.Ledger of
    the training, to see live where its time goes.
    """

    remembered = ("best",)

    def __init__(self, file: Any = None, ledger: Ledger | None = None) -> None:
        self.file, self.ledger, self.best = file, ledger, math.inf
        self.meter: Meter | None = None

    def on_train_begin(self, model: Model, info: dict[str, Any]) -> None:
        super().on_train_begin(model, info)
        self.info = info

    def on_epoch_begin(self, epoch: int) -> None:
        self.title = f"epoch {epoch + 1}/{self.info['epochs']}"
        self.meter = Meter(
            self.title, self.info["steps"], silent=self.rank > 0, file=self.file
        ).open()

    def on_batch_end(self, step: int, logs: dict[str, float]) -> None:
        assert self.meter is not None
        if self.meter.due:
            where = f"  |  {self.ledger.line()}" if self.ledger else ""
            self.meter.update(step + 1, _figures(logs) + where)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.close()
        if self.rank > 0:
            return
        own = {k: v for k, v in logs.items() if k in self._names(logs)}
        validation = {k[4:]: v for k, v in logs.items() if k.startswith("val_")}
        text = f"{self.title}  {_figures(own)}"
        if validation:
            text += f"  |  validation {_figures(validation)}"
        rate = f"{logs['seconds']:.1f} s, {logs['events_per_second']:.1f} events/s"
        print(f"{text}  |  {rate}", file=self.file, flush=True)
        chance = self.model.loss.chance(self.model.output_shape)
        if chance and self.best < 0.97 * chance and logs["loss"] > 0.99 * chance:
            print(
                f"the loss is back at that of equal scores, {chance:.3f}: this network will not "
                "learn any more. Begin anew with a lower learning rate or a longer warm-up",
                file=self.file,
                flush=True,
            )
        self.best = min(self.best, logs["loss"])

    def _names(self, logs: dict[str, float]) -> set[str]:
        """Return the names of the figures of the training itself."""
        return set(self.model.targets.summary(dict.fromkeys(self.model.targets.tail, 0.0)))

    def close(self) -> None:
        if self.meter is not None:
            self.meter.close()
            self.meter = None


def _figures(logs: dict[str, float]) -> str:
    """Return "loss 1.0219  accuracy 0.498" of {"loss": ..., "accuracy": ...}."""
    return "  ".join(
        f"{key.replace('_', ' ')} {value:{'.4f' if 'loss' in key else '.3f'}}"
        for key, value in logs.items()
    )


def __getattr__(name: str) -> Any:
    if name == "LedgerReport":  # a report; it was here once
        from ..inspect.report.ledger import LedgerReport

        return LedgerReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _sign(mode: str) -> int:
    if mode not in ("min", "max"):
        raise ValueError(f'mode must be "min" or "max", got {mode!r}')
    return 1 if mode == "min" else -1


def _monitored(logs: dict[str, float], key: str) -> float:
    if key not in logs:
        raise ValueError(
            f"no figure named {key!r} to monitor: there are {', '.join(logs)}"
            + (" (give validation_data)" if key.startswith("val_") else "")
        )
    return logs[key]

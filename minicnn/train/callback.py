"""What all callbacks are, and the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.model import Model


class Callback:
    """Does nothing; ``stop = True`` ends training after the epoch (set it from ``logs``, which are
    equal on all ranks).
    """

    stop = False
    #: Attributes, JSON-ready, that a checkpoint of a step keeps.
    remembered: tuple[str, ...] = ("stop",)

    def state(self) -> dict[str, Any]:
        """Return what training needs of this callback to go on later."""
        return {name: getattr(self, name) for name in self.remembered}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on with what ``state`` returned; called after ``on_train_begin``."""
        for name, value in state.items():
            if name in self.remembered:
                setattr(self, name, value)

    def on_train_begin(self, model: Model, info: dict[str, Any]) -> None:
        """Before the first epoch; ``model``: what is trained; ``info``: epochs, steps (per epoch),
        rank, ranks, comm, initial_epoch.
        """
        self.model, self.rank, self.comm = model, info["rank"], info["comm"]

    def on_epoch_begin(self, epoch: int) -> None:
        """Before the first step of ``epoch`` (from 0)."""

    def on_batch_end(self, step: int, logs: dict[str, float]) -> None:
        """After a step; ``logs``: mean loss and accuracy of the epoch so far, over all ranks."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """After the validation of ``epoch`` (from 0); ``logs``: loss, accuracy, val_loss,
        val_accuracy, seconds and its parts, events_per_second.
        """

    def on_train_end(self) -> None:
        """After the last epoch."""

    def close(self) -> None:
        """At the very end, also after an exception or Ctrl-C: give back what is open."""


class History(Callback):
    """``rows``: one dictionary per epoch (key "epoch" counts from 1); ``history["loss"]`` is a
    column.
    """

    remembered = ("rows",)

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_begin(self, model: Model, info: dict[str, Any]) -> None:
        """Keeps neither ``model`` nor ``info``: a history is passed around and pickled
        by itself.
        """

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.rows.append({"epoch": epoch + 1, **logs})

    def __getitem__(self, key: str) -> list[float]:
        return [row[key] for row in self.rows]

    def __contains__(self, key: str) -> bool:
        return any(key in row for row in self.rows)

    def __repr__(self) -> str:
        last = self.rows[-1] if self.rows else {}
        shown = "  ".join(f"{name} {value:.4g}" for name, value in last.items() if name != "epoch")
        return f"<History of {len(self.rows)} epochs{': ' + shown if shown else ''}>"

    def _repr_html_(self) -> str:
        from ..inspect.report.notebook import history_html

        return history_html(self)

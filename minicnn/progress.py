"""Long work shows where it is: a live bar on a terminal, now and then a plain line elsewhere."""

import sys
import time
from typing import Any


def say(comm: Any, *words: Any) -> None:
    """Print on rank 0 of ``comm`` (None: one process), at once."""
    if not comm or comm.rank == 0:
        print(*words, flush=True)


class Meter:
    """``with Meter("loading", total=200) as meter: ... meter.update(done, "text")``.

    On a terminal a rich bar with elapsed and remaining time that vanishes at the end; elsewhere a
    line at most every ``every`` seconds. ``silent`` (ranks other than 0) does nothing.
    """

    def __init__(self, title, total, silent=False, every=20.0, file=None):
        self.title, self.total, self.silent, self.every = title, total, silent, every
        self.file = file or sys.stdout
        self.bar, self.last = None, time.perf_counter()

    def __enter__(self):
        if not self.silent and self.file.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self.bar = Progress(
                TextColumn(self.title),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(file=self.file),
                transient=True,
            )
            self.task = self.bar.add_task("", total=self.total)
            self.bar.start()
        return self

    @property
    def due(self):
        """Whether ``update`` would show anything now."""
        return bool(self.bar) or (not self.silent and time.perf_counter() - self.last > self.every)

    def update(self, done, text=""):
        """Show that ``done`` of the total are finished, with a few words beside it."""
        if self.bar:
            self.bar.update(self.task, completed=done, description=text)
        elif self.due:
            self.last = time.perf_counter()
            print(f"{self.title} {done}/{self.total}  {text}".rstrip(), file=self.file, flush=True)

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

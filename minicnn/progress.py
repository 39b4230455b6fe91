"""Long work shows where it is: a live bar on a terminal, now and then a plain line elsewhere."""

import sys
import time
from types import TracebackType
from typing import IO, Any

from .watch import beat


def say(comm: Any, *words: Any) -> None:
    """Print on rank 0 of ``comm`` (None: one process), at once."""
    if not comm or comm.rank == 0:
        print(*words, flush=True)


class Meter:
    """``with Meter("loading", total=200) as meter: ... meter.update(done, "text")``.

    On a terminal a rich bar with elapsed and remaining time that vanishes at the end, also after an
    exception or Ctrl-C; elsewhere a line at most every ``every`` seconds. ``silent`` (ranks other
    than 0) does nothing. Without ``with``: ``open`` and, in a ``finally``, ``close``.
    """

    def __init__(
        self,
        title: str,
        total: int,
        silent: bool = False,
        every: float = 20.0,
        file: IO[str] | None = None,
    ) -> None:
        self.title, self.total, self.silent, self.every = title, total, silent, every
        self.file = file or sys.stdout
        self.bar: Any = None
        self.last = time.perf_counter()

    def __repr__(self) -> str:
        return f"Meter({self.title!r}, {self.total})"

    def open(self) -> "Meter":
        """Show the bar; returns the meter."""
        self.last = time.perf_counter()
        if self.bar is None and not self.silent and self.file.isatty():
            self.bar = _bar(self.title, self.file)
            self.task = self.bar.add_task("", total=self.total)
            try:
                self.bar.start()
            except BaseException:
                self.close()
                raise
        return self

    @property
    def due(self) -> bool:
        """Whether ``update`` would show anything now."""
        return bool(self.bar) or (not self.silent and time.perf_counter() - self.last > self.every)

    def update(self, done: int, text: str = "") -> None:
        """Show that ``done`` of the total are finished, with a few words beside it."""
        beat()
        if self.bar:
            self.bar.update(self.task, completed=done, description=text)
        elif self.due:
            self.last = time.perf_counter()
            print(f"{self.title} {done}/{self.total}  {text}".rstrip(), file=self.file, flush=True)

    def close(self) -> None:
        """Take the bar away and give the cursor back; does nothing where that has been done."""
        bar, self.bar = self.bar, None
        if bar is not None:
            bar.stop()

    def __enter__(self) -> "Meter":
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        problem: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.close()


def _bar(title: str, file: IO[str]) -> Any:
    """Return rich's bar, not started: rich loads with the first one."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(file=file),
        transient=True,
    )

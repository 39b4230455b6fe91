"""Long work shows where it is: a live bar on a terminal and in a notebook, now and then a plain
line elsewhere.
"""

import html
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

    On a terminal and in a notebook a bar with elapsed and remaining time that vanishes at the end,
    also after an exception or Ctrl-C; elsewhere a line at most every ``every`` seconds. ``silent``
    (ranks other than 0) does nothing. Without ``with``: ``open`` and, in a ``finally``, ``close``.
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
        if self.bar is None and not self.silent:
            if self.file.isatty():
                self.bar = TerminalBar(self.title, self.total, self.file)
            elif in_notebook() and self.file is sys.stdout:
                self.bar = NotebookBar(self.title, self.total)
            else:
                return self
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
            self.bar.update(done, text)
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


class TerminalBar:
    """A bar of rich, loaded with the first one: elapsed and remaining time, and a few words."""

    def __init__(self, title: str, total: int, file: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.progress = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(file=file),
            transient=True,
        )
        self.task = self.progress.add_task("", total=total)

    def start(self) -> None:
        self.progress.start()

    def update(self, done: int, text: str) -> None:
        self.progress.update(self.task, completed=done, description=text)

    def stop(self) -> None:
        self.progress.stop()


class NotebookBar:
    """A bar beneath the cell of a notebook, drawn a few times in a second; nothing of it stays."""

    def __init__(self, title: str, total: int, every: float = 0.2) -> None:
        from IPython.display import HTML, display

        self.html, self.display = HTML, display
        self.title, self.total, self.every = title, total, every
        self.begin = self.last = time.perf_counter()
        self.handle: Any = None

    def start(self) -> None:
        self.handle = self.display(self.html(self._text(0, "")), display_id=True)

    def update(self, done: int, text: str) -> None:
        now = time.perf_counter()
        if now - self.last >= self.every:
            self.last = now
            self.handle.update(self.html(self._text(done, text)))

    def stop(self) -> None:
        if self.handle is not None:
            self.handle.update(self.html(""))

    def _text(self, done: int, text: str) -> str:
        seconds = time.perf_counter() - self.begin
        left = f", {seconds * (self.total - done) / done:.0f} s left" if done else ""
        return (
            f"{html.escape(self.title)} <progress max='{self.total}' value='{done}'></progress> "
            f"{done}/{self.total}, {seconds:.0f} s{left} &nbsp; {html.escape(text)}"
        )


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook: nothing is loaded to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None

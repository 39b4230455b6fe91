"""Events that cannot be read, or have no class: a job stops at the first one, or leaves them out
and says which, the same on all ranks.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import parallel
from ..data import EventError
from ..files import atomic_file
from ..progress import say
from ..text import counted

WAYS = ("stop", "skip")
REMEDY = "--bad-events skip leaves such events out and says which"
SHOWN = 20  # numbers of events in the line that is printed; the table has all


class BadEvent(NamedTuple):
    """An event that was left out. number: in its file, -1 where the file could not be opened."""

    file: str
    number: int
    use: str
    reason: str


@dataclass
class BadEvents:
    """The events that a job meets and cannot use. way: "stop" or "skip". path: of the table that
    says which were left out; absent where none were.
    """

    way: str
    path: Path
    found: list[BadEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ValueError(f"bad_events must be one of {', '.join(WAYS)}, got {self.way!r}")

    def of(self, file: Path, use: str) -> Callable[[int, EventError], None]:
        """Return what takes (number, problem) of events of ``file``: it raises EventError with the
        remedy, or notes the event as one that is left out of the ``use``.
        """

        def take(number: int, problem: EventError) -> None:
            if self.way == "stop":
                raise EventError(f"{problem}; {REMEDY}") from problem
            self.found.append(BadEvent(str(file), number, use, str(problem)))

        return take

    def settle(self, comm: Any) -> None:
        """Have all ranks know of what each has met, and rank 0 write the table and say so."""
        per_rank = parallel.agree(comm, value=self.found)
        self.found = sorted({event for of_rank in per_rank for event in of_rank})
        parallel.ordered(comm, self._write)
        self.say(comm)

    def without(self, numbers: np.ndarray) -> np.ndarray:
        """Return those of the events that were not left out."""
        return numbers[~np.isin(numbers, [event.number for event in self.found])]

    def say(self, comm: Any) -> None:
        """Have rank 0 print how many events were left out, and which."""
        if not self.found:
            return
        numbers = [str(event.number) for event in self.found if event.number >= 0]
        which = ", ".join(numbers[:SHOWN]) + ", ..." * (len(numbers) > SHOWN)
        say(
            comm,
            f"left out {counted(len(self.found), 'bad event')}: {which}; reasons in {self.path}",
        )

    def record(self) -> dict[str, Any]:
        """Return what run.json says of them."""
        return {"way": self.way, "left_out": [event._asdict() for event in self.found]}

    def _write(self) -> None:
        if not self.found:
            self.path.unlink(missing_ok=True)
            return
        with atomic_file(self.path) as file:
            writer = csv.writer(file)
            writer.writerow(["file", "event", "use", "reason"])
            writer.writerows(self.found)

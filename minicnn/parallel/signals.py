"""Signals that ask a training to save and to end: a batch system's and the keyboard's."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import TracebackType
from typing import Any, NoReturn

#: What asks a training to save its step and to end with status PREEMPTED.
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
#: Exit status of a job that was asked to end and has saved its step: 75 is EX_TEMPFAIL of
#: sysexits.h, "try again later".
PREEMPTED = 75
#: Exit status after a second Ctrl-C, as of a process that SIGINT ended.
INTERRUPTED = 130
#: Seconds in which two SIGINT are one: a launcher passes on what the terminal sends as well.
SAME = 0.5


class Preempted(SystemExit):
    """Raised by ``fit`` on all ranks after a signal, when the step is saved: the exit status is
    PREEMPTED.
    """

    together = True

    def __init__(self) -> None:
        super().__init__(PREEMPTED)


class Signals:
    """``with Signals() as signals: ... signals.asked`` is the number of the first signal of ASKING
    that came, 0 before.

    A second SIGINT ends the process at once. A thread of its own receives them, because the main
    thread may be in a call of MPI that does not return. Outside of the main thread, where Python
    takes no signals, nothing is ever asked.

    nothing_to_save: any of them but SIGINT, which stays Python's, ends the process at once with the
    status PREEMPTED; ``say``: it also prints that.
    """

    def __init__(self, nothing_to_save: bool = False, say: bool = False) -> None:
        self.nothing_to_save, self.say = nothing_to_save, say
        self.numbers = [n for n in ASKING if not (nothing_to_save and n == signal.SIGINT)]
        self.asked, self.interrupted = 0, 0.0
        self.before: dict[Any, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self.reader, self.writer = os.pipe()
            os.set_blocking(self.writer, False)
            threading.Thread(target=self._listen, name="signals", daemon=True).start()
            self.wakeup = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
            self.before = {number: signal.signal(number, _noted) for number in self.numbers}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.before:
            for number, handler in self.before.items():
                # None: a handler that was not set from Python, MPI's for example
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            signal.set_wakeup_fd(self.wakeup)
            os.close(self.writer)  # ends the thread
            self.before = {}

    def _listen(self) -> None:
        """Take the numbers of signals out of the pipe, until it is closed."""
        while numbers := os.read(self.reader, 64):
            for number in filter(self.numbers.__contains__, numbers):
                if self.nothing_to_save:
                    self._end(number)
                self.asked = self.asked or number
                if number == signal.SIGINT:
                    if self.interrupted and time.monotonic() - self.interrupted > SAME:
                        os._exit(INTERRUPTED)
                    self.interrupted = self.interrupted or time.monotonic()
        os.close(self.reader)

    def _end(self, number: int) -> NoReturn:
        if self.say:
            name = signal.Signals(number).name
            print(
                f"\n{name}: no step is under way, nothing to save; resume to begin again",
                flush=True,
            )
        os._exit(PREEMPTED)


def _noted(number: int, frame: Any) -> None:
    """The thread has it."""

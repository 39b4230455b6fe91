"""Readers in a child process: a file that crashes or hangs a parser, or makes it take all memory,
is an EventError that names the file and the event.

    Sandbox            the child (serve.py), started when it is first asked and again after a death
    IsolatedReader     a Reader whose events come from a Sandbox

What the child answers is JSON and the bytes of arrays, never a pickle: a file that takes the child
over can give wrong events, not run code here.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..axes import Axis
from ..event import PARTICLE, Event, EventError
from ..sparse import SparseImage
from .reader import Reader

#: Events of a file that may end the child; those behind them are not read.
MOST_DEATHS = 3
#: Opening a file, in which labels of all events are read, may take this many times as long as
#: reading an event.
OPENING = 10
#: Longest JSON of an answer in bytes: a line of text per event at most.
LONGEST_ANSWER = 1 << 28


@dataclass(frozen=True)
class Limits:
    """What a child may take: seconds for one event, bytes of memory beside the interpreter's."""

    seconds: float = 120.0
    memory: int = 4 << 30


class Died(EventError):
    """The child ended, or had to be ended, while it read; the message says how."""


class Sandbox:
    """A child process that opens and reads files of events; for one thread at a time."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(
        self, ask: str, path: Path, options: Mapping[str, Any], number: int = 0
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Return (answer, arrays) of "formats" (what recognises the file), "open" or "read".

        Raises EventError with the text of the child's own, and Died where there is no answer.
        """
        request = {"ask": ask, "path": os.fspath(path), "options": dict(options), "number": number}
        with self._lock:
            is_new = self._child is None
            self._start()
            opening = self.limits.seconds * OPENING
            try:
                if is_new and ask == "read":
                    self._answer({**request, "ask": "open"}, opening)
                return self._answer(request, self.limits.seconds if ask == "read" else opening)
            except BaseException as problem:
                if not isinstance(problem, EventError) or isinstance(problem, Died):
                    self.close()  # whatever it still says belongs to no question
                raise

    def _start(self) -> None:
        if self._child is not None:
            return
        one_thread = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
        root = str(Path(__file__).resolve().parents[3])
        places = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-P", "-m", "minicnn.data.readers.serve"]
        self._child = subprocess.Popen(
            [*command, str(self.limits.memory), str(2 * OPENING * self.limits.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(places)},
        )

    def _answer(self, request: dict[str, Any], seconds: float) -> Any:
        assert self._child is not None and self._child.stdin and self._child.stdout
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise Died(self._end()) from None
        end = time.monotonic() + seconds
        header = self._receive(8, end, seconds)
        length = int.from_bytes(header, "little")
        if length > LONGEST_ANSWER:
            raise Died("its reader gives answers that make no sense")
        answer = json.loads(self._receive(length, end, seconds))
        if "error" in answer:
            raise EventError(answer["error"])
        arrays = []
        for kind, shape in answer.pop("arrays"):
            dtype = PARTICLE if kind == "particle" else np.dtype(kind)
            if min(shape, default=0) < 0:
                raise Died("its reader gives answers that make no sense")
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if size > self.limits.memory:
                raise Died(f"its reader gives {size:,} bytes, more than the memory that it may use")
            arrays.append(np.frombuffer(self._receive(size, end, seconds), dtype).reshape(shape))
        return answer, arrays

    def _receive(self, size: int, end: float, seconds: float) -> bytearray:
        """Return ``size`` bytes of the child; Died where it ends or is late."""
        assert self._child is not None and self._child.stdout
        pipe, data, done = self._child.stdout.fileno(), bytearray(size), 0
        view = memoryview(data)
        while done < size:
            if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Died(
                    f"took more than {seconds:g} s and was stopped: the file may be damaged or "
                    "hostile; where it is only slow, give --time-limit"
                )
            count = os.readv(pipe, [view[done : done + (1 << 20)]])
            if not count:
                raise Died(self._end())
            done += count
        return data

    def _end(self) -> str:
        """Return how the child ended."""
        assert self._child is not None
        try:
            status = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its answers: the file may be damaged or hostile"
        if status < 0:
            name = signal.Signals(-status).name
            return f"crashed its reader ({name}): the file is damaged or hostile"
        return f"ended its reader with status {status}: the file is damaged or hostile"

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:  # a question that nobody has read
                    pass

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class IsolatedReader(Reader):
    """Events of the file or folder at ``path``, opened and read by the child of ``sandbox``; the
    attributes are those of the format's own reader, and ``name`` as well.

    Raises EventError as that reader does, and where the file ends the child or holds it up. An
    event that does so is reported by its number, and the next one is read by a new child; after
    MOST_DEATHS of them the rest of the file is not read.
    """

    def __init__(self, path: str | Path, sandbox: Sandbox, **options: Any) -> None:
        self.path, self._sandbox, self._options = Path(path), sandbox, options
        self.notes: dict[int, str] = {}
        self._deaths = [0]  # shared by copies (``beside``)
        try:
            answer, (self.labels,) = sandbox.ask("open", self.path, options)
        except Died as problem:
            raise EventError(f"{path}: {problem}") from problem
        self.name, self.unit = answer["name"], answer["unit"]
        self.image_shape = tuple(answer["image_shape"])
        self.class_names = tuple(answer["class_names"])
        self.axes = tuple(Axis(*axis) for axis in answer["axes"])
        self.background = answer["background"]
        self.metadata = answer["metadata"]

    def beside(self, sandbox: Sandbox) -> IsolatedReader:
        """Return a reader of the same file in another child."""
        other = copy(self)
        other._sandbox = sandbox
        return other

    def _read(self, index: int) -> Event:
        where = f"{self.path}, event {index}"
        if self._deaths[0] >= MOST_DEATHS:
            raise EventError(f"{where}: not read, because {MOST_DEATHS} events ended their reader")
        try:
            answer, arrays = self._sandbox.ask("read", self.path, self._options, index)
        except Died as problem:
            self._deaths[0] += 1
            raise EventError(f"{where}: {problem}") from problem
        if answer["note"]:
            self.notes[index] = answer["note"]
        coords, values, particles, *labels = arrays
        image = SparseImage(coords, values, tuple(answer["shape"]), answer["background"])
        label = int(answer["label"])
        return Event(image, label, tuple(answer["id"]), particles, labels[0] if labels else None)

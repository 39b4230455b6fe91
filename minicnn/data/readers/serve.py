"""The child of isolated.py: ``python -m minicnn.data.readers.serve BYTES SECONDS`` opens and reads
files of events for its parent, with at most BYTES of memory beside its own, and SECONDS of the
processor's time for an answer.

A question is a line of JSON on stdin; an answer is the length of its JSON in 8 bytes, the JSON, and
the bytes of the arrays that it announces. A question carries all that is needed to answer it, so
that a child that was started in place of another one can go on.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import time
from inspect import signature
from typing import IO, Any

import numpy as np


def limit(memory: int) -> None:
    """Have the system refuse ``memory`` bytes beside those that the process has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            address_space = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (address_space + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_time(seconds: float) -> None:
    """Have the system end the process when it has worked for so many more seconds: a parent that
    is killed cannot end a child that hangs.
    """
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), hard))


class Server:
    """Answers questions; the file of the last one stays open."""

    def __init__(self) -> None:
        self.reader: Any = None
        self.of: Any = None

    def answer(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Return (answer, arrays) of a question; raises what readers raise."""
        from . import find_reader

        path, options = question["path"], question["options"]
        if question["ask"] == "formats":
            return {"options": list(signature(find_reader(path)).parameters)}, []
        self.open(path, options)
        return self.described() if question["ask"] == "open" else self.read(question["number"])

    def open(self, path: str, options: dict[str, Any]) -> None:
        """Open a file, unless it is the one that is open."""
        from . import open_events

        if self.of == (path, options):
            return
        if self.reader is not None:
            self.reader.close()
            self.reader = self.of = None
        self.reader, self.of = open_events(path, **options), (path, options)

    def described(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Return what a reader says of its file."""
        reader = self.reader
        return {
            "name": reader.name,
            "unit": reader.unit,
            "image_shape": [int(n) for n in reader.image_shape],
            "class_names": list(reader.class_names),
            "axes": [
                [part if isinstance(part, str) else float(part) for part in x] for x in reader.axes
            ],
            "background": float(getattr(reader, "background", 0.0)),
            "metadata": getattr(reader, "metadata", {}),
        }, [np.asarray(reader.labels, np.int32)]

    def read(self, number: int) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Return event ``number``."""
        event = self.reader.read(number)
        image = event.image
        arrays = [image.coords, image.values, event.particles]
        arrays += [] if event.pixel_labels is None else [event.pixel_labels]
        return {
            "shape": list(image.shape),
            "background": image.background,
            "label": int(event.label),
            "id": [int(n) for n in event.id],
            "note": getattr(self.reader, "notes", {}).get(number, ""),
        }, arrays


def send(pipe: IO[bytes], answer: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Write an answer."""
    kinds = ["particle" if array.dtype.names else array.dtype.str for array in arrays]
    answer["arrays"] = [[kind, array.shape] for kind, array in zip(kinds, arrays)]
    text = json.dumps(answer).encode()
    pipe.write(len(text).to_bytes(8, "little") + text)
    for array in arrays:
        pipe.write(np.ascontiguousarray(array).tobytes())
    pipe.flush()


def main() -> None:
    """Answer until the parent closes its end."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    server = Server()
    limit(int(sys.argv[1]))
    for line in sys.stdin.buffer:
        limit_time(float(sys.argv[2]))
        question = json.loads(line)
        try:
            answer, arrays = server.answer(question)
        except Exception as problem:
            text = str(problem)
            text = text if question["path"] in text else f"{question['path']}: {text}"
            answer, arrays = {"error": text}, []
        send(answers, answer, arrays)


if __name__ == "__main__":
    main()

"""``convert``: files of any known format become one minicnn event file; every event is written,
left out by choice, or reported.
"""

import argparse
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from inspect import signature
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ..data.event import EventError
from ..data.prefetch import ordered_map
from ..data.readers import EventWriter, find_reader
from ..data.readers.digests import digest_of_input
from ..files import atomic_write
from ..inspect.opening import open_reader
from ..simulate.samples import sample_text
from ..text import bytes_text, classes_text
from .common import (
    bad_events_argument,
    isolation_arguments,
    one_process,
    output,
    reader_arguments,
    reader_options,
    sandboxes,
)
from .selection import Selection

AT_A_TIME = 8  # events that a process reads for one answer
SHOWN = 10  # lines of a report that are printed; all of them go to its file


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.epilog = (
        "Events that cannot be read or do not fit are reported by number and reason, on the "
        "screen and in OUT.report.txt, and the others are written; the exit status is then 0, or "
        "2 where none was written."
    )
    add(
        "input",
        nargs="+",
        metavar="IN",
        help="files, or folders of .npy and .npz files; the format is recognised",
    )
    add("--out", required=True, metavar="FILE.h5", help="event file to write")
    add(
        "--label-map",
        metavar="PDG=CLASS,...",
        help="classes by the PDG code of the primary particle, as in 13=mu,-13=mu,22=gamma "
        "(default: the format's own labels, mostly gamma, e+-, mu+-, pi+-, K+)",
    )
    add(
        "--select",
        action="append",
        default=[],
        metavar="WHAT",
        help="events to write, where all conditions hold: labelled, "
        "class=A,B, lit>=N, lit<=N (pixels), events=A:B (numbers in each input), share=A:B (of "
        "each input, shuffled: 0:0.8 and 0.8:1 have no event in common and leave none out)",
    )
    add(
        "--balance",
        action="store_true",
        help="write as many events of every class as the rarest has, drawn at random from all "
        "inputs, the same in every conversion",
    )
    add(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="processes that read at once; the file is the same for any number",
    )
    bad_events_argument(add, "skip")  # its report is what it is run for
    add("--overwrite", action="store_true", help="replace the file if it exists")
    reader_arguments(parser)
    isolation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    one_process("convert", "--processes N shares the work")
    if args.processes < 1:
        raise ValueError(f"--processes must be positive, got {args.processes}")
    path, selection = output(args.out, args.overwrite), Selection(args.select, args.balance)
    label_map = _label_map(args.label_map) if args.label_map else None
    if args.balance and label_map:
        raise ValueError(
            "--balance counts events before they are read, --label-map labels them afterwards: "
            "convert first, then balance the event file"
        )
    with ExitStack() as opened:
        children = [opened.enter_context(child) for child in sandboxes(args, args.processes)]
        job = opened.enter_context(Job(path, args, selection, label_map, children))
        if args.balance:
            job.balance()
        for number, source in enumerate(args.input, 1):
            job.add(
                source,
                f"{Path(source).name} ({number} of {len(args.input)})"
                if len(args.input) > 1
                else Path(source).name,
            )
    return job.report()


class Job:
    """One conversion: the writer, which starts with the first file that can be opened, and what is
    to be reported.
    """

    def __init__(
        self,
        path: Path,
        args: argparse.Namespace,
        selection: Selection,
        label_map: tuple[dict[int, int], tuple[str, ...]] | None,
        children: list[Any],
    ) -> None:
        self.path, self.args, self.selection, self.label_map = path, args, selection, label_map
        self.options, self.children = reader_options(args), children
        self.writer: Any = None
        self.labels: list[int] = []
        self.rejects: list[str] = []
        self.notes: list[str] = []
        self.unselected = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.writer is None:
            return
        if kind is None and len(self.writer):
            self.writer.close()
        else:
            self.writer.abort()

    def balance(self) -> None:
        """Choose as many events of every class as the rarest has."""
        known = {}
        for source in self.args.input:
            with suppress(EventError):  # it is reported when it is added
                options = self._recipe(source)[0]
                with open_reader(source, options, *self.children[:1]) as reader:
                    known[source] = reader.labels, reader.class_names
        self.selection.balance(known)

    def add(self, source: str, title: str) -> None:
        """Write the events of one input."""
        from ..progress import Meter

        try:
            reader = self._open(source)
        except EventError as problem:
            self._reject(problem, f"{source}: ")
            return
        self._record_digest(source)
        with reader, Meter(f"converting {title}", len(reader)) as meter:
            wanted = self.selection.numbers(source, len(reader))
            self.unselected += len(reader) - len(wanted)
            for i, (event, note, reason) in zip(wanted, self._events(reader, source, wanted)):
                try:
                    if reason:
                        raise EventError(reason)
                    self._write(event, f"{reader.path}, event {i}")
                except EventError as wrong:
                    self._reject(wrong)
                self.notes += [f"{source}, event {i}: {note}"] * bool(note)
                meter.update(i + 1, f"{len(self.rejects)} rejected" if self.rejects else "")

    def _record_digest(self, source):
        """Keep the digest of an input with the events: most formats have no sums of their own."""
        self.writer.metadata.setdefault("sha256", {})[Path(source).name] = digest_of_input(source)

    def _events(self, reader, source, numbers):
        """Yield (event, note, problem) of the events of the given numbers, read by this process or
        by several.
        """
        recipe = self._recipe(source)[1:]
        if not self.children or len(numbers) < 2 * AT_A_TIME:
            yield from (_prepared(reader, i, *recipe) for i in numbers)
            return
        readers = SimpleQueue()
        for child in self.children:
            readers.put(reader.beside(child))

        def work(chunk):
            own = readers.get()
            try:
                return [_prepared(own, i, *recipe) for i in chunk]
            finally:
                readers.put(own)

        tasks = [numbers[first : first + AT_A_TIME] for first in range(0, len(numbers), AT_A_TIME)]
        with ThreadPoolExecutor(len(self.children)) as pool:  # they read while this one writes
            for chunk in ordered_map(work, tasks, len(self.children), pool):
                yield from chunk

    def _recipe(self, source):
        """(options of the reader, threshold still to be applied, labels by PDG code): a reader
        without a threshold gets one here.
        """
        options = dict(self.options)
        later = "threshold" in options and "threshold" not in self._known_options(source)
        threshold = options.pop("threshold") if later else None
        return options, threshold, self.label_map[0] if self.label_map else None

    def _known_options(self, source):
        """Names of the options of the reader that recognises an input."""
        if self.children:
            return self.children[0].ask("formats", Path(source), {})[0]["options"]
        return list(signature(find_reader(source)).parameters)

    def _open(self, source):
        reader = open_reader(source, self._recipe(source)[0], *self.children[:1])
        try:
            shape, names = (
                tuple(reader.image_shape),
                self.label_map[1] if self.label_map else tuple(reader.class_names),
            )
            if self.writer is None:
                metadata = {
                    "creator": "minicnn convert",
                    "sources": [Path(name).name for name in self.args.input],
                    "options": {key: str(value) for key, value in self.options.items()},
                    "select": self.args.select,
                    **({"balance": "classes"} if self.args.balance else {}),
                    "sample": getattr(reader, "metadata", {}).get("sample"),
                    "units": reader.unit,
                    "axes": [list(axis) for axis in reader.axes],
                }
                self.writer = EventWriter(
                    self.path, shape, names, getattr(reader, "background", 0.0), metadata
                )
            first = self.writer
            for what, own, others, way in (
                ("images of", shape, first.image_shape, "--size"),
                ("the classes", names, first.class_names, "--label-map"),
            ):
                if own != others:
                    raise EventError(
                        f"{source} has {what} {_text(own)}, the first input {_text(others)}; "
                        f"give {way}, or convert them apart"
                    )
        except BaseException:
            reader.close()
            raise
        same = self.writer.metadata
        if same.get("axes") != [list(axis) for axis in reader.axes] and same.pop("axes", None):
            self.notes.append(
                f"{source}: its rows and columns are not those of the first input; the file names "
                "neither"
            )
        if same.get("units") != reader.unit:
            same.pop("units", None)
        sample = getattr(reader, "metadata", {}).get("sample")
        if same.get("sample") != sample and same.pop("sample", None):
            self.notes.append(
                f"{source}: of the {sample_text(sample)}, the first input of another; the file "
                "names none"
            )
        return reader

    def _write(self, event, where):
        if not self.selection.wants(event, self.writer.class_names):
            self.unselected += 1
            return
        try:
            self.writer.append(event)
        except EventError as problem:
            raise EventError(f"{where}: {problem}") from problem
        self.labels.append(event.label)

    def _reject(self, problem, prefix=""):
        text = str(problem)
        text = text if not prefix or text.startswith(prefix.removesuffix(": ")) else prefix + text
        if self.args.bad_events == "stop":
            raise EventError(
                f"{text}; nothing was written: --bad-events skip writes the others and says which "
                "are left out"
            ) from problem
        self.rejects.append(text)

    def report(self) -> int:
        """Print what became of the events; return the exit status."""
        import numpy as np

        if self.rejects or self.notes:
            report = self.path.with_name(self.path.name + ".report.txt")
            lines = [f"rejected: {text}" for text in self.rejects] + [
                f"note: {text}" for text in self.notes
            ]
            for line in lines[:SHOWN]:
                print(line, file=sys.stderr)
            if self.labels or len(lines) > SHOWN:
                atomic_write(report, "\n".join(lines) + "\n")
                more = f"{len(lines) - SHOWN:,} more, " if len(lines) > SHOWN else ""
                print(f"{more}all in {report}", file=sys.stderr)
        counts = f"{len(self.rejects):,} rejected, {self.unselected:,} not selected"
        if not self.labels:
            print(f"error: no event was written ({counts})", file=sys.stderr)
            return 2
        print(
            f"wrote {len(self.labels):,} event{'s' * (len(self.labels) != 1)} of "
            f"{_text(self.writer.image_shape)} to {self.path} "
            f"({bytes_text(self.path.stat().st_size)}); {counts}"
        )
        print(f"classes: {classes_text(np.array(self.labels), self.writer.class_names)}")
        return 0


def _prepared(reader, index, threshold, labels):
    """(event, note, problem) of event ``index`` as it is to be written; one of event and problem, a
    text, is None.
    """
    from dataclasses import replace

    from ..data.readers.truth import label_of

    try:
        event = reader.read(index)
    except EventError as problem:
        return None, None, str(problem)
    if threshold is not None:
        event = _above(event, threshold)
    if labels is not None:
        event = replace(event, label=label_of(event.particles, labels))
    return event, getattr(reader, "notes", {}).get(index), None


def _above(event, threshold):
    """The event without the pixels below ``threshold``, and without their labels."""
    import numpy as np

    image = event.image
    values = np.where(image.values >= threshold, image.values, np.float32(image.background))
    return event.with_pixels((values != image.background).any(1), values)


def _label_map(text: str) -> tuple[dict[int, int], tuple[str, ...]]:
    """({PDG code: label}, class names in the order in which they appear) of "13=mu,-13=mu"."""
    labels: dict[int, int] = {}
    names: list[str] = []
    for part in text.split(","):
        pdg, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not re.fullmatch(r"[+-]?\d+", pdg):
            raise EventError(f"--label-map: {part!r} is not PDG=CLASS, as in 13=mu,-13=mu,22=gamma")
        if int(pdg) in labels:
            raise EventError(f"--label-map gives the PDG code {int(pdg)} twice")
        names += [name] * (name not in names)
        labels[int(pdg)] = names.index(name)
    return labels, tuple(names)


def _text(values):
    return " x ".join(map(str, values)) if isinstance(values[0], int) else ", ".join(values)

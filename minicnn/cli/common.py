"""What several commands share: options of readers, output files, tables."""

import argparse
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..data.event import EventError
from ..files import StrPath
from ..watch import launched

#: Options of readers that are names in a file: "0" and "true" are names too.
NAMES = ("key", "producer", "particles")


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help with the default of every option that has one worth showing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        without = action.default in (None, False, []) or "(default" in text
        return text if without else super()._get_help_string(action)


def launched_rank() -> int:
    """Return this process's number as the launcher writes it in the environment; 0 without one."""
    return launched()[0]


def status_of(command: Callable[[], int]) -> int:
    """Return the exit status of a command that runs on all ranks: 2 where they agreed on an error,
    which rank 0 has said (parallel.world).
    """
    try:
        return command()
    except SystemExit as end:
        return 2 if end.code == 1 else int(end.code or 0)


def positive_count(text: str) -> int:
    """Return a number of things, at least 1, from the command line."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def bad_events_argument(add: Callable[..., Any], default: str = "stop") -> None:
    """Add the option that says what becomes of events that cannot be used."""
    from ..jobs.bad_events import WAYS

    add(
        "--bad-events",
        choices=WAYS,
        default=default,
        help="at an event that cannot be read or used: stop, or skip it, go on, and say which",
    )


def reader_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that go to the reader of the input files."""
    group = parser.add_argument_group(
        "reading (what a format does not know it refuses, and says what it knows)"
    )
    add = group.add_argument
    add(
        "--size",
        type=int,
        default=argparse.SUPPRESS,
        help="edge of the images in pixels (default: the format's own)",
    )
    add(
        "--plane",
        type=_value,
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="P",
        help="plane to read, several: one channel each (default: the collection plane)",
    )
    add(
        "--threshold",
        type=_threshold,
        default=argparse.SUPPRESS,
        help="smallest pixel to keep, or none (default: the format's own)",
    )
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other option of the format's reader, such as "
        "producer=sbndwire, tick_sum=3, key=img or class_names=a,b",
    )


def reader_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords for ``open_events`` that were given."""
    options = {name: getattr(args, name) for name in ("size", "threshold") if hasattr(args, name)}
    if hasattr(args, "plane"):
        options.update(
            {"plane": args.plane[0]} if len(args.plane) == 1 else {"planes": tuple(args.plane)}
        )
    for text in args.option:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise EventError(f"--option {text}: give it as NAME=VALUE")
        options[name] = value if name in NAMES else _value(value)
    return options


def isolation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the child process that reads the input files."""
    group = parser.add_argument_group("files that cannot be trusted")
    add = group.add_argument
    add(
        "--isolate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="read in a child process, so that a file that crashes or holds up its reader is "
        "reported like any other fault",
    )
    add("--time-limit", type=float, default=120.0, metavar="S", help="seconds for one event")
    add("--memory-limit", type=float, default=4.0, metavar="GB", help="memory of the child")


def sandboxes(args: argparse.Namespace, count: int = 1) -> list[Any]:
    """Return the child processes that were asked for; none with --no-isolate and one of them."""
    from ..data.readers.isolated import Limits, Sandbox

    if not args.time_limit > 0 or not args.memory_limit > 0:
        raise ValueError("--time-limit and --memory-limit must be positive")
    if not args.isolate and count == 1:
        return []
    limits = Limits(args.time_limit, int(args.memory_limit * 2**30))
    return [Sandbox(limits) for _ in range(count)]


def _threshold(text: str) -> float | None:
    """Return the number in ``text``, or None for "none"."""
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or none, got {text!r}") from None


def _value(text: str) -> Any:
    """Return a number, None, True or False where the text says so, several of them where commas
    separate them, else the text.
    """
    if "," in text:
        return tuple(_value(part) for part in text.split(","))
    words: dict[str, Any] = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def output(path: StrPath, overwrite: bool) -> Path:
    """Return ``path``; EventError where it exists and may not be replaced, or its folder does not
    exist.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise EventError(f"{path} exists already; choose another name or give --overwrite")
    if not path.parent.is_dir():
        raise EventError(f"{path}: there is no folder {path.parent}; make it first")
    return path


def one_process(what: str, instead: str = "") -> None:
    """Refuse to run ``what`` under mpiexec, where every rank would do the same; ``instead``: what
    to do.
    """
    from ..parallel.launch import announced_size

    ranks, launcher = announced_size()
    if ranks > 1:
        raise EventError(
            f"{what} runs in one process, but {launcher} started {ranks}; run it without"
            + (f" ({instead})" if instead else "")
        )


def table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], right: Container[int] = ()
) -> None:
    """Print a table: by rich on a terminal, in plain aligned columns elsewhere; ``right``: columns
    set to the right.
    """
    texts = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        pretty = Table(title=Text(title), title_justify="left", show_header=bool(header))
        for k in range(len(texts[0])):
            pretty.add_column(
                Text(header[k] if header else ""),
                justify="right" if k in right else "left",
                overflow="fold",
            )
        for row in texts:
            pretty.add_row(*map(Text, row))
        Console().print(pretty)
        return
    lines = [list(header)] * bool(header) + texts
    widths = [max(map(len, column)) for column in zip(*lines)]
    print(title)
    for line in lines:
        cells = (
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths))
        )
        print("  " + "  ".join(cells).rstrip())

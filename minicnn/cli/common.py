"""What several commands share: options of readers, output files, tables, sizes in words."""

import argparse
import sys
from pathlib import Path

from ..data.event import EventError


def reader_arguments(parser):
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


def reader_options(args):
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
        options[name] = _value(value)
    return options


def _threshold(text):
    return None if text.lower() == "none" else float(text)


_threshold.__name__ = "number"  # what argparse calls it: "invalid number value"


def _value(text):
    """A number, none, true or false where the text says so, several where commas separate them,
    else the text.
    """
    if "," in text:
        return tuple(_value(part) for part in text.split(","))
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def open_reader(path, options):
    """Open a file of events; a value that its reader refuses is an EventError that names the file."""
    from ..data.readers import open_events

    try:
        return open_events(path, **options)
    except EventError:
        raise
    except (TypeError, ValueError) as problem:
        raise EventError(f"{path}: {problem}") from problem


def output(path, overwrite):
    """Return ``path``; EventError where it exists and may not be replaced, or its folder does not
    exist.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise EventError(f"{path} exists already; choose another name or give --overwrite")
    if not path.parent.is_dir():
        raise EventError(f"{path}: there is no folder {path.parent}; make it first")
    return path


def one_process(what, instead=""):
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


def table(title, header, rows, right=()):
    """Print a table: by rich on a terminal, in plain aligned columns elsewhere; ``right``: columns
    set to the right.
    """
    rows = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        pretty = Table(title=Text(title), title_justify="left", show_header=bool(header))
        for k in range(len(rows[0])):
            pretty.add_column(
                Text(header[k]) if header else None,
                justify="right" if k in right else "left",
                overflow="fold",
            )
        for row in rows:
            pretty.add_row(*map(Text, row))
        Console().print(pretty)
        return
    lines = [list(header)] * bool(header) + rows
    widths = [max(map(len, column)) for column in zip(*lines)]
    print(title)
    for line in lines:
        cells = (
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths))
        )
        print("  " + "  ".join(cells).rstrip())


def bytes_text(count):
    """Return a number of bytes in words: "1.2 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        count /= 1000
    return ""


def classes_text(labels, class_names):
    """Return "gamma 40, e+- 38, unknown 2": how many events there are of each class."""
    counts = [(name, int((labels == k).sum())) for k, name in enumerate(class_names)]
    unknown = int((labels < 0).sum())
    return ", ".join(
        f"{name} {count:,}" for name, count in counts + [("unknown", unknown)] * bool(unknown)
    )

"""``inspect``: what is in a file of events, a trained model or the folder of a run, and whether it
is whole.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path

from ..data.event import EventError
from ..inspect.opening import bytes_on_disk, open_reader
from ..jobs.run_folder import RunFolder, read_record
from ..simulate.samples import sample_text
from ..text import bytes_text
from .common import (
    isolation_arguments,
    one_process,
    reader_arguments,
    reader_options,
    sandboxes,
    table,
)

SHOWN = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "All events are read; the exit status is 1 where some are damaged."
    parser.add_argument(
        "file",
        help="events of any known format, a model (.safetensors), a run.json or the folder of a "
        "run",
    )
    reader_arguments(parser)
    isolation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    one_process("inspect")
    path = Path(args.file)
    if path.is_dir() and RunFolder(path).is_run:
        return _run_folder(RunFolder(path))
    if path.is_file() and path.suffix == ".json":
        return _run_file(path)
    if path.is_file() and _is_safetensors(path):
        return _model(path)
    with ExitStack() as opened:
        sandbox = [opened.enter_context(child) for child in sandboxes(args)]
        return _events(path, reader_options(args), *sandbox)


def _is_safetensors(path):
    with open(path, "rb") as file:
        start = file.read(9)
    header = int.from_bytes(start[:8], "little")
    return path.suffix == ".safetensors" or (start[8:] == b"{" and header < 1 << 27)


def _events(path, options, sandbox=None):
    import numpy as np

    from ..progress import Meter

    with open_reader(path, options, sandbox) as events:
        lit, low, high, damaged = np.full(len(events), -1), np.inf, -np.inf, []
        with Meter(f"reading {path.name}", len(events)) as meter:
            for i in range(len(events)):
                try:
                    image = events.read(i).image
                except EventError as problem:
                    damaged.append(problem)
                else:
                    lit[i] = image.nnz
                    if image.nnz:
                        low, high = min(low, image.values.min()), max(high, image.values.max())
                meter.update(i + 1, f"{len(damaged)} damaged" if damaged else "")
        h, w, c = events.image_shape
        size = bytes_on_disk(path)
        whole = (
            f"{len(damaged):,} of {len(events):,} events cannot be read"
            if damaged
            else "all events were read"
        )
        rows = [
            ("format", events.name),
            ("events", f"{len(events):,}"),
            ("images", f"{h} x {w}, {c} plane{'s' * (c > 1)}"),
            ("rows", _axis(events.axes[0])),
            ("columns", _axis(events.axes[1])),
            (
                "values of lit pixels",
                f"{low:.4g} to {high:.4g} {events.unit}".rstrip() if high >= low else "none is lit",
            ),
            (
                "size on disk",
                f"{bytes_text(size)}, {bytes_text(size / max(len(events), 1))} an event",
            ),
            ("integrity", whole),
        ]
        metadata = getattr(events, "metadata", {}).items()
        rows += [
            (f"made with: {key}", sample_text(value) if key == "sample" else _words(value))
            for key, value in metadata
            if value not in ([], {}, "") and key != "axes"
        ]
        table(str(path), (), rows)
        lines = []
        named = list(enumerate(events.class_names)) if (events.labels >= 0).any() else []
        for k, name in [*named, (-1, "unknown"), (None, "all")]:
            chosen = lit[(lit >= 0) & (True if k is None else events.labels == k)]
            if len(chosen) or k not in (-1, None):
                spread = (
                    [f"{100 * n / (h * w):.3g} %" for n in np.percentile(chosen, (0, 50, 100))]
                    if len(chosen)
                    else ["-"] * 3
                )
                lines.append((name, f"{len(chosen):,}", *spread))
        print()
        table(
            "lit fraction",
            ("class", "events", "smallest", "median", "largest"),
            lines,
            right=(1, 2, 3, 4),
        )
        notes = [f"event {i}: {note}" for i, note in sorted(getattr(events, "notes", {}).items())]
    for what, texts in (("damaged", damaged), ("note", notes)):
        for text in texts[:SHOWN]:
            print(f"{what}: {text}")
        if len(texts) > SHOWN:
            print(f"and {len(texts) - SHOWN:,} more")
    return 1 if damaged else 0


def _model(path: Path) -> int:
    import math

    from ..train.checkpoint import load_model

    model = load_model(path, device="reference")  # runs nothing: needs no compiler and no GPU
    graph = model.graph
    rows: list[tuple[str, ...]] = []
    counted = set()
    for node in graph.nodes:
        parameters = node.layer.parameters(*(source.shape for source in node.inputs))
        count = sum(math.prod(parameter.shape) for parameter in parameters.values())
        rows.append(
            (
                f"{graph.node_name(node)} ({type(node.layer).__name__})",
                " x ".join(map(str, node.shape)),
                f"{0 if node.layer in counted else count:,}",
                ", ".join(map(graph.node_name, node.inputs)),
            )
        )
        counted.add(node.layer)
    header: tuple[str, ...] = ("layer", "output", "parameters", "connected to")
    if graph.is_chain:  # each to the one above it; the input is named below
        header, rows = header[:3], [row[:3] for row in rows[1:]]
    table(f"{path}: a minicnn model", header, rows, right=(2,))
    print()
    state = "its state kept: training can go on" if model.optimizer.state else "without state"
    table(
        "in all",
        (),
        [
            ("input", " x ".join(map(str, model.input_shape)) + f", {model.input_map}"),
            ("classes", ", ".join(model.class_names) if model.class_names else "without names"),
            ("parameters", f"{model.parameters.size:,}"),
            ("updates made", f"{model.updates:,}"),
            ("optimizer", f"{type(model.optimizer).__name__}, {state}"),
            ("size on disk", bytes_text(path.stat().st_size)),
            ("integrity", "digest ok"),
        ],
    )
    return 0


def _run_folder(folder: RunFolder) -> int:
    if folder.marker.exists():
        return _run_file(folder.marker)
    print(f"{folder.path}: this run is not complete (it has no run.json); its history so far:")
    _epochs(folder.read_history())
    return 0


def _run_file(path: Path) -> int:
    run = read_record(path)
    epochs, arguments = run["epochs"], run["arguments"]
    table(
        str(path),
        (),
        [
            ("accuracy", _number(run.get("accuracy"))),
            ("loss", _number(run.get("loss"))),
            ("epochs", str(len(epochs))),
            ("seconds in all", _number(run.get("seconds"))),
            ("ranks x threads", f"{run.get('ranks', '-')} x {run.get('threads', '-')}"),
            ("peak memory of a rank, MB", _number(run.get("peak_memory_mb"))),
            *[(f"version of {key}", value) for key, value in run.get("versions", {}).items()],
            *[(f"machine, {key}", value) for key, value in run.get("machine", {}).items()],
        ],
    )
    print()
    table(
        "arguments",
        (),
        [(key, "-" if value is None else value) for key, value in arguments.items()],
    )
    _epochs(epochs)
    return 0


def _epochs(epochs):
    """Print the history, and the parts of each epoch's seconds ("seconds: forward" and so on) in
    tables of their own, a row per part.
    """
    names = list(dict.fromkeys(key for row in epochs for key in row))
    columns = [name for name in names if ": " not in name]
    if epochs:
        print()
        table(
            "history",
            [name.replace("_", " ") for name in columns],
            [[_number(row.get(name)) for name in columns] for row in epochs],
            right=range(len(columns)),
        )
    for title in dict.fromkeys(name.split(": ")[0] for name in names if ": " in name):
        rows = [
            [name.split(": ")[1], *[_number(row.get(name)) for row in epochs]]
            for name in names
            if name.startswith(title + ": ")
        ]
        print()
        table(
            title if title == "seconds" else f"seconds, {title}",
            ["epoch", *[_number(row.get("epoch")) for row in epochs]],
            rows,
            right=range(1, 1 + len(epochs)),
        )


def _axis(axis):
    """Words for an Axis: "1 wire each, 0.3 cm of z"."""
    length = f", {axis.cm:.4g} cm{f' of {axis.length}' if axis.length else ''}" if axis.cm else ""
    return f"{axis.step:.4g} {axis.name}{'s' * (axis.step != 1)} each{length}"


def _words(value):
    if isinstance(value, dict):
        return ", ".join(f"{key}={v}" for key, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _number(value):
    try:
        return f"{float(value):.5g}"
    except (TypeError, ValueError):
        return "-" if value in (None, "") else str(value)

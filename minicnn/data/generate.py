"""Simulated events into a file: made by all ranks, written in order by rank 0, resumed where a
killed job stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ..locks import file_locked
from ..parallel import ordered
from ..parallel.comm import as_comm
from .event import PIXEL_CLASSES, Event, EventError
from .readers import EventFile
from .readers.event_writer import EventWriter

#: Events that each rank makes between two gatherings.
EVENTS_PER_GATHERING = 16
#: What ``progress`` is told while the parts of a file are put together.
JOINING = "joining the parts"


def generate(
    path: str | Path,
    events: int,
    simulator: Any,
    comm: Any = None,
    progress: Callable[[int, int, str], Any] | None = None,
    part: int = 1000,
) -> int:
    """Write events 0 to ``events`` - 1 of ``simulator`` to ``path``; every rank of ``comm`` makes a
    share, the file is the same for any number of ranks.

    ``progress(done, total, step)`` is called on rank 0, step: "" or JOINING. The file appears under
    its name only when it is complete. More than ``part`` events are first written to files of
    ``part`` events in the folder PATH.parts, each complete or absent; the same call after a killed
    job makes the missing ones, puts all together and removes the folder. Returns how many events
    were there already.

    Raises EventError where the folder holds events of another simulation: the first event of every
    part is made again and compared. LockedError where another job is writing the same file.
    """
    path = Path(path)
    if events < 1 or part < 1:
        raise ValueError(
            f"the numbers of events and of events per part are positive, got {events} and {part}"
        )

    def report(before: int, written: int, step: str = "") -> None:
        if progress:
            progress(before + written, events, step)

    with ExitStack() as stack:
        ordered(comm, lambda: stack.enter_context(file_locked(path)) and None)
        return _generate(path, events, simulator, comm, report, part)


def _generate(path, events, simulator, comm, report, part):
    """``generate`` for one job alone."""
    folder, metadata = parts_folder(path), _metadata(simulator)
    if events <= part:
        _write(
            path,
            range(events),
            simulator,
            metadata,
            comm,
            partial(report, 0),
        )
        return 0
    ordered(comm, lambda: folder.mkdir(exist_ok=True))
    ranges = [range(first, min(first + part, events)) for first in range(0, events, part)]
    files = [folder / f"events-{numbers.start:09d}.h5" for numbers in ranges]
    present = ordered(
        comm, lambda: [_is_part(file, numbers, simulator) for file, numbers in zip(files, ranges)]
    )
    done = before = sum(len(numbers) for numbers, has in zip(ranges, present) if has)
    for file, numbers, has in zip(files, ranges, present):
        if not has:
            _write(
                file,
                numbers,
                simulator,
                metadata,
                comm,
                partial(report, done),
            )
            done += len(numbers)
    ordered(comm, lambda: _merge(path, files, simulator, metadata, report))
    ordered(comm, lambda: shutil.rmtree(folder))
    return before


def parts_folder(path: str | Path) -> Path:
    """Return the folder that holds the parts of an unfinished file."""
    path = Path(path)
    return path.with_name(path.name + ".parts")


def _metadata(simulator: Any) -> dict[str, Any]:
    usual = type(simulator.response)()._asdict()
    readout = {
        name: value for name, value in simulator.response._asdict().items() if value != usual[name]
    }
    metadata = {
        "creator": "minicnn simulate",
        "physics": simulator.physics,
        "seed": simulator.seed,
        "sample": simulator.sample.record(),
        "readout": readout,
        "units": simulator.unit,
        "axes": [list(axis) for axis in simulator.axes],
    }
    if simulator.cosmic_rate:
        metadata["cosmic_rate"] = simulator.cosmic_rate
    if simulator.pixel_truth:
        metadata["pixel_classes"] = list(PIXEL_CLASSES)
    return metadata


def _write(
    path: Path,
    numbers: range,
    simulator: Any,
    metadata: dict[str, Any],
    comm: Any,
    progress: Callable[[int], Any],
) -> None:
    """Write the events of the given numbers to ``path``."""
    comm = as_comm(comm)
    rank, ranks = comm.rank, comm.size
    writer = None
    try:
        if rank == 0:
            writer = EventWriter(
                path,
                simulator.image_shape,
                simulator.class_names,
                metadata=metadata,
                alone=True,
            )
        for start in range(numbers.start, numbers.stop, EVENTS_PER_GATHERING * ranks):
            stop = min(start + EVENTS_PER_GATHERING * ranks, numbers.stop)
            made = [simulator.read(i) for i in range(start + rank, stop, ranks)]
            per_rank = comm.gather(made)
            if writer is not None:
                for i in range(max(map(len, per_rank))):
                    for share in per_rank:
                        if i < len(share):
                            writer.append(share[i])
                progress(len(writer))
        if writer is not None:
            writer.close()
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
    comm.Barrier()  # nobody opens the file before it is there


def _is_part(path, numbers, simulator):
    """Tell whether ``path`` holds these events of this simulation; False where it is absent,
    damaged or shorter (it is made again).
    """
    if not path.exists():
        return False
    try:
        with EventFile(path) as part:
            if len(part) != len(numbers):
                return False
            first = part.read(0)
            for _ in part:
                pass
    except EventError:
        return False
    same = (part.image_shape, part.class_names) == (
        tuple(simulator.image_shape),
        tuple(simulator.class_names),
    )
    if not (same and _equal(first, simulator.read(numbers.start))):
        raise EventError(
            f"{path} holds events of another simulation (other options, seed or version): to "
            f"go on with it, give its options; to start again, delete the folder {path.parent}"
        )
    return True


def _equal(first: Event, second: Event) -> bool:
    def labels(event: Event) -> bytes | None:
        return None if event.pixel_labels is None else event.pixel_labels.tobytes()

    return (
        first.label == second.label
        and first.image.coords.tobytes() == second.image.coords.tobytes()
        and first.image.values.tobytes() == second.image.values.tobytes()
        and first.particles.tobytes() == second.particles.tobytes()
        and labels(first) == labels(second)
    )


def _merge(path, files, simulator, metadata, report):
    """Copy the parts, event by event, into one file."""
    with EventWriter(
        path, simulator.image_shape, simulator.class_names, metadata=metadata, alone=True
    ) as writer:
        for file in files:
            with EventFile(file) as part:
                for event in part:
                    writer.append(event)
            report(0, len(writer), JOINING)

"""Simulated events into a file: made by all ranks, written in order by rank 0, resumed where a
killed job stopped.
"""

import shutil
from pathlib import Path

from ..parallel import ordered
from .event import EventError
from .readers import EventFile, EventWriter

BLOCK = 16  # events a rank makes between two gatherings


def generate(path, events, simulator, comm=None, progress=None, part=1000):
    """Write events 0 to ``events`` - 1 of ``simulator`` to ``path``; every rank makes a share, the
    file is the same for any number.

    ``progress(done, total)`` is called on rank 0. The file appears under its name only when it is
    complete. More than ``part`` events are first written to files of ``part`` events in the folder
    PATH.parts, each complete or absent; the same call after a killed job makes the missing ones,
    puts all together and removes the folder. Returns how many events were there already.

    Raises EventError where the folder holds events of another simulation: the first event of every
    part is made again and compared.
    """
    path = Path(path)
    if events < 1 or part < 1:
        raise ValueError(
            f"the numbers of events and of events per part are positive, got {events} and {part}"
        )
    folder, metadata = parts_folder(path), _metadata(simulator)
    if events <= part:
        _write(
            path,
            range(events),
            simulator,
            metadata,
            comm,
            lambda done: progress and progress(done, events),
        )
        return 0
    ordered(comm, lambda: folder.mkdir(exist_ok=True))
    ranges = [range(first, min(first + part, events)) for first in range(0, events, part)]
    files = [folder / f"events-{some.start:09d}.h5" for some in ranges]
    present = ordered(
        comm, lambda: [_is_part(file, some, simulator) for file, some in zip(files, ranges)]
    )
    done = there = sum(len(some) for some, has in zip(ranges, present) if has)
    for file, some, has in zip(files, ranges, present):
        if not has:
            _write(
                file,
                some,
                simulator,
                metadata,
                comm,
                lambda n, before=done: progress and progress(before + n, events),
            )
            done += len(some)
    ordered(comm, lambda: _merge(path, files, simulator, metadata))
    ordered(comm, lambda: shutil.rmtree(folder))
    return there


def parts_folder(path):
    """Return the folder that holds the parts of an unfinished file."""
    path = Path(path)
    return path.with_name(path.name + ".parts")


def _metadata(simulator):
    usual = type(simulator.response)()._asdict()
    readout = {
        name: value for name, value in simulator.response._asdict().items() if value != usual[name]
    }
    return {
        "creator": "minicnn simulate",
        "seed": simulator.seed,
        "readout": readout,
        "units": simulator.unit,
        "axes": [list(axis) for axis in simulator.axes],
    }


def _write(path, numbers, simulator, metadata, comm, progress):
    """Write the events of the given numbers (a range) to ``path``."""
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    writer = None
    try:
        if rank == 0:
            writer = EventWriter(
                path, simulator.image_shape, simulator.class_names, metadata=metadata
            )
        for start in range(numbers.start, numbers.stop, BLOCK * ranks):
            mine = range(start + rank, min(start + BLOCK * ranks, numbers.stop), ranks)
            made = [simulator.read(i) for i in mine]
            everyones = comm.gather(made) if comm else [made]
            if writer is not None:
                for i in range(max(map(len, everyones))):
                    for share in everyones:
                        if i < len(share):
                            writer.append(share[i])
                progress(len(writer))
        if writer is not None:
            writer.close()
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
    if comm:
        comm.Barrier()  # nobody opens the file before it is there


def _is_part(path, numbers, simulator):
    """Tell whether ``path`` holds these events of this simulation; False where it is absent or
    shorter (it is made again).
    """
    if not path.exists():
        return False
    with EventFile(path) as part:
        if len(part) != len(numbers):
            return False
        same = (part.image_shape, part.class_names) == (
            tuple(simulator.image_shape),
            tuple(simulator.class_names),
        )
        if not (same and _equal(part.read(0), simulator.read(numbers.start))):
            raise EventError(
                f"{path} holds events of another simulation (other options, seed or version): to go on with it, give "
                f"its options; to start again, delete the folder {path.parent}"
            )
    return True


def _equal(a, b):
    return (
        a.label == b.label
        and a.image.coords.tobytes() == b.image.coords.tobytes()
        and a.image.values.tobytes() == b.image.values.tobytes()
        and a.particles.tobytes() == b.particles.tobytes()
    )


def _merge(path, files, simulator, metadata):
    """Copy the parts, event by event, into one file."""
    with EventWriter(
        path, simulator.image_shape, simulator.class_names, metadata=metadata
    ) as writer:
        for file in files:
            with EventFile(file) as part:
                for event in part:
                    writer.append(event)

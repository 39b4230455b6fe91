"""The events of a job: simulated where no file is named, and of the sample that was asked for."""

import time
from pathlib import Path
from typing import Any

from .. import data, parallel
from ..progress import Meter, say
from ..simulate.samples import Sample, sample_text


def simulated(comm: Any, simulator: Any, events: int, cache: Path) -> Path:
    """Return the file in ``cache`` of so many events of a simulator, which all ranks make if it is
    not there yet.
    """
    size, label = simulator.image_shape[0], simulator.sample.label
    name = f"simulated-{label}-{size}-seed{simulator.seed}-{events}-physics{simulator.physics}"
    path = cache / f"{name}.h5"
    if parallel.ordered(comm, path.exists):
        return path
    parallel.ordered(comm, lambda: cache.mkdir(parents=True, exist_ok=True))
    start = time.perf_counter()
    with Meter("simulating", events, silent=bool(comm and comm.rank)) as meter:
        data.generate(path, events, simulator, comm, lambda done, _, step: meter.update(done, step))
    seconds = time.perf_counter() - start
    say(
        comm,
        f"simulated {events} events in {seconds:.1f} s ({events / seconds:.0f}/s) into {path}",
    )
    return path


def check_sample(path: Path, record: dict[str, Any] | None, wanted: Sample | None) -> None:
    """Raise EventError where the events of a file, whose record of its sample this is, are not of
    the sample that was asked for.
    """
    if wanted is not None and record != wanted.record():
        raise data.EventError(
            f"{path} is of the {sample_text(record)}, asked for was the "
            f"{sample_text(wanted.record())}; leave the options of the sample away to take the "
            "file as it is, or name another file"
        )

"""The events of a job: simulated where no file is named, and of the sample that was asked for."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, parallel
from ..progress import Meter, say
from ..simulate.samples import Sample, sample_text
from .recipe import ONE_VALIDATES_IN


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
    with Meter("simulating", events, silent=parallel.as_comm(comm).rank > 0) as meter:
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


def split_for_ranks(
    source: Any, numbers: tuple[int | None, int | None], ranks: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the training and of the validation events in the file of ``source``.
    numbers: how many of each; None: by ONE_VALIDATES_IN, or the rest.

    Raises EventError where a rank would have none.
    """
    (train, validation), present = numbers, len(source)
    if train is None:
        held = present // ONE_VALIDATES_IN if validation is None else validation
        train = max(present - held, 0)
    if validation is None:
        validation = present - train
    if train < ranks or 0 < validation < ranks:
        raise data.EventError(
            f"{source.path} gives {train} training and {validation} validation events for "
            f"{ranks} ranks: every rank needs at least one of each; use fewer ranks or more events"
        )
    return data.split(present, train, validation, seed)


def loaded_text(store: Any, what: str, total: dict[str, Any], seconds: float) -> str:
    """Return what is said of loaded events. total: ``EventStore.stats`` of all ranks, added up."""
    return (
        f"loaded {total['events']} {what} events in {seconds:.1f} s: "
        f"{total['events'] / seconds:.0f} events/s, "
        f"{total['dense_bytes'] / seconds / 1e6:.0f} MB/s of images; "
        f"{total['bytes'] / 1e6:.1f} MB in memory ({store.form}, {store.codec}:{store.level}), "
        f"{total['dense_bytes'] / total['bytes']:.0f} times smaller"
    )

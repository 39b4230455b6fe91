"""Measurements for the performance model: single events, updates, loading, memory, Allreduce, and
real training to compare with.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data import EventStore, open_events, shard
from ..files import StrPath
from ..jobs.recipe import FULL_SIZE, Recipe
from ..kernels.cpu.machine import describe
from ..parallel import agree, as_comm, everywhere, threads_per_rank
from ..parallel.machine import (
    allreduce_seconds,
    exchange_seconds,
    peak_memory_bytes,
    ranks_of_nodes,
)
from ..train.fit import train_step
from ..train.optim import SGD
from .allreduce_costs import link_of
from .performance import Calibration, like
from .trace import COMMUNICATION, WAIT, Ledger, Summary

#: Bytes of the exchanges and Allreduces that are timed, beside the gradients.
MESSAGES = (4, 1 << 12, 1 << 16, 1 << 20, 1 << 24)


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured. size: side of the images in pixels. batch: events per step and rank.
    threads: per rank. computing: also time single events while all ranks compute the same. epochs:
    of the training; the first does not count.
    """

    size: int = FULL_SIZE
    batch: int = 32
    threads: int = 1
    events_per_rank: int = 512
    computing: bool = True
    epochs: int = 5
    device: str = "cpu"

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.events_per_rank // self.batch


def measure(comm: Any, path: StrPath, options: MeasureOptions) -> dict[str, Any]:
    """Return what these ranks measure, the same on all: {"calibration": parts of one, "training":
    mean seconds of a step and its parts}.

    path: a file with at least ranks * events_per_rank events. All ranks compute the same events at
    the same time to see how much they slow each other down; then each trains on events of its own,
    with the ledger. Of the epochs that count, the one of median length is taken.
    """
    rank = as_comm(comm).rank
    if options.steps < 1 or options.epochs < 2:
        raise ValueError(
            f"{options.events_per_rank} events per rank give no batch of {options.batch}, or "
            f"{options.epochs} epochs leave none to measure"
        )
    shared = everywhere(comm, lambda: _load(comm, path, options, None))
    began = time.perf_counter()
    own = everywhere(comm, lambda: _load(comm, path, options, rank))
    read = (time.perf_counter() - began) / len(own)
    model = Recipe(size=options.size).build_model(SGD(1e-4, momentum=0.9), device=options.device)
    model.kernels.set_threads(options.threads)
    figures = _computing(comm, model, shared, options) if options.computing else {}
    figures["allreduce"] = _allreduces(comm, 4 * model.gradients.size)
    figures |= _links(comm, 4 * model.gradients.size)
    figures |= {"read": read} | _sizes(own, path)  # before anything large is copied
    figures |= {"parameters": int(model.parameters.size)} | _memory(model.gradients.size)
    ledger = Ledger(detail=True, keep=0)
    model.fit(
        own,
        epochs=options.epochs,
        batch_size=options.batch,
        comm=comm,
        threads=options.threads,
        ledger=ledger,
    )
    return {"calibration": figures, "training": _training(ledger.summaries[1:])}


def _load(comm: Any, path: StrPath, options: MeasureOptions, rank: int | None) -> EventStore:
    """Return the events of one epoch of a rank, a share of equal work where the file tells what
    events cost; None: the first of the file.
    """
    ranks = as_comm(comm).size
    needed = ranks * options.events_per_rank
    with open_events(path, size=options.size) as source:
        if len(source) < needed:
            raise ValueError(f"{path} holds {len(source)} events, these ranks need {needed}")
        events = np.arange(needed)
        if rank is not None:
            counts = getattr(source, "pixel_counts", None)
            events = shard(needed, ranks, rank, 0, None if counts is None else counts[:needed])
        return EventStore().load(source, events[: options.steps * options.batch])


def _computing(
    comm: Any, model: Any, store: EventStore, options: MeasureOptions, passes: int = 4
) -> dict[str, Any]:
    """Return the times of events and of updates on this node while every rank does the same, as
    means over ranks.

    Per event: the median over passes. Per batch: the minimum over passes, because differences
    between ranks matter there, and interruptions only add.
    """
    batch = options.batch
    start = time.perf_counter()
    images, labels = store.batch(range(options.steps * batch))
    load = (time.perf_counter() - start) / len(images)
    steps = [slice(first, first + batch) for first in range(0, len(images), batch)]
    _one_pass(comm, model, images, labels, steps[:1])  # compiles
    done = [_one_pass(comm, model, images, labels, steps) for _ in range(passes)]
    walls = np.array([[step.wall for step in of_pass] for of_pass in done])
    events = [_of_events(of_pass, store.costs, batch) for of_pass in done]
    all_steps = [step for of_pass in done for step in of_pass]
    own = {
        "fixed": statistics.median(step.wall - sum(step.events) for step in all_steps),
        "load": load,
        "backward": statistics.median(step.last_backward for step in all_steps),
        "whole": float(walls.min(0).mean()),
    }
    per_rank = agree(comm, value=own)
    means = {key: statistics.fmean(of_rank[key] for of_rank in per_rank) for key in own}
    unexplained = _unexplained(np.mean(agree(comm, value=walls.min(0)), 0), store.costs, batch)
    return means | {"events": np.median(events, 0).tolist(), "unexplained": unexplained}


def _unexplained(seconds: np.ndarray, costs: np.ndarray, batch: int) -> float | None:
    """Return the standard deviation of what the costs do not tell of an event's seconds, from the
    times of batches about the line through them; None of fewer than four batches.
    """
    if len(seconds) < 4:
        return None
    of_steps = costs.reshape(len(seconds), batch).sum(1)
    design = np.stack([np.ones(len(seconds)), of_steps], 1)
    left = seconds - design @ np.linalg.lstsq(design, seconds, rcond=None)[0]
    return float(np.sqrt(left @ left / (len(seconds) - 2) / batch))


def _of_events(steps: list[_TimedStep], costs: np.ndarray, batch: int) -> np.ndarray:
    """Return the seconds of each event. Where the events of a step ran together, an event is taken
    to take a + b times its cost (data.balance), with a, b >= 0 fitted to the times of the steps.
    """
    if all(len(step.events) == batch for step in steps):
        return np.array([t for step in steps for t in step.events])
    seconds = np.array([sum(step.events) for step in steps])
    of_steps = costs.reshape(len(steps), batch).sum(1)
    spread = of_steps - of_steps.mean()
    slope = float(spread @ seconds / max(spread @ spread, 1e-9))
    slope = min(max(slope, 0.0), seconds.sum() / max(of_steps.sum(), 1e-9))
    return (seconds.mean() - slope * of_steps.mean()) / batch + slope * costs


class _TimedStep(NamedTuple):
    """Seconds of a step: of each piece of its events, which is often a single one, of the last
    backward pass, of all of it.
    """

    events: list[float]
    last_backward: float
    wall: float


def _one_pass(
    comm: Any, model: Any, images: list[Any], labels: np.ndarray, steps: list[slice]
) -> list[_TimedStep]:
    """Make the steps, which all ranks begin together, and return their times."""
    done = []
    if comm:
        comm.Barrier()
    for part in steps:
        with Ledger(detail=True) as ledger:
            batch = images[part], labels[part]
            train_step(model, [batch], model.optimizer, ledger=ledger)
            ledger.step()
        events, last_backward = event_seconds(ledger.epoch.pieces)
        done.append(_TimedStep(events, last_backward, ledger.epoch.walls[0]))
    return done


def event_seconds(pieces: list[Any]) -> tuple[list[float], float]:
    """Return ([seconds of each event, or of those that run together], seconds of the last backward
    pass and what follows it) from the pieces of one step's main thread.

    Events begin where their pixels enter ("transfer", directly within the step) and end with their
    backward pass. Packing and resting tables are due once per update, whichever event comes first:
    they do not count as part of it.
    """
    step = next(piece for piece in pieces if piece[0][0] == "step")
    _, _, _, _, step_end = step
    main = [piece for piece in pieces if piece[1] == "main" and piece is not step]
    main.sort(key=lambda piece: (piece[3], -piece[4]))  # by start, what contains others first
    begins, backward_passes, once_per_update = [], [], []
    open_pieces: list[Any] = []  # those that contain the piece at hand
    for piece in main:
        (name, layer), _, _, start, end = piece
        while open_pieces and open_pieces[-1][4] <= start:
            open_pieces.pop()
        depth = len(open_pieces)
        inside_counted = any(_once_per_update(outer) for outer in open_pieces)
        open_pieces.append(piece)
        if name == "transfer" and depth == 1:
            begins.append(start)
        elif name == "backward" and depth == 1 and layer != "resting tables":
            backward_passes.append((start, end))
        if _once_per_update(piece) and not inside_counted:
            once_per_update.append((start, end))
    bounds = [*begins, max(end for _, end in backward_passes)]
    seconds = [
        after
        - before
        - sum(end - start for start, end in once_per_update if before <= start < after)
        for before, after in pairwise(bounds)
    ]
    last_backward = min(start for start, _ in backward_passes if start >= begins[-1])
    return seconds, step_end - last_backward


def _once_per_update(piece: Any) -> bool:
    name, layer = piece[0]
    return name == "pack weights" or layer == "resting tables"


def _allreduces(comm: Any, gradient_bytes: int) -> list[tuple[int, float]]:
    """Return [(bytes, seconds)], the mean over ranks; empty on one."""
    if not comm:
        return []
    points = []
    for n in sorted({*MESSAGES, gradient_bytes}):
        per_rank = agree(comm, value=allreduce_seconds(comm, n // 4, 15))
        points.append((n, statistics.fmean(per_rank)))
    return points


def _links(comm: Any, gradient_bytes: int) -> dict[str, Any]:
    """Return {"nodes": ranks of each node, "within", "between": [(bytes, seconds)] of an exchange
    between two ranks of a node and of two nodes, empty where there are none}.
    """
    nodes = ranks_of_nodes(comm)
    sizes = sorted({*MESSAGES, gradient_bytes // 2})  # half: the largest of an Allreduce's messages
    shared = next((ranks[:2] for ranks in nodes if len(ranks) > 1), None)
    apart = [ranks[0] for ranks in nodes[:2]] if len(nodes) > 1 else None
    found: dict[str, Any] = {"nodes": [len(ranks) for ranks in nodes]}
    for name, pair in (("within", shared), ("between", apart)):
        found[name] = (
            [(n, exchange_seconds(comm, pair[0], pair[1], n)) for n in sizes] if pair else []
        )
    return found


def _memory(values: int) -> dict[str, float]:
    """Return the seconds to add a byte of a buffer of so many float32 to another, and the bytes/s,
    read and written, of a large copy.
    """
    a, b = np.ones(values, np.float32), np.ones(values, np.float32)
    large = np.ones(1 << 25, np.float32)
    out = np.empty_like(large)
    return {
        "gamma": _median_seconds(lambda: np.add(a, b, out=a)) / a.nbytes,
        "memory_bandwidth": 2 * large.nbytes / _median_seconds(lambda: np.copyto(out, large)),
    }


def _sizes(store: EventStore, path: StrPath) -> dict[str, float]:
    """Return the bytes of this rank's process but for its events, of an event in memory, and of one
    in the file.
    """
    with open_events(path) as source:
        events = len(source)
    return {
        "rank_bytes": float(max(peak_memory_bytes() - store.nbytes, 0)),
        "event_bytes": store.nbytes / len(store),
        "file_bytes": Path(path).stat().st_size / events,
    }


def _median_seconds(call: Callable[[], Any], repeats: int = 9) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _training(summaries: list[Summary]) -> dict[str, float]:
    """Return the mean seconds of a step and of its parts in the epoch of a real training whose
    steps were of median length.
    """
    by_length = sorted(summaries, key=lambda summary: summary.wall)
    middle = by_length[(len(by_length) - 1) // 2]
    wait = sum(s for (name, _), s in middle.mean.items() if name == WAIT)
    communication = sum(s for (name, _), s in middle.mean.items() if name in COMMUNICATION)
    return {
        "step": middle.wall,
        "wait": wait,
        "communication": communication,
        "compute": middle.wall - wait - communication,
    }


def calibrate(results: dict[int, Any], options: MeasureOptions) -> Calibration:
    """Return the Calibration from {ranks: what ``measure`` returned}.

    Single events are taken from the fewest ranks, links and the Allreduce from the most that have
    cores of their own, or else from the fewest of several.
    """
    threads, cores = options.threads, threads_per_rank(None)
    several = [ranks for ranks in results if ranks > 1]
    base = results[min(results)]["calibration"]
    found = Calibration(
        f"{describe()['cpu']}, {platform.machine()}",
        cores,
        threads,
        options.size,
        options.batch,
        base["parameters"],
        base["events"],
        base["fixed"],
        base["backward"],
        base["load"],
        base["gamma"],
        base["memory_bandwidth"],
        {
            max(result["calibration"]["nodes"]): result["calibration"]["whole"] / base["whole"]
            for result in results.values()
            if "whole" in result["calibration"] and max(result["calibration"]["nodes"]) > 1
        },
        allreduce={ranks: results[ranks]["calibration"]["allreduce"] for ranks in several},
        measured={ranks: result["training"] for ranks, result in results.items()},
        unexplained=base.get("unexplained"),
        **{name: base.get(name) for name in ("rank_bytes", "event_bytes", "file_bytes", "read")},
        nodes={ranks: result["calibration"]["nodes"] for ranks, result in results.items()},
    )
    if several:
        with_cores = [ranks for ranks in several if max(found.nodes[ranks]) * threads <= cores]
        chosen = max(with_cores or [min(several)])
        figures = results[chosen]["calibration"]
        if figures["within"]:
            link = link_of(figures["within"], found.bytes // 2, found.gamma)
            found.alpha, found.beta = link.alpha, link.beta
        if figures["between"]:
            link = link_of(figures["between"], found.bytes // 2, found.gamma)
            found.fabric_alpha, found.fabric_beta = link.alpha, link.beta
        setting = found.measured_setting(chosen)
        found.algorithm = like(found.allreduce[chosen], chosen, found.bytes, setting)
    return found

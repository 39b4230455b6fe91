"""Measurements for the performance model: single events, updates, loading, memory, Allreduce, and
real training to compare with.
"""

import platform
import statistics
import time
from itertools import pairwise

import numpy as np

from ..data import EventStore, open_events
from ..kernels.cpu.machine import describe
from ..nn import networks as models
from ..parallel import agree, everywhere, threads_per_rank
from ..parallel.machine import allreduce_seconds
from ..train.fit import train_step
from ..train.optim import SGD
from .performance import Calibration, fit_link
from .trace import COMMUNICATION, WAIT, Ledger

#: Bytes of the Allreduces that are timed, beside the gradients.
MESSAGES = (4, 1 << 12, 1 << 16, 1 << 20, 1 << 24)


def measure(comm, path, size, batch, threads, per_rank, epochs=5, computing=True, device="cpu"):
    """Return what these ranks measure, the same on all: {"calibration": parts of one, "training":
    mean seconds of a step and its parts}.

    path: a file with at least ranks * per_rank events. All ranks compute the same events at the
    same time to see how much they slow each other down (not without ``computing``); then each
    trains on events of its own, with the ledger; the first of ``epochs`` does not count, and of the
    others that of median length does.
    """
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    steps = per_rank // batch
    if steps < 1 or epochs < 2:
        raise ValueError(
            f"{per_rank} events per rank give no batch of {batch}, or {epochs} epochs leave none to measure"
        )

    def load(first, count):
        with open_events(path, size=size) as source:
            if len(source) < ranks * per_rank:
                raise ValueError(
                    f"{path} holds {len(source)} events, {ranks} ranks need {ranks * per_rank}"
                )
            return EventStore().load(source, range(first, first + count))

    shared, own = (
        everywhere(comm, lambda first=first: load(first, steps * batch))
        for first in (0, rank * per_rank)
    )
    model = models.microboone(
        size,
        device=device,
        input_scale=0.05 * size / 3600,
        input_knee=100 * 3600 / size,
        optimizer=SGD(1e-4, momentum=0.9),
    )
    model.kernels.set_threads(threads)
    figures = _computing(comm, model, shared, batch, steps) if computing else {}
    figures["allreduce"] = _allreduces(comm, 4 * model.gradients.size)
    figures |= {"parameters": int(model.parameters.size)} | _memory(model.gradients.size)
    ledger = Ledger(detail=True, keep=0)
    model.fit(own, epochs=epochs, batch_size=batch, comm=comm, threads=threads, ledger=ledger)
    return {"calibration": figures, "training": _training(ledger.summaries[1:])}


def _computing(comm, model, store, batch, steps, passes=4):
    """Return the times of events and of updates on this node while every rank does the same:
    medians over passes (the least for whole batches), means over ranks."""
    start = time.perf_counter()
    images, labels = store.batch(range(steps * batch))
    load = (time.perf_counter() - start) / len(images)
    events, fixed, walls, backward = [], [], [], []
    for one in range(-1, passes):  # the first pass, of one step, compiles
        if comm:
            comm.Barrier()
        for first in range(0, len(images) if one >= 0 else batch, batch):
            with Ledger(detail=True) as ledger:
                train_step(
                    model,
                    images[first : first + batch],
                    labels[first : first + batch],
                    model.optimizer,
                    ledger=ledger,
                )
                ledger.step()
            if one >= 0:
                single, last = event_seconds(ledger.epoch.pieces)
                events += single
                walls.append(ledger.epoch.walls[0])
                fixed.append(walls[-1] - sum(single))
                backward.append(last)
    median = np.median(np.reshape(events, (passes, -1)), 0)
    whole = np.min(
        np.reshape(walls, (passes, -1)), 0
    ).mean()  # the calmest pass: it tells ranks from neighbours
    mine = {
        "fixed": statistics.median(fixed),
        "load": load,
        "backward": statistics.median(backward),
        "whole": float(whole),
    }
    everyone = agree(comm, value=mine)
    return {key: statistics.fmean(one[key] for one in everyone) for key in mine} | {
        "events": median.tolist()
    }


def event_seconds(pieces):
    """Return ([seconds of each event], seconds of the last backward pass and what follows it) from
    the pieces of one step's main thread.

    An event begins where its pixels enter ("transfer", directly within the step) and ends with its
    backward pass; packing and resting tables, which are due once per update whoever comes first, do
    not count as its.
    """
    step = next(p for p in pieces if p[0][0] == "step")
    begins, ends, once, around = [], [], [], []
    main = sorted(
        (p for p in pieces if p[1] == "main" and p is not step), key=lambda p: (p[3], -p[4])
    )
    for (name, layer), _, _, start, end in main:
        while around and around[-1][1] <= start:
            around.pop()
        depth, counted = len(around), any(map(_once, (part for part, _ in around)))
        around.append(((name, layer), end))
        if name == "transfer" and depth == 1:
            begins.append(start)
        elif name == "backward" and depth == 1 and layer != "resting tables":
            ends.append((start, end))
        if _once((name, layer)) and not counted:
            once.append((start, end))
    bounds = [*begins, max(end for _, end in ends)]
    seconds = [
        after - before - sum(end - start for start, end in once if before <= start < after)
        for before, after in pairwise(bounds)
    ]
    return seconds, step[4] - min(start for start, _ in ends if start >= begins[-1])


def _once(part):
    return part[0] == "pack weights" or part[1] == "resting tables"


def _allreduces(comm, gradients):
    """Return [(bytes, seconds)], the mean over ranks; empty on one."""
    if not comm:
        return []
    return [
        (n, statistics.fmean(agree(comm, value=allreduce_seconds(comm, n // 4, 15))))
        for n in sorted({*MESSAGES, gradients})
    ]


def _memory(values):
    """Return the seconds to add a byte of such a buffer to another, and the bytes/s, read and
    written, of a large copy.
    """
    a, b, large = (
        np.ones(values, np.float32),
        np.ones(values, np.float32),
        np.ones(1 << 25, np.float32),
    )
    out = np.empty_like(large)

    def best(call, repeats=9):
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    return {
        "gamma": best(lambda: np.add(a, b, out=a)) / a.nbytes,
        "memory_bandwidth": 2 * large.nbytes / best(lambda: np.copyto(out, large)),
    }


def _training(summaries):
    """Return the mean seconds of a step and of its parts in the epoch of a real training whose
    steps were of median length.
    """
    one = sorted(summaries, key=lambda summary: summary.wall)[(len(summaries) - 1) // 2]
    wait, communication = (
        sum(s for (name, _), s in one.mean.items() if name in names)
        for names in ((WAIT,), COMMUNICATION)
    )
    return {
        "step": one.wall,
        "wait": wait,
        "communication": communication,
        "compute": one.wall - wait - communication,
    }


def calibrate(results, size, batch, threads):
    """Return the Calibration from {ranks: what ``measure`` returned}: single events from the fewest
    ranks, the Allreduce from the most that have cores of their own, or else the fewest of
    several."""
    first, several = min(results), [r for r in results if r > 1]
    base, cores = results[first]["calibration"], threads_per_rank(None)
    found = Calibration(
        f"{describe()['cpu']}, {platform.machine()}",
        cores,
        threads,
        size,
        batch,
        base["parameters"],
        base["events"],
        base["fixed"],
        base["backward"],
        base["load"],
        base["gamma"],
        base["memory_bandwidth"],
        {
            r: one["calibration"]["whole"] / base["whole"]
            for r, one in results.items()
            if "whole" in one["calibration"]
        },
        allreduce={r: results[r]["calibration"]["allreduce"] for r in several},
        measured={r: one["training"] for r, one in results.items()},
    )
    if several:
        p = max([r for r in several if r * threads <= cores] or [min(several)])
        link = fit_link(found.allreduce[p], p, found.gamma)
        found.alpha, found.beta = link.alpha, link.beta
    return found

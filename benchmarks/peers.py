"""One training step of the talk's network in minicnn, Keras/TensorFlow and PyTorch: the same
events, the same weights, one run.

    pip install minicnn[peers]       # keras, tensorflow-cpu and torch
    python benchmarks/peers.py [--batch-size 1 8] [--events FILE] [--real FILE] [--noise]
                               [--engines NAME ...] [--repeats 5] [--threads 2] [--size 3600]
                               [--json FILE] [--plot PNG]

torch's CPU wheel: pip install torch --index-url https://download.pytorch.org/whl/cpu

A step is forward, backward and the update (SGD, momentum 0.9), with the packing of weights; all in
float32. Peers get their batch as a dense, scaled array that is ready before the clock starts;
minicnn gets sparse events, as its store gives them, and what it does with them is inside the time.
Of events with noise in every pixel minicnn gets dense images. "pool first" is the same network with
the pooling before the ELU, which increases: the same numbers with 1/25 of the ELUs.

First loss, gradients of all weights and the change of all weights by two steps are compared on two
simulated events. Then each engine gets a process of its own, one set per batch size, with the same
number of threads; only one of them works at a time, and they take turns, so that a change of the
machine's speed meets all. A turn is one pass over all events, cut off after a second, at least one
step; its time per event is one sample. Peak memory is that of an engine's process up to the end of
its turns on the set of events. Larger batches than the smallest are measured with peers that are
within SLOWER of the fastest, and on the first set of events: what a peer needs does not depend on
what is lit. What is left out, or not installed, is named.

Sets of events: simulated single particles (or those of --events); --real: a real event with its
cosmics, and its mirror images; --noise: Gaussian noise in every pixel, where no engine can save
anything.
"""

import importlib
import importlib.util
import os
import statistics
import time
from contextlib import suppress

import numpy as np
import psutil
from common import parser, record
from peers_check import check
from peers_engines import ENGINES, OURS, SLOW, Worker, initial_weights
from peers_report import draw, fastest_peer, goals, print_table

import minicnn as mc
from minicnn.files import cpu_model

#: A peer this many times slower than the fastest is left out of larger batches.
SLOWER = 1.4
INSTALL = {
    "keras": "pip install keras tensorflow-cpu",
    "tensorflow": "pip install tensorflow-cpu",
    "torch": "pip install torch",
}


# ------------------------------------------------------------------------------------------- events
def event_sets(args):
    """Return {name: (images, labels)}."""
    count = max(args.batch_size) * -(-args.number // max(args.batch_size))
    if args.events:
        with mc.data.open_events(args.events, size=args.size) as reader:
            events = [reader.read(i % len(reader)) for i in range(count)]
    else:
        simulator = mc.data.Simulator(seed=args.seed, shape=(args.size, args.size, 1))
        events = [simulator.read(i) for i in range(count)]
    sets = {
        "simulated" if not args.events else "events": (
            [e.image for e in events],
            [max(int(e.label), 0) for e in events],
        )
    }
    if args.real:
        with mc.data.open_events(args.real, size=args.size) as reader:
            image = reader.read(0).image
        sets["real"] = [mirrored(image, k) for k in range(8)], [k % 5 for k in range(8)]
    if args.noise:
        rng = np.random.default_rng(args.seed)
        images = [10 * rng.standard_normal((args.size, args.size, 1), np.float32) for _ in range(2)]
        sets["noise"] = images, [1, 2]
    return sets


def mirrored(image, k):
    """Return one of the eight mirror images of a square SparseImage."""
    at, last = image.coords, image.shape[0] - 1
    at = at[:, ::-1] if k & 4 else at
    at = np.stack(
        [last - at[:, 0] if k & 2 else at[:, 0], last - at[:, 1] if k & 1 else at[:, 1]], 1
    )
    return mc.data.SparseImage.from_pixels(
        at[:, 0], at[:, 1], image.values, image.shape, image.background
    )


# ------------------------------------------------------------------------------------------ the run
def installed(engines):
    """Return those of ``engines`` that can run here, and say how to get the others."""
    able = []
    for name in engines:
        missing = [
            module for module in ENGINES[name][2] if importlib.util.find_spec(module) is None
        ]
        if missing:
            print(
                f"{name}: left out, {INSTALL[missing[0]]} (all peers: pip install minicnn[peers])"
            )
        else:
            able.append(name)
    return able


def free_memory():
    """Return the memory that is free, in MB."""
    return psutil.virtual_memory().available / 2**20


def choose(engines, rows, first, size):
    """Return the engines to measure at batch ``size``: with rows of a smaller batch only peers that
    are fast and fit into memory.

    Idle peers keep their memory, so they have to fit together; the fastest come first, and a third
    of what is free is left alone.
    """
    best, left, chosen = (
        fastest_peer(rows, first),
        0.7 * free_memory(),
        [name for name in engines if name in OURS],
    )
    known = {
        r["engine"]: r for r in reversed(rows) if r["events"] == first and r["engine"] not in OURS
    }
    for name in sorted(
        (name for name in engines if name not in OURS),
        key=lambda name: known[name]["median"] if name in known else 0,
    ):
        if name not in known:
            if not rows:
                chosen.append(name)
            continue
        r = known[name]
        needed = r["idle"] + (r["memory"] - r["idle"]) * size / r["batch"]
        if r["median"] > SLOWER * best["median"]:
            print(
                f"{name}: batch {size} left out, {r['median'] / best['median']:.1f} times slower "
                f"than {best['engine']}"
            )
        elif needed > left:
            print(
                f"{name}: batch {size} left out, it would need about {needed / 1024:.0f} GB, "
                f"{left / 1024:.0f} GB are left for it"
            )
        else:
            chosen.append(name)
            left -= needed
    return [name for name in engines if name in chosen]


def measure(engines, args, weights, sets):
    """Return the rows of the table."""
    rows, first, smallest = [], next(iter(sets)), min(args.batch_size)
    for size in sorted(args.batch_size):
        chosen = choose(engines, rows, first, size)
        workers = [Worker(name, args.size, weights, args.threads) for name in chosen]
        for events, (images, labels) in sets.items():
            workers = [
                w for w in workers if w.engine in OURS or events == first or size == smallest
            ]
            samples = {name: [] for name in chosen}
            for repeat in range(-1, args.repeats):
                for worker in workers:
                    answer = (
                        worker.ask("events", images, labels, size)
                        if repeat < 0
                        else worker.ask("turn", args.seconds)
                    )
                    if answer and repeat >= 0:
                        samples[worker.engine].append(answer)
                    time.sleep(args.pause)  # threads of this engine stop spinning
            for worker in workers:
                if worker.problem:
                    print(f"{worker.engine}, batch {size}, {events}: {worker.problem}")
                    continue
                seconds, peaks = zip(*samples[worker.engine])
                rows.append(
                    {
                        "events": events,
                        "engine": worker.engine,
                        "batch": size,
                        "median": statistics.median(seconds),
                        "min": min(seconds),
                        "max": max(seconds),
                        "memory": max(peaks),
                        "idle": worker.idle,
                        "samples": seconds,
                    }
                )
        for worker in workers:
            worker.stop()
    return rows


def versions(engines):
    """Return the versions of what is compared."""
    from importlib.metadata import version

    wanted = [
        "minicnn",
        "numpy",
        "numba",
        *dict.fromkeys(m for name in engines for m in ENGINES[name][2]),
    ]
    out = {}
    for name in wanted:
        for package in (name, name + "-cpu", name + "_cpu"):
            with suppress(importlib.metadata.PackageNotFoundError):
                out.setdefault(name, version(package))
    return out


def main(argv=None):
    p = parser(__doc__, plot=True)
    p.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    p.add_argument("--events", help="take events of this file instead of simulated ones")
    p.add_argument("--real", metavar="FILE", help="measure on the first event of this file too")
    p.add_argument(
        "--noise", action="store_true", help="measure on events with noise in every pixel too"
    )
    p.add_argument(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=[name for name in ENGINES if name not in SLOW],
        metavar="NAME",
        help="which ones: " + ", ".join(ENGINES),
    )
    p.add_argument("--repeats", type=int, default=5, help="turns of each engine")
    p.add_argument(
        "--seconds", type=float, default=1.0, help="a turn ends after so long, or after all events"
    )
    p.add_argument("--pause", type=float, default=0.3, help="seconds between two turns")
    p.add_argument("--number", type=int, default=16, help="events")
    p.add_argument("--seed", type=int, default=0, help="of the simulated events")
    args = p.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(
        args.threads
    )  # of all processes started below
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    engines = installed(args.engines)
    if not engines:
        raise SystemExit("none of these engines is installed")
    found = ", ".join(f"{name} {number}" for name, number in versions(engines).items())
    print(
        f"training step at {args.size} x {args.size}, float32, {args.threads} threads of "
        f"{os.cpu_count()} cores, {cpu_model()}; "
        f"{found}\nmedian, least and most of {args.repeats} turns; load average before: "
        f"{', '.join(f'{x:.2f}' for x in load)}"
    )
    weights, sets = initial_weights(args.size), event_sets(args)
    images, labels = next(iter(sets.values()))
    engines, differences = check(engines, args, weights, images[:2], labels[:2])
    rows = measure(engines, args, weights, sets)
    print_table(rows, sets)
    reached = goals(rows)
    if reached:
        print("\nmust reach (on 2 cores, at size 3600)")
        for what, required, measured, ok in reached:
            print(f"{'yes' if ok else 'NO':<5}{what:<96}{measured:>9}   {required}")
    record(
        args.json,
        {
            "size": args.size,
            "threads": args.threads,
            "cores": os.cpu_count(),
            "versions": versions(engines),
            "load": load,
            "differences": differences,
            "rows": rows,
            "goals": reached,
        },
    )
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()

"""One training step of the talk's network in minicnn, Keras/TensorFlow and PyTorch, and of the
submanifold network of the same layers in spconv: the same events, the same weights, one run.

    pip install "minicnn[peers]"     # keras, tensorflow-cpu, torch and spconv
    python benchmarks/peers.py [--batch-size 1 8] [--events FILE] [--talk] [--real FILE] [--noise]
                               [--planes] [--bf16] [--engines NAME ...] [--repeats 5]
                               [--threads 2] [--size 3600] [--json FILE] [--plot PNG]
    python benchmarks/peers.py --layers [--batch-size 1 8] [--json FILE]

torch's CPU wheel: pip install torch --index-url https://download.pytorch.org/whl/cpu

A step is forward, backward and the update (SGD, momentum 0.9), with the packing of weights; all in
float32. Peers get their batch as a dense, scaled array that is ready before the clock starts;
minicnn gets sparse events, as its store gives them, and what it does with them is inside the time.
spconv gets its lit pixels as tensors, ready before the clock starts; its lists of pairs are inside.
Of events with noise in every pixel minicnn gets dense images. "pool first" is the same network with
the pooling before the ELU, which increases: the same numbers with 1/25 of the ELUs.

Two kinds of rows have a mark, and are never the "fastest fp32 peer". spconv computes another
function (peers_spconv.py says which, and how it was set up). --bf16 adds PyTorch under autocast,
Keras with mixed_bfloat16 and minicnn's dense blocks with precision="bf16", which round otherwise,
where the CPU multiplies bf16 numbers.

First loss, gradients of all weights and the change of all weights by two steps are compared on two
simulated events. Then each engine gets a process of its own, one set per batch size, with the same
number of threads; only one of them works at a time, and they take turns, so that a change of the
machine's speed meets all. A turn is a second of steps, at least one: of an engine that is through
all events by then as many passes as it began, so that all have the same time, in which what was
cold in the first step hardly counts; its time per event is one sample. Peak memory is that of an
engine's process up to the end of its turns on the set of events. Larger batches than the smallest
are measured with peers that are within SLOWER of the fastest, and on the first set of events: what
a peer needs does not depend on what is lit (what spconv needs does). What is left out, or not
installed, is named.

Sets of events: simulated single particles (or those of --events); --talk: one particle of the
talk's kind, along the beam with 1.5 GeV/c; --real: a real event with its cosmics, and its mirror
images; --noise: Gaussian noise in every pixel, where no engine can save anything; --planes: three
planes of each simulated event, for a network with one trunk and three inputs, checked and measured
by itself.

--layers compares single convolutions instead (peers_layers.py).
"""

import importlib
import importlib.util
import os
import statistics
from contextlib import suppress

import psutil
from common import parser, record
from peers_check import check
from peers_engines import BF16, ENGINES, SLOW, SUBMANIFOLD, has_bf16, initial_weights
from peers_events import event_sets, plane_sets
from peers_layers import compare_layers
from peers_report import draw, fastest_peer, goals, print_table
from peers_workers import Worker, take_turns

from minicnn.files import cpu_model

#: A peer this many times slower than the fastest is left out of larger batches.
SLOWER = 1.4
INSTALL = {
    "keras": "pip install keras tensorflow-cpu",
    "tensorflow": "pip install tensorflow-cpu",
    "torch": "pip install torch",
    "spconv": "pip install spconv==2.3.8 cumm==0.7.11",
}


# ------------------------------------------------------------------------------------------ the run
def installed(engines):
    """Return those of ``engines`` that can run here, and say why others cannot."""
    able = []
    for name in engines:
        missing = [
            module for module in ENGINES[name].modules if importlib.util.find_spec(module) is None
        ]
        if missing:
            print(
                f'{name}: left out, {INSTALL[missing[0]]} (all peers: pip install "minicnn[peers]")'
            )
        elif ENGINES[name].mark == BF16 and not has_bf16():
            print(f"{name}: left out, this CPU ({cpu_model()}) has no bf16 arithmetic")
        else:
            able.append(name)
    return able


def free_memory():
    """Return the memory that is free, in MB."""
    return psutil.virtual_memory().available / 2**20


def choose(engines, rows, first, size):
    """Return the engines to measure at batch ``size``: with rows of a smaller batch only peers that
    are fast and fit into memory.

    Idle peers keep their memory, so they have to fit together; those in float32 come first, the
    fastest before the others, and a third of what is free is left alone.
    """
    best, left = fastest_peer(rows, first), 0.7 * free_memory()
    chosen = [name for name in engines if ENGINES[name].lit]
    known = {r["engine"]: r for r in reversed(rows) if r["events"] == first}
    for name in sorted(
        (name for name in engines if not ENGINES[name].lit),
        key=lambda name: (bool(ENGINES[name].mark), known.get(name, {}).get("median", 0)),
    ):
        if name not in known:
            if not rows:
                chosen.append(name)
            continue
        r = known[name]
        needed = r["idle"] + (r["memory"] - r["idle"]) * size / r["batch"]
        if best and r["median"] > SLOWER * best["median"]:
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


def takes_part(engine, events, first):
    """Return whether an engine is measured on a set of events also where it is not the smallest
    batch; ``first`` is the first set.
    """
    return events == first or ENGINES[engine].lit


def measure(engines, args, weights, sets):
    """Return the rows of the table; ``sets`` are those of one network."""
    rows, first, smallest = [], next(iter(sets)), min(args.batch_size)
    for size in sorted(args.batch_size):
        workers = [Worker.of(name, args, weights) for name in choose(engines, rows, first, size)]
        for events, (images, labels) in sets.items():
            some = [w for w in workers if size == smallest or takes_part(w.engine, events, first)]
            if events == "noise":  # lists of all its pixels do not fit into memory
                some = [w for w in some if ENGINES[w.engine].mark != SUBMANIFOLD]
            samples = take_turns(some, args, ("events", images, labels, size))
            for worker in some:
                if worker.problem:
                    print(f"{worker.engine}, batch {size}, {events}: {worker.problem}")
                    continue
                seconds, peaks = zip(*samples[worker.engine])
                rows.append(
                    {
                        "events": events,
                        "engine": worker.engine,
                        "mark": ENGINES[worker.engine].mark,
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
        *dict.fromkeys(m for name in engines for m in ENGINES[name].modules),
    ]
    out = {}
    for name in wanted:
        for package in (name, name + "-cpu", name + "_cpu"):
            with suppress(importlib.metadata.PackageNotFoundError):
                out.setdefault(name, version(package))
    return out


def arguments(argv=None):
    """Return the parsed arguments."""
    p = parser(__doc__, plot=True)
    p.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    p.add_argument("--events", help="take events of this file instead of simulated ones")
    p.add_argument("--talk", action="store_true", help="measure on particles of the talk's too")
    p.add_argument("--real", metavar="FILE", help="measure on the first event of this file too")
    p.add_argument(
        "--noise", action="store_true", help="measure on events with noise in every pixel too"
    )
    p.add_argument(
        "--planes", action="store_true", help="measure a network of three planes with one trunk too"
    )
    p.add_argument(
        "--bf16",
        action="store_true",
        help="measure torch, keras and minicnn with bf16 products too",
    )
    p.add_argument(
        "--layers", action="store_true", help="compare single convolutions instead of steps"
    )
    p.add_argument(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=[name for name, kind in ENGINES.items() if name not in SLOW and kind.mark != BF16],
        metavar="NAME",
        help="which ones: " + ", ".join(ENGINES),
    )
    p.add_argument("--repeats", type=int, default=5, help="turns of each engine")
    p.add_argument("--seconds", type=float, default=1.0, help="of steps in a turn")
    p.add_argument("--pause", type=float, default=0.3, help="seconds between two turns")
    p.add_argument("--number", type=int, default=16, help="events")
    p.add_argument("--seed", type=int, default=0, help="of the simulated events")
    args = p.parse_args(argv)
    if args.bf16:
        more = [name for name, kind in ENGINES.items() if kind.mark == BF16]
        args.engines = list(dict.fromkeys([*args.engines, *more]))
    return args


def steps(engines, args):
    """Check and measure whole steps, and print the table; returns the record's figures."""
    sets, differences, rows = {}, {}, []
    networks = [(engines, 1, event_sets(args))]
    if args.planes:
        networks.append(([n for n in engines if ENGINES[n].planes], 3, plane_sets(args)))
    for able, planes, some in networks:
        if not able:
            print("three planes: left out, none of these engines is measured on them")
            continue
        weights = initial_weights(args.size, planes=planes)
        images, labels = next(iter(some.values()))
        able, found = check(able, args, weights, images[:2], labels[:2])
        differences[f"{planes} planes" if planes > 1 else "1 plane"] = found
        rows += measure(able, args, weights, some)
        sets |= some
    print_table(rows, sets)
    reached = goals(rows)
    if reached:
        print("\nmust reach (on 2 cores, at size 3600)")
        for what, required, measured, ok in reached:
            print(f"{'yes' if ok else 'NO':<5}{what:<96}{measured:>9}   {required}")
    return {"differences": differences, "rows": rows, "goals": reached}


def main(argv=None):
    args = arguments(argv)
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
    figures = {"layers": compare_layers(args)} if args.layers else steps(engines, args)
    record(
        args.json,
        {
            "size": args.size,
            "threads": args.threads,
            "cores": os.cpu_count(),
            "versions": versions(engines),
            "load": load,
            **figures,
        },
    )
    if args.plot and not args.layers:
        draw(figures["rows"], args.plot)


if __name__ == "__main__":
    main()

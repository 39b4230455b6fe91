"""One training step of the talk's network: time and memory per event, part by part.

    python benchmarks/step.py [--size 3600] [--batch-size 1 8] [--threads 2] [--busy] [--json FILE]

Simulated single-particle events, weight packing and the update included; compilation is excluded
and reported.

--busy measures again beside one process on each core that never rests, and what part of the cores
the steps then got (processor time over time and cores; threads that wait asleep leave theirs to
others). Two such sets: processes of this session, of which Linux gives each thread the same share,
half a core; and processes of sessions of their own, as other users' are: where the kernel groups by
session (sched_autogroup_enabled), each session gets the same share of the machine, which with two
threads on two cores beside two sessions is a third.
"""

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import numpy as np
from common import parser, record

import minicnn as mc
from minicnn.files import cpu_model
from minicnn.jobs.recipe import Recipe
from minicnn.parallel.machine import peak_memory_bytes


def measure(size, batch, threads, repeats, device="cpu"):
    """Return a dictionary with the median, minimum and maximum seconds per event of ``repeats``
    steps of ``batch`` events.
    """
    model = Recipe(size=size).build_model(mc.SGD(1e-3, momentum=0.9), device=device)
    model.kernels.set_threads(threads)
    simulator = mc.data.Simulator(seed=0, shape=(size, size, 1), sample="isotropic")
    events = [simulator.read(i) for i in range(batch * 4)]
    start = time.perf_counter()
    seconds, used = [], 0.0
    for step in range(-1, repeats):
        some = [events[(step * batch + i) % len(events)] for i in range(batch)]
        begin, before = time.perf_counter(), time.process_time()
        loss = model.train_on_batch([e.image for e in some], np.array([e.label for e in some]))
        if not np.isfinite(loss):
            raise SystemExit(f"step {step}: the loss is {loss}")
        if step < 0:
            first = time.perf_counter() - start
        else:
            seconds.append((time.perf_counter() - begin) / batch)
            used += time.process_time() - before
    return {
        "batch": batch,
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "first_step": first,
        "share_of_cores": used / (batch * sum(seconds) * threads),
    }


BUSY = """
import os, sys
core, parent = map(int, sys.argv[1:])
os.sched_setaffinity(0, {core})
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def busy_cores(own_sessions):
    """One process on each core that never rests, until this one has gone."""
    with ExitStack() as running:
        for core in sorted(os.sched_getaffinity(0)):
            program = [sys.executable, "-c", BUSY, str(core), str(os.getpid())]
            process = subprocess.Popen(program, start_new_session=own_sessions)
            running.callback(process.wait)
            running.callback(process.kill)
        time.sleep(0.5)
        yield


def beside_busy_cores(args, rows):
    """Measure and print the steps again; return the rows."""
    found = []
    for own_sessions in (False, True):
        where = "sessions of their own" if own_sessions else "this session"
        print(f"beside a busy process of {where} on each core:")
        for quiet in rows:
            with busy_cores(own_sessions):
                row = measure(args.size, quiet["batch"], args.threads, args.repeats)
            times = row["median"] / quiet["median"]
            found.append({**row, "own_sessions": own_sessions, "times_quiet": times})
            print(
                f"{row['batch']:>6}{1e3 * row['median']:>14.1f}{1e3 * row['min']:>9.1f}"
                f"{1e3 * row['max']:>9.1f}   {times:.1f} times the quiet one, with "
                f"{row['share_of_cores']:.0%} of the cores"
            )
    return found


def main():
    p = parser(__doc__)
    p.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    p.add_argument("--repeats", type=int, default=9)
    p.add_argument("--busy", action="store_true", help="measure beside busy processes too")
    args = p.parse_args()
    print(
        f"training step at {args.size} x {args.size}, {args.threads} threads, {os.cpu_count()} "
        f"cores, {cpu_model()}, "
        f"median of {args.repeats}"
    )
    print(f"{'batch':>6}{'ms per event':>14}{'min':>9}{'max':>9}{'first step s':>14}")
    rows = []
    for batch in args.batch_size:
        row = measure(args.size, batch, args.threads, args.repeats)
        rows.append(row)
        print(
            f"{batch:>6}{1e3 * row['median']:>14.1f}{1e3 * row['min']:>9.1f}"
            f"{1e3 * row['max']:>9.1f}{row['first_step']:>14.2f}"
        )
    busy = beside_busy_cores(args, rows) if args.busy else []
    memory = peak_memory_bytes() / 2**20
    print(f"peak memory of the process {memory:.0f} MB")
    record(
        args.json,
        {
            "size": args.size,
            "threads": args.threads,
            "rows": rows,
            "busy": busy,
            "peak_memory_mb": memory,
        },
    )


if __name__ == "__main__":
    main()

"""One training step of the talk's network: time and memory per event, part by part.

    python benchmarks/step.py [--size 3600] [--batch-size 1 8] [--threads 2] [--events FILE] [--json
    FILE]

Simulated single-particle events, weight packing and the update included; compilation is excluded
and reported.
"""

import os
import statistics
import time

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
    seconds = []
    for step in range(-1, repeats):
        some = [events[(step * batch + i) % len(events)] for i in range(batch)]
        begin = time.perf_counter()
        loss = model.train_on_batch([e.image for e in some], np.array([e.label for e in some]))
        if not np.isfinite(loss):
            raise SystemExit(f"step {step}: the loss is {loss}")
        if step < 0:
            first = time.perf_counter() - start
        else:
            seconds.append((time.perf_counter() - begin) / batch)
    return {
        "batch": batch,
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "first_step": first,
    }


def main():
    p = parser(__doc__)
    p.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    p.add_argument("--repeats", type=int, default=9)
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
    memory = peak_memory_bytes() / 2**20
    print(f"peak memory of the process {memory:.0f} MB")
    record(
        args.json,
        {
            "size": args.size,
            "threads": args.threads,
            "rows": rows,
            "peak_memory_mb": memory,
        },
    )


if __name__ == "__main__":
    main()

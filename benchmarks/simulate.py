"""How fast events are simulated, per class and overall, with one process and with two.

    python benchmarks/simulate.py [--sample isotropic] [--events 400] [--size 3600] [--planes 1]

Every timing is repeated and its median given with the spread (max - min). Compilation is timed
apart: it happens once per machine. Before anything is timed, an event made by two processes is
compared bit for bit.
"""

import hashlib
import multiprocessing
import os
import statistics
import time

import numpy as np
from common import parser, record

from minicnn.files import cpu_model
from minicnn.simulate import SAMPLES, Simulator


def make(sample, shape, first, last):
    """Simulate events ``first`` to ``last``; return their numbers of lit pixels and a digest of the
    first one.
    """
    source = Simulator(seed=0, shape=shape, sample=sample)
    lit, digest = [], ""
    for i in range(first, last):
        image = source.read(i).image
        lit.append(image.nnz)
        if i == first:
            digest = hashlib.sha256(image.coords.tobytes() + image.values.tobytes()).hexdigest()
    return lit, digest


def rate(sample, shape, events, repeats):
    """Return (median events/s, spread, lit pixels of every event) of this process."""
    rates = []
    for k in range(repeats):
        start = time.perf_counter()
        lit, _ = make(sample, shape, k * events, (k + 1) * events)
        rates.append(events / (time.perf_counter() - start))
    return statistics.median(rates), max(rates) - min(rates), lit


def rate_of_processes(sample, shape, events, repeats, processes):
    """Return (median events/s, spread) of several processes together, without their start."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        shares = [(sample, shape, p * events, (p + 1) * events) for p in range(processes)]
        warm = pool.starmap(make, [(sample, shape, 0, 1)] * processes, chunksize=1)
        pool.starmap(make, [(sample, shape, 0, 20)] * processes, chunksize=1)
        assert {digest for _, digest in warm} == {make(sample, shape, 0, 1)[1]}, (
            "processes disagree about event 0"
        )
        rates = []
        for _ in range(repeats):
            start = time.perf_counter()
            pool.starmap(make, shares, chunksize=1)
            rates.append(processes * events / (time.perf_counter() - start))
    return statistics.median(rates), max(rates) - min(rates)


def main():
    p = parser(__doc__, threads=False)
    p.add_argument("--events", type=int, default=400, help="events per timing (default 400)")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--planes", type=int, default=1, choices=(1, 3))
    p.add_argument("--sample", default="isotropic", choices=SAMPLES, help="what is simulated")
    args = p.parse_args()
    sample = SAMPLES[args.sample]
    shape = (args.size, args.size, args.planes)

    start = time.perf_counter()
    make(sample, shape, 0, 1)
    first_event = time.perf_counter() - start
    out = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "sample": sample.name,
        "shape": shape,
        "events": args.events,
        "repeats": args.repeats,
        "first_event_s": first_event,
        "classes": {},
        "processes": {},
    }
    print(f"{out['cpu']}, {out['cores']} cores; image {shape[0]} x {shape[1]} x {shape[2]}")
    print(f"first event, compilation included (seconds if compiled before): {first_event:.1f} s\n")
    print(
        f"{'class':<12}{'events/s':>10}{'spread':>9}{'lit pixels (5 %, median, 95 %)':>34}"
        f"{'lit fraction':>14}"
    )
    for name in (*sample.classes, "all"):
        part = sample if name == "all" else sample.only((name,))
        median, spread, lit = rate(part, shape, args.events, args.repeats)
        low, middle, high = np.percentile(lit, (5, 50, 95))
        fraction = middle / (shape[0] * shape[1])
        out["classes"][name] = {
            "events_per_s": median,
            "spread": spread,
            "lit": [low, middle, high],
            "lit_fraction": fraction,
        }
        print(
            f"{name:<12}{median:>10.0f}{spread:>9.0f}{low:>18.0f}{middle:>8.0f}{high:>8.0f}"
            f"{100 * fraction:>12.4f} %"
        )
    print()
    for processes in (1, 2):
        median, spread = rate_of_processes(sample, shape, args.events, args.repeats, processes)
        out["processes"][processes] = {"events_per_s": median, "spread": spread}
        print(
            f"{processes} process{'es' if processes > 1 else '  '} {median:>8.0f} events/s, "
            f"spread {spread:.0f}"
        )
    full = Simulator(seed=0, shape=shape, full_noise=True, sample=sample)
    full.read(0)  # its memory is asked for once
    start = time.perf_counter()
    lit = [full.read(i).image.nnz for i in range(1, 11)]
    out["full_noise"] = {"events_per_s": 10 / (time.perf_counter() - start), "lit": sorted(lit)[5]}
    print(
        f"1 process, noise of every pixel drawn {out['full_noise']['events_per_s']:.1f} events/s "
        "(10 events)"
    )
    record(args.json, out)


if __name__ == "__main__":
    main()

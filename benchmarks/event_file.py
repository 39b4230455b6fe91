"""The filters of the event file: size, and how fast events are written, read in order and read at
random.

    python benchmarks/event_file.py [--events 300] [--size 3600] [--file EVENTS] [--json FILE]

Simulated events, and with --file those of a file in any known format (the first 20 of them,
repeated with jittered charge to 20). Every event is compared with what was written before anything
is timed. Medians of --repeats with the spread (max - min); sizes relative to coordinates and values
in memory (12 bytes a pixel). Chosen by it: FILTERS and PIXEL_CHUNK in the event file's module.
"""

import os
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from common import parser, record

from minicnn.data import Simulator, SparseImage, open_events
from minicnn.data.readers import EventFile, EventWriter, minicnn_hdf5
from minicnn.files import cpu_model

FILTERS = {
    "none": {},
    "lzf": {"compression": "lzf"},
    "gzip 1": {"compression": "gzip", "compression_opts": 1},
    "gzip 4": {"compression": "gzip", "compression_opts": 4},
}


def simulated(events, size):
    simulator = Simulator(seed=3, shape=(size, size, 1), sample="isotropic")
    return [simulator.read(i) for i in range(events)]


def of_file(path, events=20):
    """``events`` events of a file; where it has fewer they are repeated, their charge jittered so
    that they differ.
    """
    rng = np.random.default_rng(0)
    with open_events(path) as reader:
        some = [reader.read(i) for i in range(min(events, len(reader)))]
    for k in range(len(some), events):
        image = some[k % len(some)].image
        values = image.values * (1 + 0.1 * rng.standard_normal(image.values.shape))
        some.append(
            replace(some[k % len(some)], image=SparseImage(image.coords, values, image.shape))
        )
    return some


def measure(path, events, repeats):
    """Return a dictionary with the size in bytes and [median, spread] of events/s written, read in
    order, read at random.
    """
    order = np.random.default_rng(1).permutation(len(events))
    seconds = []
    for repeat in range(-1, repeats):
        times = [time.perf_counter()]
        with EventWriter(path, events[0].image.shape) as writer:
            for event in events:
                writer.append(replace(event, label=-1))
        times.append(time.perf_counter())
        for numbers in (range(len(events)), order):
            with EventFile(path) as reader:
                for k in numbers:
                    read = reader.read(k)
                    if repeat < 0:
                        assert read.image.coords.tobytes() == events[k].image.coords.tobytes(), (
                            f"event {k} differs"
                        )
                        assert read.image.values.tobytes() == events[k].image.values.tobytes(), (
                            f"event {k} differs"
                        )
            times.append(time.perf_counter())
        if repeat >= 0:
            seconds.append([b - a for a, b in pairwise(times)])
    rates = [[len(events) / s for s in column] for column in zip(*seconds)]
    return {
        "bytes": os.path.getsize(path),
        **{
            name: [statistics.median(r), max(r) - min(r)]
            for name, r in zip(("written", "read", "random"), rates)
        },
    }


def main():
    p = parser(__doc__, threads=False)
    p.add_argument("--events", type=int, default=300, help="simulated events")
    p.add_argument("--file", help="measure on these events too")
    p.add_argument("--chunk", type=int, default=minicnn_hdf5.PIXEL_CHUNK, help="pixels per chunk")
    p.add_argument("--repeats", type=int, default=3)
    args = p.parse_args()
    minicnn_hdf5.PIXEL_CHUNK, chosen = args.chunk, dict(minicnn_hdf5.FILTERS)
    sets = {"simulated": simulated(args.events, args.size)}
    if args.file:
        sets[Path(args.file).name] = of_file(args.file)
    out = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "chunk": args.chunk,
        "sets": {},
    }
    print(
        f"{out['cpu']}, {out['cores']} cores, one process; shuffle and fletcher32 always on, "
        f"chunks of {args.chunk} pixels, "
        f"median of {args.repeats} (spread)"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, events in sets.items():
            memory = sum(event.image.nbytes for event in events)
            pixels = sum(event.image.nnz for event in events) / len(events)
            print(
                f"\n{name}: {len(events)} events of {pixels:,.0f} lit pixels on average, "
                f"{memory / 1e6:.1f} MB in memory"
            )
            print(f"{'filter':<10}{'size':>7}{'written/s':>16}{'read/s':>16}{'at random/s':>16}")
            rows = out["sets"][name] = {
                "events": len(events),
                "pixels": pixels,
                "memory_bytes": memory,
            }
            for title, filters in FILTERS.items():
                minicnn_hdf5.FILTERS = {"shuffle": True, "fletcher32": True, **filters}
                row = rows[title] = measure(os.path.join(folder, "events.h5"), events, args.repeats)
                mark = " *" if minicnn_hdf5.FILTERS == chosen else ""
                rates = "".join(
                    f"{f'{m:.0f} ({s:.0f})':>16}"
                    for m, s in (row[key] for key in ("written", "read", "random"))
                )
                print(f"{title + mark:<10}{100 * row['bytes'] / memory:>5.0f} %{rates}")
    print("\n* what the event file uses")
    record(args.json, out)


if __name__ == "__main__":
    main()

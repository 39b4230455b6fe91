"""The store in memory: codecs and forms compared, loading by several threads, and what of a fetch
the engine waits for.

    python benchmarks/store.py [--events 100] [--size 3600] [--file EVENTS] [--load EVENTS.h5]
    [--json FILE]

1. For simulated events, and with --file those of a file in any known format (the first 20 of them,
   repeated with jittered charge to 20): compression, how fast events are compressed and fetched
   (looked up, digest compared, decompressed), and what 30,000 take. Every event is compared with
   what was stored before anything is timed. --dense 0 leaves out the dense form.
2. Loading an event file by one thread and by two. --load FILE: all of that file's events, and the
   memory of the process after it.
3. Training: the part of the steps in which the engine waits for a batch, with and without
   prefetching.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import parser, record

import minicnn as mc
from minicnn.data import EventStore, EventWriter, Simulator, SparseImage, batches, open_events
from minicnn.files import cpu_model
from minicnn.jobs.recipe import Recipe
from minicnn.parallel.machine import memory_bytes
from minicnn.progress import Meter

CODECS = (
    ("none", 1),
    ("lz4", 1),
    ("lz4", 9),
    ("zstd", 1),
    ("zstd", 5),
    ("zstd", 9),
    ("blosclz", 5),
    ("zlib", 1),
)
DENSE_CODECS = (("none", 1), ("lz4", 1), ("zstd", 1), ("zstd", 5))
EVENTS = 30000


class Memory:
    """Events in memory with the interface of a reader."""

    def __init__(self, events):
        self.events, self.image_shape, self.class_names, self.path = (
            events,
            events[0].image.shape,
            mc.data.CLASSES,
            "memory",
        )

    def __len__(self):
        return len(self.events)

    def read(self, index):
        return self.events[index]


def measure(events, form, codec, level, repeats):
    """Return the bytes per event, [median, spread] of events/s compressed and of ms per fetched
    event.
    """
    source, packed, fetched = Memory(events), [], []
    for repeat in range(repeats + 1):
        store = EventStore(codec, level, form).load(source)
        times = []
        for i, event in enumerate(events):
            start = time.perf_counter()
            image = store.image(i)
            times.append(time.perf_counter() - start)
            if repeat == 0:
                got = (
                    image
                    if form == "sparse"
                    else SparseImage.from_dense(image, event.image.background)
                )
                assert got.coords.tobytes() == event.image.coords.tobytes(), (
                    f"{form}, {codec}: event {i} differs"
                )
                assert got.values.tobytes() == event.image.values.tobytes(), (
                    f"{form}, {codec}: event {i} differs"
                )
        if repeat:
            packed.append(len(events) / store.seconds)
            fetched.append(1e3 * statistics.mean(times))
    return {
        "bytes": store.nbytes / len(events),
        **{
            name: [statistics.median(v), max(v) - min(v)]
            for name, v in (("packed", packed), ("fetched", fetched))
        },
    }


def compare(events, dense, repeats):
    """Print the table of codecs and forms for some events; return its rows."""
    whole, rows = 4 * events[0].image.to_dense().size, []
    print(
        f"{'form':<17}{'codec':<12}{'kB/event':>10}{'smaller':>9}{'compressed/s':>18}"
        f"{'fetch, ms':>16}{f'{EVENTS:,} events':>16}"
    )
    for form, codecs, some in (("sparse", CODECS, events), ("dense", DENSE_CODECS, events[:dense])):
        for codec, level in codecs if some else ():
            row = measure(some, form, codec, level, repeats if form == "sparse" else 1)
            rows.append({"form": form, "codec": codec, "level": level, **row})
            title, name = (
                codec if codec == "none" else f"{codec}:{level}",
                "zero-suppressed" if form == "sparse" else form,
            )
            packed, fetched = (
                f"{m:{f}} ({s:{f}})"
                for (m, s), f in ((row["packed"], ".0f"), (row["fetched"], ".3f"))
            )
            print(
                f"{name:<17}{title:<12}{row['bytes'] / 1e3:>10.1f}{whole / row['bytes']:>8.0f}x"
                f"{packed:>18}{fetched:>16}{row['bytes'] * EVENTS / 1e9:>13.2f} GB"
            )
    return rows


def loading(path, repeats):
    """Print how fast an event file is loaded by one thread and by two; return the rates."""
    rates = {}
    for threads in (1, 2):
        seconds = []
        for _ in range(repeats):
            with open_events(path) as source:
                seconds.append(EventStore().load(source, threads=threads).seconds)
                events = len(source)
        rates[threads] = [
            events / statistics.median(seconds),
            events / min(seconds) - events / max(seconds),
        ]
        rate, spread = rates[threads]
        print(
            f"event file  {threads} thread{'s' if threads > 1 else ' '}  {rate:>7.0f} events/s "
            f"(spread {spread:.0f})"
        )
    return rates


def load_all(path, threads):
    """Load every event of a file and print what it took; return the figures."""
    before = memory_bytes()
    with open_events(path) as source, Meter(f"loading {Path(path).name}", len(source)) as meter:
        store = EventStore().load(
            source, progress=lambda done, total: meter.update(done), threads=threads
        )
    used = memory_bytes() - before
    out = {
        "events": len(store),
        "seconds": store.seconds,
        "store_bytes": store.nbytes,
        "process_bytes": used,
    }
    print(
        f"{path}: {len(store):,} events in {store.seconds:.1f} s by {threads} threads, "
        f"{len(store) / store.seconds:.0f}/s; store "
        f"{store.nbytes / 1e6:.0f} MB, the process grew by {used / 1e6:.0f} MB; dense "
        f"{store.dense_bytes / 1e9:.0f} GB"
    )
    return out


def waiting(events, form, batch, steps):
    """Print what part of training steps the engine waits for data, with and without prefetching;
    return the rows.

    The first batch of an epoch has nothing to hide behind and is left out.
    """
    store, rows = EventStore(form=form).load(Memory(events)), []
    recipe = Recipe(size=events[0].image.shape[0])
    model = recipe.build_model(mc.SGD(1e-4, momentum=0.9), device="cpu")
    model.train_on_batch(*store.batch(range(batch)))  # compiles
    order = np.resize(np.arange(len(events)), batch * (steps + 1))
    for prefetch in (0, 1):
        source, waits, computes = batches(store, order, batch, steps + 1, prefetch), [], []
        for _ in range(steps + 1):
            start = time.perf_counter()
            x, y = next(source)
            fetched = time.perf_counter()
            model.train_on_batch(x, y)
            waits.append(1e3 * (fetched - start) / batch)
            computes.append(1e3 * (time.perf_counter() - fetched) / batch)
        wait, compute = statistics.mean(waits[1:]), statistics.mean(computes[1:])
        rows.append({"form": form, "prefetch": prefetch, "wait_ms": waits, "compute_ms": computes})
        name = "zero-suppressed" if form == "sparse" else form
        print(
            f"{name:<17}prefetch {prefetch}   {wait:>7.3f} ms waited, {compute:6.1f} ms computed "
            f"per event: {100 * wait / (wait + compute):.2f} % of the step exposed, "
            f"{100 * wait / 15:.2f} % of 15 ms"
        )
    return rows


def main():
    p = parser(__doc__, threads=False)
    p.add_argument("--events", type=int, default=100, help="simulated events")
    p.add_argument("--file", help="measure on these events too")
    p.add_argument("--dense", type=int, default=8, help="events of each kind to be kept dense")
    p.add_argument("--load", metavar="FILE", help="load all events of this file")
    p.add_argument("--batch-size", type=int, default=8, help="of the training")
    p.add_argument("--repeats", type=int, default=3)
    args = p.parse_args()
    simulator = Simulator(seed=3, shape=(args.size, args.size, 1), sample="isotropic")
    sets = {"simulated": [simulator.read(i) for i in range(args.events)]}
    if args.file:
        from event_file import of_file

        sets[Path(args.file).name] = [
            mc.data.Event(e.image, max(e.label, 0), e.id) for e in of_file(args.file)
        ]
    out = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "sets": {},
    }
    print(
        f"{out['cpu']}, {out['cores']} cores; blosc with byte shuffle, one thread; medians of "
        f"{args.repeats} (spread)"
    )
    for name, events in sets.items():
        pixels = statistics.mean(event.image.nnz for event in events)
        print(f"\n{name}: {len(events)} events of {pixels:,.0f} lit pixels on average")
        out["sets"][name] = {
            "events": len(events),
            "pixels": pixels,
            "rows": compare(events, args.dense, args.repeats),
        }
    print("\nloading by simulating, and an event file of the simulated events, gzip'ed; as zstd:1")
    for threads in (1, 2):
        store = EventStore().load(simulator, range(1000, 1000 + 2 * args.events), threads=threads)
        out[f"simulating, {threads}"] = len(store) / store.seconds
        print(
            f"simulator   {threads} thread{'s' if threads > 1 else ' '}  "
            f"{len(store) / store.seconds:>7.0f} events/s"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.h5"
        with EventWriter(path, sets["simulated"][0].image.shape) as writer:
            for event in sets["simulated"] * max(1, 1000 // args.events):
                writer.append(event)
        out["loading"] = loading(path, args.repeats)
    if args.load:
        out["load"] = load_all(args.load, 2)
    print(f"\ntraining, batch {args.batch_size}: what the engine waits for")
    out["waiting"] = waiting(sets["simulated"], "sparse", args.batch_size, 12 * args.repeats)
    if args.dense:
        out["waiting"] += waiting(
            sets["simulated"][: max(args.dense, args.batch_size)],
            "dense",
            args.batch_size,
            args.repeats,
        )
    record(args.json, out)


if __name__ == "__main__":
    main()

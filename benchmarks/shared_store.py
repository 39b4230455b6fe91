"""Events kept once per node against private stores: memory, load time, and how evenly the ranks'
work is spread.

    mpiexec -n 2 python benchmarks/shared_store.py [--events FILE] [--number 1000] [--batch-size 32]
    [--json FILE]

    random shards     every rank keeps its own part: no other rank can read it, an event stays with
                      its rank for the whole training; in plain random order (--no-balance)
    private shards    the same, in parts and steps of equal work, as training does
    private copies    every rank keeps all events of the node, which is what mixing them anew in
                      every epoch takes without sharing
    shared            every rank loads its part into memory of the node, and reads all of it

Memory is what the node's ranks gained together, pages that several of them hold counted once (Pss,
Linux). Imbalance is how much more the events of a step cost (minicnn/data/balance.py) on the rank
with the most work than in the mean of the ranks, averaged over an epoch: the others wait for it.
First all stores are compared with the file, event by event, on as many events as --check says.
"""

import ctypes
import gc
import os
import tempfile
import time

import numpy as np
import psutil
from common import parser, record

import minicnn as mc
from minicnn.data.dataset import epoch_order
from minicnn.parallel import ordered, together, world


def proportional_memory():
    """Return this process's memory in bytes, every page divided by the number of processes that
    hold it.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier stores left in the heap goes back
    return psutil.Process().memory_full_info().pss


def load(kind, comm, source, events):
    """Return this rank's store."""
    costs = None if kind == "random shards" else source.pixel_counts[:events]
    share = (
        np.arange(events)
        if kind == "private copies"
        else mc.data.shard(events, comm.size, comm.rank, costs=costs)
    )
    store = mc.data.EventStore().load(source, share)
    return mc.data.NodeStore(store, comm) if kind == "shared" else store


def compare(store, source, number):
    """Raise SystemExit where one of ``number`` events in reach differs from the file."""
    reach = getattr(store, "reach", len(store))
    for i in np.unique(np.linspace(0, reach - 1, number).astype(int)):
        want, got = source.read(int(store.numbers[i])), store.image(i)
        if not (
            np.array_equal(want.image.coords, got.coords)
            and np.array_equal(want.image.values, got.values)
            and store.labels[i] == want.label
        ):
            raise SystemExit(f"event {store.numbers[i]} of the store differs from {source.path}")


def imbalance(comm, store, batch_size, balance):
    """Return the mean over an epoch's steps of (cost on the rank with the most) / (mean of the
    ranks) - 1, and the largest.
    """
    own = store.cells[: len(store)].astype(np.float64)
    mean = comm.allreduce(own.sum(0)) / comm.allreduce(len(own))
    costs = (store.cells / mean).mean(1)  # of all ranks' events in one unit
    order = epoch_order(store, 0, 0, comm.rank, batch_size, balance)
    steps = min(comm.allgather(len(order) // batch_size))
    own = costs[order[: steps * batch_size]].reshape(steps, batch_size).sum(1)
    everyone = np.array(comm.allgather(own))
    above = everyone.max(0) / everyone.mean(0) - 1
    return float(above.mean()), float(above.max())


def measure(kind, comm, path, args):
    """Return the row of one kind of store."""
    before = comm.allreduce(proportional_memory())
    with mc.data.open_events(path, size=args.size) as source:
        comm.Barrier()
        start = time.perf_counter()
        store = load(kind, comm, source, args.number)
        comm.Barrier()
        seconds = time.perf_counter() - start
    memory = (
        comm.allreduce(proportional_memory()) - before
    )  # the file is closed, its buffers are gone
    with mc.data.open_events(path, size=args.size) as source:
        compare(store, source, args.check)
    compressed = comm.allreduce(store.nbytes)
    mean, most = (
        imbalance(comm, store, args.batch_size, kind != "random shards")
        if kind != "private copies"
        else (None, None)
    )
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.5:
        store.batch(np.arange(count, count + 8) % len(store.labels))
        count += 8
    fetch = (time.perf_counter() - start) / count
    if kind == "shared":
        store.close()
    return {
        "kind": kind,
        "seconds": seconds,
        "memory": memory,
        "compressed": compressed,
        "in_reach": len(store.labels),
        "fetch": fetch,
        "imbalance": mean,
        "largest_imbalance": most,
    }


def main(comm):
    p = parser(__doc__, threads=False)
    p.add_argument("--events", help="event file (default: simulated events)")
    p.add_argument("--number", type=int, default=1000, help="events of the node")
    p.add_argument(
        "--batch-size", type=int, default=32, help="events per step and rank, for the imbalance"
    )
    p.add_argument(
        "--check", type=int, default=50, help="events per rank that are compared with the file"
    )
    args = ordered(comm, p.parse_args)
    if comm is None:
        raise SystemExit("this compares ranks: mpiexec -n 2 python benchmarks/shared_store.py")
    if args.number < args.batch_size * comm.size:
        raise together(
            ValueError(
                f"--number {args.number} is less than one step of {comm.size} ranks x "
                f"{args.batch_size} events "
                "(--batch-size)"
            )
        )
    folder = ordered(comm, tempfile.mkdtemp)
    path = args.events or os.path.join(folder, "events.h5")
    if not args.events:
        mc.data.generate(
            path,
            args.number,
            mc.data.Simulator(0, (args.size, args.size, 1), sample="isotropic"),
            comm,
        )
    measure("private shards", comm, path, args)  # libraries and their buffers, not counted
    rows = [
        measure(kind, comm, path, args)
        for kind in ("random shards", "private shards", "private copies", "shared")
    ]
    if comm.rank == 0:
        print(
            f"{args.number} events of {args.size} x {args.size} on {comm.size} ranks of one node, "
            f"{os.cpu_count()} cores; every rank's "
            f"sample of {args.check} events equals the file"
        )
        print(
            f"{'store':<18}{'load s':>8}{'node memory MB':>16}{'of which data MB':>18}"
            f"{'in reach of a rank':>20}{'ms to fetch':>13}"
            f"{'imbalance':>11}{'largest':>9}"
        )
        for r in rows:
            uneven = "".join(
                f"{'-' if r[key] is None else f'{100 * r[key]:.1f} %':>{width}}"
                for key, width in (("imbalance", 11), ("largest_imbalance", 9))
            )
            print(
                f"{r['kind']:<18}{r['seconds']:>8.2f}{r['memory'] / 1e6:>16.1f}"
                f"{r['compressed'] / 1e6:>18.1f}{r['in_reach']:>20}"
                f"{1e3 * r['fetch']:>13.3f}{uneven}"
            )
        record(
            args.json,
            {
                "ranks": comm.size,
                "events": args.number,
                "size": args.size,
                "batch": args.batch_size,
                "rows": rows,
            },
        )


if __name__ == "__main__":
    with world() as communicator:
        main(communicator)

"""Weak scaling: the step of one rank alone against that of N ranks with as many events each.

    mpiexec -n 2 python benchmarks/weak_scaling.py [--batch-size 32] [--threads 1] [--size 3600]
    [--sample isotropic] [--deal own] [--sync gradients] [--json FILE]

Four turns take their places one after the other, several times: "alone", rank 0 works while the
others sleep; "side by side", all work and none communicates, which shows what ranks of one machine
take from each other (memory bandwidth, clock); "together", the training; "one rank", rank 0 does
the whole step with as many threads as all ranks have. Efficiency is alone / together. Its loss has
three parts, told apart by the ledger: brighter events on some rank (waiting for the slowest),
communication, and the rest. --deal says how events come to ranks and steps: "own", as training
does, each rank from its own store in steps of equal work; "node", from a NodeStore; "random", each
from its own store in plain random order, as it was before there was balancing.
"""

import os
import statistics
import tempfile
import time

import numba
import numpy as np
from common import parser, record

import minicnn as mc
from minicnn.data.dataset import epoch_order
from minicnn.inspect.trace import COMMUNICATION, WAIT, Ledger
from minicnn.jobs.recipe import Recipe
from minicnn.parallel import MODES, make_sync, ordered, world
from minicnn.train.step import flush, train_step

DEALS = {
    "own": "shares and steps of equal work",
    "node": "dealt evenly from a shared store",
    "random": "in random order",
}


def dealt(comm, args):
    """Return this rank's store and the order in which it takes its events."""
    events = args.batch_size * args.steps * comm.size
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(comm.bcast(folder), "events.h5")
        shape = (args.size, args.size, 1)
        mc.data.generate(path, events, mc.data.Simulator(0, shape, sample=args.sample), comm)
        with mc.data.open_events(path, size=args.size) as source:
            costs = None if args.deal == "random" else source.pixel_counts
            own = mc.data.shard(events, comm.size, comm.rank, 0, costs)
            store = mc.data.EventStore().load(source, own)
        comm.Barrier()
    if args.deal == "node":
        store = mc.data.NodeStore(store, comm)
    balance = args.deal != "random"
    return store, epoch_order(store, 0, 0, comm.rank, args.batch_size, balance)


def asleep_until(comm, work):
    """Return ``work()`` of rank 0; other ranks sleep meanwhile, because waiting in MPI takes a
    core.
    """
    result = work() if comm.rank == 0 else None
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.005)
    return comm.bcast(result)


def steps(model, optimizer, sync, batches, comm=None):
    """Return (seconds per step, waiting, communication) of one turn; the longest rank's step."""
    ledger = Ledger(detail=True, keep=0)
    if comm:
        comm.Barrier()
    ledger.align(comm)
    with ledger:
        for batch in batches:
            train_step(model, [batch], optimizer, sync, ledger)
            ledger.step()
    ledger.close(comm)
    flush(model, optimizer, sync, Ledger())
    summary = ledger.summaries[-1]
    return (
        summary.wall,
        summary.mean.get((WAIT, ""), 0.0),
        sum(s for (part, _), s in summary.mean.items() if part in (*COMMUNICATION, "pack")),
    )


def main(comm):
    p = parser(__doc__, threads=False)
    p.add_argument("--batch-size", type=int, default=32, help="events per step and rank")
    p.add_argument("--steps", type=int, default=4, help="steps of a turn")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=1, help="per rank")
    p.add_argument("--sync", choices=MODES, default="gradients")
    p.add_argument("--sample", default="isotropic", help="of the simulated events")
    p.add_argument("--deal", choices=DEALS, default="own", help="how events come to ranks")
    args = ordered(comm, p.parse_args)
    if comm is None:
        raise SystemExit("this needs several ranks: mpiexec -n 2 python benchmarks/weak_scaling.py")
    store, order = dealt(comm, args)
    batches = [
        store.batch(order[i * args.batch_size : (i + 1) * args.batch_size])
        for i in range(args.steps)
    ]
    per_rank = comm.gather([(sum(image.nnz for image in x), x, y) for x, y in batches])
    model = Recipe(size=args.size).build_model(device="cpu")
    model.kernels.set_threads(args.threads)
    optimizer, sync, no_sync = (
        mc.SGD(1e-4, 0.9),
        make_sync(args.sync, comm),
        make_sync("gradients", None),
    )
    sync.broadcast(model, optimizer)
    steps(model, optimizer, no_sync, batches[:1])  # compiles
    kinds = {"alone": [], "side by side": [], "together": []}
    threads = args.threads * comm.size
    merged = comm.bcast(
        [
            ([image for b in step for image in b[1]], np.concatenate([b[2] for b in step]))
            for step in zip(*per_rank)
        ]
        if comm.rank == 0
        else None
    )
    if comm.bcast(numba.config.NUMBA_NUM_THREADS) >= threads:
        kinds["one rank"] = []
    for _ in range(args.rounds):
        # Rank 0 alone does the work of all ranks in turn, so that "alone" has the same events.
        kinds["alone"].append(
            asleep_until(
                comm,
                lambda: np.mean(
                    [
                        steps(model, optimizer, no_sync, [batch[1:] for batch in theirs])
                        for theirs in per_rank
                    ],
                    0,
                ),
            )
        )
        comm.Barrier()
        kinds["side by side"].append(
            np.mean(comm.allgather(steps(model, optimizer, no_sync, batches)), 0)
        )
        sync.broadcast(model, optimizer)
        kinds["together"].append(steps(model, optimizer, sync, batches, comm))
        if "one rank" in kinds:
            model.kernels.set_threads(threads)
            kinds["one rank"].append(
                asleep_until(comm, lambda: steps(model, optimizer, no_sync, merged))
            )
            model.kernels.set_threads(args.threads)
    if comm.rank:
        return
    rows = {kind: [float(v) for v in np.median(samples, 0)] for kind, samples in kinds.items()}
    ratio = [alone[0] / together[0] for alone, together in zip(kinds["alone"], kinds["together"])]
    bare = [
        alone[0] / (together[0] - together[1])
        for alone, together in zip(kinds["alone"], kinds["together"])
    ]
    wall, waiting, communication = rows["together"]
    print(
        f"weak scaling 1 -> {comm.size} ranks x {args.threads} thread(s) on {os.cpu_count()} "
        f"cores, batch {args.batch_size} per rank at "
        f"{args.size} x {args.size}, sync {args.sync}, "
        f"{args.sample} events, {DEALS[args.deal]}"
    )
    for kind, row in rows.items():
        print(
            f"{kind:<14}{1e3 * row[0]:>9.1f} ms per step; waiting for the slowest rank "
            f"{1e3 * row[1]:.1f}, communication "
            f"{1e3 * row[2]:.2f}"
        )
    spread = f"{100 * min(ratio):.1f} to {100 * max(ratio):.1f}"
    print(
        f"efficiency {100 * statistics.median(ratio):.1f} % ({spread}), "
        f"{100 * statistics.median(bare):.1f} % apart from waiting for the "
        f"slowest rank; communication {100 * communication / wall:.2f} % of the step, waiting "
        f"{100 * waiting / wall:.2f} %; "
        f"side by side alone costs {100 * (rows['side by side'][0] / rows['alone'][0] - 1):.1f} %"
    )
    if "one rank" in kinds:
        against = statistics.median(
            one[0] / t[0] for one, t in zip(kinds["one rank"], kinds["together"])
        )
        print(
            f"{comm.size} ranks x {args.threads} thread(s) run {against:.3f} times as fast as 1 "
            f"rank x {threads} threads"
        )
    record(
        args.json,
        {
            "ranks": comm.size,
            "threads": args.threads,
            "cores": os.cpu_count(),
            "batch": args.batch_size,
            "size": args.size,
            "sync": args.sync,
            "sample": args.sample,
            "deal": args.deal,
            "rows": rows,
            "efficiency": statistics.median(ratio),
            "efficiency_without_waiting": statistics.median(bare),
            "samples": ratio,
        },
    )


if __name__ == "__main__":
    with world() as communicator:
        main(communicator)

"""What the exchange between ranks costs: latency and bandwidth, every sync mode, how much of it the
computation hides, the best bucket.

    mpiexec -n 2 python benchmarks/allreduce.py [--size 3600] [--batch-size 8] [--steps 4] [--rounds
    3] [--json FILE]

1. MPI's Allreduce of 16 bytes to 16 MB, each checked.
2. The gradient buffer through every mode by itself, checked against the exact sums, with the
   network below which halving the bytes pays.
3. Real training steps in every mode, taking turns on the same events. "main thread" is what
   communication takes of it: starting, packing, reducing, waiting for what is left of it. "hidden"
   is how long reductions were under way beside the computation. Waiting for the slowest rank stands
   apart: brighter events, not communication.
4. The same for bucket sizes; the last line is the one to set in minicnn/parallel/sync/overlap.py.

Set MPIR_CVAR_POLLS_BEFORE_YIELD=1 for MPICH where there are more ranks than cores.
"""

import os
import statistics
import time

import numpy as np
from common import parser, record

import minicnn as mc
from minicnn.inspect.trace import COMMUNICATION, WAIT, Ledger
from minicnn.jobs.recipe import Recipe
from minicnn.parallel import MODES, make_sync, ordered, threads_per_rank, world
from minicnn.train.step import flush, train_step

BUCKETS = (64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20)


def repeated(comm, call, seconds=0.15, prepare=lambda: None):
    """Return the median seconds of ``call``, each after ``prepare``, over the repeats that fit; the
    slowest rank's of each.
    """
    times, count = [], 5
    for attempt in range(2):  # the first finds out how many fit
        times = []
        for _ in range(count):
            prepare()
            comm.Barrier()
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        if attempt == 0:
            count = int(comm.bcast(min(max(seconds / max(statistics.median(times), 1e-7), 7), 400)))
    return statistics.median(np.max(comm.allgather(times), 0))


def curve(comm):
    """Return the rows of part 1."""
    from mpi4py import MPI

    rows = []
    for size in 4 ** np.arange(2, 13):
        buffer = np.full(size // 4, comm.rank + 1, np.float32)
        out = np.empty_like(buffer)
        seconds = repeated(
            comm, lambda buffer=buffer, out=out: comm.Allreduce(buffer, out, MPI.SUM)
        )
        if not (out == comm.size * (comm.size + 1) / 2).all():
            raise SystemExit(f"Allreduce of {size} bytes gave a wrong sum")
        rows.append(
            {
                "bytes": int(size),
                "seconds": seconds,
                "bus_bandwidth": 2 * (comm.size - 1) / comm.size * size / seconds,
            }
        )
    return rows


class Buffer:
    """As much of a model as a sync needs."""

    def __init__(self, size):
        self.kernels, self.gradients = (
            mc.kernels.get_backend("reference"),
            np.zeros(size + 4, np.float32),
        )
        self.parameters = np.zeros(size, np.float32)


def alone(comm, size):
    """Return the rows of part 2: seconds of one exchange of the gradient buffer per mode, and its
    error relative to the exact sum.
    """
    rows, model = [], Buffer(size)
    own = np.append(
        np.random.default_rng(comm.rank).standard_normal(size).astype(np.float32), [8, 1, 1, 0]
    ).astype(np.float32)
    exact = np.sum(comm.allgather(own.astype(np.float64)), 0)
    for mode in MODES:
        if mode == "weights":  # an Allreduce of twice the bytes every k steps
            continue
        sync = make_sync(mode, comm)

        def exchange(sync=sync):
            sync.reduce_gradients(model)
            sync.collect_pending(model)  # of delayed mode

        def fill():
            model.gradients[:] = own

        fill()
        exchange()
        error = float(np.linalg.norm(model.gradients - exact) / np.linalg.norm(exact))
        if error > {"fp16": 2e-3, "bf16": 1e-2}.get(mode, 1e-6):
            raise SystemExit(f"{mode} gave sums that are off by {error:.1e}")
        rows.append(
            {
                "mode": mode,
                "seconds": repeated(comm, exchange, 0.4, fill),
                "error": error,
                "bytes": 2
                * (comm.size - 1)
                / comm.size
                * size
                * (2 if mode in ("fp16", "bf16") else 4),
            }
        )
    return rows


def in_steps(comm, model, batches, cases, args):
    """Return the rows of parts 3 and 4, a case each; the cases take turns."""
    optimizer = mc.SGD(1e-4, 0.9)
    syncs = {name: make_sync(mode, comm, **options) for name, mode, options in cases}
    samples = {name: [] for name in syncs}
    syncs[cases[0][0]].broadcast(model, optimizer)
    for turn in range(-1, args.rounds):
        for name, sync in syncs.items():
            ledger = Ledger(detail=True, keep=0)
            ledger.align(comm)
            comm.Barrier()
            with ledger:
                for step in range(args.steps if turn >= 0 else 1):
                    batch = batches[step % len(batches)]
                    train_step(model, [batch], optimizer, sync, ledger)
                    if step == args.steps - 1:
                        flush(model, optimizer, sync, ledger)
                    ledger.step()
            flush(model, optimizer, sync, Ledger())
            ledger.close(comm)
            summary = ledger.summaries[-1]
            waiting = summary.mean.get((WAIT, ""), 0.0)
            spent = sum(
                s for (part, _), s in summary.mean.items() if part in (*COMMUNICATION, "pack")
            )
            if turn >= 0:
                samples[name].append(
                    (
                        summary.wall,
                        spent,
                        sum(s for (p, _), s in summary.hidden.items() if p == "allreduce"),
                        waiting,
                    )
                )
    keys = ("step", "main_thread", "hidden", "waiting")
    return [
        {
            "case": name,
            **dict(zip(keys, (1e3 * statistics.median(column) for column in zip(*rows)))),
            "least": 1e3 * min(row[0] for row in rows),
            "most": 1e3 * max(row[0] for row in rows),
        }
        for name, rows in samples.items()
    ]


def when(row, plain):
    """Say when a mode of part 2 wins."""
    extra = row["seconds"] - plain["seconds"]
    if row["mode"] in ("fp16", "bf16"):
        if extra <= 0:
            return "already here"
        return (
            f"on networks below {(plain['bytes'] - row['bytes']) / extra / 1e9:.2f} GB/s per "
            f"rank: {1e3 * extra:.1f} ms of packing"
        )
    return {
        "gradients": "the yardstick",
        "overlap": "where the network moves data while the processor computes",
        "delayed": "where even that is not enough, and a stale step does not hurt",
        "hierarchical": "where a node's ranks share one adapter and MPI does not do it itself",
    }[row["mode"]]


def print_steps(rows):
    print(
        f"{'':<22}{'ms/step':>9}{'least':>9}{'most':>9}{'main thread':>13}{'of the step':>13}"
        f"{'hidden':>9}{'waiting':>9}"
    )
    for r in rows:
        share = f"{100 * r['main_thread'] / r['step']:.1f} %"
        print(
            f"{r['case']:<22}{r['step']:>9.1f}{r['least']:>9.1f}{r['most']:>9.1f}"
            f"{r['main_thread']:>13.2f}"
            f"{share:>13}{r['hidden']:>9.2f}{r['waiting']:>9.1f}"
        )


def best_bucket(rows):
    """Return the bytes of the bucket with which communication takes least of the main thread; the
    larger one where they tie (3 %).
    """
    least = min(r["main_thread"] for r in rows)
    return max(r["bucket"] for r in rows if r["main_thread"] <= 1.03 * least)


def main(comm):
    p = parser(__doc__, threads=False)
    p.add_argument("--batch-size", type=int, default=8, help="events per step and rank")
    p.add_argument("--steps", type=int, default=4, help="steps of a turn")
    p.add_argument("--rounds", type=int, default=3, help="turns of each mode")
    p.add_argument("--threads", type=int, help="per rank (default: cores of the node / its ranks)")
    p.add_argument("--buckets", type=int, nargs="+", default=BUCKETS, help="bytes")
    args = ordered(comm, p.parse_args)
    if comm is None:
        raise SystemExit("this needs several ranks: mpiexec -n 2 python benchmarks/allreduce.py")
    model = Recipe(size=args.size).build_model(device="cpu")
    threads = args.threads or threads_per_rank(comm)
    model.kernels.set_threads(threads)
    simulator, batches = (
        mc.data.Simulator(comm.rank, (args.size, args.size, 1), sample="isotropic"),
        [],
    )
    for step in range(args.steps):
        events = [simulator.read(step * args.batch_size + i) for i in range(args.batch_size)]
        batches.append(([e.image for e in events], np.array([e.label for e in events])))
    points, modes = curve(comm), alone(comm, model.parameters.size)
    steps = in_steps(
        comm,
        model,
        batches,
        [(mode, mode, {"every": 4} if mode == "weights" else {}) for mode in MODES],
        args,
    )
    buckets = in_steps(
        comm,
        model,
        batches,
        [(f"{size >> 10} KB", "overlap", {"bucket": size}) for size in args.buckets],
        args,
    )
    for row, size in zip(buckets, args.buckets):
        row["bucket"] = size
    if comm.rank:
        return
    print(
        f"{comm.size} ranks x {threads} thread(s) on {os.cpu_count()} cores, one node; "
        f"{model.parameters.size:,} parameters"
    )
    print(f"\n1. Allreduce{'bytes':>14}{'microseconds':>15}{'bus GB/s':>11}")
    for r in points:
        print(f"{r['bytes']:>26,}{1e6 * r['seconds']:>15.1f}{r['bus_bandwidth'] / 1e9:>11.3f}")
    print(
        f"\n2. The gradient buffer by itself\n{'mode':<15}{'ms':>8}{'MB sent':>9}{'error':>10}  "
        "wins"
    )
    for r in modes:
        print(
            f"{r['mode']:<15}{1e3 * r['seconds']:>8.2f}{r['bytes'] / 1e6:>9.2f}{r['error']:>10.1e} "
            f" {when(r, modes[0])}"
        )
    print(
        f"{'weights':<15}{'':>27}  with k steps between two means: 2 / k of the bytes; an "
        "approximation"
    )
    print(
        f"\n3. Training steps at {args.size} x {args.size}, batch {args.batch_size} per rank, ms; "
        f"median of {args.rounds} turns of "
        f"{args.steps} steps"
    )
    print_steps(steps)
    print("\n4. Sizes of a bucket")
    print_steps(buckets)
    best = best_bucket(buckets)
    print(
        f"BUCKET = {best}"
        + (
            " (all in one piece: overlap gains nothing here)"
            if best >= model.gradients.nbytes
            else ""
        )
    )
    record(
        args.json,
        {
            "ranks": comm.size,
            "threads": threads,
            "cores": os.cpu_count(),
            "size": args.size,
            "batch": args.batch_size,
            "allreduce": points,
            "modes": modes,
            "steps": steps,
            "buckets": buckets,
            "best_bucket": best,
        },
    )


if __name__ == "__main__":
    with world() as communicator:
        main(communicator)

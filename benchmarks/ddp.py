"""The same training on several processes: minicnn over MPI against PyTorch's
DistributedDataParallel, on the same events.

    pip install "minicnn[peers]"
    python benchmarks/ddp.py [--ranks 2] [--threads 1] [--batch-size 2]
        [--rounds 3] [--size 3600] [--events FILE] [--json FILE]

PyTorch runs with gloo, one process per rank, in its fastest setting here: channels last, oneDNN,
the pooling before the ELU (which increases: the same numbers with 1/25 of the ELUs), DDP's own
buckets and overlap. It gets its batches as dense arrays that are ready before the clock starts;
minicnn fetches and decompresses its events within the time. Both start from the same weights, with
SGD and momentum 0.9.

The two take turns, started anew each time. A turn begins with CHECK steps that are not timed: their
mean losses over all ranks, and how far they moved the weights, have to agree. Then --steps steps
are timed; ms per event is the slowest rank's time over the events of all ranks. "minicnn, batch 32"
is what one would run, as larger batches cost it no memory; PyTorch's memory grows with the batch.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import peers_engines as engines
from common import MOMENTUM, RATE, compared_scale, mpiexec, parser, record

import minicnn as mc
from minicnn.files import cpu_model, write_json
from minicnn.parallel import MODES, make_sync, threads_per_rank, world
from minicnn.train.fit import train_step

CHECK = 2
#: Largest relative difference, of weights in norm: float32 rounding decides near ties in
#: max-pooling, which moves single gradients.
TOLERANCE = {"loss": 1e-5, "weights": 1e-3}


# ------------------------------------------------------------------------------------------ workers
def batches(args, rank):
    """Return [(images, labels)] of a rank's steps: the same for every engine, different on every
    rank.
    """
    size, steps = args.batch_size, CHECK + args.steps
    source = (
        mc.data.open_events(args.events, size=args.size)
        if args.events
        else mc.data.Simulator(args.seed, (args.size, args.size, 1), sample="isotropic")
    )
    events = [
        [
            source.read(i % len(source) if args.events else i)
            for i in range((step * args.ranks + rank) * size, (step * args.ranks + rank + 1) * size)
        ]
        for step in range(steps)
    ]
    return [([e.image for e in some], [max(int(e.label), 0) for e in some]) for some in events]


class Minicnn:
    """A rank of minicnn; its events are compressed in memory and fetched within the step."""

    def __init__(self, args, comm, weights):
        self.comm, self.size = comm, args.batch_size
        self.model = mc.models.microboone(
            args.size, device="cpu", input_scale=compared_scale(args.size)
        )
        self.model.kernels.set_threads(args.threads)
        self.model.set_weights(weights)
        self.optimizer, self.sync = (
            mc.SGD(RATE, MOMENTUM),
            make_sync(args.sync, comm),
        )
        steps = batches(args, comm.rank)
        images, labels = (
            [image for x, _ in steps for image in x],
            [label for _, y in steps for label in y],
        )
        self.store = mc.data.EventStore().load(InMemory(images, labels))

    def step(self, i):
        """Make step i and return its mean loss over all ranks."""
        batch = self.store.batch(range(i * self.size, (i + 1) * self.size))
        tail = train_step(self.model, [batch], self.optimizer, self.sync)
        return tail["loss"] / tail["events"]

    def barrier(self):
        self.comm.Barrier()

    def weights(self):
        return self.model.get_weights()


class InMemory:
    """Images as the source of a store."""

    path, class_names = "events", mc.data.CLASSES

    def __init__(self, images, labels):
        self.images, self.labels, self.image_shape = images, labels, images[0].shape

    def __len__(self):
        return len(self.images)

    def read(self, index):
        return mc.data.Event(self.images[index], self.labels[index])


class TorchDDP:
    """A rank of DistributedDataParallel around the network of benchmarks/peers.py."""

    def __init__(self, args, rank, weights):
        import torch
        import torch.distributed as dist

        dist.init_process_group(
            "gloo", init_method=f"file://{args.out}/rendezvous", rank=rank, world_size=args.ranks
        )
        self.torch, self.dist, self.ranks = torch, dist, args.ranks
        engine = self.engine = engines.Torch(args.size, weights, args.threads, pool_first=True)

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.names = list(engine.p)
                self.p = torch.nn.ParameterList(
                    torch.nn.Parameter(w.detach()) for w in engine.p.values()
                )
                engine.p = dict(zip(self.names, self.p))

            def forward(self, x, y):
                return engine.loss_of(x, y)

        self.network = torch.nn.parallel.DistributedDataParallel(Network())
        self.optimizer = torch.optim.SGD(self.network.parameters(), RATE, MOMENTUM, fused=True)
        self.batches = [engine.batch(*batch) for batch in batches(args, rank)]

    def step(self, i):
        """Make step i and return its mean loss over all ranks (one number more to exchange, as
        minicnn's).
        """
        self.optimizer.zero_grad()
        loss = self.network(*self.batches[i])
        loss.backward()
        self.optimizer.step()
        total = loss.detach().clone()
        self.dist.all_reduce(total)
        return total.item() / self.ranks

    def barrier(self):
        self.dist.barrier()

    def weights(self):
        return self.engine.weights()


def work(args, engine, rank):
    """Make the steps of a turn and write what came out of them."""
    before = engines.initial_weights(args.size)
    losses = [engine.step(i) for i in range(CHECK)]
    moved = {name: w - before[name] for name, w in engine.weights().items()}
    engine.barrier()
    start = time.perf_counter()
    for i in range(CHECK, CHECK + args.steps):
        if not np.isfinite(engine.step(i)):
            raise ArithmeticError(f"the loss of step {i} is not finite")
    seconds = time.perf_counter() - start
    if rank == 0:
        np.savez(args.out / "moved.npz", **moved)
    result = {"losses": losses, "seconds": seconds, "memory": engines.peak_memory()}
    write_json(args.out / f"rank-{rank}.json", result)


def worker(args):
    weights = engines.initial_weights(args.size)
    if args.worker == "torch":
        engine = TorchDDP(args, args.rank, weights)
        work(args, engine, args.rank)
        engine.dist.destroy_process_group()
        return
    with world() as comm:
        work(args, Minicnn(args, comm, weights), comm.rank)


# ------------------------------------------------------------------------------------------ the run
def turn(args, kind, batch_size):
    """Start the ranks of one engine and return {"ms", "losses", "moved", "memory"}; SystemExit with
    what they wrote if one fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            __file__,
            "--worker",
            kind,
            "--out",
            folder,
            "--batch-size",
            str(batch_size),
        ]
        for name in (
            "ranks",
            "threads",
            "steps",
            "size",
            "seed",
            "sync",
            *(("events",) if args.events else ()),
        ):
            command += ["--" + name, str(getattr(args, name))]
        if kind == "minicnn":
            commands = [[*mpiexec(args.ranks), *command]]
        else:
            commands = [[*command, "--rank", str(rank)] for rank in range(args.ranks)]
        environment = {
            "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
            **os.environ,
            "OMP_NUM_THREADS": str(args.threads),
        }
        processes = [
            subprocess.Popen(
                c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
            for c in commands
        ]
        try:
            said = [process.communicate(timeout=args.timeout)[0] for process in processes]
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{kind}: no result after {args.timeout} s (--timeout)") from None
        finally:
            for process in processes:
                process.kill()
        failed = [text for process, text in zip(processes, said) if process.returncode]
        if failed:
            raise SystemExit(f"{kind} failed:\n{failed[0][-3000:]}")
        ranks = [
            json.loads((Path(folder) / f"rank-{rank}.json").read_text())
            for rank in range(args.ranks)
        ]
        with np.load(Path(folder) / "moved.npz") as moved:
            moved = dict(moved)
    events = args.steps * batch_size * args.ranks
    return {
        "ms": 1e3 * max(r["seconds"] for r in ranks) / events,
        "losses": ranks[0]["losses"],
        "moved": moved,
        "memory": max(r["memory"] for r in ranks),
    }


def compare(ours, theirs):
    """Return the largest relative differences {"loss", "weights"} of two turns; SystemExit where
    they exceed TOLERANCE.
    """
    far = {
        "loss": max(abs(a / b - 1) for a, b in zip(ours["losses"], theirs["losses"])),
        "weights": max(
            float(np.linalg.norm(ours["moved"][name] - w) / np.linalg.norm(w))
            for name, w in theirs["moved"].items()
        ),
    }
    wrong = [f"{what} {far[what]:.1e}" for what in far if not far[what] <= TOLERANCE[what]]
    if wrong:
        raise SystemExit("the engines do not agree, so nothing is compared: " + ", ".join(wrong))
    return far


def main(argv=None):
    p = parser(__doc__, threads=False)
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--threads", type=int, help="per rank (default: cores / ranks)")
    p.add_argument("--batch-size", type=int, default=2, help="events per step and rank, of both")
    p.add_argument(
        "--large", type=int, default=32, help="minicnn's batch of the second row (0: none)"
    )
    p.add_argument("--steps", type=int, default=2, help="timed steps of a turn")
    p.add_argument("--rounds", type=int, default=3, help="turns of each")
    p.add_argument("--seed", type=int, default=0, help="of the simulated events")
    p.add_argument("--events", type=Path, help="take events of this file instead of simulated ones")
    p.add_argument("--sync", choices=MODES, default="gradients", help="of minicnn")
    p.add_argument(
        "--timeout", type=float, default=600, help="seconds after which a turn is given up"
    )
    for hidden, kind in (("--worker", str), ("--rank", int), ("--out", Path)):
        p.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    args.threads = args.threads or max(threads_per_rank(None) // args.ranks, 1)
    if args.worker:
        return worker(args)
    if importlib.util.find_spec("torch") is None:
        raise SystemExit('PyTorch is not installed: pip install "minicnn[peers]"')
    from importlib.metadata import version

    print(
        f"training at {args.size} x {args.size}, {args.ranks} ranks x {args.threads} thread(s) on "
        f"{os.cpu_count()} cores, "
        f"{cpu_model()}; torch {version('torch')}, gloo; minicnn {mc.__version__}, sync "
        f"{args.sync}",
        flush=True,
    )
    cases = [("torch DDP", "torch", args.batch_size), ("minicnn", "minicnn", args.batch_size)]
    cases += [("minicnn", "minicnn", args.large)] if args.large else []
    turns, far = {case: [] for case in cases}, {"loss": 0.0, "weights": 0.0}
    for _ in range(args.rounds):
        for case in cases:
            turns[case].append(turn(args, *case[1:]))
        differences = compare(turns[cases[1]][-1], turns[cases[0]][-1])
        far = {what: max(far[what], differences[what]) for what in far}
    print(
        f"check: {CHECK} steps of the same {args.batch_size * args.ranks} events; losses differ "
        f"by {far['loss']:.1e}, the changes of the "
        f"weights by {far['weights']:.1e} (tolerances {TOLERANCE['loss']:.0e}, "
        f"{TOLERANCE['weights']:.0e})"
    )
    print(
        f"{'engine':<14}{'batch per rank':>15}{'ms per event':>14}{'least':>9}{'most':>9}"
        f"{'events/s':>10}{'MB per rank':>13}"
        f"{'times faster':>14}"
    )
    rows, theirs = [], turns[cases[0]]
    for case in cases:
        ms = [t["ms"] for t in turns[case]]
        ratios = [a["ms"] / b["ms"] for a, b in zip(theirs, turns[case])]  # of the same round
        rows.append(
            {
                "engine": case[0],
                "batch": case[2],
                "median": statistics.median(ms),
                "least": min(ms),
                "most": max(ms),
                "memory": max(t["memory"] for t in turns[case]),
                "times_faster": statistics.median(ratios),
                "ratios": ratios,
            }
        )
        r = rows[-1]
        print(
            f"{r['engine']:<14}{r['batch']:>15}{r['median']:>14.1f}{r['least']:>9.1f}"
            f"{r['most']:>9.1f}{1e3 / r['median']:>10.1f}"
            f"{r['memory']:>13.0f}{r['times_faster']:>14.1f}"
        )
    record(
        args.json,
        {
            "size": args.size,
            "ranks": args.ranks,
            "threads": args.threads,
            "cores": os.cpu_count(),
            "torch": version("torch"),
            "sync": args.sync,
            "differences": far,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()

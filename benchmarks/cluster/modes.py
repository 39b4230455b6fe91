"""Every sync mode in training steps on the nodes of a cluster, at several rates and batches, with
steps that exchange nothing as the floor.

    python benchmarks/cluster/modes.py [--nodes 2] [--rates 1gbit 100mbit] [--batches 4 32]
        [--json FILE]
    python benchmarks/cluster/modes.py --paced 30 --nodes 4 8 16 --rates 100mbit [--per-node 2]

It makes the nodes (cluster.py), so it needs root. Modes take turns on the same events, the same on
all ranks, so that nobody waits for a brighter one. "step" is the median over turns; "efficiency"
is the step without exchange over the step; "exposed" is what the main thread spends in
communication and "packing" in half precision, by the ledger; "sent" is what a node's cable carried.
"predicted" is the performance model's step: the floor, and the exchange through the link that two
ranks have measured just before; with several ranks per node, which share it, there is none.
With --paced MS each event takes so long *asleep* instead of computing: a rank then needs no core of
its own, and more nodes than cores show what the exchange takes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import minicnn as mc
from minicnn.inspect.allreduce_costs import link_of, rabenseifner, ring
from minicnn.inspect.report.figures import save_figure
from minicnn.inspect.trace import COMMUNICATION, WAIT, Ledger
from minicnn.jobs.recipe import FULL_SIZE, Recipe
from minicnn.parallel import make_sync, ordered, world
from minicnn.parallel.machine import exchange_seconds
from minicnn.parallel.sync.gradients import GradientSync
from minicnn.text import counted
from minicnn.train.step import flush, train_step

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent)]

from common import record  # noqa: E402

FLOOR = "none"
MODES = (FLOOR, "gradients", "overlap", "delayed", "fp16", "bf16")


class NoExchange(GradientSync):
    """The floor: every rank steps by itself."""

    def allreduce(self, buffer, kernels=None):
        pass


# ------------------------------------------------------------------------------------ on every rank
def turn(comm, model, optimizer, sync, batches):
    """Return {figure: seconds or bytes per step} of a turn, means over ranks."""
    ledger = Ledger(detail=True, keep=0)
    ledger.align(comm)
    comm.Barrier()
    before = sent()
    with ledger:
        for number, batch in enumerate(batches, 1):
            train_step(model, [batch], optimizer, sync, ledger)
            if number == len(batches):
                flush(model, optimizer, sync, ledger)
            ledger.step()
    carried = sent() - before
    ledger.close(comm)
    summary = ledger.summaries[-1]

    def of(*names):
        return sum(seconds for (part, _), seconds in summary.mean.items() if part in names)

    return {
        "step": summary.wall,
        "exposed": of(*COMMUNICATION),
        "packing": of("pack"),
        "waiting": of(WAIT),
        "sent": statistics.fmean(comm.allgather(carried)) / len(batches),
    }


def sent():
    """Return the bytes that this node has sent."""
    return int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text())


def worker(comm, args):
    """Measure all modes in turns; rank 0 writes the rows."""
    mc.kernels.get_backend("cpu").set_threads(1)  # which packs in half precision for all devices
    if args.paced:
        from paced import paced_model

        model, optimizer = paced_model(args.paced / 1e3)
        batches = [(range(args.batch_size), np.zeros(args.batch_size, np.int64))] * args.steps
    else:
        model, optimizer = Recipe(size=args.size).build_model(device="cpu"), mc.SGD(1e-4, 0.9)
        batches = real_batches(args)
    syncs = {
        mode: NoExchange(comm) if mode == FLOOR else make_sync(mode, comm) for mode in args.modes
    }
    if not args.paced:
        make_sync("gradients", comm).broadcast(model, optimizer)
    turns = {mode: [] for mode in args.modes}
    for number in range(-1, args.rounds):
        for mode, sync in syncs.items():
            done = turn(comm, model, optimizer, sync, batches[: None if number >= 0 else 1])
            if number >= 0:
                turns[mode].append(done)
    rows = [
        {
            "mode": mode,
            **{key: statistics.median(one[key] for one in done) for key in done[0]},
            "least": min(one["step"] for one in done),
            "most": max(one["step"] for one in done),
        }
        for mode, done in turns.items()
    ]
    nbytes = model.gradients.nbytes
    half = nbytes // 2  # the largest message of Rabenseifner's Allreduce
    link = link_of([(n, exchange_seconds(comm, 0, 1, n)) for n in (4, half)], half, 0.0)
    predict(rows, comm.size if args.per_node == 1 else None, nbytes, link)
    found = {"rows": rows, "latency": link.alpha, "bandwidth": 1 / link.beta}
    ordered(comm, lambda: args.worker.write_text(json.dumps(found)))


def real_batches(args):
    """Return the batches of a turn, events of the file or simulated ones."""
    if args.events:
        source = mc.data.open_events(args.events, size=args.size)
    else:
        source = mc.data.Simulator(0, (args.size, args.size, 1), sample="isotropic")
    batches = []
    for first in range(0, args.steps * args.batch_size, args.batch_size):
        events = [source.read(first + number) for number in range(args.batch_size)]
        batches.append(([e.image for e in events], np.array([e.label for e in events])))
    return batches


def predict(rows, ranks, nbytes, link):
    """Add to each row what the model says of its step: MPICH sums buffers of this size by
    Rabenseifner's algorithm; half precision goes around as 2 bytes, after packing. None for modes
    that hide a part, which depends on how often MPI is called, and without a number of ``ranks``.
    """
    if ranks is None:
        for row in rows:
            row["predicted"] = None
        return
    floor = next((row["step"] for row in rows if row["mode"] == FLOOR), None)
    exchange = {FLOOR: 0.0, "gradients": rabenseifner(ranks, nbytes, link)}
    exchange |= dict.fromkeys(("fp16", "bf16"), ring(ranks, nbytes / 2, link))
    for row in rows:
        known = floor is not None and row["mode"] in exchange
        row["predicted"] = floor + exchange[row["mode"]] + row["packing"] if known else None


# -------------------------------------------------------------------------------------- the command
def cluster(*words):
    """Run a command of cluster.py; SystemExit with what it says where it fails."""
    command = [sys.executable, HERE / "cluster.py", *words]
    if subprocess.run([*map(str, command)]).returncode:
        raise SystemExit(f"cluster.py {' '.join(map(str, words[:3]))} failed")


def measured(args, batch):
    """Return what one setting gives, measured on the nodes that are up."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        options = ["--worker", out, "--batch-size", batch, "--rounds", args.rounds]
        options += ["--steps", args.steps, "--size", args.size, "--modes", *args.modes]
        options += ["--per-node", args.per_node]
        options += ["--paced", args.paced] if args.paced else []
        options += ["--events", args.events.resolve()] if args.events else []
        cluster("mpi", args.per_node, sys.executable, __file__, *options)
        return json.loads(out.read_text())


def table(rows, title):
    """Print the rows of one setting."""
    print(f"\n{title}\nms; MB that a node has sent in a step")
    names = ("step", "least", "most", "over", "exposed", "packing", "waiting")
    heads = "".join(f"{name:>9}" for name in names)
    print(f"{'mode':<11}{heads}  efficiency     sent   predicted")
    floor = next((row["step"] for row in rows if row["mode"] == FLOOR), None)
    for row in rows:
        row["over"] = row["step"] - floor if floor else float("nan")
        row["efficiency"] = floor / row["step"] if floor else float("nan")
        cells = "".join(f"{1e3 * row[name]:>9.1f}" for name in names)
        text = (
            f"{row['mode']:<11}{cells}{100 * row['efficiency']:>10.1f} %{row['sent'] / 1e6:>9.2f}"
        )
        if row["predicted"] and row["mode"] != FLOOR:
            error = row["predicted"] / row["step"] - 1
            text += f"{1e3 * row['predicted']:>9.1f} ({100 * error:+.1f} %)"
        print(text, flush=True)


def draw(args, settings):
    """Draw the efficiency of each mode against the number of nodes, for every rate and batch; what
    the model predicts is a broken line of the same colour.
    """
    from matplotlib.figure import Figure

    places = [(rate, batch) for rate in args.rates for batch in args.batches]
    figure = Figure(figsize=(5.2 * len(places), 4), dpi=120, layout="constrained")
    for axes, (rate, batch) in zip(np.atleast_1d(figure.subplots(1, len(places))), places):
        found = [s for s in settings if (s["rate"], s["batch"]) == (rate, batch)]
        nodes = [setting["nodes"] for setting in found]
        for number, mode in enumerate(mode for mode in args.modes if mode != FLOOR):
            rows = [{row["mode"]: row for row in setting["rows"]} for setting in found]
            floors = [of[FLOOR]["step"] for of in rows]
            part = [100 * floor / of[mode]["step"] for floor, of in zip(floors, rows)]
            axes.plot(nodes, part, f"C{number}o-", label=mode)
            if all(of[mode]["predicted"] for of in rows):
                part = [100 * floor / of[mode]["predicted"] for floor, of in zip(floors, rows)]
                axes.plot(nodes, part, f"C{number}--", alpha=0.6)
        kind = f"paced {args.paced:g} ms an event" if args.paced else "real"
        axes.set_title(f"{rate}, batch {batch}, {kind}; broken: the model", fontsize=9)
        axes.set_xscale("log", base=2)
        axes.set_xticks(nodes, [str(n) for n in nodes])
        axes.set_xlabel("nodes")
        axes.set_ylabel("step without exchange over step, %")
        axes.set_ylim(0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, args.plot)


def main(args):
    if args.plot and FLOOR not in args.modes:
        raise SystemExit(f"modes.py --plot draws relations to the mode {FLOOR}: name it, too")
    os.environ["CLUSTER"] = f"modes-{os.getpid()}"
    os.environ.setdefault("MPIR_CVAR_POLLS_BEFORE_YIELD", "1" if args.paced else "1000")
    results = []
    for nodes in args.nodes:
        try:
            # A paced rank is on no core most of the time; a computing one has a core of its own.
            options = [] if args.paced else ["--pin"]
            options += ["--congestion", args.congestion] if args.congestion else []
            options += ["--delay", args.delay] if args.delay else []
            cluster("up", nodes, "--rate", args.rates[0], *options)
            for rate in args.rates:
                cluster("rate", rate)
                for batch in args.batches:
                    began = time.time()
                    found = measured(args, batch)
                    what = f"paced {args.paced:g} ms an event" if args.paced else "real steps"
                    link = f"{1e6 * found['latency']:.0f} us, {found['bandwidth'] / 1e6:.1f} MB/s"
                    ranks = counted(args.per_node, "rank")
                    title = f"{nodes} nodes x {ranks}, {rate} ({link}), batch {batch}, {what}"
                    table(found["rows"], title)
                    seconds = time.time() - began
                    setting = {"nodes": nodes, "rate": rate, "batch": batch, "seconds": seconds}
                    setting |= {"per_node": args.per_node, "paced": args.paced, "delay": args.delay}
                    results.append(setting | found)
                    whole = {"size": args.size, "cores": os.cpu_count(), "settings": results}
                    record(args.json, whole)  # after each: what is interrupted keeps what it has
        finally:
            cluster("down")
    if args.plot:
        draw(args, results)


def parser():
    made = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = made.add_argument
    add("--nodes", type=int, nargs="+", default=[2])
    add("--per-node", type=int, default=1, metavar="RANKS")
    add("--rates", nargs="+", default=["1gbit", "100mbit"], help="of each cable and direction")
    add("--congestion", help="TCP's congestion control on the nodes (default: the machine's)")
    add("--delay", type=float, help="microseconds of each message, by a switch in user space")
    add("--batches", type=int, nargs="+", default=[4, 32], help="events per step and rank")
    add("--modes", nargs="+", default=MODES)
    add("--steps", type=int, default=4, help="steps of a turn")
    add("--rounds", type=int, default=5, help="turns of each mode")
    add("--size", type=int, default=FULL_SIZE, help="rows and columns of the images, in pixels")
    add("--events", type=Path, help="take events from this file (default: simulate them)")
    add("--paced", type=float, metavar="MS", help="each event takes so long asleep")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file")
    add("--plot", type=Path, metavar="PNG", help="draw efficiency against nodes into this file")
    add("--worker", type=Path, help=argparse.SUPPRESS)
    add("--batch-size", type=int, help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    arguments = parser().parse_args()
    if arguments.worker:
        with world() as communicator:
            worker(communicator, arguments)
    else:
        main(arguments)

"""``model``: measure on the ranks that run here, predict them, compare, and extrapolate to
thousands, with a page and a picture.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from ..progress import Meter


def arguments(parser):
    parser.epilog = (
        "In one process it starts the ranks to measure by itself; under mpiexec it measures with these ranks. "
        "python -m minicnn model --out docs remakes docs/model.md and docs/model.png."
    )
    add = parser.add_argument
    add(
        "--ranks",
        type=int,
        nargs="+",
        default=[1, 2, 4],
        help="rank counts to measure (those without cores of their own are marked)",
    )
    add("--threads", type=int, default=1, help="threads per rank")
    add("--size", type=int, default=3600, help="side of the images in pixels")
    add("--batch-size", type=int, default=32, help="events per step and rank")
    add("--events-per-rank", type=int, default=128, help="events that each rank measures with")
    add("--events", type=Path, help="file to take them from (default: simulate them)")
    add(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="predict from this calibration instead of measuring",
    )
    add("--save", type=Path, metavar="FILE", help="write the calibration to this file (JSON)")
    add("--to", type=int, default=4096, help="extrapolate to so many ranks")
    add("--per-node", type=int, help="ranks per node (default: the cores of this one / threads)")
    add("--latency", type=float, default=1.5, help="of the fabric between nodes, microseconds")
    add(
        "--bandwidth",
        type=float,
        default=12.5,
        help="of the fabric, GB/s and node and direction (12.5: 100 Gb/s)",
    )
    add("--training-events", type=int, default=30_000, help="of an epoch")
    add(
        "--global-batch",
        type=int,
        default=4096,
        help="events per update of all ranks together, for strong scaling",
    )
    add("--out", type=Path, metavar="FOLDER", help="write model.md and model.png there")
    add("--worker", type=Path, help=argparse.SUPPRESS)  # of the ranks it starts: where to write


def run(args):
    from ..inspect.performance import Calibration
    from ..parallel import ordered, world

    if args.calibration:
        calibration = Calibration.load_file(args.calibration)
    else:
        with world() as comm:
            if comm or args.worker:
                result = _measure(comm, args)
                if args.worker:
                    ordered(comm, lambda: args.worker.write_text(json.dumps(result)))
                    return 0
                if comm.rank:
                    return 0
                results = {comm.size: result}
            else:
                results = _start(args)
        from ..inspect.calibrate import calibrate

        calibration = calibrate(results, args.size, args.batch_size, args.threads)
    if args.save:
        calibration.save(args.save)
    text, draw = _report(args, calibration)
    print(text)
    if args.out:
        from ..inspect.report.scaling import draw_scaling

        draw_scaling(args.out / "model.png", **draw)
        (args.out / "model.md").write_text(_page(text, args))
        print(f"\nwrote {args.out}/model.md and {args.out}/model.png")
    return 0


# ---------------------------------------------------------------------------------------- measuring
def _measure(comm, args):
    from ..inspect.calibrate import measure
    from ..parallel import threads_per_rank

    ranks = comm.size if comm else 1
    with tempfile.TemporaryDirectory() as folder:
        path = args.events or _simulate(
            comm, args, Path(comm.bcast(folder) if comm else folder) / "events.h5", ranks
        )
        alone = (
            not args.worker
            or ranks * args.threads <= threads_per_rank(None)
            or ranks == min(args.ranks)
        )
        return measure(
            comm,
            path,
            args.size,
            args.batch_size,
            args.threads,
            args.events_per_rank,
            computing=alone,
        )


def _simulate(comm, args, path, ranks):
    from .. import data
    from ..parallel import ordered

    ordered(
        comm,
        lambda: data.generate(
            path,
            ranks * args.events_per_rank,
            data.Simulator(0, (args.size, args.size, 1)),
            None,
            None,
        ),
    )
    return path


def _start(args):
    """Measure each rank count by mpiexec; return {ranks: result}."""
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which(
        "mpiexec"
    )
    if max(args.ranks) > 1 and not mpiexec:
        raise RuntimeError(
            'no mpiexec to measure several ranks with: pip install "minicnn[mpi]", load the cluster\'s MPI, or --ranks 1'
        )
    results, counts = {}, sorted(set(args.ranks))
    with tempfile.TemporaryDirectory() as folder, Meter("measuring", len(counts)) as meter:
        events = args.events or _simulate(None, args, Path(folder) / "events.h5", max(counts))
        for done, ranks in enumerate(counts):
            meter.update(done, f"{ranks} rank{'s' * (ranks > 1)}")
            out = Path(folder) / f"{ranks}.json"
            command = [
                *([mpiexec, "-n", str(ranks)] if ranks > 1 else []),
                sys.executable,
                "-m",
                "minicnn",
                "model",
                "--worker",
                str(out),
                "--events",
                str(events),
                "--ranks",
                str(counts[0]),
            ]
            for name in ("threads", "size", "batch_size", "events_per_rank"):
                command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
            finished = subprocess.run(command, capture_output=True, text=True)
            if finished.returncode or not out.exists():
                raise RuntimeError(
                    f"measuring on {ranks} ranks failed: {(finished.stderr or finished.stdout).strip()[-800:]}"
                )
            results[ranks] = json.loads(out.read_text())
    return results


# ------------------------------------------------------------------------------------------ telling
def _report(args, c):
    """Return (text, what the picture needs) for a Calibration."""
    from ..inspect.performance import ALGORITHMS, Link, Model, Setting, allreduce, efficiency

    fabric = Link(1e-6 * args.latency, 1e-9 / args.bandwidth, c.gamma)
    per_node = args.per_node or max(c.cores // c.threads, 1)
    model, batch = Model(c), args.batch_size
    here = Setting(c.inner, 1 << 30, cores=c.cores)
    off, on = (Setting(fabric, per_node, overlap=overlap) for overlap in (False, True))
    counts = [1 << k for k in range(args.to.bit_length()) if 1 << k <= args.to]
    weak = {
        overlap: model.weak(counts, batch, setting)
        for overlap, setting in ((False, off), (True, on))
    }
    strong = {
        overlap: model.strong(counts, args.global_batch, setting)
        for overlap, setting in ((False, off), (True, on))
    }
    costs = {
        name: [allreduce(name, n, c.bytes, fabric, c.inner, per_node) for n in counts]
        for name in ALGORITHMS
    }
    measured = {r: (parts, model.step(r, c.batch, here)) for r, parts in sorted(c.measured.items())}
    fits = {
        r: [(n, t, allreduce("rabenseifner", r, n, c.inner)) for n, t in points]
        for r, points in c.allreduce.items()
    }
    text = "\n\n".join(
        [
            _calibrated(c),
            _compared(c, measured),
            _reductions(fits),
            _table(
                f"Weak scaling, {batch} events per rank and step, {per_node} ranks per node, fabric {args.latency:g} us and "
                f"{args.bandwidth:g} GB/s",
                weak[False],
                weak[True],
                efficiency,
                args.training_events,
            ),
            _table(
                f"Strong scaling, {args.global_batch} events per update",
                strong[False],
                strong[True],
                efficiency,
                args.training_events,
            ),
            _algorithms(counts, costs, c.bytes),
            _ends(args, c, weak, strong, efficiency),
        ]
    )
    return text, {
        "counts": counts,
        "weak": weak,
        "strong": strong,
        "costs": costs,
        "measured": measured,
        "batch": batch,
        "threads": c.threads,
        "cores": c.cores,
    }


def _calibrated(c):
    import numpy as np

    events = 1e3 * np.asarray(c.events)
    low, middle, high = np.percentile(events, (5, 50, 95))
    slower = (
        ", ".join(
            f"{r} ranks at once {100 * (s - 1):+.1f} %"
            for r, s in sorted(c.slowdown.items())
            if r > 1
        )
        or "not measured"
    )
    return "\n".join(
        [
            f"Calibration: {c.machine}, {c.cores} cores, {c.threads} thread{'s' * (c.threads > 1)} per rank, {c.size} x {c.size}, "
            f"batch {c.batch}",
            f"  an event         {events.mean():9.3f} ms, from {low:.2f} (5 %) over {middle:.2f} (50 %) to {high:.2f} (95 %); "
            f"{len(events)} measured",
            f"  an update        {1e3 * c.fixed:9.3f} ms: packing, resting tables, checks, update; "
            f"the backward pass that can hide an exchange {1e3 * c.backward:.2f} ms",
            f"  loading          {1e3 * c.load:9.3f} ms an event: {1 / max(c.load, 1e-9):.0f} events/s",
            f"  memory           {1e-9 * c.memory_bandwidth:9.2f} GB/s copied; adding gradients {1e-9 / c.gamma:.2f} GB/s; "
            f"computing slows down by {slower}",
            f"  Allreduce here   {1e6 * c.alpha:9.2f} us a message, {1e-9 / c.beta:.2f} GB/s",
        ]
    )


def _compared(c, measured):
    lines = [
        "Predicted beside measured, ms per step (measured: training with the ledger)",
        f"{'ranks':>7}{'computing':>22}{'waiting':>20}{'communication':>20}{'step':>22}{'error':>9}",
    ]
    for r, (m, p) in measured.items():
        pairs = (
            (p.compute, m["compute"]),
            (p.wait, m["wait"]),
            (p.exposed, m["communication"]),
            (p.total, m["step"]),
        )
        cells = "".join(
            f"{1e3 * a:>{w - 10}.2f} |{1e3 * b:>8.2f}" for (a, b), w in zip(pairs, (22, 20, 20, 22))
        )
        note = "   more threads than cores" if r * c.threads > c.cores else ""
        lines.append(f"{r:>7}{cells}{100 * (p.total / m['step'] - 1):>+8.1f} %{note}")
    return "\n".join(lines)


def _reductions(fits):
    lines = ["Allreduce, predicted | measured, ms (one fit of two numbers for all)"]
    for r, points in sorted(fits.items()):
        lines.append(
            f"  {r} ranks:  "
            + "   ".join(f"{_size(n)} {1e3 * p:.3f} | {1e3 * t:.3f}" for n, t, p in points)
        )
    return "\n".join(lines) if fits else "Allreduce: not measured on one rank"


def _size(n):
    return (
        f"{n} B" if n < 1024 else f"{n / 1024:.0f} kB" if n < 1 << 20 else f"{n / (1 << 20):.1f} MB"
    )


def _table(title, off, on, efficiency, events):
    from ..inspect.performance import epoch_seconds

    lines = [
        title,
        f"{'ranks':>7}{'batch':>7}{'computing':>11}{'waiting':>9}{'exchange':>10}{'step ms':>10}{'efficiency':>12}"
        f"{'events/s':>11}{f'epoch of {events:,}':>18}{'overlapped: step':>19}{'efficiency':>12}",
    ]
    for a, b, ea, eb in zip(off, on, efficiency(off), efficiency(on)):
        lines.append(
            f"{a.ranks:>7}{a.batch:>7}{1e3 * a.compute:>11.2f}{1e3 * a.wait:>9.2f}{1e3 * a.exposed:>10.3f}{1e3 * a.total:>10.2f}"
            f"{100 * ea:>10.1f} %{a.rate:>11.0f}{_time(epoch_seconds(a, events)):>18}{1e3 * b.total:>19.2f}{100 * eb:>10.1f} %"
        )
    return "\n".join(lines)


def _time(s):
    return f"{s / 3600:.1f} h" if s > 5400 else f"{s / 60:.1f} min" if s > 90 else f"{s:.2f} s"


def _algorithms(counts, costs, n):
    lines = [
        f"Allreduce of {n / 1e6:.2f} MB over the fabric, ms, by algorithm (the fastest is taken above)",
        f"{'ranks':>7}" + "".join(f"{name:>21}" for name in costs),
    ]
    for i, ranks in enumerate(counts[1:], 1):
        best = min(one[i] for one in costs.values())
        lines.append(
            f"{ranks:>7}"
            + "".join(
                f"{1e3 * one[i]:>19.3f}{' *' if one[i] == best else '  '}" for one in costs.values()
            )
        )
    return "\n".join(lines)


def _ends(args, c, weak, strong, efficiency):
    """Say in words where scaling ends, and why."""
    lines = ["Where it ends"]
    last = weak[False][-1]
    lines.append(
        f"  Weak scaling does not end by {last.ranks:,} ranks, it fades: {100 * efficiency(weak[False])[-1]:.0f} % of the "
        f"throughput per rank is left. Of a step {100 * last.wait / last.total:.1f} % waits for the brightest events, "
        f"{100 * last.exposed / last.total:.1f} % is communication ({100 * weak[True][-1].exposed / weak[True][-1].total:.1f} % "
        f"overlapped). An update then takes {last.ranks * last.batch:,.0f} events: the learning rate has to follow, if it can."
        + " Larger batches, or equally many lit pixels on all ranks, would shorten the wait."
        * (last.wait > last.exposed)
    )
    fixed = c.fixed * c.slowdown.get(max(c.slowdown, default=1), 1.0)
    below = [(s, e) for s, e in zip(strong[False], efficiency(strong[False])) if e < 0.5]
    final = strong[False][-1]
    end = (
        f"passes below one half at {below[0][0].ranks:,} ranks ({below[0][0].batch} events each)"
        if below
        else f"is still {100 * efficiency(strong[False])[-1]:.0f} % at {final.ranks:,} ranks"
    )
    reasons = {
        "what every update costs whatever the batch (packing, resting tables, checks)": fixed,
        "waiting for the brightest event": final.wait,
        "communication": final.exposed,
    }
    worst = sorted(reasons.items(), key=lambda item: -item[1])
    lines.append(
        f"  Strong scaling with {args.global_batch} events per update {end}. At {final.ranks:,} ranks, {final.batch:g} "
        f"event{'s' * (final.batch != 1)} each, a step of {1e3 * final.total:.1f} ms is "
        + ", ".join(f"{100 * s / final.total:.0f} % {what}" for what, s in worst)
        + f". It ends for good at {args.global_batch} ranks: a rank needs an event."
    )
    return "\n".join(
        [lines[0], *(textwrap.fill(line, 138, subsequent_indent="  ") for line in lines[1:])]
    )


def _page(text, args):
    command = "python -m minicnn model --out docs" + "".join(
        f" --{name} {getattr(args, name)}"
        for name in ("calibration", "save")
        if getattr(args, name)
    )
    again = (
        f"\n(that calibration was made by `python -m minicnn model --save {args.calibration} --out docs`, which measures anew)"
        if args.calibration
        else ""
    )
    return f"""# The performance model

    {command}

predicts from measurements on a machine, prints predictions beside what training there took, extrapolates, and writes this page and its
picture{again}.

![what the model says](model.png)

A step of N ranks takes what the slowest of them computes, and the communication that nothing hides:

    step(N) = E[max over N ranks of slowdown * (fixed + t_1 + ... + t_b)] + exposed communication

The times t of events are drawn from those measured (events differ in how much is lit), the expected maximum of N sums is that of their
empirical distribution. An Allreduce costs what its messages cost, alpha + n beta each, and gamma n for sums: ring, recursive doubling,
Rabenseifner's, and hierarchical (within the node first), after Thakur, Rabenseifner and Gropp (2005); the ranks of one node share its link.
Overlapped, communication hides behind the backward pass of the *last* event of a batch, because gradients are complete only then; its
latency is never hidden. With every core at work, the thread that fetches and decompresses takes its time from the computation.

What the model leaves out: contention within the fabric, system noise beyond what the measured times hold, reading of files, validation,
checkpoints, and that nodes differ. Extrapolations from one small node are for judging orders of magnitude and causes, not for promises.

## What it printed

```
{text}
```

`--latency`, `--bandwidth` (of the fabric), `--per-node`, `--batch-size`, `--global-batch` and `--to` change the question;
`--calibration FILE` asks it of an earlier measurement. On a cluster, `mpiexec -n 64 python -m minicnn model --save cluster.json` measures
with these ranks, and its Allreduce then holds the fabric that they use.
"""

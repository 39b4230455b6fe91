"""The talk's scaling figures, from real runs on this machine, each with the performance model's
line beside it.

    python benchmarks/scaling.py                              measure what is missing, then draw docs/scaling.md and its picture
    python benchmarks/scaling.py --parts throughput speedup   only these, anew
    python benchmarks/scaling.py --parts                      only draw

Results are kept in --results as they come, so that a run that is cut short goes on where it was.
Parts: throughput (reading and compressing events, and fetching them, against ranks), speedup
(training against ranks), gpus (training against GPUs where there are some, a rank each), loss
(against epochs, for several effective batch sizes). Rank counts beyond the cores are measured too,
and marked.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import minicnn as mc
from minicnn.inspect.calibrate import measure
from minicnn.inspect.performance import Calibration, ScalingModel, Setting
from minicnn.parallel import agree, everywhere, threads_per_rank, world

PARTS = ("throughput", "speedup", "gpus", "loss")


def arguments():
    p = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument(
        "--parts",
        nargs="*",
        choices=PARTS,
        help="measure these anew (default: those that are missing)",
    )
    p.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    p.add_argument("--size", type=int, default=3600)
    p.add_argument(
        "--batch-size", type=int, default=32, help="events per step and rank, for the speed-up"
    )
    p.add_argument(
        "--gpu", default="cuda", help='device of the part "gpus"; "emulated" to try it without one'
    )
    p.add_argument("--events-per-rank", type=int, default=64)
    p.add_argument(
        "--loss-events",
        type=int,
        default=3000,
        help="training events of the loss curves; a fifth more validate",
    )
    p.add_argument(
        "--loss-batch", type=int, default=4, help="effective batch size of the first loss curve"
    )
    p.add_argument(
        "--scales",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8, 16],
        help="effective batch sizes, in units of --loss-batch",
    )
    p.add_argument(
        "--loss-rate",
        type=float,
        default=0.0007,
        help="its learning rate (Adam); it grows as the root of the batch",
    )
    p.add_argument("--epochs", type=int, default=4, help="of the loss curves")
    p.add_argument("--cache", type=Path, default=Path("data"), help="folder for simulated events")
    p.add_argument("--results", type=Path, default=Path("benchmarks/results/scaling-2-cores.json"))
    p.add_argument(
        "--calibration",
        type=Path,
        default=Path("benchmarks/results/model-2-cores.json"),
        help="for the model's line",
    )
    p.add_argument("--out", type=Path, default=Path("docs"))
    p.add_argument("--worker", nargs=2, metavar=("PART", "FILE"), help=argparse.SUPPRESS)
    return p


def main():
    args = arguments().parse_args()
    if args.worker:
        with world() as comm:
            result = WORKERS[args.worker[0]](comm, args)
            if not comm or comm.rank == 0:
                Path(args.worker[1]).write_text(json.dumps(result))
        return
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    results |= {"cores": threads_per_rank(None), "size": args.size, "batch": args.batch_size}
    for part in PARTS if args.parts is None else args.parts:
        counts = args.scales if part == "loss" else args.ranks if part != "gpus" else on_gpus(args)
        done = results.setdefault(part, {}) if counts else {}
        for one in map(str, counts):
            if one not in done or args.parts:
                start = time.perf_counter()
                done[one] = (
                    loss(args, int(one)) if part == "loss" else on_ranks(args, part, int(one))
                )
                results[part] = done = dict(sorted(done.items(), key=lambda item: int(item[0])))
                args.results.parent.mkdir(parents=True, exist_ok=True)
                args.results.write_text(json.dumps(results, indent=1) + "\n")
                print(f"{part} {one}: {time.perf_counter() - start:.0f} s", flush=True)
    text = tables(results, ScalingModel(Calibration.load_file(args.calibration)))
    print(text)
    draw(args.out / "scaling.png", results, ScalingModel(Calibration.load_file(args.calibration)))
    (args.out / "scaling.md").write_text(PAGE.format(text=text))
    print(f"wrote {args.out}/scaling.md and {args.out}/scaling.png")


# ---------------------------------------------------------------------------------------- measuring
def simulated(args, events):
    """Return a file with at least so many simulated events, made in this process if it is not
    there.
    """
    path = args.cache / f"scaling-{args.size}-{events}.h5"
    if not path.exists():
        args.cache.mkdir(parents=True, exist_ok=True)
        mc.data.generate(path, events, mc.data.Simulator(0, (args.size, args.size, 1)), None, None)
    return path


def on_gpus(args):
    """Return the rank counts for which every rank has a GPU, none without GPUs."""
    from minicnn.kernels.cuda import gpu

    if args.gpu == "emulated":
        return args.ranks
    reason = gpu.problem()
    if reason:
        print(f"gpus: not measured, {reason}")
        return []
    return [n for n in args.ranks if n <= gpu.device_count()]


def on_ranks(args, part, ranks):
    """Run this file's worker on so many ranks; return what it measured."""
    simulated(args, max(args.ranks) * args.events_per_rank)
    out = args.cache / f"scaling-worker-{os.getpid()}.json"
    mpiexec = (
        shutil.which("mpiexec", path=str(Path(sys.executable).parent))
        or shutil.which("mpiexec")
        or "mpiexec"
    )
    command = [
        mpiexec,
        "-n",
        str(ranks),
        sys.executable,
        __file__,
        "--worker",
        part,
        str(out),
        "--ranks",
        *map(str, args.ranks),
    ]
    for name in ("size", "batch_size", "events_per_rank", "cache", "gpu"):
        command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "MPIR_CVAR_POLLS_BEFORE_YIELD": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode or not out.exists():
            raise SystemExit(f"{part} on {ranks} ranks failed: {done.stderr[-2000:]}")
        return json.loads(out.read_text())
    finally:
        out.unlink(missing_ok=True)


def throughput(comm, args):
    """Every rank loads its share and fetches it again; return events/s and image MB/s of all ranks,
    by the slowest.
    """
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    events = max(args.ranks) * args.events_per_rank
    path = simulated(args, events)
    with everywhere(comm, lambda: mc.data.open_events(path, size=args.size)) as source:
        agree(comm)  # begin together
        store = mc.data.EventStore().load(source, mc.data.shard(events, ranks, rank))
    agree(comm)
    start = time.perf_counter()
    for i in range(len(store)):
        store.batch([i])
    fetched = max(agree(comm, value=time.perf_counter() - start))
    loaded = max(agree(comm, value=store.seconds))
    size = sum(agree(comm, value=store.nbytes))
    return {
        "load": events / loaded,
        "load_MBps": events * 4 * args.size**2 / loaded / 1e6,
        "fetch": events / fetched,
        "bytes_per_event": size / events,
    }


def speedup(comm, args, device="cpu"):
    """Return events/s and the parts of a step of a real training on these ranks, a thread each."""
    path = simulated(args, max(args.ranks) * args.events_per_rank)
    found = measure(
        comm,
        path,
        args.size,
        args.batch_size,
        1,
        args.events_per_rank,
        epochs=4,
        computing=False,
        device=device,
    )
    training = found["training"]
    return training | {"rate": (comm.size if comm else 1) * args.batch_size / training["step"]}


def loss(args, scale):
    """Train with an effective batch of ``scale`` times --loss-batch; return loss and validation
    loss per epoch.

    One process with all threads: N ranks of b events each compute the same as one rank of N * b
    (tests/mpi_cases.py, equals_one_rank).
    """
    validation = args.loss_events // 5
    path = simulated(args, args.loss_events + validation)
    with mc.data.open_events(path, size=args.size) as source:
        train = mc.data.EventStore().load(source, range(args.loss_events))
        held = mc.data.EventStore().load(
            source, range(args.loss_events, args.loss_events + validation)
        )
    batch, far = args.loss_batch * scale, args.size // 20
    updates = -(-args.loss_events // batch)
    rate = args.loss_rate * scale**0.5
    rate = mc.optim.warmup(
        mc.optim.cosine(rate, updates * args.epochs, rate / 50), max(1, updates // 4)
    )
    optimizer = mc.Adam(rate).share("fc1", updates * args.epochs * 3 // 4)
    model = mc.models.microboone(
        args.size,
        input_scale=0.1 * args.size / 3600,
        input_knee=100 * 3600 / args.size,
        optimizer=optimizer,
    )
    t = mc.data.transforms
    train = t.Augmented(
        train, t.Compose([t.MirrorWire(), t.MirrorTime(), t.Shift(far, far), t.GainJitter(0.05)]), 0
    )
    try:
        history = model.fit(
            train,
            validation_data=held,
            epochs=args.epochs,
            batch_size=batch,
            callbacks=[mc.callbacks.Progress()],
        )
    except mc.NotFiniteError as problem:
        return {"batch": batch, "failed": str(problem)}
    return {
        "batch": batch,
        "updates": updates,
        "loss": history["loss"],
        "val_loss": history["val_loss"],
        "val_accuracy": history["val_accuracy"],
        "seconds": history["seconds"],
    }


def gpus(comm, args):
    """The same, with a GPU for each rank."""
    return speedup(comm, args, args.gpu)


WORKERS = {"throughput": throughput, "speedup": speedup, "gpus": gpus}


# ------------------------------------------------------------------------------------------ telling
def predicted(model, results, ranks):
    """Return the model's Step for a measured rank count on this machine."""
    return model.step(
        ranks, results["batch"], Setting(model.calibration.inner, 1 << 30, cores=results["cores"])
    )


def tables(results, model):
    """Return all figures as text."""
    cores, lines = results["cores"], []

    def note(ranks):
        return "" if int(ranks) <= cores else "   more ranks than cores"

    if "throughput" in results:
        lines += [
            "Data throughput",
            f"{'ranks':>7}{'loaded, events/s':>18}{'images, MB/s':>15}{'fetched, events/s':>19}"
            f"{'kB per event':>14}",
        ]
        for r, one in results["throughput"].items():
            lines.append(
                f"{r:>7}{one['load']:>18.0f}{one['load_MBps']:>15.0f}{one['fetch']:>19.0f}{one['bytes_per_event'] / 1e3:>14.1f}"
                f"{note(r)}"
            )
    if "speedup" in results:
        first = next(iter(results["speedup"].values()))["rate"]
        lines += [
            "",
            f"Training, {results['batch']} events per rank and step, one thread per rank",
            f"{'ranks':>7}{'events/s':>10}{'speed-up':>10}{'model':>8}{'waiting':>10}{'exposed communication':>23}",
        ]
        for r, one in results["speedup"].items():
            step = predicted(model, results, int(r))
            lines.append(
                f"{r:>7}{one['rate']:>10.1f}{one['rate'] / first:>10.2f}{step.rate / predicted(model, results, 1).rate:>8.2f}"
                f"{100 * one['wait'] / one['step']:>8.1f} %{100 * one['communication'] / one['step']:>21.2f} %{note(r)}"
            )
    if "gpus" in results:
        first = next(iter(results["gpus"].values()))["rate"]
        lines += [
            "",
            f"Training on GPUs, one rank each, {results['batch']} events per rank and step",
            f"{'GPUs':>7}{'events/s':>10}{'speed-up':>10}{'waiting':>10}{'exposed communication':>23}",
        ]
        lines += [
            f"{r:>7}{one['rate']:>10.1f}{one['rate'] / first:>10.2f}{100 * one['wait'] / one['step']:>8.1f} %"
            f"{100 * one['communication'] / one['step']:>21.2f} %"
            for r, one in results["gpus"].items()
        ]
    if "loss" in results:
        epochs = max(len(one.get("loss", ())) for one in results["loss"].values())
        lines += [
            "",
            "Validation loss against epochs (training loss of the last), by effective batch size",
            f"{'batch':>7}{'updates':>9}"
            + "".join(f"{e:>8}" for e in range(1, epochs + 1))
            + f"{'training':>11}{'accuracy':>10}",
        ]
        for one in results["loss"].values():
            lines.append(
                f"{one['batch']:>7}"
                + (
                    f"  {one['failed']}"
                    if "failed" in one
                    else f"{one['updates']:>9}"
                    + "".join(f"{v:>8.4f}" for v in one["val_loss"])
                    + f"{one['loss'][-1]:>11.4f}{one['val_accuracy'][-1]:>10.3f}"
                )
            )
    return "\n".join(lines)


def draw(path, results, model):
    """Draw the figures; those beyond the cores are hollow."""
    from matplotlib.figure import Figure

    panels = 4 if "gpus" in results else 3
    figure = Figure(figsize=(14 * panels / 3, 4.4), dpi=110, layout="constrained")
    a, b, *middle, c = figure.subplots(1, panels)
    cores = results["cores"]

    def points(axes, part, key, label, colour, most=cores):
        counts = sorted(map(int, results[part]))
        values = [results[part][str(r)][key] for r in counts]
        axes.plot(counts, values, "-", color=colour, alpha=0.4)
        for r, v in zip(counts, values):
            axes.plot(
                r,
                v,
                "o",
                color=colour,
                fillstyle="full" if r <= most else "none",
                label=label if r == counts[0] else None,
            )

    if "throughput" in results:
        points(a, "throughput", "load", "read and compress into memory", "C0")
        points(a, "throughput", "fetch", "fetch and decompress", "C1")
        first = results["throughput"][min(results["throughput"], key=int)]
        counts = sorted(map(int, results["throughput"]))
        for key, colour in (("load", "C0"), ("fetch", "C1")):
            a.plot(
                counts,
                [first[key] * min(r, cores) for r in counts],
                "--",
                color=colour,
                linewidth=1,
            )
        a.plot([], [], "k--", linewidth=1, label="cores x one rank")
        a.set(title="data throughput", ylabel="events/s", yscale="log")
    if "speedup" in results:
        counts = sorted(map(int, results["speedup"]))
        points(b, "speedup", "rate", "measured", "C0")
        b.plot(
            counts,
            [predicted(model, results, r).rate for r in counts],
            "k--",
            linewidth=1,
            label="performance model",
        )
        b.set(
            title=f"training, {results['batch']} events per rank and step",
            ylabel="events/s",
            ylim=(0, None),
        )
    for axes in middle:
        points(axes, "gpus", "rate", "measured", "C2", math.inf)
        first = results["gpus"][min(results["gpus"], key=int)]["rate"] / int(
            min(results["gpus"], key=int)
        )
        axes.plot(
            list(map(int, results["gpus"])),
            [first * int(r) for r in results["gpus"]],
            "k--",
            linewidth=1,
            label="GPUs x one",
        )
        axes.set(
            title=f"training on GPUs, {results['batch']} events per rank and step",
            ylabel="events/s",
            ylim=(0, None),
            xlabel="GPUs",
        )
    for axes in (a, b):
        axes.set_xscale("log", base=2)
        axes.set_xlabel(f"ranks (hollow: more than the {cores} cores)")
    for one in results.get("loss", {}).values():
        if "failed" not in one:
            c.plot(
                range(1, 1 + len(one["val_loss"])),
                one["val_loss"],
                "o-",
                markersize=3,
                label=f"batch {one['batch']}",
            )
    c.set(
        title="validation loss, by effective batch size",
        xlabel="epoch",
        ylabel="cross-entropy per event",
    )
    for axes in (a, b, *middle, c):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    figure.savefig(path)


PAGE = """# Scaling, measured

    python benchmarks/scaling.py

makes the talk's figures from real runs on this machine: 2 cores, one thread per rank, ranks not bound. Figures are kept in
`benchmarks/results/scaling-2-cores.json`; what is there is not measured again.

![throughput, speed-up, loss](scaling.png)

```
{text}
```

More ranks than cores share them, and waiting ranks keep a core busy, which the model leaves out: it predicts more than was measured
there. For larger machines see [model.md](model.md). The loss curves train the talk's network as the main job does (Adam, augmented events,
one set of weights for all positions at first) on 3,000 simulated events at full resolution and validate on 600; the learning rate grows as
the root of the batch (Malladi et al. 2022), so all curves see the same events and differ in the number of updates. Up to a batch of 32 they
end alike; at 64, whose rate is 0.0028, training breaks down: the ELUs saturate and the loss stays at that of chance. One process computes
them, because N ranks of b events compute what one rank of N x b does (a test). The talk's speed-up against GPUs joins the figures where the
command finds GPUs; this page's machine has none.
"""

if __name__ == "__main__":
    main()

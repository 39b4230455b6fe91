"""The talk's scaling figures, from real runs on this machine, each with the performance model's
line beside it.

    python benchmarks/scaling.py                              measure what is missing, then draw
    python benchmarks/scaling.py --parts throughput speedup   only these, anew
    python benchmarks/scaling.py --parts                      only draw

Makes docs/scaling.md and its picture.

Results are kept in --results as they come, so that a run that is cut short goes on where it was.
Parts: throughput (reading and compressing events, and fetching them, against ranks), speedup
(training against ranks), gpus (training against GPUs where there are some, a rank each), loss
(against epochs, for several effective batch sizes). Rank counts beyond the cores are measured too,
and marked.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from common import mpiexec, parser, record
from scaling_report import draw, page, tables

import minicnn as mc
from minicnn.files import atomic_write, read_json, write_json
from minicnn.inspect.calibrate import MeasureOptions, measure
from minicnn.inspect.performance import Calibration, ScalingModel
from minicnn.jobs.recipe import Recipe
from minicnn.parallel import agree, everywhere, threads_per_rank, world
from minicnn.simulate.samples import SAMPLES

PARTS = ("throughput", "speedup", "gpus", "loss")


def arguments():
    p = parser(__doc__, threads=False, json=False)
    p.add_argument(
        "--parts",
        nargs="*",
        choices=PARTS,
        help="measure these anew (default: those that are missing)",
    )
    p.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
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
    p.add_argument("--sample", default="talk", choices=SAMPLES, help="of the simulated events")
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
                write_json(args.worker[1], result)
        return
    results = read_json(args.results) if args.results.exists() else {}
    sample = results.get("sample", "isotropic" if results else args.sample)
    if args.parts != [] and sample != args.sample:
        print(f"{args.results} has figures of the sample {sample}: all are measured anew")
        results, sample = {}, args.sample
    results |= {"cores": threads_per_rank(None), "size": args.size, "batch": args.batch_size}
    results["sample"] = sample
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
                record(args.results, results)
                print(f"{part} {one}: {time.perf_counter() - start:.0f} s", flush=True)
    text = tables(results, ScalingModel(Calibration.load_file(args.calibration)))
    print(text)
    draw(args.out / "scaling.png", results, ScalingModel(Calibration.load_file(args.calibration)))
    atomic_write(args.out / "scaling.md", page(text, results))
    print(f"wrote {args.out}/scaling.md and {args.out}/scaling.png")


# ---------------------------------------------------------------------------------------- measuring
def simulated(args, events):
    """Return a file with at least so many simulated events, made in this process if it is not
    there.
    """
    path = args.cache / f"scaling-{args.sample}-{args.size}-{events}.h5"
    if not path.exists():
        args.cache.mkdir(parents=True, exist_ok=True)
        mc.data.generate(
            path,
            events,
            mc.data.Simulator(0, (args.size, args.size, 1), sample=args.sample),
            None,
            None,
        )
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
    command = [
        *mpiexec(ranks),
        sys.executable,
        __file__,
        "--worker",
        part,
        str(out),
        "--ranks",
        *map(str, args.ranks),
    ]
    for name in ("size", "batch_size", "events_per_rank", "sample", "cache", "gpu"):
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
        return read_json(out)
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
    options = MeasureOptions(
        args.size,
        args.batch_size,
        1,
        args.events_per_rank,
        computing=False,
        epochs=4,
        device=device,
    )
    found = measure(comm, path, options)
    training = found["training"]
    return training | {"rate": (comm.size if comm else 1) * args.batch_size / training["step"]}


def loss(args, scale):
    """Train with an effective batch of ``scale`` times --loss-batch; return loss and validation
    loss per epoch.

    One process with all threads: N ranks of b events each compute the same as one rank of N * b
    (tests/helpers/mpi_cases.py, equals_one_rank).
    """
    validation = args.loss_events // 5
    path = simulated(args, args.loss_events + validation)
    with mc.data.open_events(path, size=args.size) as source:
        train = mc.data.EventStore().load(source, range(args.loss_events))
        held = mc.data.EventStore().load(
            source, range(args.loss_events, args.loss_events + validation)
        )
    recipe = Recipe(
        size=args.size,
        epochs=args.epochs,
        batch_size=args.loss_batch * scale,
        learning_rate=args.loss_rate * scale**0.5,
    )
    updates = recipe.steps_per_epoch(args.loss_events)
    recipe = replace(recipe, warmup=max(1, updates // 4))
    model = recipe.build_model(recipe.build_optimizer(updates))
    batch, train = recipe.batch_size, recipe.for_training(train)
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
        "keep_rest": recipe.keep_rest,
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


if __name__ == "__main__":
    main()

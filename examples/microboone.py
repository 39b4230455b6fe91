"""Train the talk's five-class network on full-resolution LArTPC events, data-parallel over MPI.

    mpiexec -n 2 python examples/microboone.py                            simulate events (once), train, validate
    mpiexec -n 4 python examples/microboone.py --events my.h5 --epochs 10
    mpiexec -n 2 python examples/microboone.py --predict event.npz        class scores and a picture of real events

Everything it makes goes to --out: history.csv, loss.png, confusion.{txt,csv,png}, pictures of
events, model.safetensors, and run.json, which is written last: it is there if and only if the run
is complete.
"""

import argparse
import csv
import json
import math
import os
import platform
import resource
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

import minicnn as mc
from minicnn.inspect import report
from minicnn.parallel import MODES, agree, everywhere, make_sync, ordered, threads_per_rank, world
from minicnn.progress import Meter

BATCH_SIZE = 4
PICTURES, LINES = 6, 20  # of the events of a file that --predict draws, and prints
MOMENTUM, ALONG_WIRES = (
    "momentum of the particle [MeV/c]",
    "|cosine| between its direction and the vertical (the collection wires)",
)
RATES = {"adam": 0.0005, "sgd": 0.01, "lars": 1.0}


def count(text):
    """Return a number of things, at least 1, from the command line."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def arguments():
    p = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument(
        "--events",
        type=Path,
        help="event file in any format that minicnn reads (default: simulate, and keep in --cache)",
    )
    p.add_argument("--cache", type=Path, default=Path("data"), help="folder for simulated events")
    p.add_argument(
        "--train",
        type=count,
        help="training events (default: 3500 simulated ones, or 5/6 of --events)",
    )
    p.add_argument(
        "--validation",
        type=int,
        help="validation events (default: 500 simulated ones, or the rest of --events)",
    )
    p.add_argument("--size", type=count, default=3600, help="side of the images in pixels")
    p.add_argument("--epochs", type=count, default=4)
    p.add_argument("--batch-size", type=count, default=BATCH_SIZE, help="events per step and rank")
    p.add_argument(
        "--optimizer",
        choices=RATES,
        default="adam",
        help="lars: a rate of its own for every layer, for very large batches",
    )
    p.add_argument(
        "--learning-rate",
        type=float,
        help="of the first steps after the warm-up (default: "
        + ", ".join(f"{rate} for {name}" for name, rate in RATES.items())
        + ")",
    )
    p.add_argument(
        "--schedule",
        choices=("cosine", "constant"),
        default="cosine",
        help="the learning rate falls to 1/50 at the last epoch, or stays",
    )
    p.add_argument(
        "--warmup", type=int, default=50, help="steps over which the learning rate rises"
    )
    p.add_argument("--momentum", type=float, default=0.9, help="of sgd and lars")
    p.add_argument(
        "--share",
        type=int,
        metavar="EPOCHS",
        help="epochs in which fc1 has the same weights at all positions of the image, so "
        "that it learns faster (default: three quarters, none with --weights)",
    )
    p.add_argument(
        "--accumulate",
        type=count,
        default=1,
        help="batches that make one step: one exchange and update for all of them",
    )
    p.add_argument(
        "--scale-from",
        type=count,
        metavar="EVENTS",
        help="the learning rate is meant for so many events per step: it grows "
        "with their number on all ranks, rising to that over 100 steps",
    )
    p.add_argument(
        "--sync",
        choices=MODES,
        default="gradients",
        help="what ranks exchange, see docs/parallel.md",
    )
    p.add_argument("--bucket", type=count, metavar="KB", help="size of a piece with --sync overlap")
    p.add_argument(
        "--transport",
        choices=("mpi", "nccl"),
        default="mpi",
        help="what adds up gradients that are on GPUs",
    )
    p.add_argument(
        "--sync-every", type=count, default=1, help="steps between two averages with --sync weights"
    )
    p.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:K, reference or emulated"
    )
    p.add_argument(
        "--precision",
        choices=("float32", "tf32"),
        default="float32",
        help="of the forward pass on a GPU (docs/gpu.md)",
    )
    p.add_argument(
        "--threads", type=count, help="threads per rank (default: cores of the node / its ranks)"
    )
    p.add_argument(
        "--store",
        choices=("sparse", "dense"),
        default="sparse",
        help="form in which events are kept in memory",
    )
    p.add_argument(
        "--shared-store",
        action="store_true",
        help="ranks of a node share their events: mixed and dealt evenly in every epoch",
    )
    p.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="mirror, shift and jitter training events, anew in every epoch",
    )
    p.add_argument("--codec", default="zstd:1", help="blosc codec and level")
    p.add_argument(
        "--scale",
        type=float,
        help="pixels are multiplied by it (default: 0.1 at size 3600, less for summed pixels)",
    )
    p.add_argument(
        "--knee",
        type=float,
        help="ADC above which pixels are compressed (default: 100 at size 3600, more for summed pixels)",
    )
    p.add_argument(
        "--ledger",
        action="store_true",
        help="say where every step's time goes; timeline.json and step.png in --out",
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("runs/microboone"))
    p.add_argument(
        "--weights",
        type=Path,
        help="model to start from (default with --predict: model.safetensors in --out)",
    )
    p.add_argument(
        "--resume",
        action="store_true",
        help="go on behind the last complete epoch in --out, with the options it began with",
    )
    p.add_argument(
        "--predict",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="classify these events instead of training",
    )
    return p


def say(comm, *text):
    """Print on rank 0."""
    if not comm or comm.rank == 0:
        print(*text, flush=True)


def main(comm):
    args = ordered(comm, arguments().parse_args)
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    started = time.perf_counter()
    ordered(comm, lambda: prepare(args.out, keep=bool(args.predict)))
    if args.resume:
        args.weights = args.out / "model.safetensors"
        if not ordered(comm, args.weights.exists):
            say(comm, f"no complete epoch in {args.out} yet: starting anew\n")
            args.weights = None
    if args.predict:
        weights = args.weights or args.out / "model.safetensors"
        if ordered(comm, weights.exists):
            return predict(comm, args, weights)
        say(comm, f"no model at {weights} yet: training one first\n")

    sync = everywhere(
        comm,
        lambda: make_sync(
            args.sync, comm, args.sync_every, args.bucket and 1024 * args.bucket, args.transport
        ),
    )
    everywhere(
        comm, lambda: new_store(args)
    )  # a store or codec that does not exist is refused before any work is done
    path = args.events or simulated(comm, args)
    with everywhere(comm, lambda: mc.data.open_events(path, size=args.size)) as source:
        train_events, validation_events = choose(comm, args, source, ranks)
        steps = math.ceil(
            math.ceil(len(train_events) / ranks) / (args.batch_size * args.accumulate)
        )
        model = everywhere(
            comm,
            lambda: make_model(
                args, source.image_shape[2], len(source.class_names), ranks, steps * args.epochs
            ),
        )
    say(comm, model.summary_text() + "\n\n" + str(model.plan()) + "\n")
    threads = set_threads(comm, args, model)
    say(
        comm,
        f"{ranks} rank{'s' * (ranks > 1)} x {threads} thread{'s' * (threads > 1)}, batch {args.batch_size} per rank, "
        f"{args.batch_size * args.accumulate * ranks} events per step; sync: {args.sync}",
    )

    with everywhere(comm, lambda: mc.data.open_events(path, size=args.size)) as source:
        train = load(comm, args, source, train_events, "training")
        validation = load(comm, args, source, validation_events, "validation")
        names = source.class_names
        if args.augment:
            train = augmented(train, args)
        if rank == 0:
            report.draw_events(
                [source.read(int(i)) for i in validation_events[:6]],
                args.out / "events.png",
                class_names=names,
            )

    done = ordered(comm, lambda: epochs_done(args, model, steps))
    if done:
        say(comm, f"{args.weights}: going on behind epoch {done} of {args.epochs}")
    table, ledger = (
        mc.callbacks.CSVLogger(args.out / "history.csv"),
        mc.trace.Ledger(detail=args.ledger),
    )
    model.fit(
        train,
        validation_data=validation,
        epochs=args.epochs,
        batch_size=args.batch_size,
        comm=comm,
        sync=sync,
        accumulate=args.accumulate,
        seed=args.seed,
        threads=threads,
        initial_epoch=done,
        ledger=ledger,
        callbacks=[
            mc.callbacks.Progress(ledger=ledger if args.ledger else None),
            *([mc.callbacks.LedgerReport(ledger, args.out)] if args.ledger else []),
            table,
            mc.callbacks.ModelCheckpoint(args.out / "model.safetensors"),
        ],
    )
    result = model.evaluate(validation, comm=comm)
    memory = max(agree(comm, value=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    if rank == 0:
        print("\n" + write_report(args.out, table.rows, result, names))
        say(
            None,
            f"peak memory of a rank {memory:.0f} MB; {time.perf_counter() - started:.0f} s in all; results in {args.out}/",
        )
        if not args.predict:
            finish(args, table.rows, result, ranks, threads, memory, time.perf_counter() - started)
    if args.predict:
        predict(comm, args, args.out / "model.safetensors")


def prepare(out, keep):
    """Make the output folder and take away the completion marker of an earlier run."""
    out.mkdir(parents=True, exist_ok=True)
    if not keep:
        (out / "run.json").unlink(missing_ok=True)


def make_model(args, channels, classes, ranks, steps):
    """Return the network that the arguments ask for, for events of so many planes and classes, to
    be trained for so many steps.
    """
    rate = args.learning_rate or RATES[args.optimizer]
    rate = mc.optim.cosine(rate, steps, rate / 50) if args.schedule == "cosine" else rate
    factor = args.batch_size * args.accumulate * ranks / args.scale_from if args.scale_from else 1.0
    rate = mc.optim.warmup(mc.optim.linear_scaling(rate, factor, 100), max(args.warmup, 1))
    optimizer = (
        mc.Adam(rate)
        if args.optimizer == "adam"
        else {"sgd": mc.SGD, "lars": mc.LARS}[args.optimizer](rate, args.momentum)
    )
    share = (
        args.share
        if args.share is not None
        else 0
        if args.weights and not args.resume
        else round(0.75 * args.epochs)
    )
    optimizer.share("fc1", share * steps // args.epochs)
    if args.weights and not args.predict:
        model = mc.load_model(args.weights, device=args.device, optimizer=optimizer)
        if not args.resume:
            model.updates, optimizer.steps, optimizer.state = (
                0,
                0,
                {},
            )  # weights alone: a new training begins with them
        if (model.input_shape, model.classes) != ((args.size, args.size, channels), classes):
            raise ValueError(
                f"{args.weights} takes images of {model.input_shape} in {model.classes} classes; the events have --size "
                f"{args.size}, {channels} planes and {classes} classes"
            )
        return model
    return mc.models.microboone(
        args.size,
        channels,
        classes,
        device=args.device,
        precision=args.precision,
        seed=args.seed,
        input_scale=args.scale or 0.1 * args.size / 3600,
        input_knee=args.knee or 100 * 3600 / args.size,
        optimizer=optimizer,
    )


def epochs_done(args, model, steps):
    """Return how many epochs of this job the model has behind it; ValueError if it is another
    job's.
    """
    done, rest = divmod(model.updates, steps) if args.resume else (0, 0)
    if rest or done > args.epochs or (args.resume and model.optimizer.steps != model.updates):
        raise ValueError(
            f"{args.weights} has made {model.updates} updates ({model.optimizer.steps} by this optimizer), which are "
            f"no complete epochs of {steps} within {args.epochs}: --resume needs the events, ranks, batch size, epochs and "
            "optimizer that the run began with"
        )
    return done


def set_threads(comm, args, model):
    threads = args.threads or threads_per_rank(comm)
    model.kernels.set_threads(threads)
    return threads


def simulated(comm, args):
    """Return the file of simulated events, making it if it is not there yet."""
    args.train, args.validation = (
        args.train or 3500,
        500 if args.validation is None else args.validation,
    )
    events = args.train + args.validation
    path = args.cache / f"simulated-{args.size}-seed{args.seed}-{events}.h5"
    if ordered(comm, path.exists):
        return path
    ordered(comm, lambda: args.cache.mkdir(parents=True, exist_ok=True))
    start = time.perf_counter()
    with Meter("simulating", events, silent=bool(comm and comm.rank)) as meter:
        mc.data.generate(
            path,
            events,
            mc.data.Simulator(args.seed, (args.size, args.size, 1)),
            comm,
            lambda done, total: meter.update(done),
        )
    seconds = time.perf_counter() - start
    say(
        comm, f"simulated {events} events in {seconds:.1f} s ({events / seconds:.0f}/s) into {path}"
    )
    return path


def choose(comm, args, source, ranks):
    """Return the numbers of the training and of the validation events in the file."""
    known = len(source)
    train = args.train or max(
        known - (args.validation if args.validation is not None else known // 6), 0
    )
    validation = known - train if args.validation is None else args.validation

    def pick():
        if train < ranks or 0 < validation < ranks:
            raise mc.data.EventError(
                f"{source.path} gives {train} training and {validation} validation events for {ranks} ranks: "
                "every rank needs at least one of each; use fewer ranks or more events"
            )
        return mc.data.split(known, train, validation, args.seed)

    return ordered(comm, pick)


def new_store(args):
    """Return an empty store as --store and --codec say."""
    codec, _, level = args.codec.partition(":")
    return mc.data.EventStore(codec, int(level or 5), args.store)


def load(comm, args, source, events, what):
    """Compress this rank's share of the events into memory and say what that took over all ranks."""
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    store = new_store(args)
    mine = events[mc.data.shard(len(events), ranks, rank, args.seed)] if len(events) else events
    with Meter(f"loading {what}", len(mine), silent=rank > 0) as meter:
        try:
            store.load(source, mine, lambda done, total: meter.update(done))
            problem = None
        except mc.data.EventError as bad:
            problem = f"rank {rank}: {bad}"
    stats = agree(comm, problem, store.stats())
    total = {key: sum(s[key] for s in stats) for key in stats[0]}
    seconds = max(s["seconds"] for s in stats)
    if total["events"]:
        say(
            comm,
            f"loaded {total['events']} {what} events in {seconds:.1f} s: {total['events'] / seconds:.0f} events/s, "
            f"{total['dense_bytes'] / seconds / 1e6:.0f} MB/s of images; {total['bytes'] / 1e6:.1f} MB in memory "
            f"({args.store}, {args.codec}), {total['dense_bytes'] / total['bytes']:.0f} times smaller",
        )
    if args.shared_store and comm:
        store = mc.data.NodeStore(store, comm)
        say(
            comm,
            f"{what} events shared by {store.ranks} rank{'s' * (store.ranks > 1)} of each node",
        )
    return store


def augmented(store, args):
    """Return the store with its events mirrored, shifted by up to a twentieth of the image and
    changed in gain by 5 %.
    """
    t = mc.data.transforms
    far = args.size // 20
    return t.Augmented(
        store,
        t.Compose([t.MirrorWire(), t.MirrorTime(), t.Shift(far, far), t.GainJitter(0.05)]),
        args.seed,
    )


def write_report(out, rows, result, names):
    """Write curves and confusion; return the talk's validation table."""
    report.draw_history(rows, out / "loss.png")
    table = report.talk_table(result.score_sums, result.correct, result.counts, names)
    (out / "confusion.txt").write_text(table + "\n")
    report.write_confusion_csv(out / "confusion.csv", result.confusion, result.score_sums, names)
    report.draw_confusion(out / "confusion.png", result.confusion, names)
    return table


def finish(args, rows, result, ranks, threads, memory, seconds):
    """Write run.json, the mark of a complete run, in one piece."""
    import h5py
    import numba

    run = {
        "arguments": {
            key: [str(v) for v in value]
            if isinstance(value, list)
            else str(value)
            if isinstance(value, Path)
            else value
            for key, value in vars(args).items()
        },
        "ranks": ranks,
        "threads": threads,
        "seconds": seconds,
        "peak_memory_mb": memory,
        "versions": {
            "minicnn": mc.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
            "h5py": h5py.__version__,
        },
        "machine": {
            "node": platform.machine(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "epochs": rows,
        "loss": result.loss,
        "accuracy": result.accuracy,
    }
    partial = args.out / "run.json.partial"
    partial.write_text(json.dumps(run, indent=1, default=float) + "\n")
    partial.replace(args.out / "run.json")


def predict(comm, args, weights):
    """Print and write the class scores of all events in --predict, and draw the first few; where
    their truth is known, how many are right.
    """
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    model = everywhere(comm, lambda: mc.load_model(weights, device=args.device))
    set_threads(comm, args, model)
    rows, classes = (
        [],
        mc.data.CLASSES
        if model.classes == len(mc.data.CLASSES)
        else [f"class {i}" for i in range(model.classes)],
    )
    for path in args.predict:
        with everywhere(
            comm, partial(mc.data.open_events, path, size=model.input_shape[0])
        ) as source:
            mine, numbers = [], range(rank, len(source), ranks)
            with Meter(f"classifying {path.name}", len(numbers), silent=rank > 0) as meter:
                for number in numbers:
                    event = source.read(number)
                    scores = model.predict([event.image])[0]
                    mine.append(
                        (
                            number,
                            event.label,
                            event.image.nnz,
                            event.momentum,
                            abs(event.direction[1]),
                            scores,
                        )
                    )
                    if number < PICTURES:
                        report.draw_event(
                            event,
                            args.out / f"predicted-{path.stem}-{number}.png",
                            title=f"{path.name}, event {number}",
                            scores=scores,
                            class_names=classes,
                        )
                    meter.update(len(mine))
            names = source.class_names
        for number, label, lit, *primary, scores in sorted(
            row for rows_of_rank in agree(comm, value=mine) for row in rows_of_rank
        ):
            truth = names[label] if label >= 0 else "unknown"
            rows.append([str(path), number, truth, lit, *map(float, primary), *map(float, scores)])
            if number < LINES:
                say(
                    comm,
                    f"{path.name} event {number}: {lit} lit pixels, truth {truth}; "
                    + "  ".join(f"{name} {s:.3f}" for name, s in zip(classes, scores)),
                )
        if len(source) > LINES:
            say(comm, f"{path.name}: {len(source) - LINES} more events")
    if rank == 0:
        with open(args.out / "predictions.csv", "w", newline="") as file:
            csv.writer(file).writerows(
                [["file", "event", "truth", "lit pixels", MOMENTUM, ALONG_WIRES, *classes], *rows]
            )
        judge(args.out, [row for row in rows if row[2] in classes], classes)
        print(f"scores in {args.out}/predictions.csv, pictures in {args.out}/predicted-*.png")


def judge(out, rows, classes):
    """Print the talk's table for predictions of known truth, and draw it and the accuracy against
    momentum and direction.
    """
    if not rows:
        return
    labels, primary, scores = (
        np.array(column) for column in zip(*((classes.index(r[2]), r[4:6], r[6:]) for r in rows))
    )
    result = mc.metrics.Evaluation.empty(len(classes))
    result.add(labels, -np.log(np.maximum(scores[np.arange(len(labels)), labels], 1e-30)), scores)
    print("\n" + report.talk_table(result.score_sums, result.correct, result.counts, classes))
    print(
        f"\nof {result.events} events of known class {100 * result.accuracy:.1f} % have the highest score there; loss {result.loss:.4f}"
    )
    report.draw_confusion(out / "predicted-confusion.png", result.confusion, classes)
    if np.isfinite(primary).all(1).any():
        against = dict(zip((MOMENTUM, ALONG_WIRES), primary.T))
        report.draw_accuracy(
            out / "predicted-accuracy.png", against, labels, scores.argmax(1), classes
        )


if __name__ == "__main__":
    with world() as communicator:
        main(communicator)
    sys.exit(0)

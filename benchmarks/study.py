"""Trainings that differ in one thing, side by side: the size of a step, the resolution of the
images, how planes are seen.

    python -m minicnn simulate --sample talk --events 12000 --out data/talk.h5
    python benchmarks/study.py steps --events data/talk.h5        loss against epochs and updates
    python benchmarks/study.py resolution --events data/talk.h5   what is lost by summing pixels
    python benchmarks/study.py planes --events data/planes.h5     three planes: channels or views

Every training is the main job (python -m minicnn train) in a folder of its own under --out; one
that is complete is not done again, one that was cut short goes on where it was. The table is
printed, and drawn where --plot says.
"""

import math
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from common import mpiexec, parser, record

from minicnn.files import read_json
from minicnn.inspect.report.figures import save_figure
from minicnn.jobs.recipe import LEARNING_RATES
from minicnn.jobs.run_folder import RunFolder

#: Events per step that the recipe's rate is meant for; it grows as the root of the step's size
#: (Malladi et al. 2022), so that all sizes see the same noise per event.
USUAL_STEP = 16
LARGEST_BATCH = 32  # of a rank; larger steps are accumulated


class Variant(NamedTuple):
    """One training of a study: its name and what it adds to the command line."""

    name: str
    arguments: list[str]


def steps(args):
    """Steps of 16 to 512 events; with --plain also with weights and biases moved as they are."""
    found = []
    for events in args.steps:
        batch = min(events // args.ranks, LARGEST_BATCH)
        if not batch or events % (args.ranks * batch):
            raise SystemExit(
                f"a step of {events} events cannot be made of {args.ranks} ranks with equal "
                f"batches of up to {LARGEST_BATCH}: choose a multiple"
            )
        accumulate = events // (args.ranks * batch)
        rate = LEARNING_RATES["adam"] * math.sqrt(events / USUAL_STEP)
        updates = args.train // events
        options = ["--batch-size", batch, "--accumulate", accumulate]
        options += ["--learning-rate", f"{rate:.6f}", "--warmup", min(50, max(updates // 4, 1))]
        found.append(Variant(f"{events}", options))
        if args.plain:
            found.append(Variant(f"{events}-plain", [*options, "--no-keep-rest"]))
    return found


def resolution(args):
    """Images of 3600 pixels a side, and of fewer that are sums of them."""
    return [Variant(f"{size}", ["--size", size, "--batch-size", 8]) for size in args.sizes]


def planes(args):
    """Planes as channels of one image, and as images of their own behind one trunk."""
    batch = ["--batch-size", 8]
    return [Variant("channels", batch), Variant("views", ["--views", *batch])]


STUDIES = {"steps": steps, "resolution": resolution, "planes": planes}


def arguments():
    p = parser(__doc__, threads=False, plot=True)
    p.add_argument("study", choices=STUDIES)
    p.add_argument("--events", type=Path, required=True, help="event file")
    p.add_argument("--train", type=int, default=10000, help="training events")
    p.add_argument("--validation", type=int, default=2000, help="validation events")
    p.add_argument("--epochs", type=int, default=4)
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--steps", type=int, nargs="+", default=[16, 64, 256, 512], help="events")
    p.add_argument("--plain", action="store_true", help="steps also with --no-keep-rest")
    p.add_argument("--sizes", type=int, nargs="+", default=[3600, 1800, 900, 600], help="pixels")
    p.add_argument("--out", type=Path, default=Path("runs/study"))
    return p


def main():
    args = arguments().parse_args()
    variants = STUDIES[args.study](args)
    for variant in variants:
        folder = RunFolder(args.out / args.study / variant.name)
        if not folder.marker.exists():
            train(args, variant, folder)
    rows = [row_of(v, RunFolder(args.out / args.study / v.name)) for v in variants]
    print(table(args, rows))
    record(args.json, {"study": args.study, "train": args.train, "rows": rows})
    if args.plot:
        draw(args, rows)
        print(f"wrote {args.plot}")


def train(args, variant, folder):
    """Run the main job of a variant, which prints its own progress."""
    command = [*mpiexec(args.ranks), sys.executable, "-m", "minicnn", "train"]
    command += ["--events", args.events, "--train", args.train, "--validation", args.validation]
    command += ["--epochs", args.epochs, "--shared-store", "--out", folder.path]
    if "--size" not in variant.arguments:
        command += ["--size", args.size]
    command += variant.arguments + ["--resume"] * folder.checkpoint.exists()
    print(f"\n{args.study}: {variant.name}", flush=True)
    done = subprocess.run(list(map(str, command)))
    if done.returncode:
        raise SystemExit(
            f"{variant.name} ended with status {done.returncode}; run it again to go on"
        )


def row_of(variant, folder):
    """Return what the record of a complete run says."""
    run = read_json(folder.marker)
    recipe, epochs = run["recipe"], run["epochs"]
    per_step = recipe["batch_size"] * recipe["accumulate"] * run["ranks"]
    validated = run["arguments"]["validation"]
    right = run["accuracy"]
    return {
        "name": variant.name,
        "events_per_step": per_step,
        "size": recipe["size"],
        "val_loss": [float(epoch["val_loss"]) for epoch in epochs],
        "seconds": [float(epoch["seconds"]) for epoch in epochs],
        "accuracy": right,
        "accuracy_error": math.sqrt(right * (1 - right) / validated),
        "peak_memory_mb": run["peak_memory_mb"],
    }


def table(args, rows):
    """Return the figures as text."""
    epochs = range(1, 1 + max(len(row["val_loss"]) for row in rows))
    lines = [
        f"{args.train} training events, {args.ranks} ranks: validation loss by epoch",
        f"{args.study:>12}{'per step':>10}"
        + "".join(f"{epoch:>8}" for epoch in epochs)
        + f"{'right':>16}{'s/epoch':>9}{'MB':>7}",
    ]
    for row in rows:
        lines.append(
            f"{row['name']:>12}{row['events_per_step']:>10}"
            + "".join(f"{loss:>8.4f}" for loss in row["val_loss"])
            + f"{100 * row['accuracy']:>8.1f} +- {100 * row['accuracy_error']:.1f} %"
            + f"{sorted(row['seconds'])[len(row['seconds']) // 2]:>9.1f}"
            + f"{row['peak_memory_mb']:>7.0f}"
        )
    return "\n".join(lines)


def draw(args, rows):
    """Draw validation loss against epochs, and what is right against the variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for row in rows:
        style = "--" if row["name"].endswith("-plain") else "-"
        left.plot(
            range(1, 1 + len(row["val_loss"])), row["val_loss"], "o" + style, label=row["name"]
        )
    left.set_xlabel("epoch")
    left.set_ylabel("validation loss")
    left.set_xticks(range(1, 1 + max(len(row["val_loss"]) for row in rows)))
    left.legend(title=args.study)
    left.grid(alpha=0.3)
    names = [row["name"] for row in rows]
    right.errorbar(
        names,
        [100 * row["accuracy"] for row in rows],
        [100 * row["accuracy_error"] for row in rows],
        fmt="o",
        capsize=4,
    )
    right.set_xlabel(args.study)
    right.set_ylabel("% right, with its binomial error")
    right.tick_params(axis="x", rotation=30)
    right.grid(alpha=0.3)
    save_figure(figure, args.plot)


if __name__ == "__main__":
    main()

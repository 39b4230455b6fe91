"""``train``: the main job, from events to a report; also under mpiexec."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..jobs.recipe import LEARNING_RATES, SCHEDULES, Recipe, TrainOptions
from .common import bad_events_argument, positive_count, status_of
from .sample import sample_arguments, sample_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training; their defaults are those of Recipe and TrainOptions."""
    parser.epilog = (
        "Everything it makes goes to --out; run.json is written last: it is there if and only if "
        "the run is complete."
    )
    _event_arguments(parser.add_argument_group("events"))
    _recipe_arguments(parser.add_argument_group("recipe"))
    _parallel_arguments(parser.add_argument_group("how it runs"))
    _run_arguments(parser.add_argument_group("results"))
    recipe, options = Recipe(), TrainOptions()
    parser.set_defaults(
        **{field.name: getattr(recipe, field.name) for field in fields(Recipe)},
        **{field.name: getattr(options, field.name) for field in fields(TrainOptions)},
    )


def _event_arguments(group: Any) -> None:
    add = group.add_argument
    add(
        "--events",
        type=Path,
        help="event file in any format that minicnn reads (default: simulate, and keep in --cache)",
    )
    sample_arguments(group)
    add("--cache", type=Path, help="folder for simulated events")
    add(
        "--train",
        type=positive_count,
        help="training events (default: 3500 simulated ones, or 5/6 of --events)",
    )
    add(
        "--validation",
        type=int,
        help="validation events (default: 500 simulated ones, or the rest of --events)",
    )
    add("--size", type=positive_count, help="side of the images in pixels")
    bad_events_argument(add)


def _recipe_arguments(group: Any) -> None:
    add = group.add_argument
    rates = ", ".join(f"{rate} for {name}" for name, rate in LEARNING_RATES.items())
    add(
        "--views",
        action="store_true",
        help="planes are images of their own, seen by one trunk, and not channels of one image",
    )
    add("--epochs", type=positive_count, help="passes over the training events")
    add("--batch-size", type=positive_count, help="events per step and rank")
    add(
        "--optimizer",
        choices=LEARNING_RATES,
        help="lars: a rate of its own for every layer, for very large batches",
    )
    add(
        "--learning-rate",
        type=float,
        help=f"of the first steps after the warm-up (default: {rates})",
    )
    add(
        "--schedule",
        choices=SCHEDULES,
        help="the learning rate falls to 1/50 at the last epoch, or stays",
    )
    add("--warmup", type=int, help="steps over which the learning rate rises")
    add("--momentum", type=float, help="of sgd and lars")
    add(
        "--share",
        dest="shared_epochs",
        type=int,
        metavar="EPOCHS",
        help="epochs in which fc1 has the same weights at all positions of the image, so "
        "that it learns faster (default: three quarters, none with --weights)",
    )
    add(
        "--keep-rest",
        action=argparse.BooleanOptionalAction,
        help="move weights in coordinates in which they do not move the outputs of an empty image: "
        "higher rates and larger batches are stable",
    )
    add(
        "--clip",
        type=float,
        metavar="NORM",
        help="a mean gradient that is longer is shortened to this (default: as it is)",
    )
    add(
        "--average",
        type=float,
        metavar="EPOCHS",
        help="validate, and save the model, with the mean of the weights over about the last so "
        "many epochs (default: with the weights themselves)",
    )
    add(
        "--accumulate",
        type=positive_count,
        help="batches that make one step: one exchange and update for all of them",
    )
    add(
        "--scale-from",
        dest="events_of_rate",
        type=positive_count,
        metavar="EVENTS",
        help="the learning rate is meant for so many events per step: it grows "
        "with their number on all ranks, rising to that over 100 steps",
    )
    add(
        "--augment",
        action=argparse.BooleanOptionalAction,
        help="mirror, shift (neither where particles start in one place, but for --mirror-start) "
        "and jitter training events, anew in every epoch",
    )
    add(
        "--scale",
        type=float,
        help="pixels are multiplied by it (default: 0.1 at size 3600, less for summed pixels)",
    )
    add(
        "--knee",
        type=float,
        help="ADC above which pixels are compressed (default: 100 at size 3600, more for summed "
        "pixels)",
    )
    add(
        "--mirror-start",
        action=argparse.BooleanOptionalAction,
        help="events of a fixed start are mirrored along the drift about it, where their sample is "
        "symmetric",
    )
    add(
        "--balance",
        action=argparse.BooleanOptionalAction,
        help="ranks and steps get events of equal work (docs/parallel.md); without, in plain "
        "random order",
    )
    add("--seed", type=int, help="of weights, split, order, augmentation and simulated events")


def _parallel_arguments(group: Any) -> None:
    from ..parallel import AUTO, MODES, OTHER_UPDATE

    add = group.add_argument
    add(
        "--sync",
        choices=(*MODES, AUTO),
        help="what ranks exchange, see docs/parallel.md; auto: the fastest on these ranks of those "
        "with the same update",
    )
    add(
        "--allow",
        nargs="+",
        choices=OTHER_UPDATE,
        metavar="MODE",
        help=f"modes with another update that --sync auto may take: {', '.join(OTHER_UPDATE)}",
    )
    add("--bucket", type=positive_count, metavar="KB", help="size of a piece with --sync overlap")
    add("--transport", choices=("mpi", "nccl"), help="what adds up gradients that are on GPUs")
    add("--sync-every", type=positive_count, help="steps between two averages with --sync weights")
    add("--device", help="auto, cpu, cuda, cuda:K, reference or emulated")
    add(
        "--precision",
        choices=("float32", "tf32", "bf16"),
        help="of the forward pass of dense blocks: tf32 on a GPU, bf16 on a CPU that has it",
    )
    add(
        "--threads",
        type=positive_count,
        help="threads per rank (default: cores of the node / its ranks)",
    )
    add("--store", choices=("sparse", "dense"), help="form in which events are kept in memory")
    add(
        "--shared-store",
        action="store_true",
        help="ranks of a node share their events: mixed and dealt evenly in every epoch",
    )
    add(
        "--codec",
        metavar="NAME[:LEVEL]",
        help="blosc codec, and its level from 1 to 9 where it is not to be the store's default",
    )


def _run_arguments(group: Any) -> None:
    add = group.add_argument
    add("--out", type=Path, help="folder of the results")
    add(
        "--stall-limit",
        type=float,
        metavar="MINUTES",
        help="without progress on any rank, after which all say where they are and end",
    )
    add(
        "--ledger",
        action="store_true",
        help="say where every step's time goes; timeline.json and step.png in --out",
    )
    add(
        "--tensorboard",
        action="store_true",
        help="write the figures of epochs and steps for TensorBoard, too, into --out/tensorboard "
        '(pip install "minicnn[tensorboard]")',
    )
    add("--weights", type=Path, help="model to start from")
    add(
        "--resume",
        action="store_true",
        help="go on with the step that is saved in --out, with the options it began with",
    )
    add(
        "--save-every",
        type=float,
        metavar="MINUTES",
        help="save the step that often, beside every epoch's end; SIGTERM, SIGUSR1 and Ctrl-C save "
        "it as well, and end with status 75 (docs/reliability.md)",
    )


def recipe_and_options(args: argparse.Namespace) -> tuple[Recipe, TrainOptions]:
    """Return what the command line asks for; ValueError where recipe or sample do not allow it, and
    where there is no file of --weights: before any event is simulated or loaded.
    """
    values = vars(args) | {"sample": sample_of(args), "allow": tuple(args.allow)}
    recipe = Recipe(**{field.name: values[field.name] for field in fields(Recipe)})
    options = TrainOptions(**{field.name: values[field.name] for field in fields(TrainOptions)})
    if options.weights and not options.weights.is_file():
        raise ValueError(f"--weights {options.weights}: there is no such file")
    return recipe, options


def run(args: argparse.Namespace) -> int:
    """Train; return the exit status."""
    from ..jobs.train import train
    from ..parallel import ordered, world

    def command() -> int:
        with world() as comm:
            train(comm, *ordered(comm, lambda: recipe_and_options(args)))
        return 0

    return status_of(command)

"""``predict``: class scores and pictures of events, by a trained model; also under mpiexec."""

import argparse
from pathlib import Path

from ..jobs.predict import PredictOptions
from .common import bad_events_argument, positive_count, status_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a prediction."""
    add, default = parser.add_argument, PredictOptions()
    parser.epilog = (
        "predictions.csv in --out has the scores of all events. Where the truth is known, how many "
        "are right is printed and drawn."
    )
    add("files", type=Path, nargs="+", metavar="FILE", help="events in any format minicnn reads")
    add("--weights", type=Path, help="trained model (default: model.safetensors in --out)")
    add("--out", type=Path, default=default.out, help="folder of the results")
    add("--device", default=default.device, help="auto, cpu, cuda, cuda:K, reference or emulated")
    add(
        "--threads",
        type=positive_count,
        help="threads per rank (default: cores of the node / its ranks)",
    )
    add(
        "--mirrored",
        action="store_true",
        help="scores are the mean over each event and its mirror images along wires and ticks: of "
        "a network whose training mirrored its events it is the better judge, in four times the "
        "time",
    )
    bad_events_argument(add)


def run(args: argparse.Namespace) -> int:
    """Classify the events; return the exit status."""
    from ..jobs.predict import predict
    from ..parallel import world

    def command() -> int:
        options = PredictOptions(
            args.out, args.weights, args.device, args.threads, args.bad_events, args.mirrored
        )
        with world() as comm:
            predict(comm, args.files, options)
        return 0

    return status_of(command)

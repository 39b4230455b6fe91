"""Train the talk's five-class network on full-resolution LArTPC events, data-parallel over MPI.

    mpiexec -n 2 python examples/microboone.py                            simulate, train, validate
    mpiexec -n 2 python examples/microboone.py --sample isotropic         on other particles
    mpiexec -n 4 python examples/microboone.py --events my.h5 --epochs 10
    mpiexec -n 2 python examples/microboone.py --predict event.npz        class scores and a picture

Everything it makes goes to --out: history.csv, loss.png, confusion.{txt,csv,png}, pictures of
events, model.safetensors, and run.json, which is written last: it is there if and only if the run
is complete. The steps are those of minicnn/jobs/train.py; ``python -m minicnn train`` takes them
all at once.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from minicnn.cli.common import Formatter
from minicnn.cli.train import arguments, recipe_and_options
from minicnn.jobs.predict import PredictOptions, predict
from minicnn.jobs.train import TrainingJob
from minicnn.parallel import ordered, world
from minicnn.progress import say


def main(comm):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=Formatter)
    arguments(parser)
    parser.add_argument(
        "--predict", type=Path, nargs="+", metavar="FILE", help="classify, not train"
    )
    args = ordered(comm, parser.parse_args)
    recipe, options = ordered(comm, lambda: recipe_and_options(args))
    scoring = PredictOptions(
        options.out, options.weights, options.device, options.threads, options.bad_events
    )
    if args.predict and ordered(comm, scoring.model.exists):
        return predict(comm, args.predict, scoring)
    if args.predict:
        say(comm, f"no model at {scoring.model} yet: training one first\n")

    with TrainingJob(comm, recipe, options) as job:
        with job.open_events() as events:  # simulated first, where no file is named
            model = job.build_model(events)
            training, validation = job.load(events)  # this rank's, compressed in memory
        job.fit(model, training, validation)
        job.report(job.evaluate(model, validation))

    if args.predict:
        predict(comm, args.predict, replace(scoring, weights=None))


if __name__ == "__main__":
    with world() as communicator:
        main(communicator)

"""The main job, killed from inside after an epoch:

    mpiexec -n 2 python tests/helpers/killed_job.py EPOCHS OPTIONS...

EPOCHS: complete ones before the kill; OPTIONS: those of ``python -m minicnn train``.
"""

import argparse
import os
import signal
import sys

from minicnn.cli.train import arguments, recipe_and_options
from minicnn.jobs.train import train
from minicnn.parallel import world
from minicnn.train.callbacks import Callback


class KillAfter(Callback):
    """Ends rank 0 as a batch system does, once the epoch is saved."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_begin(self, epoch):
        if self.rank == 0 and epoch == self.epochs:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    arguments(parser)
    args = parser.parse_args(sys.argv[2:])
    with world() as comm:
        train(comm, *recipe_and_options(args), [KillAfter(int(sys.argv[1]))])

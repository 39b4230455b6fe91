"""What all benchmarks share: arguments, the record of a run, mpiexec."""

import argparse
import sys
from pathlib import Path

from minicnn.files import describe_machine, write_json
from minicnn.jobs.recipe import FULL_SIZE
from minicnn.parallel import threads_per_rank
from minicnn.parallel.machine import find_mpiexec

#: Learning rate and momentum of SGD, where engines are compared.
RATE, MOMENTUM = 1e-3, 0.9


def compared_scale(size):
    """Return what pixels are multiplied by where engines, modes and devices are compared: the same
    in all of them, and small enough for plain SGD. Committed results were made with it.
    """
    return 0.01 * size / FULL_SIZE


def parser(doc, threads=True, plot=False, json=True):
    """Return an argument parser with what benchmarks share: --size, and where they are asked for
    --threads (default: the cores of this machine), --plot and --json.

    doc: the benchmark's docstring; its first paragraph is the description.
    """
    made = argparse.ArgumentParser(
        description=" ".join(doc.split("\n\n")[0].split()),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument(
        "--size", type=int, default=FULL_SIZE, help="rows and columns of the images, in pixels"
    )
    if threads:
        made.add_argument("--threads", type=int, default=threads_per_rank(None))
    if json:
        made.add_argument(
            "--json", type=Path, metavar="FILE", help="write the figures to this file"
        )
    if plot:
        made.add_argument("--plot", metavar="PNG", help="draw the figures into this file")
    return made


def record(path, figures):
    """Write a dictionary of figures to ``path`` as JSON, with what they have to be read with: CPU
    model, cores, date, commit, versions, command (of absolute paths the names alone: folders of a
    machine are nobody else's). Nothing where ``path`` is None.
    """
    if path is not None:
        words = [word.rsplit("/", 1)[-1] if word.startswith("/") else word for word in sys.argv]
        machine = describe_machine() | {"command": " ".join(words)}
        kept = {name: value for name, value in figures.items() if name != "machine"}
        write_json(path, {"machine": machine, **kept})


def mpiexec(ranks):
    """Return the start of a command line that runs a program on so many ranks; SystemExit where
    there is no mpiexec.
    """
    found = find_mpiexec()
    if found is None:
        raise SystemExit('there is no mpiexec: pip install "minicnn[mpi]", or load an MPI module')
    return [found, "-n", str(ranks)]

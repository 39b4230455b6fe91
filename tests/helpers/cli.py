"""The command line in this process, and files for it."""

import numpy as np

import minicnn as mc
from minicnn.__main__ import main
from minicnn.data import Event, EventWriter, SparseImage


def make_events(path, n=6, shape=(40, 40, 1), labels=(0, 1, 2, 3, 4, -1), **options):
    particles = np.zeros(1, mc.data.PARTICLE)
    particles["parent"] = -1
    with EventWriter(path, shape, **options) as writer:
        for k in range(n):
            particles["pdg"] = (22, 11, 13, 211, 321, 2212)[k % 6]
            coords = np.stack([np.arange(k + 1), np.arange(k + 1)], 1)
            values = np.full((k + 1, shape[2]), 10.0 * (k + 1))
            writer.append(
                Event(
                    SparseImage(coords, values, shape),
                    labels[k % len(labels)],
                    (1, 2, k),
                    particles.copy(),
                )
            )
    return path


def run(capsys, *argv):
    """(exit status, printed, printed to stderr) of a command."""
    status = main([str(a) for a in argv])
    printed = capsys.readouterr()
    return status, printed.out, printed.err

"""Shared pieces of the tests: small models and events, and a way to run a script on several MPI
ranks.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minicnn as mc

ROOT = Path(__file__).resolve().parents[2]
MPI_CASES = ROOT / "tests" / "helpers" / "mpi_cases.py"
STORE_CASES = MPI_CASES.with_name("mpi_store_cases.py")
FAILURE_CASES = MPI_CASES.with_name("mpi_failure_cases.py")
LEDGER_CASES = MPI_CASES.with_name("mpi_ledger_cases.py")
SYNC_CASES = MPI_CASES.with_name("mpi_sync_cases.py")
GRAPH_CASES = MPI_CASES.with_name("mpi_graph_cases.py")
#: Sample files of real detectors, beside the repository; what needs them is skipped where there are
#: none.
SHARED = ROOT.parent / "shared" / "data"


def small_model(device="reference", **options):
    """A network with two fused blocks, one not divisible by its pool, that trains in
    milliseconds.
    """
    layers = [
        mc.Conv2D(4, 3, padding="same"),
        mc.ELU(),
        mc.MaxPooling2D(3),
        mc.Conv2D(6, 5, padding="same"),
        mc.ReLU(),
        mc.MaxPooling2D(2),
        mc.Flatten(),
        mc.Dense(8),
        mc.ELU(),
        mc.Dense(3),
    ]
    return mc.Sequential(layers, (22, 19, 1), device=device, **options)


def random_batch(n, shape=(22, 19, 1), classes=3, seed=0):
    """Dense images with a class-dependent mean, and their labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return (rng.standard_normal((n, *shape)) + y[:, None, None, None]).astype(np.float32), y


class Source:
    """Events in memory with the interface of a reader."""

    def __init__(self, events, shape, class_names=("a", "b", "c")):
        self.events, self.image_shape, self.class_names = events, shape, class_names

    def __len__(self):
        return len(self.events)

    def read(self, i):
        return self.events[i]


def mpi(ranks, *command, timeout=600, wait=True, **env):
    """Run ``python *command`` on ``ranks`` MPI ranks; returns the CompletedProcess with its text
    output, or at once a Popen.
    """
    pytest.importorskip("mpi4py")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip('no mpiexec beside this Python (pip install "minicnn[mpi]")')
    variables = {
        **os.environ,
        "NUMBA_NUM_THREADS": "2",
        "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
        **env,
        "PYTHONPATH": str(ROOT / "tests"),
    }
    command = [str(mpiexec), "-n", str(ranks), sys.executable, *map(str, command)]
    if not wait:
        return subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    return subprocess.run(
        command, timeout=timeout, cwd=ROOT, capture_output=True, text=True, env=variables
    )

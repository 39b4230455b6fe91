"""Several ranks: equal to one rank, equal to each other, and an error ends all of them."""

import os
import re
import subprocess
import sys
import time

import pytest

from helpers import FAILURE_CASES, GRAPH_CASES, MPI_CASES, ROOT, STORE_CASES, SYNC_CASES, mpi
from minicnn.watch import LAUNCHERS, launched_by

pytestmark = pytest.mark.mpi


#: What ends well on any number of ranks: one job runs all cases of a file.
CASES = {
    MPI_CASES: (
        "equals_one_rank",
        "weights_equal_gradients",
        "weights_every_k",
        "fit",
        "collectives",
        "threads",
        "same_bits_again",
        "lars_equals_one_rank",
        "same_sums",
        "compressed",
        "error_feedback",
        "delayed",
    ),
    SYNC_CASES: ("progress", "residuals", "delayed_goes_on"),
    GRAPH_CASES: ("state", "graph_equals_one_rank", "unequal_loaders"),
    STORE_CASES: ("node_store", "node_store_fit", "node_store_damaged"),
    FAILURE_CASES: ("not_finite", "gradient_not_finite"),
}


def check(ranks, file, *cases, **options):
    done = mpi(ranks, file, *cases, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"ok {case}" for case in cases], done.stdout + done.stderr


@pytest.mark.parametrize("ranks", (2, 3, 4))
@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_ranks(file, ranks):
    check(ranks, file, *CASES[file])


def test_each_kernel_is_compiled_once(tmp_path):
    check(2, MPI_CASES, "cold_cache", NUMBA_CACHE_DIR=str(tmp_path))


@pytest.mark.parametrize(
    "case, message",
    [
        ("exception_on_rank_1", "KeyError: 'the reason on rank 1'"),
        ("exit_on_rank_1", "SystemExit: leaving early"),
        ("thread_fails_on_rank_1", "ZeroDivisionError"),
        ("compiler_fails_on_rank_1", "KeyError: 'no space left'"),
    ],
)
def test_a_failure_on_one_rank_ends_all(case, message, tmp_path):
    done = mpi(2, FAILURE_CASES, case, timeout=300, NUMBA_CACHE_DIR=str(tmp_path))
    assert (
        done.returncode != 0
        and time.time() - float(re.search(r"failing at (\S+)", done.stdout)[1]) < 20
    )
    assert "rank 1 of 2" in done.stderr and message in done.stderr


def test_a_killed_rank_ends_all():
    done = mpi(3, STORE_CASES, "killed_on_rank_1", timeout=300)
    assert done.returncode != 0 and "ok" not in done.stdout.splitlines()


@pytest.mark.parametrize(
    "file, case, message",
    [
        (
            FAILURE_CASES,
            "batch_larger_than_shard",
            "batch size 3 is larger than the 2 events of rank",
        ),
        (FAILURE_CASES, "few_events", "2 events cannot be shared by 3 ranks"),
        (
            STORE_CASES,
            "node_memory_is_short",
            "do not fit into its shared memory, /dev/shm has 0.0 MB left: enlarge it",
        ),
    ],
)
def test_agreed_errors_end_in_order(file, case, message):
    done = mpi(3, file, case, timeout=300)
    assert done.returncode != 0 and message in done.stderr, done.stderr


VARIABLES = {
    "MPICH's mpiexec": {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"},
    # Hydra in a job of Slurm starts a proxy per node by srun, whose variables the ranks inherit.
    "MPICH's mpiexec in Slurm": {
        **{"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"},
        **{"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"},
    },
    "Open MPI's mpiexec": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"},
    "srun": {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"},
    "srun --mpi=pmi2": {
        **{"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"},
        **{"PMI_RANK": "1", "PMI_SIZE": "4"},
    },
    "flux run": {"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "4", "FLUX_TASK_LOCAL_ID": "1"},
    "PALS's mpiexec": {"PALS_RANKID": "1", "PMI_RANK": "1", "PMI_SIZE": "4"},
    "a launcher that speaks PMI": {"PMI_RANK": "1", "PMI_SIZE": "4"},
}


@pytest.mark.parametrize("launcher", VARIABLES)
def test_launchers_are_known_by_their_variables(launcher, monkeypatch):
    for row in LAUNCHERS:
        for variable in filter(None, row[:3]):
            monkeypatch.delenv(variable, raising=False)
    assert launched_by() == (0, 1, "")
    for variable, value in VARIABLES[launcher].items():
        monkeypatch.setenv(variable, value)
    rank, ranks, name = launched_by()
    assert (rank, ranks) == (1, 4) and launcher.startswith(name)


def test_pmix_tells_the_rank_alone(monkeypatch):
    for variable, value in (("PMIX_RANK", "2"), ("PMIX_NAMESPACE", "prterun-1")):
        monkeypatch.setenv(variable, value)
    assert launched_by() == (2, 3, "a launcher that speaks PMIx")


def test_a_wrong_launcher_is_refused():
    variables = {**VARIABLES["srun"], "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        [sys.executable, MPI_CASES, "collectives"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "srun started 4 processes" in done.stderr, done.stderr
    assert "sees only one" in done.stderr

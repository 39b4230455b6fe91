"""Several ranks: equal to one rank, equal to each other, and an error ends all of them."""

import os
import re
import subprocess
import sys
import time

import pytest

from helpers import FAILURE_CASES, GRAPH_CASES, MPI_CASES, ROOT, STORE_CASES, mpi

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


def test_a_wrong_launcher_is_refused():
    for variable, launcher in (
        ("OMPI_COMM_WORLD_SIZE", "Open MPI's mpiexec"),
        ("SLURM_STEP_NUM_TASKS", "srun"),
    ):
        done = subprocess.run(
            [sys.executable, MPI_CASES, "collectives"],
            env={**os.environ, variable: "2", "PYTHONPATH": str(ROOT / "tests")},
            capture_output=True,
            text=True,
        )
        assert (
            done.returncode != 0
            and f"{launcher} started 2 processes" in done.stderr
            and "sees only one" in done.stderr
        )

"""Faults of a job, injected for real: a rank that stalls, leaves or never comes ends all of
them.
"""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from helpers import ROOT, mpi
from helpers.main_job import SIZE
from minicnn import locks, watch
from minicnn.cli.launch import LaunchOptions, supervise
from minicnn.data import Simulator, generate
from minicnn.jobs.run_folder import RunFolder
from minicnn.locks import LockedError, locked
from minicnn.parallel.machine import find_mpiexec
from minicnn.parallel.signals import PREEMPTED

pytestmark = pytest.mark.mpi
STALLED_JOB = ROOT / "tests" / "helpers" / "stalled_job.py"


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = tmp_path_factory.mktemp("events") / "e.h5"
    generate(path, 24, Simulator(0, (SIZE, SIZE, 1)))
    return path


def faulty(fault, events, out, *arguments):
    options = ("--size", SIZE, "--device", "cpu", "--events", events, "--out", out)
    short = ("--epochs", 1, "--batch-size", 1, "--no-augment", "--stall-limit", 0.04)
    minutes = {"MINICNN_STALL_LIMIT": "0.03"}
    return mpi(2, STALLED_JOB, fault, *options, *short, *arguments, timeout=120, **minutes)


@pytest.mark.parametrize(
    "fault, messages",
    (
        ("stop", ("missing in ", "rank 1 on ", "silent for ")),
        ("hang", (": rank 1\n", "rank 1 of 2, all threads:", "in none of them", "time.sleep")),
        ("skip", ("no rank has done anything for ",)),
    ),
)
def test_a_rank_that_stalls_ends_all_and_says_where(events, tmp_path, fault, messages):
    done = faulty(fault, events, tmp_path)
    assert done.returncode != 0, done.stderr
    for message in ("rank 0 of 2, all threads:", "all end with status 76", *messages):
        assert message in done.stderr or message == "time.sleep", (message, done.stderr)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    "fault, message",
    (
        ("import", "rank 1 failed before MPI had started: ModuleNotFoundError"),
        ("import mpi4py", "rank 1 failed before MPI had started: RuntimeError: started as 2 ranks"),
        ("import hangs", "missing in MPI_Init: rank 1\n"),
        ("stop at the end", "missing in the end of the job: rank 1\n"),
        ("exit 0", "exit status 0 on rank 1 alone, before the end of the job"),
        ("crash", "Segmentation fault"),
    ),
)
def test_a_rank_that_leaves_or_never_comes_ends_all(events, tmp_path, fault, message):
    done = faulty(fault, events, tmp_path, "--stall-limit", 5)
    assert done.returncode != 0 and message in done.stderr, done.stderr


@pytest.mark.parametrize("problem", ["KeyboardInterrupt", "OSError"])
def test_a_command_that_ends_on_one_rank_before_mpi_starts_ends_all(problem, tmp_path):
    """Its end is in order, and no launcher minds: the others must not wait in MPI_Init for it."""
    code = f"""if True:
        import os, sys
        from minicnn import __main__
        from minicnn.cli import train
        def ended(*_):
            raise {problem}("ended")
        if os.environ["PMI_RANK"] == "1":
            train.run = ended
        sys.exit(__main__.main(["train", "--out", sys.argv[1], "--epochs", "1"]))
    """
    done = mpi(2, "-c", code, tmp_path, timeout=60)
    assert done.returncode != 0
    assert f"rank 1 failed before MPI had started: {problem}: ended" in done.stderr, done.stderr


def test_a_whole_job_is_not_disturbed(events, tmp_path):
    done = faulty("none", events, tmp_path, "--stall-limit", 0.5)
    assert done.returncode == 0 and (tmp_path / "run.json").exists(), done.stderr
    assert not list((tmp_path / ".ranks").glob("*"))


def command_of(events, out, *arguments):
    options = ("--size", SIZE, "--device", "cpu", "--events", events, "--out", out)
    return [*map(str, (*options, "--epochs", 1, "--batch-size", 1, "--no-augment", *arguments))]


@pytest.mark.parametrize("restarts", (0, 1))
def test_a_rank_that_leaves_with_status_0_is_a_failure_of_the_launcher(
    events, tmp_path, monkeypatch, capfd, restarts
):
    """MPICH's mpiexec ends with status 0 after os._exit(0) on a rank."""
    monkeypatch.setenv("FAULT_ONCE", str(tmp_path / "once"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    folder = RunFolder(tmp_path / "out")
    program = [sys.executable, str(STALLED_JOB), "_exit 0", *command_of(events, folder.path)]

    def start(ranks, again):
        return [find_mpiexec(), "-n", str(ranks), *program, *["--resume"] * again]

    options = LaunchOptions(2, restarts, 1)
    status = supervise(start, folder.marker, folder.checkpoint / "step.safetensors", options)
    said = capfd.readouterr().err
    assert f"{folder.marker} is not there" in said, said
    assert (status, folder.marker.exists()) == ((1, False), (0, True))[restarts], said
    assert ("with 1 ranks" in said) == bool(restarts)  # no checkpoint had been reached


def test_launch_passes_signals_on_and_keeps_the_status(events, tmp_path):
    options = command_of(events, tmp_path, "--epochs", 100000)
    command = [sys.executable, "-m", "minicnn", "launch", "-n", "2", "--", "train", *options]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "checkpoint" / "step.safetensors").exists() and job.poll() is None:
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=60)
    assert job.returncode == PREEMPTED and "SIGTERM: " in out, out + err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_before_the_first_step_asks_to_be_started_again(tmp_path, number):
    """While events are simulated, for example; all ranks end, whichever has the signal."""
    options = ("--train", 100000, "--validation", 10, "--cache", tmp_path, "--out", tmp_path)
    train = ["-m", "minicnn", "train", *map(str, options)]
    job = subprocess.Popen(
        [find_mpiexec(), "-n", "2", sys.executable, *train], stdout=subprocess.PIPE
    )
    seen = b""
    while b"simulating" not in seen:
        seen += job.stdout.read1()
    job.send_signal(number)
    seen += job.communicate(timeout=60)[0]
    assert job.returncode == PREEMPTED, seen
    assert f"{number.name}: no step is under way".encode() in seen


def test_launch_says_the_trainings_errors_once(tmp_path):
    missing = tmp_path / "missing.h5"
    command = [sys.executable, "-m", "minicnn", "launch", "-n", "2", "--", "train"]
    done = subprocess.run(
        [*command, *command_of(missing, tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and done.stderr.count("no such file") == 1, done.stderr
    assert "launch:" not in done.stderr


def test_a_second_job_in_one_folder_is_refused(events, tmp_path):
    with locked(tmp_path / ".lock", "x"):
        done = mpi(2, "-m", "minicnn", "train", *command_of(events, tmp_path), timeout=120)
    assert done.returncode == 2, done.stderr
    assert f"the results in {tmp_path}: in use by process {os.getpid()} on " in done.stderr
    assert not (tmp_path / "model.safetensors").exists()


def test_a_second_job_that_writes_the_same_events_is_refused(tmp_path):
    path = tmp_path / "e.h5"
    with locked(tmp_path / ".e.h5.lock", "x"):
        with pytest.raises(LockedError, match=f"e.h5: in use by process {os.getpid()} on "):
            generate(path, 2, Simulator(0, (SIZE, SIZE, 1)))
    generate(path, 2, Simulator(0, (SIZE, SIZE, 1)))
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_lock_ends_with_its_process(tmp_path):
    code = f"""if True:
        import os
        from minicnn.locks import locked
        with locked({str(tmp_path / "lock")!r}, "x"):
            os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", code])
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", "x"):
        pass


@pytest.mark.parametrize("number", (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524))
def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locked(tmp_path / "lock", "x"):
        assert "this file system has no locks" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_start_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr(watch.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = watch.start_folder()
    assert folder == watch.start_folder() and folder.stat().st_mode & 0o77 == 0
    folder.rmdir()
    (tmp_path / "other").mkdir()
    folder.symlink_to(tmp_path / "other")
    with pytest.raises(RuntimeError, match="belongs to another user: set TMPDIR"):
        watch.start_folder()


def test_the_node_whose_network_is_cut_is_named(tmp_path):
    """Four nodes; each says which of its two neighbours do not answer."""

    def said(silent, lost=()):
        rows = {
            rank: {
                **{"host": f"node{rank}", "where": "allreduce", "since": 1.0, "time": 1.0},
                **{"beaten": 1.0, "step": 3, "silent": silent.get(rank, [])},
                "lost": ["eth0"] if rank in lost else [],
            }
            for rank in range(4)
        }
        return watch.Watch(tmp_path, 0, 4, 1.0)._report(rows, [0, 1, 2, 3])

    text = said({1: ["node2"], 2: ["node1", "node3"], 3: ["node2"]})
    assert "missing in allreduce: rank 2 (the network of node2 is cut)" in text
    assert "rank 2 on node2: 3 steps; waits in allreduce" in text
    assert "; no answer from node1, node3" in text
    # A cable that is out says it all, also between two nodes that each find the other silent.
    assert "rank 3 (the network of node3 is cut)" in said({2: ["node3"], 3: ["node2"]}, lost={3})
    assert "rank none: all wait in it, and the nodes reach each other" in said({})

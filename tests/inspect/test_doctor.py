"""doctor: the illnesses it is for are found, with their remedies, on real ranks and on facts of
machines that are not here.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from helpers import ROOT, mpi
from minicnn.data import Event, EventWriter, SparseImage
from minicnn.inspect import doctor
from minicnn.inspect.doctor import ERROR, OK, WARNING

CORES = len(os.sched_getaffinity(0))


def rank(number=0, **changed):
    """The facts of a healthy rank of two on a node of eight cores, four threads each."""
    mine = list(range(4 * number, 4 * number + 4))
    kernels = {
        "numba": "0.61",
        "threads": 8,
        "layer": "omp",
        "asked": "default",
        "lanes": 16,
        "cpu": "cascadelake",
        "cache": "/c",
    }
    return {
        "host": "node1",
        "allowed": mine,
        "present": 8,
        "physical": [str(core) for core in mine],
        "quota": None,
        "memory": 64e9,
        "free_memory": 60e9,
        "shared_memory": (32e9, 30e9),
        "numa_nodes": 2,
        "nvidia": [],
        "announced": 2,
        "launcher": "MPICH's mpiexec",
        "size": 2,
        "rank": number,
        "library": "MPICH 5.0",
        "vendor": "MPICH",
        "mpi4py": "4.1",
        "cuda_aware": False,
        "variables": {},
        "mpiexec": ("/env/bin/mpiexec", "MPICH"),
        "kernels": kernels,
        "threads": 4,
        "device": "auto",
        "gpu": "no GPU",
        **changed,
    }


def found(*ranks):
    return {(f.level, f.topic) for f in doctor.examine(ranks) if f.level != OK}


def test_health():
    assert found(rank(0), rank(1)) == set()
    both = list(range(8))
    unbound = {"allowed": both, "physical": list(map(str, both)), "numa_nodes": 1}
    assert found(rank(0, **unbound), rank(1, **unbound)) == set()


def test_a_user_without_a_home(monkeypatch):
    """Containers run as any number, of which the system knows no user."""

    def nobody(number):
        raise KeyError(number)

    cache = dict(rank()["kernels"], cache="/home/me/numba")
    monkeypatch.setenv("HOME", "/home/me")
    found = doctor.engines.numba([rank(kernels=cache)])
    assert found[0].text.endswith("compiled kernels in ~/numba")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    found = doctor.engines.numba([rank(kernels=cache)])
    assert found[0].text.endswith("compiled kernels in /home/me/numba")


@pytest.mark.parametrize(
    "changed, level, topic, words",
    [
        ({"threads": 8}, ERROR, "cores", "2 ranks x 8 threads on 8 cores: 2 threads share each"),
        ({"threads": 8}, ERROR, "binding", "rank 0 is bound to cores 0-3, but has 8 threads"),
        ({"threads": 2}, WARNING, "cores", "4 of them have nothing to do"),
        (
            {"allowed": [0], "threads": 1, "physical": ["0"]},
            ERROR,
            "binding",
            "all 2 ranks are bound to the same core 0 of 8",
        ),
        (
            {"allowed": [0, 1, 2, 3, 4], "threads": 2},
            WARNING,
            "binding",
            "overlap: rank 0 0-4; rank 1 4-7",
        ),
        (
            {"allowed": list(range(8)), "physical": list("01234567")},
            WARNING,
            "binding",
            "not bound; on 2 NUMA nodes",
        ),
        (
            {"allowed": list(range(8)), "physical": ["0,4", "1,5", "2,6", "3,7"], "numa_nodes": 1},
            WARNING,
            "cores",
            "8 threads on 4 physical cores",
        ),
        ({"quota": 2.0}, WARNING, "quota", "2 cores' worth of time, but sees 8"),
        ({"library": None, "problem": "No module"}, ERROR, "MPI", "mpi4py cannot be imported"),
        (
            {"size": 1},
            ERROR,
            "launcher",
            "MPICH's mpiexec started 2 processes, but MPI sees only one",
        ),
        (
            {"mpiexec": ("/usr/bin/mpiexec", "Open MPI")},
            WARNING,
            "launcher",
            "/usr/bin/mpiexec) belongs to Open MPI, mpi4py to MPICH",
        ),
        (
            {"device": "cuda", "gpu": 'device "cuda": CuPy finds no usable GPU'},
            ERROR,
            "GPU",
            "CuPy finds no usable GPU (the system shows no",
        ),
        ({"nvidia": ["nvidia0"]}, WARNING, "GPU", "node1 has nvidia0, but it is not used"),
        ({"gpu": None}, WARNING, "CUDA-aware MPI", "cannot reduce GPU buffers"),
        (
            {"stale_segments": [("mpich_shm_1_0", 2118784)] * 3},
            WARNING,
            "shared memory",
            "3 segments of 6.36 MB that killed jobs have left in /dev/shm, as mpich_shm_1_0",
        ),
        ({"shared_memory": (64e6, 60e6)}, WARNING, "shared memory", "60 MB free of 64 MB"),
    ],
    ids=str,
)
def test_illness(changed, level, topic, words):
    second = {"allowed": [4, 5, 6, 7]} if len(changed.get("allowed", [])) == 5 else {}
    findings = doctor.examine([rank(0, **changed), rank(1, **changed | second)])
    hit = [f for f in findings if f.topic == topic and f.level == level and words in f.text]
    assert hit and hit[0].remedy, [f for f in findings if f.level != OK]


def test_one_rank_differs():
    assert (ERROR, "MPI") in found(rank(0), rank(1, library="Open MPI 5"))
    assert (WARNING, "vectors") in found(rank(0), rank(1, kernels=rank()["kernels"] | {"lanes": 8}))
    assert (ERROR, "numba") in found(rank(0), rank(1, kernels={"problem": "ImportError: llvmlite"}))
    assert (ERROR, "numba") in found(
        rank(0, kernels=rank()["kernels"] | {"layer": None, "asked": "tbb"}), rank(1)
    )
    few = rank()["kernels"] | {"threads": 2}
    assert (ERROR, "numba") in found(rank(0, kernels=few), rank(1, kernels=few))
    assert (
        found(rank(0), rank(1, host="node2", allowed=[0, 1, 2, 3])) == set()
    )  # the same cores of different nodes


def test_data_set(tmp_path):
    rng = np.random.default_rng(0)
    with EventWriter(tmp_path / "e.h5", (40, 40, 1)) as writer:
        for i in range(6):
            coords = np.unique(rng.integers(0, 40, (20, 2)), axis=0)
            writer.append(
                Event(
                    SparseImage(coords, rng.random((len(coords), 1)), (40, 40, 1)),
                    -1 if i == 5 else i,
                )
            )
    data = doctor.data_facts(tmp_path / "e.h5")
    assert (
        data["events"] == 6
        and data["unlabelled"] == 1
        and data["bytes"] > 0
        and data["dense"] == 6400
    )
    levels = {f.topic: f.level for f in doctor.examine_data([rank(0), rank(1)], data)}
    assert levels == {"events": WARNING, "memory": OK, "disk": levels["disk"]}
    data["unlabelled"] = 0
    assert doctor.examine_data([rank(i) for i in range(7)], data)[0].level == ERROR
    large = data | {"events": 40_000_000, "bytes": 5000}
    memory = next(f for f in doctor.examine_data([rank(0), rank(1)], large) if f.topic == "memory")
    assert (
        memory.level == ERROR
        and "200 GB for its share" in memory.text
        and "fewer ranks per node" in memory.remedy
    )
    spread = [rank(i, host=f"node{i}") for i in range(6)]
    assert all(f.level == OK for f in doctor.examine_data(spread, large | {"free_disk": 1e12}))


def doctor_on(ranks, *arguments, **env):
    done = mpi(ranks, "-m", "minicnn", "doctor", *arguments, timeout=300, **env)
    assert done.stdout.count("minicnn doctor:") == 1, done.stdout + done.stderr
    return done.returncode, done.stdout


@pytest.mark.mpi
def test_too_many_threads_and_no_gpu(no_gpu):
    status, text = doctor_on(4, "--threads", CORES, "--device", "cuda")
    assert status == 1 and f"4 ranks x {CORES} thread" in text and "minicnn doctor: 4 ranks" in text
    assert "error    cores" in text and "--threads 1" in text
    assert (
        "error    GPU" in text
        and "--device cpu" in text
        and "Allreduce of the talk's gradients" in text
    )


@pytest.mark.mpi
def test_one_report_and_status_0_on_good_ranks(tmp_path, no_gpu):
    if CORES < 2:
        pytest.skip("one core: two ranks are too many for it")
    status, text = doctor_on(2, "--threads", CORES // 2)
    assert status == 0 and "error" not in text and "2 ranks started by MPICH's mpiexec" in text
    status, text = doctor_on(2, "--threads", CORES // 2, tmp_path / "none.h5")
    assert status == 1 and "none.h5: no such file" in text


@pytest.mark.parametrize("number, prints", (("0", 1), ("1", 0)))
def test_the_wrong_launcher(number, prints, no_gpu):
    variables = {**os.environ, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": number}
    done = subprocess.run(
        [sys.executable, "-m", "minicnn", "doctor"],
        env=variables,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1 and done.stdout.count("minicnn doctor") == prints
    assert ("Open MPI's mpiexec started 2 processes, but MPI sees only one" in done.stdout) == bool(
        prints
    ), done.stdout + done.stderr

"""Ranks on several nodes: those of benchmarks/cluster, with networks of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import ROOT
from helpers.cli import make_events

FOLDER = ROOT / "benchmarks" / "cluster"
CASES = ROOT / "tests" / "helpers" / "cluster_cases.py"
ENVIRONMENT = {
    **os.environ,
    "CLUSTER": f"test-{os.getpid()}",
    "PYTHONPATH": str(ROOT / "tests"),
    "NUMBA_NUM_THREADS": "2",
    "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
}


def reason():
    """Why there can be no nodes here, "" where there can."""
    code = "import sys; sys.path.append(sys.argv[1]); import nodes; print(nodes.impossible() or '')"
    done = subprocess.run([sys.executable, "-c", code, FOLDER], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip()


def cluster(*words, **options):
    """Run a command of cluster.py."""
    command = [sys.executable, FOLDER / "cluster.py", *words]
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, **options
    )


@pytest.fixture(scope="module")
def nodes():
    """Four nodes, node1 to node4."""
    pytest.importorskip("mpi4py")
    if found := reason():
        pytest.skip(f"no nodes of namespaces: {found}")
    done = cluster("up", 4, "--rate", "1gbit", "--congestion", "reno")
    try:
        assert done.returncode == 0, done.stderr
        yield
    finally:
        cluster("down")
        assert "there is none" in cluster("show").stderr


pytestmark = [pytest.mark.cluster, pytest.mark.mpi, pytest.mark.usefixtures("nodes")]


def trained(hosts, ranks):
    """What the ranks on these hosts print."""
    mpiexec = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    command = [mpiexec, "-hosts", hosts, "-n", ranks, sys.executable, CASES]
    done = cluster("on", "head", *command, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_ranks_of_two_nodes_train_to_the_bits_of_one():
    apart, together = trained("node1,node2", 2), trained("node1:2", 2)
    assert [row["host"] for row in apart] == ["node1", "node2"]
    assert [row["shares"] for row in apart] == [[0], [1]]
    assert [row["host"] for row in together] == ["node1", "node1"]
    assert [row["shares"] for row in together] == [[0, 1], [0, 1]]
    assert len({row["bits"] for row in (*apart, *together)}) == 1
    # Nodes that only look like nodes would exchange through memory: 8 steps went over the cable.
    for row in apart:
        assert row["sent"] >= 8 * row["gradients"]


def test_nodes_have_the_congestion_control_that_is_asked_for():
    where = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    machine = where.read_text()
    for node in (1, 4, "head"):
        assert cluster("on", node, "cat", where).stdout == "reno\n"
    assert where.read_text() == machine


def test_which_ranks_share_a_node_of_four():
    rows = trained("node1:2,node2,node3,node4", 5)
    assert [row["host"] for row in rows] == ["node1", "node1", "node2", "node3", "node4"]
    assert [row["shares"] for row in rows] == [[0, 1], [0, 1], [2], [3], [4]]


def test_a_pulled_cable_ends_the_job_and_launch_goes_on_without_the_node(tmp_path):
    events = make_events(tmp_path / "e.h5", 20, labels=(0, 1, 2, 3, 4))
    out = tmp_path / "out"
    options = ["--size", 40, "--device", "reference", "--events", events, "--out", out]
    options += ["--batch-size", 1, "--epochs", 12, "--stall-limit", 0.15, "--save-every", 0.001]
    launch = ["-m", "minicnn", "launch", "-n", 2, "--restarts", 3, "--min-ranks", 1, "--"]
    command = [sys.executable, FOLDER / "cluster.py", "on", "head", sys.executable]
    command = [*map(str, (*command, *launch, "train", *options))]
    pipe = subprocess.PIPE
    job = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT, cwd=ROOT)
    while not (out / "checkpoint" / "step.safetensors").exists() and job.poll() is None:
        time.sleep(0.05)
    assert cluster("link", 2, "down").returncode == 0
    _, said = job.communicate(timeout=120)
    cluster("link", 2, "up")
    assert "missing in " in said and "rank 1 (the network of node2 is cut)" in said, said
    assert "no cable in eth0" in said and "failed with status 76" in said, said
    assert "cluster: node2 does not answer" in said and "with 1 ranks" in said, said
    assert job.returncode == 0 and (out / "run.json").exists(), said

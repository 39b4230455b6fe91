"""The comparisons with other engines run at a tiny size, and refuse what cannot be compared."""

import json

import numpy as np
import pytest

from helpers.benchmarks import module, run
from minicnn.data import SparseImage


def test_peers_with_our_engines_alone(tmp_path):
    text = run(
        "peers",
        "--size",
        100,
        "--engines",
        "minicnn dense",
        "minicnn zero-suppressed",
        "--number",
        2,
        "--batch-size",
        1,
        2,
        "--repeats",
        1,
        "--noise",
        "--seconds",
        0,
        "--pause",
        0,
        "--json",
        tmp_path / "out.json",
        "--plot",
        tmp_path / "out.png",
    )
    for line in (
        "check on 2 events",
        "simulated: 2 events",
        "noise: 2 events",
        "must reach",
        "peak memory in MB",
    ):
        assert line in text
    out = json.loads((tmp_path / "out.json").read_text())
    assert len(out["rows"]) == 8 and all(row["memory"] > 10 for row in out["rows"])
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_peers_compares_with_the_fastest_peer():
    peers = module("peers")

    def row(engine, batch, ms, events="simulated", memory=300):
        return {
            "engine": engine,
            "batch": batch,
            "events": events,
            "median": ms,
            "min": ms,
            "max": ms,
            "memory": memory,
            "samples": (ms,),
        }

    rows = [
        row("minicnn dense", 1, 100),
        row("minicnn zero-suppressed", 1, 10),
        row("keras", 1, 800),
        row("torch", 1, 900),
        row("torch", 8, 700),
        row("minicnn zero-suppressed", 1, 40, "real"),
        row("keras", 1, 600, "real"),
    ]
    assert peers.fastest_peer(rows, "simulated")["batch"] == 8
    assert peers.fastest_peer(rows, "real")["engine"] == "keras"
    reached = {what.split(":")[0]: (measured, ok) for what, _, measured, ok in peers.goals(rows)}
    assert reached["minicnn dense, simulated, batch 1"] == ("7.00", True)
    assert reached["minicnn zero-suppressed, simulated, batch 1"] == ("70.00", True)
    assert reached["minicnn zero-suppressed, real, batch 1"] == ("15.00", True)


def test_peers_that_are_slow_or_large_are_left_out_of_larger_batches(monkeypatch, capsys):
    peers = module("peers")
    rows = [
        {
            "engine": name,
            "batch": 1,
            "events": "simulated",
            "median": seconds,
            "idle": 400,
            "memory": memory,
        }
        for name, seconds, memory in (
            ("keras", 0.9, 2400),
            ("keras pool first", 0.8, 2400),
            ("torch", 2, 2000),
        )
    ]
    monkeypatch.setattr(peers, "free_memory", lambda: 24000)
    engines = ["minicnn dense", "keras", "keras pool first", "torch", "torch pool first"]
    assert peers.choose(engines, [], "simulated", 1) == engines
    assert peers.choose(engines, rows, "simulated", 8) == ["minicnn dense", "keras pool first"]
    text = capsys.readouterr().out
    assert (
        "keras: batch 8 left out, it would need about 16 GB" in text
        and "torch: batch 8 left out, 2.5 times" in text
    )


def test_peers_that_are_missing_are_named(monkeypatch, capsys):
    peers = module("peers")
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.installed(["minicnn dense", "keras", "torch"]) == ["minicnn dense"]
    assert "keras: left out, pip install" in capsys.readouterr().out


def test_mirror_images():
    peers = module("peers")
    image = SparseImage([[0, 1], [2, 0]], [1.0, 2.0], (3, 3, 1))
    dense = image.to_dense()[..., 0]
    expected = {
        np.ascontiguousarray(a[::i, ::j]).tobytes()
        for a in (dense, dense.T)
        for i in (1, -1)
        for j in (1, -1)
    }
    assert {peers.mirrored(image, k).to_dense().tobytes() for k in range(8)} == expected


@pytest.mark.mpi
def test_ddp(tmp_path):
    pytest.importorskip("torch")
    text = run(
        "ddp",
        "--size",
        125,
        "--batch-size",
        1,
        "--large",
        2,
        "--steps",
        1,
        "--rounds",
        1,
        "--json",
        tmp_path / "out.json",
    )
    assert "losses differ by" in text and "times faster" in text
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(r["engine"], r["batch"]) for r in rows] == [
        ("torch DDP", 1),
        ("minicnn", 1),
        ("minicnn", 2),
    ] and rows[0]["times_faster"] == 1


def test_ddp_refuses_engines_that_do_not_agree():
    ddp = module("ddp")
    turn = {"losses": [1.0, 0.9], "moved": {"fc1/w": np.ones(3)}}
    assert ddp.compare(turn, turn) == {"loss": 0, "weights": 0}
    for other in (
        {**turn, "losses": [1.0, 0.91]},
        {**turn, "moved": {"fc1/w": np.array([1, 1, 1.1])}},
    ):
        with pytest.raises(SystemExit, match="do not agree"):
            ddp.compare(other, turn)

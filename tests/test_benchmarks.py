"""The benchmarks run at a tiny size and print their tables; nothing here depends on how long
anything takes.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import mpi
from minicnn.data import SparseImage

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # as where a benchmark is run as a script


def module(name):
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_step(tmp_path):
    text = run(
        "step", "--size", 100, "--batch-size", 1, 2, "--repeats", 1, "--json", tmp_path / "out.json"
    )
    assert "ms per event" in text and "peak memory" in text
    assert [row["batch"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]] == [
        1,
        2,
    ]


def test_startup(tmp_path):
    text = run(
        "startup", "--size", 25, "--repeats", 2, "--threads", 1, "--json", tmp_path / "out.json"
    )
    assert (
        "import minicnn" in text
        and "first step" in text
        and "compiled before, processes: 2" in text
        and "to be compiled" not in text
    )
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (
        len(rows) == 7
        and all(0 < row["min"] <= row["median"] <= row["max"] for row in rows[:-1])
        and rows[-1]["mb"] > 10
    )


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="the emulator needs g++, which is not on the PATH"
)
def test_gpu_on_the_emulator(tmp_path):
    text = run(
        "gpu",
        "--device",
        "emulated",
        "--size",
        100,
        "--batch-size",
        2,
        "--repeats",
        1,
        "--seconds",
        0.1,
        "--json",
        tmp_path,
    )
    assert (
        "block 2 dw + dx" in text
        and "minicnn zero-suppressed" in text
        and "training from the compressed store" in text
    )
    result = json.loads((tmp_path / "emulated.json").read_text())
    assert (
        result["ceilings"] == {}
        and [r["batch"] for r in result["steps"]] == [2] * 4
        and result["store"]["busy_percent"] is None
    )


def test_ledger():
    text = run("ledger", "--size", 100, "--batch-size", 2, "--steps", 5, "--threads", 1)
    assert "paired difference" in text and "spans a step" in text


@pytest.mark.mpi
def test_scaling_goes_on_where_it_was(tmp_path):
    pytest.importorskip("mpi4py")
    options = (
        "--ranks",
        1,
        2,
        "--size",
        100,
        "--batch-size",
        2,
        "--events-per-rank",
        4,
        "--loss-events",
        20,
        "--scales",
        1,
        2,
        "--epochs",
        1,
        "--cache",
        tmp_path,
        "--results",
        tmp_path / "r.json",
        "--out",
        tmp_path,
    )
    text = run("scaling", *options)
    for words in ("Data throughput", "speed-up", "Validation loss", "loss 2:", "throughput 2:"):
        assert words in text, text
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG") and "Data throughput" in (
        tmp_path / "scaling.md"
    ).read_text()
    before = json.loads((tmp_path / "r.json").read_text())
    del before["speedup"]["2"]
    (tmp_path / "r.json").write_text(json.dumps(before))
    text = run("scaling", *options)
    assert (
        "speedup 2:" in text
        and "speedup 1:" not in text
        and "loss" not in text.split("Data throughput")[0]
    )
    after = json.loads((tmp_path / "r.json").read_text())
    assert (
        after["throughput"] == before["throughput"]
        and after["loss"] == before["loss"]
        and set(after["speedup"]) == {"1", "2"}
    )
    text = run("scaling", *options, "--parts", "gpus", "--gpu", "emulated", "--ranks", 1)
    assert "Training on GPUs, one rank each" in text and set(
        json.loads((tmp_path / "r.json").read_text())["gpus"]
    ) == {"1"}


def test_store(tmp_path):
    from minicnn.data import Simulator, generate

    generate(tmp_path / "events.h5", 5, Simulator(1, (100, 100, 1)))
    text = run(
        "store",
        "--size",
        100,
        "--events",
        4,
        "--dense",
        2,
        "--batch-size",
        2,
        "--repeats",
        1,
        "--file",
        tmp_path / "events.h5",
        "--load",
        tmp_path / "events.h5",
        "--json",
        tmp_path / "out.json",
    )
    for words in (
        "zero-suppressed  zstd:1",
        "dense            lz4:1",
        "events.h5: 5 events in",
        "prefetch 1",
        "of the step exposed",
    ):
        assert words in text
    out = json.loads((tmp_path / "out.json").read_text())
    assert len(out["sets"]) == 2 and out["load"]["events"] == 5 and len(out["waiting"]) == 4


def test_active(tmp_path, capsys):
    module("active").main(
        [
            "--size",
            "100",
            "--levels",
            "1",
            "--repeats",
            "1",
            "--json",
            str(tmp_path / "out.json"),
            "--plot",
            str(tmp_path / "out.png"),
        ]
    )
    text = capsys.readouterr().out
    for kind in ("empty", "1 particle", "isolated", "clusters", "noise-filled", "CROSSOVER = "):
        assert kind in text
    out = json.loads((tmp_path / "out.json").read_text())
    assert (
        out["rows"][0]["cells"] == [0, 0]
        and out["rows"][-1]["cells"] == [1, 1]
        and 0 < out["crossover"] <= 1
    )
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_events_of_active():
    active, size = module("active"), 200
    rng = np.random.default_rng(0)
    for make in (active.isolated, active.clusters):
        image = make(rng, size, 0.05)
        assert isinstance(image, SparseImage) and 0.04 < image.nnz / size**2 < 0.1
        assert isinstance(make(rng, size, 0.5), np.ndarray)
    a, b = active.isolated(rng, size, 0.01), active.isolated(rng, size, 0.01)
    assert np.allclose(active.overlaid([a, b]).to_dense(), a.to_dense() + b.to_dense())


def test_crossover_is_where_the_costs_cross():
    active = module("active")
    rows = [
        {
            "lit": 0,
            "cells": [f, 1.0],
            "always": {"blocks": [f, 2.0]},
            "never": {"blocks": [0.6, 1.0]},
        }
        for f in np.linspace(0, 1, 21)
    ]
    assert active.crossings(rows, 0) == pytest.approx(0.6)
    crossover, relative, _ = active.best_crossover(rows)
    assert 0.55 <= crossover <= 0.65 and relative == pytest.approx(1)


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
@pytest.mark.parametrize(
    "name, arguments, lines",
    [
        (
            "allreduce",
            ("--batch-size", 1, "--steps", 2, "--rounds", 1, "--buckets", 4096, 65536),
            ("1. Allreduce", "hierarchical", "weights", "of the step", "BUCKET = "),
        ),
        (
            "weak_scaling",
            ("--batch-size", 2, "--steps", 2, "--rounds", 1),
            ("alone", "side by side", "together", "apart from waiting"),
        ),
        (
            "shared_store",
            ("--number", 12, "--check", 3, "--batch-size", 2),
            ("private shards", "private copies", "sample of 3 events equals the file"),
        ),
    ],
)
def test_benchmarks_of_several_ranks(name, arguments, lines, tmp_path):
    done = mpi(
        2, BENCHMARKS / f"{name}.py", "--size", 100, *arguments, "--json", tmp_path / "out.json"
    )
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert line in done.stdout, done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["ranks"] == 2


def test_allreduce_prints_the_bucket_that_takes_least_of_the_main_thread():
    best = module("allreduce").best_bucket
    assert (
        best(
            [
                {"bucket": 1, "main_thread": 1.0},
                {"bucket": 2, "main_thread": 1.02},
                {"bucket": 4, "main_thread": 2.0},
            ]
        )
        == 2
    )


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

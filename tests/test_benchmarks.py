"""The benchmarks run at a tiny size and print their tables; nothing here depends on how long
anything takes.
"""

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest

import minicnn as mc
from helpers import mpi
from helpers.benchmarks import BENCHMARKS, module, run
from minicnn.data import SparseImage


def test_every_benchmark_starts():
    """Also those that are too long to run here: their options do not contradict each other. All in
    one process, which imports the libraries once.
    """
    code = """if True:
        import runpy, sys
        for path in sys.argv[1:]:
            sys.argv = [path, "--help"]
            try:
                runpy.run_path(path, run_name="__main__")
            except SystemExit as end:
                print("started" if end.code == 0 else f"ended with {end.code}", path)
            else:
                print("went on", path)
    """
    programs = [p for p in sorted(BENCHMARKS.glob("*.py")) if "__main__" in p.read_text()]
    command = [sys.executable, "-c", code, *map(str, programs)]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    said = [line for line in done.stdout.splitlines() if line.endswith(".py")]
    assert said == [f"started {path}" for path in programs], done.stdout + done.stderr
    assert done.stdout.count("usage: ") == len(programs) > 10


def test_kernels(tmp_path):
    text = run("kernels", "--size", 625, "--repeat", 1, "--json", tmp_path / "out.json")
    assert "blocks 2-4 forward together" in text and "training step" in text
    rows = json.loads((tmp_path / "out.json").read_text())["kernels"]
    assert len(rows) == 20 and all(0 < r["min"] <= r["seconds"] <= r["max"] for r in rows)


def test_event_cost(tmp_path):
    text = run(
        "event_cost", "--size", 100, "--number", 64, "--batch-size", 4, "--passes", 1,
        "--json", tmp_path / "out.json",
    )  # fmt: skip
    assert "R^2 lit pixels" in text
    kinds = [row["kind"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]]
    assert kinds == ["similar cost", "random events", "equal cost", "all"]


def test_uneven_steps(tmp_path):
    out = tmp_path / "out.json"
    run("uneven_steps", "--size", 400, "--number", 60, "--ranks", 2, 8, "--steps", 4, "--json", out)
    for row in json.loads(out.read_text())["rows"]:
        assert 0 <= row["cost"] < row["random"] < 0.5


def test_step(tmp_path):
    options = ("--size", 100, "--batch-size", 1, 2, "--repeats", 1, "--busy")
    text = run("step", *options, "--json", tmp_path / "out.json")
    assert "ms per event" in text and "peak memory" in text
    assert text.count("times the quiet one, with") == 4
    result = json.loads((tmp_path / "out.json").read_text())
    assert [row["batch"] for row in result["rows"]] == [1, 2]
    where = [(row["own_sessions"], row["batch"]) for row in result["busy"]]
    assert where == [(False, 1), (False, 2), (True, 1), (True, 2)]


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


@pytest.mark.mpi
def test_study_trains_what_is_missing(tmp_path):
    pytest.importorskip("mpi4py")
    events = tmp_path / "events.h5"
    mc.data.generate(events, 10, mc.data.Simulator(0, (72, 72, 1)))
    options = ["resolution", "--events", events, "--out", tmp_path, "--json", tmp_path / "r.json"]
    options += ["--train", 8, "--validation", 2, "--epochs", 1, "--ranks", 1, "--sizes", 36]
    text = run("study", *options, "--plot", tmp_path / "r.png")
    assert "resolution: 36" in text and "8 training events, 1 ranks" in text
    (row,) = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert (row["name"], row["size"], row["events_per_step"]) == ("36", 36, 8)
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    text = run("study", *options)
    assert "resolution: 36" not in text and f"{row['val_loss'][0]:.4f}" in text
    chosen = Namespace(steps=[16, 64], ranks=2, train=100, plain=True)
    names = [variant.name for variant in module("study").steps(chosen)]
    assert names == ["16", "16-plain", "64", "64-plain"]
    for impossible in (1, 100):
        with pytest.raises(SystemExit, match=f"a step of {impossible} events cannot be made"):
            module("study").steps(Namespace(steps=[impossible], ranks=2, train=100, plain=False))


def test_store(tmp_path):
    from minicnn.data import Simulator, generate

    generate(tmp_path / "events.h5", 5, Simulator(1, (100, 100, 1), sample="isotropic"))
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
            "lit": f / 30,
            "cells": [f, 1.0],
            "always": {"blocks": [f, 2.0], "step": 1 + f},
            "never": {"blocks": [0.6, 1.0], "step": 1.6},
        }
        for f in np.linspace(0, 1, 21)
    ]
    assert active.crossings(rows, 0) == pytest.approx(0.6 / 30)
    crossover, relative, all_ = active.best_crossover(rows)
    assert crossover == 0.02 and relative == pytest.approx(1)
    assert min(all_[0.01], all_[0.03]) > 1.01


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
            ("alone", "side by side", "together", "apart from waiting", "steps of equal work"),
        ),
        (
            "shared_store",
            ("--number", 12, "--check", 3, "--batch-size", 2),
            (
                "random shards",
                "private shards",
                "private copies",
                "sample of 3 events equals the file",
            ),
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

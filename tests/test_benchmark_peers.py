"""The comparisons with other engines run at a tiny size, and refuse what cannot be compared."""

import importlib.util
import json
from argparse import Namespace
from importlib.util import find_spec

import numpy as np
import pytest

from helpers.benchmarks import module, run
from minicnn.data import Simulator, SparseImage

#: What keeps a run of peers.py short.
QUICK = ("--repeats", 1, "--seconds", 0, "--pause", 0, "--number", 2)


def need(*names):
    """Skip where a peer is not installed. None is imported: each keeps to a process of its own."""
    for name in {"keras": ("keras", "tensorflow")}.get(names[0], names):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


def test_peers_with_our_engines_alone(tmp_path):
    text = run(
        "peers",
        "--size",
        100,
        "--engines",
        "minicnn dense",
        "minicnn zero-suppressed",
        "--batch-size",
        1,
        2,
        "--talk",
        "--noise",
        "--planes",
        "--json",
        tmp_path / "out.json",
        "--plot",
        tmp_path / "out.png",
        *QUICK,
    )
    for name in ("simulated", "talk", "noise", "planes"):
        assert f"\n{name}: 2 events" in text
    assert text.count("check on 2 events against minicnn dense") == 2 and "must reach" not in text
    out = json.loads((tmp_path / "out.json").read_text())
    assert len(out["rows"]) == 16 and all(row["memory"] > 10 for row in out["rows"])
    assert out["differences"]["3 planes"]["minicnn zero-suppressed"]["loss"][0] <= 1e-5
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_peers_with_all_that_are_installed(tmp_path):
    need("torch", "spconv")
    text = run(
        "peers",
        "--size",
        125,
        "--engines",
        "minicnn zero-suppressed",
        "torch pool first",
        "spconv",
        "--batch-size",
        1,
        2,
        "--noise",
        "--planes",
        "--bf16",
        "--json",
        tmp_path / "out.json",
        *QUICK,
    )
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    spconv = [(r["events"], r["batch"]) for r in rows if r["engine"] == "spconv"]
    assert spconv == [("simulated", 1), ("simulated", 2)]  # neither noise nor planes
    assert all("another function" in r["mark"] for r in rows if r["engine"] == "spconv")
    torch = {(r["events"], r["batch"]) for r in rows if r["engine"] == "torch pool first"}
    assert torch >= {("simulated", 1), ("noise", 1), ("planes", 1)}
    assert "spconv: loss" in text and "not compared: another function" in text
    assert "bf16: another rounding" in text or "has no bf16 arithmetic" in text
    assert "minicnn zero-suppressed, planes, batch" not in text  # a goal of batch 8


# ---------------------------------------------------------------------------------------- the goals
def row(engine, batch, ms, events="simulated"):
    return {
        "engine": engine,
        "batch": batch,
        "events": events,
        "median": ms,
        "min": ms,
        "max": ms,
        "memory": 300,
        "samples": (ms,),
    }


def test_peers_compares_with_the_fastest_peer_that_computes_the_same():
    report = module("peers_report")
    rows = [
        row("minicnn dense", 1, 100),
        row("keras", 1, 800),
        row("torch", 1, 900),
        row("torch", 8, 700),
        row("torch bf16", 8, 300),
        row("spconv", 8, 5),
        row("keras", 1, 600, "real"),
        row("keras pool first", 1, 2100, "planes"),
    ]
    assert report.fastest_peer(rows, "simulated")["batch"] == 8
    assert report.fastest_peer(rows, "simulated")["engine"] == "torch"
    assert report.fastest_peer(rows, "real")["engine"] == "keras"
    assert report.fastest_peer(rows, "talk")["engine"] == "torch"  # dense: the same for all events
    assert report.fastest_peer(rows, "planes")["engine"] == "keras pool first"
    assert report.fastest_peer(rows[:1], "simulated") is None


def test_goals_are_those_whose_rows_were_measured():
    report = module("peers_report")
    ours = "minicnn zero-suppressed"
    rows = [
        row(ours, 1, 7),
        row(ours, 8, 4),
        row(ours, 8, 20, "real"),
        row(ours, 8, 10, "planes"),
        row("minicnn dense", 8, 250),
        row("keras", 8, 700),
        row("keras", 16, 1),  # larger than the goals speak of
        row("torch bf16", 8, 2),
        row("spconv", 8, 5),
        row("spconv", 8, 40, "real"),
    ]
    reached = {what.split(": ")[0]: (measured, ok) for what, _, measured, ok in report.goals(rows)}
    ahead = [measured for what, _, measured, _ in report.goals(rows) if "spconv" in what]
    assert ahead == ["1.25", "2.00"] and len(report.goals(rows)) == 6
    assert reached[f"{ours}, simulated, batch 1"] == ("100.00", True)
    assert reached["minicnn dense, simulated, batch 8"] == ("2.80", True)
    assert not any("planes" in what or "talk" in what for what in reached)
    rows.append(row("torch pool first", 1, 500, "planes"))
    what, required, measured, ok = report.goals(rows)[3]
    assert "planes, batch 8: times faster than torch pool first (batch 1)" in what
    assert required.startswith(">= 60") and (measured, ok) == ("50.00", False)


# -------------------------------------------------------------------------------------- the engines
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
    engines = ["minicnn dense", "keras", "keras pool first", "torch", "torch pool first", "spconv"]
    assert peers.choose(engines, [], "simulated", 1) == engines
    assert peers.choose(engines, rows, "simulated", 8) == [
        "minicnn dense",
        "keras pool first",
        "spconv",  # whatever its time: its row is a goal's
    ]
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


@pytest.mark.parametrize("features", [{"avx2": True, "avx512bf16": False}, {"avx512bf16": True}])
def test_bf16_is_measured_where_the_cpu_has_it(features, monkeypatch, capsys):
    peers, engines = module("peers"), __import__("peers_engines")
    monkeypatch.setattr(engines.llvmlite.binding, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: name)
    assert peers.arguments(["--bf16", "--engines", "torch"]).engines == [
        "torch",
        "keras bf16",
        "minicnn dense bf16",
        "torch bf16",
    ]
    able = features.get("avx512bf16")
    assert peers.installed(["torch", "torch bf16"]) == ["torch", "torch bf16"][: 1 + able]
    assert ("torch bf16: left out, this CPU" in capsys.readouterr().out) is not able


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_bf16_differs_by_its_rounding_and_is_let_through(name, capsys):
    need(name)
    engines, check = module("peers_engines"), module("peers_check")
    images = [
        Simulator(seed=4, shape=(125, 125, 1), sample="isotropic").read(i).image for i in range(2)
    ]
    args, weights = Namespace(size=125, threads=1), engines.initial_weights(125)
    pair = ["minicnn dense", f"{name} bf16"]
    able, differences = check.check(pair, args, weights, images, [1, 3])
    text = capsys.readouterr().out
    assert able == pair and "bf16: another rounding" in text
    loss, gradients = (differences[pair[1]][what][0] for what in ("loss", "gradients"))
    assert 1e-6 < loss < 1e-2 and check.TOLERANCE["gradients"] < gradients < 0.5


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_three_planes_agree_and_others_are_refused(name, monkeypatch, capsys):
    need(name)
    engines, check = module("peers_engines"), module("peers_check")
    simulator = Simulator(seed=4, shape=(125, 125, 3), sample="isotropic")
    images = [simulator.read(i).image.planes() for i in range(2)]
    args, weights = Namespace(size=125, threads=1), engines.initial_weights(125, planes=3)
    assert engines.planes_of(125, weights) == 3
    pair = ["minicnn zero-suppressed", f"{name} pool first"]
    able, differences = check.check(pair, args, weights, images, [1, 3])
    assert able == pair and differences[pair[1]]["gradients"][0] <= 1e-3
    monkeypatch.setitem(check.TOLERANCE, "gradients", 0)
    with pytest.raises(SystemExit, match=f"do not agree.*{pair[1]}: gradients"):
        check.check(pair, args, weights, images, [1, 3])


# ------------------------------------------------------------------------------------------- spconv
def masked_network(weights, images, labels):
    """Return (loss, gradients) of the submanifold network by its definition, in float64: dense
    convolutions of maps that are 0 where nothing is lit, kept where the input is lit, and maxima
    over the lit positions of each window.
    """
    import torch
    from torch.nn import functional as f

    engines = module("peers_engines")
    w = {k: torch.tensor(v, dtype=torch.float64).requires_grad_() for k, v in weights.items()}
    x = torch.tensor(engines.dense(images), dtype=torch.float64).permute(0, 3, 1, 2)
    lit, nothing = torch.zeros(x.shape), torch.zeros((), dtype=torch.float64)
    for of, image in zip(lit, images):
        of[0, image.coords[:, 0], image.coords[:, 1]] = 1
    for name in [name for name, kernel in engines.kernels(weights) if kernel.ndim == 4]:
        x = f.conv2d(x, w[name + "/w"].permute(3, 2, 0, 1), w[name + "/b"], padding=2)
        x = f.max_pool2d(f.elu(x).where(lit > 0, -torch.inf), 5)
        lit = f.max_pool2d(lit, 5)
        x = x.where(lit > 0, nothing)
    x = f.elu(x.permute(0, 2, 3, 1).flatten(1) @ w["fc1/w"] + w["fc1/b"])
    scores = x @ w["predictions/w"] + w["predictions/b"]
    loss = f.cross_entropy(scores, torch.tensor(labels))
    loss.backward()
    return loss.item(), {name: value.grad.numpy() for name, value in w.items()}


def test_spconv_computes_the_submanifold_network():
    """Where windows do not divide the map, at the borders, and with more pixels than one thread
    gets.
    """
    need("torch", "spconv")
    engines, rng, size = module("peers_engines"), np.random.default_rng(0), 133
    images = []
    for lit in (0.004, 0.3):
        image = rng.normal(0, 300, (size, size, 1)) * (rng.random((size, size, 1)) < lit)
        image[[0, 0, -1, -1], [0, -1, 0, -1]] = rng.normal(0, 300, (4, 1))
        images.append(SparseImage.from_dense(image.astype(np.float32)))
    weights, labels = engines.initial_weights(size), [2, 4]
    loss, gradients = masked_network(weights, images, labels)
    engine = engines.Spconv(size, weights, 2)
    batch = engine.batch(images, labels)
    for _ in range(3):  # a race of threads shows in one or the other
        got, found = engine.gradients(*batch)
        assert got == pytest.approx(loss, rel=1e-5)
        for name, want in gradients.items():
            assert found[name].shape == want.shape
            assert np.linalg.norm(found[name] - want) <= 1e-3 * np.linalg.norm(want), name
    assert engine.step(*batch) > engine.step(*batch)  # it learns
    assert engine.weights().keys() == weights.keys()


# ------------------------------------------------------------------------------------------- layers
def test_layers(tmp_path):
    need("torch")
    path = tmp_path / "out.json"
    options = ("--layers", "--size", 125, "--batch-size", 1, 2, "--json", path)
    text = run("peers", *options, *QUICK)
    assert "minicnn: left out" not in text
    rows = json.loads(path.read_text())["layers"]
    assert [(r["layer"], r["batch"]) for r in rows] == [
        (f"block{block}_conv1", batch) for batch in (1, 2) for block in (1, 2, 3)
    ]
    able = {"torch", "minicnn"} | ({"spconv"} if importlib.util.find_spec("spconv") else set())
    assert all(set(r["median"]) == able for r in rows)
    assert [r["side"] for r in rows[:3]] == [125, 25, 5]


def test_layers_that_do_not_agree_are_refused():
    layers = module("peers_layers")
    answer = (np.ones(4), np.ones(3), np.ones(2), None)
    other = (np.ones(4), np.array([1, 1, 1.001]), np.ones(2), np.ones(1))
    layers.compare({"torch": answer, "spconv": answer}, "block1")
    with pytest.raises(SystemExit, match="block1: the dw of spconv and torch differ by"):
        layers.compare({"torch": answer, "spconv": other}, "block1")


@pytest.mark.parametrize("side", [25, 28])
def test_lit_cells_are_those_that_the_event_reaches(side):
    lit = np.random.default_rng(1).random((side, side)) < 0.01
    lit[-1, -1] = lit[0, 7] = True
    seen = np.lib.stride_tricks.sliding_window_view(np.pad(lit, 2), (5, 5)).any((2, 3))
    cells = side // 5
    reached = seen[: 5 * cells, : 5 * cells].reshape(cells, 5, cells, 5).any((1, 3))
    found = module("peers_layers").next_lit(np.argwhere(lit).astype(np.int32), side)
    assert np.array_equal(found, np.argwhere(reached)) and found.dtype == np.int32


# ------------------------------------------------------------------------------------------- events
def test_events_of_the_talk():
    events = module("peers_events")
    some = events.talk_events(seed=0, size=3600, count=12)
    assert [e.label for e in some] == 2 * [0, 1, 1, 2, 3, 4]
    first = np.stack([e.particles[0]["momentum"] for e in some])
    assert np.allclose(np.linalg.norm(first, axis=1), 1500)
    assert np.allclose([e.particles[0]["start"] for e in some], (100, 0, 50))
    angles = np.degrees(np.arctan2(first[:, :2], first[:, 2:]))
    assert 2 < angles.std() < 8 and np.abs(angles).max() < 20
    assert 4e-4 < events.lit_fraction([e.image for e in some]) < 1.2e-3


def test_mirror_images():
    peers = module("peers_events")
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

"""The performance model: the formulas' exact cases, limits and order; its command end to end at a
small size.
"""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import strategies as st

import minicnn as mc
from helpers import mpi, random_batch, small_model
from helpers.performance import calibration
from minicnn.__main__ import main
from minicnn.inspect import performance as perf
from minicnn.inspect.allreduce_costs import ALGORITHMS, Link, allreduce
from minicnn.inspect.calibrate import _of_events, _TimedStep, _unexplained, event_seconds
from minicnn.inspect.extrapolation import Question, extrapolate
from minicnn.inspect.performance import (
    Calibration,
    ScalingModel,
    Setting,
    expected_maximum,
)
from minicnn.inspect.report.extrapolation import extrapolation_text
from minicnn.inspect.trace import Ledger
from minicnn.train.fit import train_step

LINK, NODE = Link(2e-6, 1e-9, 1e-10), Link(1e-7, 1e-10, 1e-10)
ranks, sizes = st.integers(2, 5000), st.floats(4, 1e9)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_algorithm_is_known_by_its_time(name):
    """Twelve ranks, three on each of four nodes: no two algorithms take equally long."""
    setting = Setting(LINK, 3, inner=NODE)
    points = [(n, 1.01 * allreduce(name, 12, n, LINK, NODE, 3)) for n in (4, 5_000_000)]
    assert perf.like(points, 12, 5_000_000, setting) == name


def test_where_a_measurement_was_made():
    c = calibration(fabric_alpha=1e-4, fabric_beta=1e-8, nodes={2: [1, 1], 3: [3], 4: [2, 2]})
    fabric = Link(1e-4, 1e-8, c.gamma)
    assert (c.measured_setting(2).fabric, c.measured_setting(2).per_node) == (fabric, 1)
    assert (c.measured_setting(3).fabric, c.measured_setting(3).per_node) == (c.inner, 3)
    assert (c.measured_setting(4).fabric, c.measured_setting(4).per_node) == (fabric, 2)
    answer = extrapolate(c, Question(most_ranks=4, global_batch=4))
    assert answer.fabric == fabric and answer.per_node == 2
    asked = extrapolate(c, Question(most_ranks=4, global_batch=4, bandwidth=10.0, per_node=4))
    assert asked.fabric == Link(1e-4, 1e-10, c.gamma) and asked.per_node == 4
    assert calibration().fabric is None
    assert extrapolate(calibration(), Question(most_ranks=4)).fabric.alpha == 1.5e-6


# --------------------------------------------------------------------------------------- stragglers
def test_expected_maximum():
    assert expected_maximum([3.0] * 7, 1000) == pytest.approx(3)
    assert expected_maximum([1.0, 5.0, 3.0], 1) == pytest.approx(3)
    for n in (1, 2, 10, 100):
        assert expected_maximum([0] * 9 + [1], n) == pytest.approx(1 - 0.9**n)  # one of ten is slow
    assert expected_maximum(np.arange(1, 7), 2) == pytest.approx(161 / 36)  # the larger of two dice
    uniform = np.random.default_rng(0).random(200_000)
    assert expected_maximum(uniform, 9) == pytest.approx(0.9, abs=2e-3)  # n / (n + 1)
    values = [expected_maximum(uniform, n) for n in (1, 2, 4, 64, 4096)]
    assert values == sorted(values) and values[-1] <= uniform.max()


# -------------------------------------------------------------------------------------------- steps
def test_one_rank_and_equal_events():
    model = ScalingModel(calibration(events=[0.01], slowdown={}), 100)
    step = model.step(1, 8, Setting(LINK, 4))
    assert (
        step.total == step.compute == pytest.approx(0.005 + 0.08) and step.exposed == step.wait == 0
    )
    step = model.step(64, 8, Setting(LINK, 4))
    assert step.wait == pytest.approx(0, abs=1e-12) and step.compute == pytest.approx(0.085)
    assert step.exposed == pytest.approx(allreduce("best", 64, 4016, LINK, calibration().inner, 4))
    assert step.rate == pytest.approx(64 * 8 / step.total)


def test_slowdown_sharing_and_loading():
    model = ScalingModel(calibration(events=[0.01]), 100)
    assert [model.slowdown(r) for r in (1, 2.5, 4, 9)] == pytest.approx([1, 1.1, 1.2, 1.2])
    assert model.compute(1, 4, 8).mean() == pytest.approx(1.2 * 0.015)
    assert model.compute(1, 8, 8).mean() == pytest.approx(2 * 1.2 * 0.015)  # 16 threads on 8 cores
    loading = ScalingModel(calibration(events=[0.01], load=0.001, slowdown={}), 100)
    assert loading.compute(2, 1, 8).mean() == pytest.approx(0.025)  # cores are free: beside
    assert loading.compute(2, 4, 8).mean() == pytest.approx(0.027)


def test_overlap():
    c = calibration(events=[0.01], parameters=50_000_000)
    off, on = (ScalingModel(c, 100).step(64, 4, Setting(LINK, 1, overlap=o)) for o in (False, True))
    assert (
        on.exposed == pytest.approx(off.exposed - c.backward)
        and on.communication == off.communication == off.exposed
    )
    hidden = (
        ScalingModel(calibration(backward=1e9), 100)
        .step(64, 4, Setting(LINK, 1, overlap=True))
        .exposed
    )
    assert hidden == pytest.approx(
        allreduce("best", 64, 0, LINK, calibration().inner, 1)
    )  # latency never hides


def test_weak_and_strong():
    model, setting = ScalingModel(calibration(), 20_000), Setting(LINK, 4)
    counts = [1, 2, 4, 8, 16, 32]
    weak = model.weak(counts, 4, setting)
    assert [s.ranks for s in weak] == counts and perf.efficiency(weak)[0] == 1
    assert all(a >= b for a, b in pairwise(perf.efficiency(weak))) and all(
        a.total <= b.total for a, b in pairwise(weak)
    )
    strong = model.strong([1, 3, 4, 64, 128], 64, setting)
    assert [(s.ranks, s.batch) for s in strong] == [
        (1, 64),
        (4, 16),
        (64, 1),
    ]  # 3 does not divide 64, 128 are too many
    assert perf.epoch_seconds(strong[1], 130) == pytest.approx(
        3 * strong[1].total
    )  # 130 events: 3 steps of 64
    large, small = (model.step(8, batch, setting) for batch in (16, 1))
    assert large.wait / large.total < small.wait / small.total


def test_events_that_are_dealt_evenly():
    """Ranks wait for what lit pixels do not tell, whatever the spread of the events themselves."""
    rng = np.random.default_rng(0)
    c = calibration(events=list(rng.gamma(2, 0.005, 500)), unexplained=0.0005, slowdown={})
    model = ScalingModel(c)
    even, random = (model.step(4096, 32, Setting(LINK, 4, balanced=b)) for b in (True, False))
    deviation = 0.0005 * 32**0.5
    # the largest of 4,096 normal numbers lies 3.63 deviations above the mean
    assert even.wait == pytest.approx(3.63 * deviation, rel=0.02) and even.wait < 0.2 * random.wait
    assert even.compute == random.compute and even.exposed == random.exposed
    two = model.step(2, 32, Setting(LINK, 4, balanced=True)).wait
    assert two == pytest.approx(deviation / np.sqrt(np.pi), rel=0.02)
    with pytest.raises(ValueError, match="does not say what costs leave unexplained"):
        ScalingModel(calibration()).step(2, 1, Setting(LINK, 4, balanced=True))
    texts = [
        " ".join(extrapolation_text(extrapolate(each, Question(8, 16, 16, balanced=b))).split())
        for each, b in ((c, True), (c, False), (calibration(), True))
    ]
    assert "Events are dealt evenly: what is left to wait for" in texts[0]
    assert all("are dealt evenly" not in text for text in texts[1:])
    assert "what a batch of" in texts[0] and "not measured" in texts[2]


def test_what_costs_do_not_tell():
    rng, batch = np.random.default_rng(1), 16
    costs = rng.gamma(2, 0.5, 400 * batch)
    seconds = 0.01 + 1e-3 * costs.reshape(-1, batch).sum(1)
    seconds += 0.002 * batch**0.5 * rng.normal(size=400)
    assert _unexplained(seconds, costs, batch) == pytest.approx(0.002, rel=0.1)
    assert _unexplained(seconds[:3], costs, batch) is None


def test_calibration_file(tmp_path):
    c = calibration(
        allreduce={2: [(4, 1e-6), (8, 2e-6)]},
        measured={1: {"step": 0.1, "compute": 0.1, "wait": 0.0, "communication": 0.0}},
    )
    c.save(tmp_path / "c.json")
    assert Calibration.load_file(tmp_path / "c.json") == c
    for text in (
        "{}",
        "[]",
        "no",
        json.dumps({**json.loads((tmp_path / "c.json").read_text()), "events": []}),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json: (not a calibration|a calibration needs)"):
            Calibration.load_file(tmp_path / "bad.json")


def test_seconds_of_events():
    """Events of a step from its spans: once-per-update work counts for none of them, wherever it
    happens.
    """

    def piece(name, layer, start, end, lane="main"):
        return (name, layer), lane, 0, start, end

    pieces = [
        piece("step", "", 0, 100),
        piece("between layers", "", 5, 90),
        piece("read", "", 11, 95, "prefetch_0"),
        piece("transfer", "", 10, 12),
        piece("forward", "zero suppression", 12, 30),
        piece("transfer", "", 13, 14),
        piece("forward", "resting tables", 14, 20),
        piece("pack weights", "a", 15, 17),
        piece("pack weights", "b", 22, 25),
        piece("backward", "a", 31, 40),
        piece("transfer", "", 41, 42),
        piece("forward", "zero suppression", 42, 50),
        piece("backward", "a", 52, 60),
        piece("backward", "b", 61, 65),
        piece("backward", "resting tables", 66, 70),
    ]
    seconds, backward = event_seconds(pieces)
    assert seconds == [41 - 10 - 6 - 3, 65 - 41] and backward == 100 - 52
    with Ledger(detail=True) as ledger:
        train_step(small_model("cpu"), [random_batch(5)], mc.SGD(0.1), ledger=ledger)
        ledger.step()
    seconds, backward = event_seconds(ledger.epoch.pieces)
    assert (
        len(seconds) == 5
        and min(seconds) > 0
        and sum(seconds) < ledger.epoch.walls[0]
        and 0 < backward < ledger.epoch.walls[0]
    )


def test_seconds_of_events_that_ran_together():
    """What an event costs follows from the times of whole steps and from its cost."""
    costs = np.array([10.0, 30, 200, 0, 50, 70])
    of_step = [0.5 + 0.01 * cost for cost in costs]

    def steps(seconds):
        return [_TimedStep([sum(seconds[i : i + 2])], 0.0, 0.0) for i in (0, 2, 4)]

    assert _of_events(steps(of_step), costs, 2) == pytest.approx(of_step)
    # More cost, less time: then they say nothing, and all events are alike.
    falling = _of_events(steps([3.0, 3, 1, 1, 2, 2]), costs, 2)
    assert falling == pytest.approx(np.full(6, 2.0))
    alone = [_TimedStep([1.0, 2.0], 0.0, 0.0), _TimedStep([3.0, 4.0], 0.0, 0.0)]
    assert _of_events(alone, costs[:4], 2).tolist() == [1, 2, 3, 4]


# -------------------------------------------------------------------------------------- the command
SMALL = "--size 50 --batch-size 2 --events-per-rank 6 --to 16 --global-batch 16".split()


def whole(text):
    for words in (
        "Calibration:",
        "Predicted beside measured",
        "Weak scaling, 2 events",
        "Strong scaling, 16 events",
        "by algorithm",
        "Where it ends",
        "It ends for good at 16 ranks",
    ):
        assert words in " ".join(text.split()), text


@pytest.mark.mpi
def test_command(tmp_path, capsys):
    pytest.importorskip("mpi4py")
    assert (
        main(
            [
                "model",
                *SMALL,
                "--ranks",
                "1",
                "2",
                "--save",
                str(tmp_path / "c.json"),
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    whole(text)
    assert re.search(r"\n +1 .*\n +2 .*%", text) and "2 ranks:  4 B" in text
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG") and "What it printed" in (
        tmp_path / "model.md"
    ).read_text()
    saved = Calibration.load_file(tmp_path / "c.json")
    assert (
        set(saved.measured) == {1, 2}
        and len(saved.events) == 6
        and saved.fixed >= 0
        and saved.parameters > 0
    )
    parts = saved.measured[2]
    assert parts["step"] == pytest.approx(parts["compute"] + parts["wait"] + parts["communication"])
    assert main(["model", *SMALL, "--calibration", str(tmp_path / "c.json")]) == 0
    again = capsys.readouterr().out
    assert again.strip() == text.split("\n\nwrote ")[0].strip()


@pytest.mark.mpi
def test_under_mpiexec():
    done = mpi(2, "-m", "minicnn", "model", *SMALL)
    assert done.returncode == 0 and done.stdout.count("Where it ends") == 1, (
        done.stdout + done.stderr
    )
    whole(done.stdout)


def test_bad_input(tmp_path, capsys):
    (tmp_path / "c.json").write_text("{}")
    assert main(["model", "--calibration", str(tmp_path / "c.json")]) == 2
    assert "not a calibration" in capsys.readouterr().err
    assert main(["model", *SMALL, "--ranks", "1", "--events-per-rank", "1"]) == 2
    assert "give no batch of 2" in capsys.readouterr().err

"""benchmarks/network_simulation.py: steps in a simulator of networks beside the performance
model.
"""

import json
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from helpers import ROOT
from helpers.benchmarks import module, run
from minicnn.inspect.allreduce_costs import Link
from minicnn.inspect.performance import Calibration, ScalingModel, Setting

CALIBRATION = ROOT / "benchmarks" / "results" / "model-2-cores.json"


def test_networks_are_as_large_as_they_say():
    networks = module("network_simulation")
    for name, (_, parameters, nodes) in networks.NETWORKS.items():
        text = networks.platform(name, Link(1.5e-6, 8e-11), Link(2e-6, 3e-10), 2)
        cluster = ElementTree.fromstring(text).find("cluster")
        assert cluster.get("radical") == f"0-{nodes - 1}" and cluster.get("core") == "2"
        assert float(cluster.get("lat")[:-1]) == pytest.approx(1.5e-6 / networks.HOPS)
        assert float(cluster.get("bw")[:-3]) == pytest.approx(12.5e9)
        if name == "dragonfly":
            parts = [int(part.split(",")[0]) for part in parameters.split(";")]
        else:
            parts = [int(down) for down in parameters.split(";")[1].split(",")]
        assert np.prod(parts) == nodes


def test_what_ranks_do_is_drawn_as_the_model_draws_it():
    networks = module("network_simulation")
    calibration = replace(Calibration.load_file(CALIBRATION), unexplained=3e-4)
    model = ScalingModel(calibration)
    for balanced in (True, False):
        setting = Setting(calibration.inner, 2, "rabenseifner", balanced=balanced)
        seconds = networks.computing(model, 512, 32, setting, 20)
        times = model.compute(32, 2)
        spread = model.uneven(32) * times.mean() if balanced else times.std()
        assert seconds.shape == (512, 20)
        assert seconds.mean() == pytest.approx(times.mean(), rel=0.02)
        assert seconds.std() == pytest.approx(spread, rel=0.05)
    lines = list(networks.trace(np.array([[0.5, 0.25], [1, 2]]), 100, 1e-3))
    assert lines[:3] == ["0 init", "0 compute 500000000", "0 allreduce 100 1000000"]
    assert lines[-2:] == ["1 allreduce 100 1000000", "1 finalize"] and len(lines) == 12


@pytest.mark.skipif(not shutil.which("smpirun"), reason="SimGrid (libsimgrid-dev) is not installed")
def test_the_simulator_agrees_with_the_model_where_nobody_shares_a_link(tmp_path):
    text = run(
        "network_simulation", "--calibration", CALIBRATION, "--to", 8, "--steps", 2,
        "--json", tmp_path / "out.json", "--plot", tmp_path / "out.png",
    )  # fmt: skip
    assert "fat-tree" in text and (tmp_path / "out.png").stat().st_size > 10_000
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["ranks"] for row in rows] == [1, 2, 4, 8]
    for row in rows[1:]:
        for network in ("fat-tree", "dragonfly"):
            assert row[f"{network}_exchange"] == pytest.approx(row["model_exchange"], rel=0.05)
            assert 0.8 < row[network] / row["model"] < 1.2

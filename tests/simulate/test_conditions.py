"""Real conditions, off by default: cosmic rays, charge induced on neighbours, space charge."""

import math

import numpy as np
import pytest

from minicnn.data import generate, open_events
from minicnn.simulate import Simulator, cosmics, detector
from minicnn.simulate.geometry import MARGIN, X_MAX, Y_MAX, Z_MAX

MUON = {"pdg": 13, "momentum": 600.0, "position": (200.0, 0.0, 100.0), "direction": (0, 0, 1.0)}


def test_cosmic_muons_cross_the_tpc_at_the_rate():
    """Their number (5 sigma of Poisson), their charge ratio, their mean energy and slope."""
    rng = np.random.default_rng(1)
    drawn = [cosmics.draw_muon(rng) for _ in range(1500)]
    for _, p, point, time in drawn:
        way = p / np.linalg.norm(p)
        path = point + way * np.linspace(0, 1200, 6000)[:, None]
        assert (
            (np.abs(path - (X_MAX / 2, 0, Z_MAX / 2)) < (X_MAX / 2, Y_MAX, Z_MAX / 2)).all(1).any()
        )
        inside = np.abs(point - (X_MAX / 2, 0, Z_MAX / 2)) - (X_MAX / 2, Y_MAX, Z_MAX / 2)
        assert inside.max() <= MARGIN + 1e-6 and way[1] < 0
        assert cosmics.WINDOW[0] <= time <= cosmics.WINDOW[1]
    assert np.mean([code == -13 for code, *_ in drawn]) == pytest.approx(0.56, abs=0.065)
    energies = np.array([np.linalg.norm(p) for _, p, *_ in drawn])
    assert np.median(energies) == pytest.approx(4280 * (2 ** (1 / 2.01) - 1) + 100, rel=0.12)
    assert cosmics.mean_number(5.0) == pytest.approx(29.7, abs=0.1)


def test_cosmics_are_laid_over_the_event(tmp_path):
    plain, busy = (Simulator(seed=3, cosmic_rate=rate) for rate in (0.0, 5.0))
    more = 0
    for i in range(4):
        a, b = plain.read(i), busy.read(i)
        assert a.label == b.label and np.array_equal(a.particles, b.particles)
        assert b.momentum == a.momentum == pytest.approx(1500.0)
        lit = {(r, c) for r, c in b.image.coords}
        kept = np.mean([(r, c) in lit for r, c in a.image.coords])
        assert kept > 0.9  # the event is in the picture; noise is another
        more += b.image.nnz - a.image.nnz
    assert more > 4 * 20_000  # twenty tracks of a metre and more
    again = Simulator(seed=3, cosmic_rate=5.0)
    assert np.array_equal(again.read(2).image.values, busy.read(2).image.values)
    generate(tmp_path / "a.h5", 1, busy)
    with open_events(tmp_path / "a.h5") as events:
        assert events.metadata["cosmic_rate"] == 5.0
    for rate in (-1.0, 50.0):
        with pytest.raises(ValueError, match="0 to 20 kHz"):
            Simulator(cosmic_rate=rate)


def test_induced_charge_is_on_neighbours_and_adds_up_to_nothing():
    """A track along one wire: charge on its wire is the same, on the next ones of both signs."""
    quiet = {"seed": 1, "noise": 0.0, "threshold": 1e-3}
    along = {**MUON, "direction": (0.0, 1.0, 0.0), "position": (10.0, -50.0, 500.15)}
    sums = []
    for induced in (0.0, 0.2):
        source = Simulator(**quiet, induced=induced)
        steps = source.deposits(0, **along)[0][:200]
        planes, _ = source._expose(np.random.default_rng(1), 0, steps)
        pixels = source._scratch.tiles
        used = pixels.pixels[: pixels.n[0]]
        sums.append((used.sum(dtype=float), used.min(), len(planes[0][1])))
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-3)
    assert sums[0][1] >= -1e-6 and sums[1][1] < -5.0 and sums[1][2] > sums[0][2]


def test_space_charge_pulls_inwards():
    """15 cm at the cathode near the top, nothing at the anode or in the middle."""
    assert detector.displaced(X_MAX, Y_MAX, 500.0, 1.0)[0] == pytest.approx(Y_MAX - 15.0, abs=0.01)
    assert detector.displaced(0.0, Y_MAX, 0.0, 1.0) == (Y_MAX, 0.0)
    y, z = detector.displaced(X_MAX / 2, -Y_MAX, Z_MAX, 2.0)
    assert y == pytest.approx(-Y_MAX + 7.5) and z == pytest.approx(Z_MAX - 7.5, abs=0.01)
    along = {**MUON, "position": (250.0, 0.0, 5.0)}
    rows = [
        Simulator(seed=1, space_charge=strength).simulate(0, **along).image.coords[:, 0]
        for strength in (0.0, 1.0)
    ]
    moved = (np.quantile(rows[1], 0.02) - np.quantile(rows[0], 0.02)) * 0.3
    assert moved == pytest.approx(15.0 * (250.0 / X_MAX) ** 2 * math.exp(-0.05), abs=3.0)

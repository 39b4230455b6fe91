"""The simulator: the same event for the same (seed, i), and physics that agrees with tables, theory
and Geant4.
"""

import math
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from zlib import crc32

import numpy as np
import pytest

from helpers import SHARED
from minicnn.data import CLASS_OF_PDG, PARTICLE, SparseImage
from minicnn.simulate import Simulator, detector, geometry, kinematics
from minicnn.simulate import particles as P
from minicnn.simulate.tiles import new_tiles
from minicnn.simulate.validation import readout

DATA = SHARED
CENTRE = (128.0, 0.0, 500.0)


@pytest.fixture(scope="module")
def source():
    return Simulator(seed=7, sample="isotropic")


@pytest.fixture(scope="module")
def events(source):
    return [source.read(i) for i in range(250)]


def same(a, b):
    return (
        a.label == b.label
        and a.id == b.id
        and np.array_equal(a.image.coords, b.image.coords)
        and np.array_equal(a.image.values, b.image.values)
        and a.particles.tobytes() == b.particles.tobytes()
    )


# --------------------------------------------------------------------------------------- the reader


def test_event_depends_on_seed_and_number_only(source, events):
    other = Simulator(seed=7, sample="isotropic")
    for i in (5, 3, 249, 0):
        assert same(other.read(i), events[i])
    assert same(pickle.loads(pickle.dumps(other)).read(11), events[11])
    assert not same(Simulator(seed=8, sample="isotropic").read(0), events[0])


def test_same_bits_in_another_process(events):
    code = (
        "from zlib import crc32; from minicnn.simulate import Simulator; e = "
        "Simulator(seed=7, sample='isotropic').read(42);"
        "print(*map(crc32, (e.image.coords, e.image.values, e.particles.tobytes())))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    e = events[42]
    assert [int(n) for n in there.split()] == [
        crc32(e.image.coords),
        crc32(e.image.values),
        crc32(e.particles.tobytes()),
    ]


def test_importing_the_data_package_loads_no_numba():
    code = (
        "import sys, minicnn.data, minicnn.simulate; assert 'numba' not in sys.modules;"
        "minicnn.simulate.Simulator(); assert 'numba' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_events_are_valid(events):
    assert {e.label for e in events} == set(range(5))
    for i, e in enumerate(events):
        assert (
            isinstance(e.image, SparseImage)
            and e.image.shape == (3600, 3600, 1)
            and e.id == (1, 0, i)
        )
        assert (
            e.image.nnz >= 10 and np.isfinite(e.image.values).all() and e.image.values.min() > 15.0
        )
        p = e.particles
        assert p.dtype == PARTICLE and p["parent"][0] == -1 and len(p) >= 1
        assert (p["parent"][1:] >= 0).all() and (
            p["parent"] < np.arange(len(p))
        ).all()  # parents come first
        for field in ("momentum", "start", "end"):
            assert np.isfinite(p[field]).all()
        assert e.label == CLASS_OF_PDG[int(p["pdg"][0])]
        assert (300 if e.label == 4 else 100) - 0.1 < np.linalg.norm(p["momentum"][0]) < 1000.1


def test_classes_are_mixed_and_balanced():
    """5 sigma of a multinomial distribution; and no run of 40 consecutive events lacks a class
    (probability 7e-4).
    """
    source = Simulator(seed=1, classes=("e+-", "gamma", "K+"), sample="isotropic")
    labels = np.array([source._begin(i, None, None, None, None)[1] for i in range(3000)])
    counts = np.bincount(labels, minlength=3)
    assert (abs(counts - 1000) < 5 * math.sqrt(3000 * 2 / 9)).all()
    assert all(set(labels[k : k + 40]) == {0, 1, 2} for k in range(0, 3000, 40))
    e = source.read(3)
    assert (
        source.class_names[e.label]
        == {11: "e+-", 22: "gamma", 321: "K+"}[abs(int(e.particles["pdg"][0]))]
    )


@pytest.mark.parametrize("size", [(144, 144, 1), (720, 720, 1), (3600, 100, 1), (700, 1001, 1)])
def test_smaller_images_sum_the_same_charge(size, events):
    for i in (0, 1, 2):
        small, full = (
            Simulator(seed=7, shape=size, sample="isotropic").read(i).image,
            events[i].image,
        )
        assert small.shape == size
        blocks = np.zeros(size[:2])
        np.add.at(
            blocks,
            (full.coords[:, 0] * size[0] // 3600, full.coords[:, 1] * size[1] // 3600),
            full.values[:, 0],
        )
        np.testing.assert_allclose(small.to_dense()[..., 0], blocks, rtol=1e-5)


def test_three_planes(events):
    """The first plane is the one of one-plane images; all planes see the same charge (20 %:
    thresholds, angles).
    """
    three = Simulator(seed=7, shape=(3600, 3600, 3), sample="isotropic")
    sums = []
    for i in range(20):
        a, b = three.read(i), events[i]
        first = a.image.values[:, 0] > 0
        assert np.array_equal(a.image.coords[first], b.image.coords)
        assert np.array_equal(a.image.values[first, 0], b.image.values[:, 0])
        lit = a.image.values > 0
        rows = a.image.coords[:, 0]
        assert rows[lit[:, 0]].min() >= 72 and rows[lit[:, 0]].max() < 3528
        assert rows[lit[:, 1:].any(1)].min() >= 600 and rows[lit[:, 1:].any(1)].max() < 3000
        sums.append(a.image.values.sum(0))
    total = np.sum(sums, 0)
    np.testing.assert_allclose(total / total[0], 1.0, atol=0.2)
    assert (
        Simulator(seed=7, shape=(144, 144, 3), sample="isotropic").read(0).image.values.shape[1]
        == 3
    )


def test_bad_arguments_are_named():
    for arguments, words in (
        ({"shape": (3600, 3600, 2)}, "got 2"),
        ({"shape": (7200, 3600, 1)}, "3600"),
        ({"shape": (10, 10, 1, 1)}, "planes"),
        ({"shape": "big"}, "edge of a square"),
        ({"size": 256}, r"no setting size.*shape=\(height, width, planes\)"),
        ({"classes": ("tau",)}, "tau"),
        ({"gain": 2}, "gain"),
        ({"seed": -1}, "seed"),
        ({"threshold": 0}, "threshold"),
        ({"dead_wires": 2}, "dead_wires"),
    ):
        with pytest.raises(ValueError, match=words):
            Simulator(**arguments)
    with pytest.raises(ValueError, match="999"):
        Simulator().simulate(0, pdg=999)
    with pytest.raises(ValueError, match="threshold"):
        Simulator(threshold=5000, noise=0).read(0)
    with pytest.raises(IndexError):
        Simulator().read(-1)
    with pytest.raises(TypeError):
        len(Simulator())
    assert len(Simulator(length=12)) == 12


def test_regions_of_interest(events):
    """padding keeps the pulses' tails: every pixel above threshold as before, the others positive
    and near one.
    """
    for i in (0, 1):
        padded, plain = (
            Simulator(seed=7, padding=5, sample="isotropic").read(i).image,
            events[i].image,
        )
        strong = padded.values[:, 0] > 15.0
        assert np.array_equal(padded.coords[strong], plain.coords) and padded.nnz > 1.3 * plain.nnz
        assert padded.values.min() > 0
        near = np.zeros((3600, 3612), bool)
        for shift in range(-5, 6):
            near[plain.coords[:, 0], plain.coords[:, 1] + 5 + shift] = True
        assert near[padded.coords[:, 0], padded.coords[:, 1] + 5].all()


def test_a_particle_of_choice(source):
    """What is given is not drawn, in any number of threads; a proton has no class."""
    given = {
        "pdg": 2212,
        "momentum": 700.0,
        "position": (100.0, 20.0, 300.0),
        "direction": (0.0, 3.0, 4.0),
    }
    e = source.simulate(5, **given)
    assert e.label == -1 and e.particles["pdg"][0] == 2212
    np.testing.assert_allclose(e.particles["momentum"][0], (0, 420, 560), rtol=1e-6)
    np.testing.assert_allclose((e.momentum, *e.direction), (700, 0, 0.6, 0.8), rtol=1e-6)
    np.testing.assert_allclose(e.particles["start"][0], given["position"], rtol=1e-6)
    assert source.simulate(5, pdg=-211).label == 3
    with ThreadPoolExecutor(4) as threads:
        for i, event in enumerate(threads.map(source.read, range(12))):
            assert same(event, source.read(i))


def test_dead_wires_stay_dark():
    source = Simulator(seed=2, dead_wires=0.1, sample="isotropic")
    dead = np.flatnonzero(source._dead[0])
    assert 280 < len(dead) < 440  # 360 +- 18
    assert not any(np.isin(source.read(i).image.coords[:, 0], dead).any() for i in range(5))


# ---------------------------------------------------------------------------------- decays, hadrons


def test_phase_space_and_boosts_conserve():
    rng = np.random.default_rng(1)
    for _ in range(200):
        q = np.array(kinematics.three_body(rng, P.KAON, P.PION, P.PION, P.PION))
        assert np.abs(q.sum(0)).max() < 1e-9
        assert np.sqrt((q**2).sum(1) + P.PION**2).sum() == pytest.approx(P.KAON, rel=1e-12)
        u = np.array(kinematics.deflect(kinematics.isotropic(rng), 0.3, 2.0))
        assert u @ u == pytest.approx(1.0)
    assert kinematics.two_body(P.KAON, P.MUON, 0.0) == pytest.approx(
        235.5, abs=0.1
    )  # T = 152.5 MeV
    assert kinematics.two_body(P.KAON, P.PION, P.PION0) == pytest.approx(205.1, abs=0.1)
    momentum, velocity = kinematics.Vector(0.0, 0.0, 3.0), kinematics.Vector(0.0, 0.0, 0.6)
    boosted = kinematics.boost(momentum, 5.0, velocity)
    assert boosted == (0.0, 0.0, pytest.approx((3 + 0.6 * 5) / 0.8))


def test_pion_chain(source):
    """A stopped pi+ makes a 4.12 MeV mu+ and then a positron; a stopped pi- neither."""

    def stops(pdg):
        for i in range(300):
            t = source.deposits(i, pdg=pdg, momentum=120.0, position=CENTRE, direction=(0, 0, 1.0))[
                1
            ]
            if abs(np.linalg.norm(t["end"][0] - t["start"][0]) - 8.3) < 1.5:
                yield t

    chains = [t for t in stops(211) if len(t) > 1 and t["pdg"][1] == -13]
    born = np.array([np.linalg.norm(t["momentum"][1]) for t in chains])
    assert (
        len(chains) > 150 and np.mean(abs(born - 29.79) < 0.01) > 0.9
    )  # the others decayed in flight
    assert all(-11 in t["pdg"] and t["parent"][list(t["pdg"]).index(-11)] == 1 for t in chains)
    minus = list(stops(-211))
    assert (
        len(minus) > 30 and np.mean([13 in t["pdg"] for t in minus]) < 0.06
    )  # those that decay in flight


# ------------------------------------------------------------------------------------------ showers


@pytest.mark.parametrize("pdg", [22, 11, -11])
def test_shower_energy_is_conserved(source, pdg):
    """All of the energy is deposited but for the photons that leave: never more than E, on average
    98 % and more.
    """
    for energy in (100.0, 500.0, 1000.0):
        total = {
            22: energy,
            11: math.hypot(energy, P.ELECTRON) - P.ELECTRON,
            -11: math.hypot(energy, P.ELECTRON) + P.ELECTRON,
        }
        found = [
            source.deposits(i, pdg, energy, (128, 0, 300), (0, 0, 1.0))[0][:, 4].sum()
            for i in range(40)
        ]
        assert max(found) < total[pdg] + 1e-6 and np.mean(found) > 0.98 * total[pdg]


# ----------------------------------------------------------------------------------------- detector


def test_point_charge_drifts_to_its_pixel():
    """Position, lifetime, diffusion: row and column as geometry says; sigma_T 0.55 wire and exp(-t
    / lifetime) at full drift.
    """
    source = Simulator(seed=0, noise=0.0, threshold=1e-3, lifetime=8000.0, sample="isotropic")
    readout, tiles = source._readout(0), new_tiles()
    sums, widths = [], []
    for x in (1.0, 255.0):
        steps = np.array([[x, 10.0, 400.0, 0.0, 2.0, 0.3]])
        rng = np.random.default_rng(0)
        coords, values, _ = detector.expose(rng, steps, readout, tiles, False)
        values = values.astype(float)
        row, column = np.average(coords + 0.5, axis=0, weights=values)
        assert row == pytest.approx(
            geometry.row_of(10.0, 400.0), abs=0.3
        )  # a narrow cloud fills one wire
        assert column == pytest.approx(
            geometry.column_of(x), abs=1.0
        )  # the shaped pulse has a tail
        widths.append(math.sqrt(np.average((coords[:, 0] + 0.5 - row) ** 2, weights=values)))
        sums.append(values.sum())
    assert sums[1] / sums[0] == pytest.approx(math.exp(-(254.0 / 0.1098) / 8000.0), rel=0.02)
    assert widths[1] == pytest.approx(math.hypot(0.55, 0.29), rel=0.1)


def test_noise_grows_with_the_length_of_the_wire(source):
    """Induction wires are up to 4.66 m long, those in the corners short: 0.67 + 0.112 L of a
    collection wire's noise (3 %).
    """
    lengths = geometry.wire_lengths(1)
    assert lengths.max() == pytest.approx(466.0, abs=0.1) and lengths[0] < 1 and lengths[-1] < 1.5
    np.testing.assert_allclose(
        lengths, geometry.wire_lengths(2), atol=1e-9
    )  # U and V are mirror images
    assert (geometry.wire_lengths(0) == 233.0).all()
    noise = readout.noise_image(source, 1)
    assert noise[1700:1900].std() / 3.1 == pytest.approx(0.67 + 0.112 * 4.66, rel=0.03)
    assert noise[600:610].std() / 3.1 == pytest.approx(
        0.67 + 0.112 * lengths[:10].mean() / 100, rel=0.03
    )
    assert not noise[:600].any() and not noise[3000:].any()


def test_sparse_noise_equals_full_noise():
    """The same events with noise everywhere and with noise where it shows, at a threshold that
    noise passes 600 times per event.

    Pixels far from charge: their number (5 sigma), their values (Kolmogorov and Smirnov, 1e-3) and
    their spread over the wires (chi squared of 24 groups of wires, 4 sigma); pixels of charge:
    number within 2 %.
    """
    settings = {"seed": 3, "threshold": 12.0}
    full, fast = (
        Simulator(full_noise=True, **settings, sample="isotropic"),
        Simulator(**settings, sample="isotropic"),
    )
    fixed = {"pdg": 13, "momentum": 300.0, "position": CENTRE, "direction": (0.2, 0.3, 1.0)}
    found = []
    for source in (full, fast):
        images = [source.simulate(i, **fixed).image for i in range(4)]
        far = [np.abs(image.coords[:, 0] - geometry.row_of(0.0, 500.0)) > 400 for image in images]
        found.append(
            (
                sum((~f).sum() for f in far),
                np.concatenate([image.coords[f, 0] for image, f in zip(images, far)]),
                np.sort(np.concatenate([image.values[f, 0] for image, f in zip(images, far)])),
            )
        )
    (near, rows, values), (near_fast, rows_fast, values_fast) = found
    n, m = len(rows), len(rows_fast)
    expected = 4 * (3456 - 800) * 3600 * detector.above(12.0, 3.1)
    assert n == pytest.approx(expected, abs=5 * math.sqrt(1.1 * expected)) and m == pytest.approx(
        expected, abs=5 * math.sqrt(expected)
    )
    assert near_fast == pytest.approx(near, rel=0.02)
    grid = np.sort(np.concatenate([values, values_fast]))
    distance = np.abs(
        np.searchsorted(values, grid, side="right") / n
        - np.searchsorted(values_fast, grid, side="right") / m
    ).max()
    assert distance < 1.95 * math.sqrt((n + m) / (n * m))
    a, b = (np.histogram(r, 24, (72, 3528))[0] for r in (rows, rows_fast))
    chi2 = ((a - b * n / m) ** 2 / np.maximum(a + b, 1)).sum()
    assert chi2 < 24 + 4 * math.sqrt(2 * 24)

"""The simulator: the same event for the same (seed, i), and physics that agrees with tables, theory and Geant4."""
import math
import pickle
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from minicnn.data import CLASS_OF_PDG, CLASSES, PARTICLE, SparseImage
from minicnn.data.simulate import Simulator, decays, detector, geometry, ionisation, kinematics, material, showers
from minicnn.data.simulate import particles as P

DATA = Path(__file__).parents[2] / "shared" / "data"
CENTRE = (128.0, 0.0, 500.0)


def reference(name):
    """Return the path of a reference file; skip the test where it is not there."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the reference file {name} is not on this machine")
    return path


@pytest.fixture(scope="module")
def source():
    return Simulator(seed=7)


@pytest.fixture(scope="module")
def events(source):
    return [source.read(i) for i in range(250)]


def same(a, b):
    return (a.label == b.label and a.id == b.id and np.array_equal(a.image.coords, b.image.coords)
            and np.array_equal(a.image.values, b.image.values) and a.particles.tobytes() == b.particles.tobytes())


# ------------------------------------------------------------------------------------------------ the reader

def test_event_depends_on_seed_and_number_only(source, events):
    other = Simulator(seed=7)
    for i in (5, 3, 249, 0):
        assert same(other.read(i), events[i])
    assert same(pickle.loads(pickle.dumps(other)).read(11), events[11])
    assert not same(Simulator(seed=8).read(0), events[0])


def test_same_bits_in_another_process(events):
    code = ("from zlib import crc32; from minicnn.data.simulate import Simulator; e = Simulator(seed=7).read(42);"
            "print(*map(crc32, (e.image.coords, e.image.values, e.particles.tobytes())))")
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    e = events[42]
    assert [int(n) for n in there.split()] == [crc32(e.image.coords), crc32(e.image.values), crc32(e.particles.tobytes())]


def test_importing_the_data_package_loads_no_numba():
    code = ("import sys, minicnn.data, minicnn.data.simulate; assert 'numba' not in sys.modules;"
            "minicnn.data.simulate.Simulator(); assert 'numba' in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_events_are_valid(events):
    assert {e.label for e in events} == set(range(5))
    for i, e in enumerate(events):
        assert isinstance(e.image, SparseImage) and e.image.shape == (3600, 3600, 1) and e.id == (1, 0, i)
        assert e.image.nnz >= 10 and np.isfinite(e.image.values).all() and e.image.values.min() > 15.0
        p = e.particles
        assert p.dtype == PARTICLE and p["parent"][0] == -1 and len(p) >= 1
        assert (p["parent"][1:] >= 0).all() and (p["parent"] < np.arange(len(p))).all()      # parents come first
        for field in ("momentum", "start", "end"):
            assert np.isfinite(p[field]).all()
        assert e.label == CLASS_OF_PDG[int(p["pdg"][0])]
        assert (300 if e.label == 4 else 100) - 0.1 < np.linalg.norm(p["momentum"][0]) < 1000.1


def test_classes_are_mixed_and_balanced():
    """5 sigma of a multinomial distribution; and no run of 40 consecutive events lacks a class (probability 7e-4)."""
    source = Simulator(seed=1, classes=("e+-", "gamma", "K+"))
    labels = np.array([source._begin(i, None, None, None, None)[1] for i in range(3000)])
    counts = np.bincount(labels, minlength=3)
    assert (abs(counts - 1000) < 5 * math.sqrt(3000 * 2 / 9)).all()
    assert all(set(labels[k:k + 40]) == {0, 1, 2} for k in range(0, 3000, 40))
    e = source.read(3)
    assert source.class_names[e.label] == {11: "e+-", 22: "gamma", 321: "K+"}[abs(int(e.particles["pdg"][0]))]


def test_lit_fraction_per_class(events):
    """One particle lights 0.01-0.02 % of the full image (5-sigma threshold); about 20 cosmic tracks light 0.5 % of a real one."""
    for label in range(5):
        fraction = np.median([e.image.nnz for e in events if e.label == label]) / 3600**2
        assert 5e-5 < fraction < 5e-4, CLASSES[label]


def test_pulses_are_as_long_as_in_a_real_event():
    """Mean length in time of runs of 2 to 5 lit cells, 6 ticks each, against the Open Samples preview: 15 %.

    Longer ones are tracks along the drift, as many as the angles want, and single ones noise. The preview is zero below 10 ADC;
    what is lower in it comes from its recovery out of a picture.
    """
    def mean_run(images):
        edges = [np.diff((image > 10).astype(int), axis=1, prepend=0, append=0) for image in images]
        runs = np.concatenate([np.argwhere(edge == -1)[:, 1] - np.argwhere(edge == 1)[:, 1] for edge in edges])
        return runs[(runs >= 2) & (runs <= 5)].mean()

    with np.load(reference("microboone_open_samples_r7004_s331_e16552_plane2_ds6.npz")) as f:
        real = mean_run([f["img"] * 100.0 / 255])
    source = Simulator(seed=4, shape=(3600, 1200, 1))
    ours = mean_run([source.simulate(i, pdg=13, momentum=900.0).image.to_dense()[..., 0] for i in range(40)])
    assert ours == pytest.approx(real, rel=0.15)


@pytest.mark.parametrize("size", [(144, 144, 1), (720, 720, 1), (3600, 100, 1), (700, 1001, 1)])
def test_smaller_images_sum_the_same_charge(size, events):
    for i in (0, 1, 2):
        small, full = Simulator(seed=7, shape=size).read(i).image, events[i].image
        assert small.shape == size
        blocks = np.zeros(size[:2])
        np.add.at(blocks, (full.coords[:, 0] * size[0] // 3600, full.coords[:, 1] * size[1] // 3600), full.values[:, 0])
        np.testing.assert_allclose(small.to_dense()[..., 0], blocks, rtol=1e-5)


def test_three_planes(events):
    """The first plane is the one of one-plane images; all planes see the same charge (20 %: thresholds, angles)."""
    three = Simulator(seed=7, shape=(3600, 3600, 3))
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
    assert Simulator(seed=7, shape=(144, 144, 3)).read(0).image.values.shape[1] == 3


def test_bad_arguments_are_named():
    for arguments, words in (({"shape": (3600, 3600, 2)}, "got 2"), ({"shape": (7200, 3600, 1)}, "3600"),
                             ({"shape": (10, 10)}, "planes"), ({"classes": ("tau",)}, "tau"), ({"gain": 2}, "gain"),
                             ({"seed": -1}, "seed"),
                             ({"threshold": 0}, "threshold"), ({"dead_wires": 2}, "dead_wires")):
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
    """padding keeps the pulses' tails: every pixel above threshold as before, the others positive and near one."""
    for i in (0, 1):
        padded, plain = Simulator(seed=7, padding=5).read(i).image, events[i].image
        strong = padded.values[:, 0] > 15.0
        assert np.array_equal(padded.coords[strong], plain.coords) and padded.nnz > 1.3 * plain.nnz
        assert padded.values.min() > 0
        near = np.zeros((3600, 3612), bool)
        for shift in range(-5, 6):
            near[plain.coords[:, 0], plain.coords[:, 1] + 5 + shift] = True
        assert near[padded.coords[:, 0], padded.coords[:, 1] + 5].all()


def test_a_particle_of_choice(source):
    """What is given is not drawn, in any number of threads; a proton has no class."""
    given = {"pdg": 2212, "momentum": 700.0, "position": (100.0, 20.0, 300.0), "direction": (0.0, 3.0, 4.0)}
    e = source.simulate(5, **given)
    assert e.label == -1 and e.particles["pdg"][0] == 2212
    np.testing.assert_allclose(e.particles["momentum"][0], (0, 420, 560), rtol=1e-6)
    np.testing.assert_allclose(e.particles["start"][0], given["position"], rtol=1e-6)
    assert source.simulate(5, pdg=-211).label == 3
    with ThreadPoolExecutor(4) as threads:
        for i, event in enumerate(threads.map(source.read, range(12))):
            assert same(event, source.read(i))


def test_dead_wires_stay_dark():
    source = Simulator(seed=2, dead_wires=0.1)
    dead = np.flatnonzero(source._dead[0])
    assert 280 < len(dead) < 440                     # 360 +- 18
    assert not any(np.isin(source.read(i).image.coords[:, 0], dead).any() for i in range(5))


# ------------------------------------------------------------------------------------------------ material, tracks

def test_csda_ranges():
    """Against the table of the reference page, 5 % (its ranges are rounded, its density is 1.396, ours 1.381 g/cm3)."""
    table = {P.MUON: (40, 83, 175, 313, 403), P.PION: (29, 67, 157, 296, 388), P.KAON: (2.4, 9.4, 43, 135, 213)}
    for mass, ranges in table.items():
        for p, expected in zip((200, 300, 500, 800, 1000), ranges):
            assert material.csda_range(p, mass) == pytest.approx(expected, rel=0.05)
    t, p = 250.0, math.sqrt(250 * (250 + 2 * P.MUON))
    grid = np.exp(material.LOG_LOW + material.LOG_STEP * np.arange(material.N_GRID))
    assert np.interp(t, grid, material.tables()[1, 1]) == pytest.approx(material.csda_range(p, P.MUON), rel=1e-3)


def test_stopping_power():
    """Minimum 2.08-2.1 MeV/cm for a density of 1.39 (1.5 %); Rossi's critical energy is 32.84 MeV (1 %)."""
    loss = material.stopping_power(np.geomspace(10, 1000, 500), P.MUON)
    assert loss.min() == pytest.approx(2.09, rel=0.015)
    assert float(material.stopping_power(32.84, P.ELECTRON)) * material.RADIATION_LENGTH == pytest.approx(32.84, rel=0.01)


def muon_steps(source, n, momentum):
    """Yield the steps of the muon itself, from its start to its stop; the few that decay in flight are left out."""
    for i in range(n):
        steps, truth = source.deposits(i, pdg=13, momentum=momentum, position=CENTRE, direction=(0.3, 0.2, 1.0))
        at = np.abs(steps[:, :3] - truth["end"][0]).max(1)
        if (at < 1e-3).any():
            yield steps[:np.flatnonzero(at < 1e-3)[0] + 1], truth


def test_muon_of_100_mev_against_geant4(source):
    """Range within 3 % of Geant4's muon (its straggling is 2.7 %), dE/dx by residual range within 8 % (one muon, deltas)."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(reference("geant4_muon_100MeV_in_argon.h5")) as f:
        table = f["pstep/lar_vol"][0]
    muon = table[table["pdg"] == 13]
    muon = muon[np.argsort(muon["t"], kind="stable")]
    theirs = np.stack([muon["de"], muon["dx"] / 10.0], 1).astype(float)
    momentum = math.sqrt(100.0 * (100.0 + 2 * P.MUON))
    ours = [steps[:, 4:6] for steps, _ in muon_steps(source, 150, momentum)]
    lengths = np.array([s[:, 1].sum() for s in ours])
    assert lengths.mean() == pytest.approx(theirs[:, 1].sum(), rel=0.03)
    assert 0.015 < lengths.std() / lengths.mean() < 0.045

    def profile(tracks):
        edges, sums = np.array([0.3, 1, 2, 4, 8, 16, 29]), np.zeros((6, 2))
        for s in tracks:
            residual = s[:, 1].sum() - np.cumsum(s[:, 1])
            for k in range(6):
                sums[k] += s[(residual >= edges[k]) & (residual < edges[k + 1])].sum(0)
        return sums[:, 0] / sums[:, 1]

    np.testing.assert_allclose(profile(ours), profile([theirs]), rtol=0.08)


@pytest.mark.parametrize("pdg, mass, momentum", [(13, P.MUON, 250.0), (211, P.PION, 250.0), (321, P.KAON, 550.0)])
def test_loss_against_residual_range(source, pdg, mass, momentum):
    """dE/dx at 2-20 cm before the stop follows Bethe's curve (3 %): what tells a K from a pi from a mu."""
    energies = np.geomspace(1, 600, 60)
    ranges = [material.csda_range(math.sqrt(t * (t + 2 * mass)), mass) for t in energies]
    found = {2: [], 5: [], 10: [], 20: []}
    for i in range(120):
        steps, truth = source.deposits(i, pdg=pdg, momentum=momentum, position=CENTRE, direction=(0, 0, 1.0))
        at = np.flatnonzero(np.abs(steps[:, :3] - truth["end"][0]).max(1) < 1e-3)
        born = np.linalg.norm(truth["momentum"][truth["parent"] == 0], axis=1)
        if not len(at) or steps[at[0], 5] >= 0.0201 or (pdg == 211 and not (abs(born - 29.79) < 0.01).any()):
            continue                                 # decayed or interacted in flight
        own = steps[:at[0] + 1]
        residual = own[:, 5].sum() - np.cumsum(own[:, 5])
        for r in found:
            k = (residual > 0.9 * r) & (residual < 1.1 * r)
            found[r].append(own[k, 4].sum() / max(own[k, 5].sum(), 1e-9))
    assert len(found[10]) > 25
    for r, values in found.items():
        kinetic = float(np.interp(r, ranges, energies))
        expected = float(material.stopping_power(kinetic, mass))
        deltas = material.XI * math.log(material.max_transfer(kinetic, mass) / ionisation.DELTA_CUT)
        tolerance = 0.03 + max(deltas, 0.0) / expected          # energy that delta rays carry away from the track
        assert np.mean(values) == pytest.approx(expected, rel=tolerance), r


def test_landau_straggling(source):
    """Most probable loss of a 600 MeV/c muon in 3 mm against Landau's (PDG review, eq. 34.12): 3 %; width 4 xi within 20 %."""
    steps = np.concatenate([source.deposits(i, 13, 600.0, (128, 0, 50), (0, 0, 1.0))[0][:400] for i in range(150)])
    loss = steps[steps[:, 5] > 0.1499][:, 4]
    loss = loss[:len(loss) // 2 * 2].reshape(-1, 2).sum(1)
    count, edge = np.histogram(loss, 90, (0.3, 1.2))
    middle = 0.5 * (edge[1:] + edge[:-1])
    top = count > 0.6 * count.max()
    a, b, _ = np.polyfit(middle[top], count[top], 2)
    gamma = 1 + (math.hypot(600.0, P.MUON) - P.MUON - 60.0) / P.MUON         # half way through the 60 cm
    bg2 = gamma**2 - 1
    beta2, i = bg2 / gamma**2, material.I_EV * 1e-6
    xi = material.XI * 0.3 / beta2
    delta = float(material.density_effect(math.sqrt(bg2)))
    expected = xi * (math.log(2 * P.ELECTRON * bg2 / i) + math.log(xi / i) + 0.2 - beta2 - delta)
    assert -b / (2 * a) == pytest.approx(expected, rel=0.03)
    assert np.sum(count > count.max() / 2) * 0.01 == pytest.approx(4.018 * xi, rel=0.2)


def test_multiple_scattering():
    """Many small steps add up to Highland's width over one radiation length without its logarithm: 6 % (1500 tracks)."""
    rng = np.random.default_rng(0)
    thickness, n = material.RADIATION_LENGTH, 100
    angles = []
    for _ in range(1500):
        u = (0.0, 0.0, 1.0)
        for _ in range(n):
            u = ionisation.scatter(rng, thickness / n, 1000.0, 0.99, *u)
        angles.append(math.atan2(u[0], u[2]))
    assert np.std(angles) == pytest.approx(13.6 / (0.99 * 1000.0), rel=0.06)


# ------------------------------------------------------------------------------------------------ decays, hadrons

def test_phase_space_and_boosts_conserve():
    rng = np.random.default_rng(1)
    for _ in range(200):
        q = np.array(kinematics.three_body(rng, P.KAON, P.PION, P.PION, P.PION)).reshape(3, 3)
        assert np.abs(q.sum(0)).max() < 1e-9
        assert np.sqrt((q**2).sum(1) + P.PION**2).sum() == pytest.approx(P.KAON, rel=1e-12)
        u = np.array(kinematics.deflect(*kinematics.isotropic(rng), 0.3, 2.0))
        assert u @ u == pytest.approx(1.0)
    assert kinematics.two_body(P.KAON, P.MUON, 0.0) == pytest.approx(235.5, abs=0.1)      # T = 152.5 MeV
    assert kinematics.two_body(P.KAON, P.PION, P.PION0) == pytest.approx(205.1, abs=0.1)
    assert kinematics.boost(0.0, 0.0, 3.0, 5.0, 0.0, 0.0, 0.6)[2] == pytest.approx((3 + 0.6 * 5) / 0.8)


def test_michel_spectrum():
    """End point 52.83 MeV; mean 7/10 of it (0.5 % with 20000); parity of the shape at three points."""
    rng = np.random.default_rng(2)
    e = np.array([decays.michel_energy(rng) for _ in range(20000)])
    assert e.max() <= 52.84 and e.max() > 52.5
    assert e.mean() == pytest.approx(0.7 * 52.83, rel=0.005)
    for x in (0.25, 0.5, 0.75):                      # integral of 2 x^2 (3 - 2 x) is 2 x^3 - x^4
        assert np.mean(e < x * 52.83) == pytest.approx(2 * x**3 - x**4, abs=0.013)


def test_stopped_muons(source):
    """mu+ always decays; three in four mu- are captured (4 sigma of 400)."""
    electrons = [sum((t["pdg"] == sign * -11) & (t["parent"] == 0)) for sign in (1, -1)
                 for _, t in (source.deposits(i, pdg=-13 * sign, momentum=150.0, position=CENTRE) for i in range(400))]
    plus, minus = np.mean(electrons[:400]), np.mean(electrons[400:])
    assert plus > 0.99                               # decays at rest or in flight
    assert minus == pytest.approx(1 - P.MUON_CAPTURE, abs=0.09)


def test_pion_chain(source):
    """A stopped pi+ makes a 4.12 MeV mu+ and then a positron; a stopped pi- neither."""
    def stops(pdg):
        for i in range(300):
            t = source.deposits(i, pdg=pdg, momentum=120.0, position=CENTRE, direction=(0, 0, 1.0))[1]
            if abs(np.linalg.norm(t["end"][0] - t["start"][0]) - 8.3) < 1.5:
                yield t
    chains = [t for t in stops(211) if len(t) > 1 and t["pdg"][1] == -13]
    born = np.array([np.linalg.norm(t["momentum"][1]) for t in chains])
    assert len(chains) > 150 and np.mean(abs(born - 29.79) < 0.01) > 0.9     # the others decayed in flight
    assert all(-11 in t["pdg"] and t["parent"][list(t["pdg"]).index(-11)] == 1 for t in chains)
    minus = list(stops(-211))
    assert len(minus) > 30 and np.mean([13 in t["pdg"] for t in minus]) < 0.06           # those that decay in flight


def test_kaon_branching(source):
    """Fractions of the decays, 4 sigma of about 1400."""
    found = Counter()
    for i in range(1500):
        t = source.deposits(i, pdg=321, momentum=300.0, position=CENTRE)[1]
        found[tuple(sorted(int(x) for x in t["pdg"][t["parent"] == 0]))] += 1
    channels = {(-13,): 0.6356, (111, 211): 0.2067, (-211, 211, 211): 0.0558,
                (-11, 111): 0.0507, (-13, 111): 0.0335, (111, 111, 211): 0.0176}
    n = sum(found[c] for c in channels)
    assert n > 1300
    for channel, fraction in channels.items():
        fraction += 0.004 if channel == (-13,) else 0.0
        assert found[channel] / n == pytest.approx(fraction, abs=4 * math.sqrt(fraction / n)), channel


def test_pion_interaction_length(source):
    """Pions of 600 MeV/c interact inelastically within about 80 cm (60-100; the Delta resonance makes it shorter below)."""
    path, ends = 0.0, 0
    for i in range(200):
        _, t = source.deposits(i, pdg=211, momentum=600.0, position=(128, 0, 100), direction=(0, 0, 1.0))
        length = np.linalg.norm(t["end"][0] - t["start"][0])
        ends += length < 100.0
        path += min(length, 100.0)
    assert 55 < path / ends < 105


# ------------------------------------------------------------------------------------------------ showers

def test_photon_cross_sections():
    """Mass attenuation of argon in cm2/g by XCOM at 1, 5, 10, 100 MeV (4 %), and 9/7 X0 at very high energy (5 %)."""
    grid = material.LOG_LOW + material.LOG_STEP * np.arange(material.N_GRID)
    total = showers.photon_tables().sum(0)
    for energy, expected in ((1.0, 0.0576), (5.0, 0.0276), (10.0, 0.0245), (100.0, 0.0304)):
        assert np.interp(math.log(energy), grid, total) / material.DENSITY == pytest.approx(expected, rel=0.04)
    assert 1 / (material.ATOMS * showers.pair_cross_section(5e4)) == pytest.approx(9 / 7 * material.RADIATION_LENGTH, rel=0.05)


@pytest.mark.parametrize("energy, n", [(100.0, 1000), (300.0, 1000), (1000.0, 400)])
def test_photon_conversion_length(source, energy, n):
    """Mean depth of the conversion against 1 / (n sigma_pair): 2 % for Compton scatters before it, 4 sigma."""
    particles = [source.deposits(i, 22, energy, (128, 0, 300), (0, 0, 1.0))[1] for i in range(n)]
    depth = [t["end"][0, 2] - t["start"][0, 2] for t in particles]
    expected = 1 / (material.ATOMS * float(showers.pair_cross_section(energy)))
    assert np.mean(depth) == pytest.approx(expected, rel=0.02 + 4 / math.sqrt(n))


@pytest.mark.parametrize("pdg", [22, 11, -11])
def test_shower_energy_is_conserved(source, pdg):
    """All of the energy is deposited but for the photons that leave: never more than E, on average 98 % and more."""
    for energy in (100.0, 500.0, 1000.0):
        total = {22: energy, 11: math.hypot(energy, P.ELECTRON) - P.ELECTRON, -11: math.hypot(energy, P.ELECTRON) + P.ELECTRON}
        found = [source.deposits(i, pdg, energy, (128, 0, 300), (0, 0, 1.0))[0][:, 4].sum() for i in range(40)]
        assert max(found) < total[pdg] + 1e-6 and np.mean(found) > 0.98 * total[pdg]


def test_shower_profile(source):
    """Mean depth of the energy of 1 GeV electrons: gamma function of the PDG review, b = 0.5, t_max = ln(E/Ec) - 0.5 (15 %).

    And its width across: nine tenths of the energy within one Moliere radius of 9 cm (80-92 %: the rule of thumb is for heavier
    nuclei, argon lets photons of a few MeV go far).
    """
    steps = np.concatenate([source.deposits(i, 11, 1000.0, (128, 0, 100), (0, 0, 1.0))[0] for i in range(60)])
    mean = np.average(steps[:, 2] - 100.0, weights=steps[:, 4]) / material.RADIATION_LENGTH
    t_max = math.log(1000.0 / 32.8) - 0.5
    assert mean == pytest.approx(t_max + 1 / 0.5, rel=0.15)                  # mean of (b t)^(a - 1) exp(-b t): a / b
    near = np.hypot(steps[:, 0] - 128, steps[:, 1]) < 9.0
    assert 0.80 < steps[near, 4].sum() / steps[:, 4].sum() < 0.92


def test_radiation_length(source):
    """An electron of E radiates E / X0 per cm (complete screening; 8 % for the correction at 1 GeV and statistics of 300)."""
    lost = 0.0
    for i in range(300):
        t = source.deposits(i, 11, 1000.0, (128, 0, 100), (0, 0, 1.0))[1]
        first = (t["parent"] == 0) & (t["pdg"] == 22) & (t["start"][:, 2] < 101.0)
        lost += np.linalg.norm(t["momentum"][first], axis=1).sum() / 300
    assert lost == pytest.approx(1000.0 * (1 - math.exp(-1 / material.RADIATION_LENGTH)), rel=0.25)


def test_electron_and_photon_start_differ(source):
    """In the first 3 cm a photon's pair leaves about twice the energy of an electron (ratio 1.7-2.2 of the medians)."""
    def start(pdg):
        out = []
        for i in range(150):
            s, t = source.deposits(i, pdg, 400.0, (128, 0, 300), (0, 0, 1.0))
            z0 = t["end"][0, 2] if pdg == 22 else 300.0
            near = (s[:, 2] > z0) & (s[:, 2] < z0 + 3.0)
            out.append(s[near, 4].sum())
        return np.median(out)
    assert 1.7 < start(22) / start(11) < 2.2


# ------------------------------------------------------------------------------------------------ detector

def test_recombination():
    """Modified box at 273 V/cm: 0.63 of a MIP's electrons; 16.9, 26.9 and 42.5 thousand per wire at 2.1, 4.2, 10 MeV/cm (2 %)."""
    assert detector.survival(2.1) == pytest.approx(0.633, rel=0.01)
    for loss, thousand in ((2.1, 16.9), (4.2, 26.9), (10.0, 42.5)):
        assert 0.3 * loss * detector.ELECTRONS_PER_MEV * detector.survival(loss) / 1e3 == pytest.approx(thousand, rel=0.02)


def test_mip_charge_per_wire():
    """A 600 MeV/c muon along z leaves 80-105 ADC of charge per wire (16.9 thousand electrons are 93), near the anode.

    The pulse's sum is the charge times the response's area; the median over wires lies below the mean (Landau) by 10 %.
    """
    source = Simulator(seed=7, noise=0.0, threshold=0.01)
    area = source._pulses[0].sum(-1).mean()
    charge = []
    for i in range(20):
        image = source.simulate(i, pdg=13, momentum=600.0, position=(5.0, 0.0, 50.0), direction=(0.02, 0.0, 1.0)).image
        rows = np.bincount(image.coords[:, 0], image.values[:, 0], 3600)
        first = int(geometry.row_of(0.0, 50.0))
        charge.append(rows[first + 5:first + 200] / area)
    charge = np.concatenate(charge)
    assert 80 < np.median(charge) < 93 < np.mean(charge) + 6 < 111


def test_point_charge_drifts_to_its_pixel():
    """Position, lifetime, diffusion: row and column as geometry says; sigma_T 0.55 wire and exp(-t / lifetime) at full drift."""
    source = Simulator(seed=0, noise=0.0, threshold=1e-3, lifetime=8000.0)
    dead, quiet = np.zeros(3600, bool), source._noise[0]
    tiles = detector.new_tiles()
    sums, widths = [], []
    for x in (1.0, 255.0):
        steps = np.array([[x, 10.0, 400.0, 0.0, 2.0, 0.3]])
        rng = np.random.default_rng(0)
        coords, values, _ = detector.expose(rng, steps, 0, source.response, source._pulses, quiet, tiles, dead, False)
        values = values.astype(float)
        row, column = np.average(coords + 0.5, axis=0, weights=values)
        assert row == pytest.approx(geometry.row_of(10.0, 400.0), abs=0.3)           # a narrow cloud fills one wire
        assert column == pytest.approx(geometry.column_of(x), abs=1.0)                # the shaped pulse has a tail
        widths.append(math.sqrt(np.average((coords[:, 0] + 0.5 - row) ** 2, weights=values)))
        sums.append(values.sum())
    assert sums[1] / sums[0] == pytest.approx(math.exp(-(254.0 / 0.1098) / 8000.0), rel=0.02)
    assert widths[1] == pytest.approx(math.hypot(0.55, 0.29), rel=0.1)


def test_pulse_against_the_field_response():
    """Height (8 %) and width (5 %) of a pulse without diffusion: semi-Gaussian shaper folded with MicroBooNE's field response."""
    with np.load(reference("microboone_field_response_plane2.npz")) as f:
        field = f["current"].sum(0).astype(float)                            # over impact positions; samples of 0.1 us
    u = np.arange(0, 20, 0.1) / 2.2
    theirs = np.convolve(field / field.sum(), u**4 * np.exp(4 - 4 * u))
    theirs = theirs[5:] + theirs[:-5]                                        # two ticks
    ours = detector.pulses(detector.Response(longitudinal=0.0))[0].astype(float)
    ours = ours[::-1].T.reshape(-1)                                          # the phases interleaved: PHASES samples per us
    assert ours.max() == pytest.approx(theirs.max(), rel=0.08)
    width = (ours > ours.max() / 2).sum() / detector.PHASES
    assert width == pytest.approx((theirs > theirs.max() / 2).sum() * 0.1, rel=0.05)


def correlation(stretches, most=6):
    """Return the autocorrelation at 0 to ``most`` - 1 columns of (n, columns) stretches of noise of mean 0."""
    width = stretches.shape[1]
    return np.array([(stretches[:, k:] * stretches[:, :width - k]).mean() for k in range(most)]) / stretches.var()


def noise_image(source, plane=0):
    """Return (3600, 3600) of noise alone, in every pixel."""
    tiles = detector.new_tiles(detector.GRID_ROWS * detector.GRID_COLUMNS)
    for i in range(detector.GRID_ROWS):
        for j in range(detector.GRID_COLUMNS):
            detector.tile(tiles, i, j)
    detector.add_noise(np.random.default_rng(0), tiles, source._noise[plane].sigma)
    grid = tiles.pixels.reshape(detector.GRID_ROWS, detector.GRID_COLUMNS, detector.TILE_ROWS, detector.TILE_COLUMNS)
    return grid.transpose(0, 2, 1, 3).reshape(3600, 3600).astype(float)


def test_noise_matches_real_waveforms(source):
    """RMS (10 %) and correlations (0.05) of the noise of pairs of ticks: MicroBooNE run 3493, collection wires without signal."""
    with np.load(reference("microboone_run3493_raw_waveforms.npz")) as f:
        adc = f["Y_ch7728_7775"].astype(float)
    adc -= np.median(adc, 1, keepdims=True)
    adc -= np.median(adc, 0)
    rms, correlations = [], []
    for wire in adc:
        pairs = wire[:9594].reshape(-1, 2).sum(1).reshape(-1, 39)
        quiet = pairs[np.abs(pairs).max(1) < 14]     # stretches without signal
        if len(quiet) > 100 and quiet.std() < 4.5:
            rms.append(quiet.std())
            correlations.append(correlation(quiet - quiet.mean()))
    assert len(rms) > 20
    ours = noise_image(source)[72:3528]
    assert ours.std() == pytest.approx(np.median(rms), rel=0.10)
    np.testing.assert_allclose(correlation(ours), np.median(correlations, 0), atol=0.05)


def test_noise_grows_with_the_length_of_the_wire(source):
    """Induction wires are up to 4.66 m long, those in the corners short: 0.67 + 0.112 L of a collection wire's noise (3 %)."""
    lengths = geometry.wire_lengths(1)
    assert lengths.max() == pytest.approx(466.0, abs=0.1) and lengths[0] < 1 and lengths[-1] < 1.5
    np.testing.assert_allclose(lengths, geometry.wire_lengths(2), atol=1e-9)                 # U and V are mirror images
    assert (geometry.wire_lengths(0) == 233.0).all()
    noise = noise_image(source, 1)
    assert noise[1700:1900].std() / 3.1 == pytest.approx(0.67 + 0.112 * 4.66, rel=0.03)
    assert noise[600:610].std() / 3.1 == pytest.approx(0.67 + 0.112 * lengths[:10].mean() / 100, rel=0.03)
    assert not noise[:600].any() and not noise[3000:].any()


def test_sparse_noise_equals_full_noise():
    """The same events with noise everywhere and with noise where it shows, at a threshold that noise passes 600 times per event.

    Pixels far from charge: their number (5 sigma), their values (Kolmogorov and Smirnov, 1e-3) and their spread over the wires
    (chi squared of 24 groups of wires, 4 sigma); pixels of charge: number within 2 %.
    """
    settings = {"seed": 3, "threshold": 12.0}
    full, fast = Simulator(full_noise=True, **settings), Simulator(**settings)
    fixed = {"pdg": 13, "momentum": 300.0, "position": CENTRE, "direction": (0.2, 0.3, 1.0)}
    found = []
    for source in (full, fast):
        images = [source.simulate(i, **fixed).image for i in range(4)]
        far = [np.abs(image.coords[:, 0] - geometry.row_of(0.0, 500.0)) > 400 for image in images]
        found.append((sum((~f).sum() for f in far),
                      np.concatenate([image.coords[f, 0] for image, f in zip(images, far)]),
                      np.sort(np.concatenate([image.values[f, 0] for image, f in zip(images, far)]))))
    (near, rows, values), (near_fast, rows_fast, values_fast) = found
    n, m = len(rows), len(rows_fast)
    expected = 4 * (3456 - 800) * 3600 * detector.above(12.0, 3.1)
    assert n == pytest.approx(expected, abs=5 * math.sqrt(1.1 * expected)) and m == pytest.approx(expected, abs=5 * math.sqrt(expected))
    assert near_fast == pytest.approx(near, rel=0.02)
    grid = np.sort(np.concatenate([values, values_fast]))
    distance = np.abs(np.searchsorted(values, grid, side="right") / n - np.searchsorted(values_fast, grid, side="right") / m).max()
    assert distance < 1.95 * math.sqrt((n + m) / (n * m))
    a, b = (np.histogram(r, 24, (72, 3528))[0] for r in (rows, rows_fast))
    chi2 = ((a - b * n / m) ** 2 / np.maximum(a + b, 1)).sum()
    assert chi2 < 24 + 4 * math.sqrt(2 * 24)

"""Particles of up to 6 GeV/c: kaons of both charges, hyperons, muons that radiate; and that no step
is lost. The rest is in the validations.
"""

import numpy as np
import pytest

from minicnn.simulate import Simulator, cascade, collisions, decays, record
from minicnn.simulate import particles as P
from minicnn.simulate.kinematics import Point, Vector
from minicnn.simulate.record import Particle
from minicnn.simulate.validation.base import empty_world

CENTRE, BEAM = (128.0, 0.0, 500.0), (0.0, 0.0, 1.0)
UPSTREAM = (125.0, 0.0, 50.0)


@pytest.fixture(scope="module")
def source():
    return Simulator(seed=5, sample="talk-6gev")


@pytest.fixture
def world():
    return empty_world()


def along_z(pdg, momentum):
    """A primary at the centre."""
    return Particle(pdg, -1, Vector(0.0, 0.0, momentum), Point(*CENTRE, 0.0))


def emitted(world):
    """(codes (n,), momenta (n, 3)) of what waits to be followed."""
    stack = world.stack[: world.n[2]]
    return stack[:, 0].astype(int), stack[:, 2:5].copy()


@pytest.mark.parametrize("pdg", (321, -321))
def test_kaons_decay_by_their_charge(world, pdg):
    rng, charges = np.random.default_rng(1), {11: -1, 13: -1, 211: 1, 111: 0}
    for _ in range(300):
        world.n[:] = 0
        decays.decay(rng, world, along_z(pdg, 0.0))
        codes, _ = emitted(world)
        found = sum(charges[abs(code)] * np.sign(code) for code in codes)
        assert found == np.sign(pdg) and -111 not in codes, codes


def test_a_stopped_negative_kaon_makes_a_hyperon(source):
    """In 0.25 GeV/c from the centre it stops, in 100 events at least half of them not in flight."""
    found = [source.deposits(i, -321, 250.0, CENTRE, BEAM)[1] for i in range(100)]
    with_lambda = [t for t in found if 3122 in t["pdg"]]
    assert len(with_lambda) > 50
    for t in with_lambda:
        row = list(t["pdg"]).index(3122)
        daughters = set(t["pdg"][t["parent"] == row])
        assert daughters <= {2212, -211, 2112, 111}


def test_a_lambda_conserves_energy(world):
    rng, ends = np.random.default_rng(2), []
    for _ in range(500):
        world.n[:] = 0
        decays.decay(rng, world, along_z(3122, 800.0))
        codes, p = emitted(world)
        energy = sum(np.hypot(np.linalg.norm(q), record.mass(c)) for c, q in zip(codes, p))
        assert energy == pytest.approx(np.hypot(800.0, P.LAMBDA), rel=1e-6)
        ends.append(world.stack[0, 7] - CENTRE[2])
    assert np.mean(ends) == pytest.approx(7.89 * 800.0 / P.LAMBDA, rel=0.2)


@pytest.mark.parametrize("pdg", (211, -211, 321, -321, 2212, 2112))
@pytest.mark.parametrize("p", (1500.0, 6000.0))
def test_collisions_conserve_charge_and_momentum(pdg, p):
    """Charge: of the projectile and a nucleon; momentum: but for Fermi's; energy: to 35 MeV."""
    rng = np.random.default_rng(3)
    codes = np.empty(collisions.MOST, np.int64)
    momenta = np.empty((collisions.MOST, 3))
    before = np.hypot(p, record.mass(pdg)) + P.NUCLEON
    for _ in range(500):
        n, _ = collisions.collide(rng, pdg, Vector(0.0, 0.0, p), codes, momenta)
        found = sum(collisions.charge(code) for code in codes[:n])
        assert found - collisions.charge(pdg) in (0, 1)
        assert np.linalg.norm(momenta[:n].sum(0) - (0.0, 0.0, p)) < 221.0
        masses = np.array([record.mass(code) for code in codes[:n]])
        energy = np.hypot(np.linalg.norm(momenta[:n], axis=1), masses).sum()
        assert abs(energy - before) < 35.0


def test_a_nucleus_shines_and_leaves_dots(world):
    """After collisions there are photons of less than 10.2 MeV together, and alpha particles."""
    rng, photons, dots = np.random.default_rng(4), 0, 0
    for _ in range(200):
        world.n[:] = 0
        cascade.cascade(rng, world, along_z(-211, 1500.0))
        codes, p = emitted(world)
        energy = np.linalg.norm(p[codes == 22], axis=1).sum()
        assert energy < 10.2 + 1e-6
        photons, dots = photons + (energy > 0.2), dots + world.n[0]
    assert photons > 100 and dots > 10


def test_fast_muons_radiate(source):
    """One photon or pair above 5 MeV in 50 m: in 60 muons of 10 m there are some, in slow none."""
    tables = [source.deposits(i, 13, 6000.0, UPSTREAM, BEAM)[1] for i in range(60)]
    assert sum((-11 in t["pdg"][t["parent"] == 0]) for t in tables) > 2
    slow = [source.deposits(i, -13, 900.0, UPSTREAM, BEAM)[1] for i in range(60)]
    assert not any((t["pdg"][t["parent"] == 0] == 22).any() for t in slow)


def test_too_many_steps_are_an_error(world):
    world.n[0] = record.STEPS
    with pytest.raises(RuntimeError, match="more steps than there is memory for"):
        record.deposit(world, Point(*CENTRE, 0.0), 1.0, 0.1, record.TRACK)
    world.n[2] = record.STACK
    with pytest.raises(RuntimeError, match="more particles than there is memory for"):
        record.emit(world, 22, -1, Vector(0.0, 0.0, 1.0), Point(*CENTRE, 0.0), 0.0)

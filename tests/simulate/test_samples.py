"""Samples by name: what is shot is what the table says."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from minicnn.simulate import SAMPLES, Simulator
from minicnn.simulate.samples import SPECIES, sample_named, sample_text

TALK, PAPER = SAMPLES["talk"], SAMPLES["microboone-paper"]


def primaries(sample, n, seed=1, **settings):
    """(labels, codes, momenta (n, 3), positions (n, 3)) of the primaries of n events."""
    source = Simulator(seed=seed, sample=sample, **settings)
    begun = [source._begin(i, None, None, None, None) for i in range(n)]
    drawn = [draw() for _, _, draw in begun]
    labels = np.array([label for _, label, _ in begun])
    return labels, *(np.array([one[k] for one in drawn]) for k in range(3))


def test_the_talks_sample():
    """Six equal species (5 sigma), 1.5 GeV/c from one point, 5 degrees around the beam in xz and in
    yz (5 sigma).
    """
    n = 3000
    labels, codes, p, start = primaries("talk", n)
    kinds, counts = np.unique(codes, return_counts=True)
    assert sorted(kinds) == sorted((22, 11, -11, 13, -211, 321))
    assert (abs(counts - n / 6) < 5 * math.sqrt(n * 5 / 36)).all()
    names = Simulator(sample="talk").class_names
    assert names == ("gamma", "e+-", "mu+-", "pi+-", "K+")
    of = {22: "gamma", 11: "e+-", -11: "e+-", 13: "mu+-", -211: "pi+-", 321: "K+"}
    assert all(names[label] == of[code] for label, code in zip(labels, codes))
    np.testing.assert_allclose(np.linalg.norm(p, axis=1), 1500.0)
    assert (start == (100.0, 0.0, 50.0)).all()
    for angle in (np.arctan2(p[:, 0], p[:, 2]), np.arcsin(p[:, 1] / 1500.0)):
        assert abs(np.degrees(angle).std() - 5.0) < 5 * 5.0 / math.sqrt(2 * n)
        assert abs(np.degrees(angle).mean()) < 5 * 5.0 / math.sqrt(n)


def test_the_talks_later_sample_goes_straight():
    _, codes, p, start = primaries("talk-6gev", 50)
    assert set(codes) <= {22, 11, -11, 13, -211, 321}
    assert np.allclose(p, (0.0, 0.0, 6000.0)) and (start == (125.0, 0.0, 50.0)).all()


def test_the_papers_sample():
    labels, codes, p, start = primaries("microboone-paper", 600)
    assert Simulator(sample=PAPER).class_names == ("e-", "gamma", "mu-", "pi-", "proton")
    assert (codes == np.array([11, 22, 13, -211, 2212])[labels]).all() and set(labels) == set(
        range(5)
    )
    sizes = np.linalg.norm(p, axis=1)
    assert 100 <= sizes.min() < 110 and 990 < sizes.max() <= 1000
    assert abs((p / sizes[:, None]).mean(0)).max() < 5 / math.sqrt(3 * 600)
    assert (np.ptp(start, axis=0) > (250, 225, 1000)).all()


def test_isotropic_events_are_what_they_were():
    """Class, charge, momentum, position and direction from the event's numbers, in this order."""
    codes = ((22,), (11, -11), (13, -13), (211, -211), (321,))
    label, code, p, start = primaries("isotropic", 40, seed=7)
    for i in range(40):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([7, i])))
        k = rng.integers(5)
        assert (label[i], code[i]) == (k, codes[k][rng.integers(len(codes[k]))])
        momentum = rng.uniform(300.0 if k == 4 else 100.0, 1000.0)
        point = rng.random(3) * (256.04, 233.0, 1036.8) - (0.0, 116.5, 0.0)
        way = rng.standard_normal(3)
        assert np.array_equal(start[i], point)
        assert np.array_equal(p[i], momentum * way / math.sqrt(way @ way))


def test_changes_of_a_sample():
    changed = TALK.with_shares({"e-": 1, "proton": 3, "K-": 2, "gamma": 1})
    assert changed.classes == {
        "gamma": {"gamma": 1},
        "e+-": {"e-": 1},
        "proton": {"proton": 3},
        "K-": {"K-": 2},
    }
    labels, codes, _, _ = primaries(changed, 1400)
    counts = np.bincount(labels, minlength=4)
    assert (abs(counts - (200, 200, 600, 400)) < 5 * math.sqrt(1400 / 4)).all()
    assert set(codes) == {22, 11, 2212, -321}
    fixed = replace(
        TALK, momentum=(700.0, 800.0), position=None, direction=(3.0, 0.0, 4.0), spread=0.0
    )
    _, _, p, start = primaries(fixed, 100)
    assert np.allclose(p / np.linalg.norm(p, axis=1)[:, None], (0.6, 0.0, 0.8))
    assert 700 <= np.linalg.norm(p, axis=1).min() and np.linalg.norm(p, axis=1).max() <= 800
    assert np.ptp(start[:, 2]) > 900
    assert TALK.only(("K+", "gamma")).label_of("gamma") == 1
    assert TALK.only(("K+", "gamma")).label_of("mu-") == -1


@pytest.mark.parametrize("species", SPECIES)
def test_every_species_can_be_shot(species):
    source = Simulator(seed=1, shape=(360, 360, 1), sample=TALK.with_shares({species: 1}))
    event = source.read(0)
    assert event.particles["pdg"][0] == SPECIES[species] and event.label == 0
    assert source.class_names[0] in (species, "e+-", "mu+-", "pi+-") and event.image.nnz >= 10


def test_records_tell_samples_apart():
    records = [sample.record() for sample in SAMPLES.values()]
    assert all(json.loads(json.dumps(record)) == record for record in records)
    assert all(a != b for i, a in enumerate(records) for b in records[:i])
    changed = replace(TALK, momentum=(700.0, 800.0))
    assert changed.record() != TALK.record() and changed.label != TALK.label == "talk"
    assert sample_text(TALK.record()) == "sample talk"
    assert sample_text(changed.record()) == "sample talk with momentum 700 800"
    assert sample_text(None) == "unknown sample"


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: sample_named("beam"), "no sample 'beam'; there are talk, talk-6gev, isotropic"),
        (lambda: Simulator(sample="beam"), "no sample 'beam'"),
        (lambda: Simulator(sample="talk", classes=("p",)), "classes of the sample talk are"),
        (lambda: TALK.with_shares({"tau": 1}), "no species tau"),
        (lambda: TALK.with_shares({"K+": 0}), "whole numbers from 1, got 0 for K+"),
        (lambda: TALK.with_shares({}), "every class of a sample has species"),
        (lambda: replace(TALK, momentum=(2.0, 1.0)), "low and high, got 2.0 and 1.0"),
        (lambda: replace(TALK, position=(300.0, 0.0, 0.0)), "not in the TPC"),
        (lambda: replace(TALK, direction=(0.0, 0.0, 0.0)), "no length"),
        (lambda: replace(TALK, direction=None), "0 to 90 degrees around a direction"),
    ],
)
def test_what_cannot_be_shot_is_an_error(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value)

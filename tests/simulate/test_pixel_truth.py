"""The class of each pixel: what made it, without a change of the image."""

import numpy as np
import pytest

from minicnn.data import IGNORED, PIXEL_CLASSES
from minicnn.simulate import Simulator, geometry, pixel_truth
from minicnn.simulate.record import SHOWER, TRACK
from minicnn.simulate.tiles import new_tiles

CENTRE = (128.0, 0.0, 500.0)


@pytest.fixture(scope="module")
def source():
    return Simulator(seed=7, pixel_truth=True, sample="isotropic")


def shares(source, events=12, **primary):
    """Return the fractions of shower, track and ignored pixels of several events."""
    counts = np.zeros(256)
    for i in range(events):
        event = source.simulate(i, position=CENTRE, **primary)
        assert event.pixel_labels.dtype == np.uint8
        assert event.pixel_labels.shape == (event.image.nnz,)
        counts += np.bincount(event.pixel_labels, minlength=256)
    assert counts[2:IGNORED].sum() == 0
    return counts[[SHOWER, TRACK, IGNORED]] / counts.sum()


@pytest.mark.parametrize("shape", [(3600, 3600, 1), (3600, 3600, 3), (720, 720, 3), (144, 144, 1)])
def test_images_and_random_numbers_stay_the_same(shape):
    plain, labelled = (
        Simulator(seed=7, shape=shape, pixel_truth=on, sample="isotropic") for on in (False, True)
    )
    for i in range(5):
        a, b = plain.read(i), labelled.read(i)
        assert a.pixel_labels is None and len(b.pixel_labels) == b.image.nnz
        assert a.image.coords.tobytes() == b.image.coords.tobytes()
        assert a.image.values.tobytes() == b.image.values.tobytes()
        assert a.particles.tobytes() == b.particles.tobytes()


def test_particles_leave_pixels_of_their_class(source):
    """Photons and electrons never make a track; of a muon of 400 MeV/c, 1.7 m long, delta rays and
    the Michel electron are the shower's; a stopped mu- is mostly captured, a mu+ always decays.
    """
    assert (PIXEL_CLASSES[SHOWER], PIXEL_CLASSES[TRACK]) == ("shower", "track")
    for pdg in (22, 11, -11):
        shower, track, ignored = shares(source, pdg=pdg, momentum=400.0)
        assert shower > 0.99 and track == 0 and ignored < 0.01
    minus, plus = (shares(source, pdg=pdg, momentum=400.0) for pdg in (13, -13))
    assert minus[1] > 0.9 and 0.8 < plus[1] < minus[1] and minus[0] > 0.01
    proton = shares(source, pdg=2212, momentum=400.0)
    assert proton[0] == 0 and proton[1] > 0.9
    kaon = shares(source, pdg=321, momentum=500.0)
    assert kaon[0] > 0.05 and kaon[1] > 0.2, kaon


def test_a_michel_electron_is_shower_where_the_muon_stopped(source):
    event = source.simulate(0, pdg=-13, momentum=250.0, position=CENTRE, direction=(0, 0, 1.0))
    start = event.particles["start"][list(event.particles["pdg"]).index(-11)]
    stop = geometry.row_of(start[1], start[2])
    rows, labels = event.image.coords[:, 0], event.pixel_labels
    before = (rows > geometry.row_of(0.0, 500.0) + 3) & (rows < stop - 15) & (labels != IGNORED)
    assert (labels[before] == TRACK).mean() > 0.9
    michel = event.image.coords[labels == SHOWER]
    nearest = np.abs(michel - (stop, geometry.column_of(start[0], 2.0))).sum(1).min()
    assert nearest < 30  # 2.2 us of life on average, one column each


def test_charges_of_the_classes_add_up_to_the_image():
    """Without noise a pixel is the sum of the charges of both classes; magnitudes differ from it
    only where pulses of opposite sign overlap.
    """
    source = Simulator(seed=3, noise=0.0, pixel_truth=True, sample="isotropic")
    rng, _, draw = source._begin(2, -13, 250.0, CENTRE, (0.0, 0.3, 1.0))
    steps, _ = source._follow(rng, *draw())
    classes = source._scratch.world.classes[: len(steps)]
    assert set(classes.tolist()) == {SHOWER, TRACK}
    ((coords, values),) = source._expose(rng, 2, steps)[0]
    charges = pixel_truth.class_charges(coords, steps, classes, source._readout(0), new_tiles())
    kept = values < source.response.saturation
    total = charges.sum(1)
    assert (total[kept] >= values[kept] * (1 - 1e-5)).all()
    assert np.median(total[kept] / values[kept]) == pytest.approx(1.0, abs=0.02)
    labels = source.simulate(2, -13, 250.0, CENTRE, (0.0, 0.3, 1.0)).pixel_labels
    assert np.array_equal(labels, charges.argmax(1)) and IGNORED not in labels


def test_pixels_of_noise_are_ignored():
    """At 4 sigma noise lights some hundred pixels per event; away from a short proton all of them
    are ignored.
    """
    source = Simulator(seed=1, threshold=12.0, pixel_truth=True, sample="isotropic")
    event = source.simulate(0, pdg=2212, momentum=500.0, position=CENTRE)
    far = np.abs(event.image.coords[:, 0] - geometry.row_of(0.0, 500.0)) > 200
    assert far.sum() > 100 and (event.pixel_labels[far] == IGNORED).all()
    assert (event.pixel_labels[~far] == TRACK).sum() > 30
    everywhere = Simulator(
        seed=1, threshold=12.0, pixel_truth=True, full_noise=True, sample="isotropic"
    )
    labels = everywhere.simulate(0, pdg=2212, momentum=500.0, position=CENTRE).pixel_labels
    assert (labels == IGNORED).sum() > 100 and (labels == TRACK).sum() > 30


def test_a_small_image_has_the_class_of_most_charge(source):
    """Blocks of pixels: the class of the larger sum of the full image's charges, hence mostly that
    of the full image's pixels weighted by their values.
    """
    small = Simulator(seed=7, shape=(360, 360, 1), pixel_truth=True, sample="isotropic")
    agree = []
    for i in range(6):
        full, few = source.read(i), small.read(i)
        sums = np.zeros((few.image.nnz, 2))
        known = full.pixel_labels != IGNORED
        index = few.image.index_of(*(full.image.coords[known] // 10).T)
        np.add.at(sums, (index, full.pixel_labels[known]), full.image.values[known, 0])
        counted = few.pixel_labels != IGNORED
        agree.append((sums.argmax(1) == few.pixel_labels)[counted].mean())
    assert np.mean(agree) > 0.98

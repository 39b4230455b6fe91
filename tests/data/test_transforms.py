"""Normalisation and augmentation: exact on dense images, reproducible per (seed, epoch, event)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.data import ArrayDataset, EventStore, SparseImage
from minicnn.data import transforms as tr


def image(seed=0, shape=(20, 30, 2), background=0.0):
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random(shape) < 0.2, rng.normal(0, 50, shape), background)
    return SparseImage.from_dense(dense, background)


class Fixed:
    """A Generator whose draws are given."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size=None):
        return np.asarray(self.draws.pop(0)) if size is not None else self.draws.pop(0)

    def integers(self, low, high):
        assert low <= self.draws[0] < high
        return self.draws.pop(0)

    def standard_normal(self, size):
        return np.broadcast_to(self.draws.pop(0), size)


@pytest.mark.parametrize("background", [0.0, 2.0])
def test_what_they_do_to_the_dense_image(background):
    x = image(background=background)
    dense = x.to_dense()
    for t, expected in (
        (tr.Scale(0.5), dense * 0.5),
        (tr.Clip(-10, 30), dense.clip(-10, 30)),
        (tr.Clip(high=1), dense.clip(max=1)),
        (tr.Log(5), np.sign(dense) * np.log1p(abs(dense) / np.float32(5))),
    ):
        np.testing.assert_allclose(t(x).to_dense(), expected, rtol=1e-6)
    np.testing.assert_array_equal(tr.MirrorWire()(x, Fixed(0.49)).to_dense(), dense[::-1])
    np.testing.assert_array_equal(tr.MirrorTime()(x, Fixed(0.49)).to_dense(), dense[:, ::-1])
    assert tr.MirrorTime()(x, Fixed(0.5)) is x
    shifted = np.full_like(dense, background)
    shifted[3:, :-7] = dense[:-3, 7:]
    np.testing.assert_array_equal(tr.Shift(3, 7)(x, Fixed(3, -7)).to_dense(), shifted)
    gained = dense.copy()
    lit = (dense != background).any(-1)
    gained[lit] *= np.float32([1.1, 0.8])
    np.testing.assert_allclose(
        tr.GainJitter(0.1)(x, Fixed(np.array([1.0, -2.0]))).to_dense(), gained, rtol=1e-6
    )
    draws = np.ones((20, 2))
    draws[4, 0] = draws[9] = 0
    killed = dense.copy()
    killed[4, :, 0] = killed[9] = background
    np.testing.assert_array_equal(tr.DeadWires(0.1)(x, Fixed(draws)).to_dense(), killed)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 5), st.integers(-1, 2**40))
def test_any_pipeline_gives_a_sound_image_again_and_again(seed, epoch, event):
    x = image(seed % 7)
    t = tr.Compose(
        [
            tr.MirrorWire(),
            tr.MirrorTime(),
            tr.Shift(4, 9),
            tr.DeadWires(0.1),
            tr.GainJitter(0.2),
            tr.Clip(-100, 100),
            tr.Log(),
            tr.Scale(0.02),
        ]
    )
    a, b = (t(x, tr.event_rng(seed, epoch, event)) for _ in range(2))
    a.check()
    assert a.shape == x.shape and a.nnz <= x.nnz
    assert a.coords.tobytes() == b.coords.tobytes() and a.values.tobytes() == b.values.tobytes()


def test_draws_differ_by_seed_epoch_and_event():
    draws = {
        tr.event_rng(*key).random()
        for key in (
            (0, 0, 0),
            (1, 0, 0),
            (0, 1, 0),
            (0, 0, 1),
            (0, 0, -1),
            (0, 0, (1, 2, 3)),
            (0, 0, (1, 2, 4)),
            (0, 0, (-1, -1, -1)),
        )
    }
    assert len(draws) == 8


def test_probabilities():
    x = image()
    mirrored = sum(tr.MirrorWire(0.3)(x, tr.event_rng(0, 0, k)) is not x for k in range(2000))
    assert abs(mirrored - 600) < 5 * np.sqrt(2000 * 0.3 * 0.7)
    left = [
        np.count_nonzero(tr.DeadWires(0.25)(x, tr.event_rng(0, 0, k)).values) for k in range(200)
    ]
    assert abs(np.mean(left) / np.count_nonzero(x.values) - 0.75) < 0.02
    assert (
        tr.MirrorWire(0)(x, tr.event_rng(0, 0, 0)) is x
        and tr.DeadWires(1)(x, tr.event_rng(0, 0, 0)).nnz == 0
    )


def test_augmented_data_is_the_same_however_it_is_shared():
    images, labels = [image(k, (20, 20, 1)) for k in range(12)], np.arange(12) % 3
    t = tr.Compose([tr.MirrorWire(), tr.Shift(5, 5), tr.GainJitter(0.1)])

    def epoch_of(shares, epoch):
        seen = {}
        for share in shares:
            data = tr.Augmented(
                ArrayDataset([images[i] for i in share], labels[share]), t, seed=3, numbers=share
            )
            data.epoch = epoch
            assert len(data) == len(share) and (data.labels == labels[share]).all()
            for k in reversed(range(len(share))):
                (x,), y = data.batch([k])
                assert y == labels[share[k]]
                seen[share[k]] = x.coords.tobytes() + x.values.tobytes()
        return seen

    one, two = (
        epoch_of([np.arange(12)], 1),
        epoch_of([np.array([3, 0, 7, 5, 1]), np.array([2, 4, 6, 8, 9, 10, 11])], 1),
    )
    assert one == two and one != epoch_of([np.arange(12)], 2)


def test_augmented_store_of_dense_images():
    class Source:
        image_shape, class_names, path = (20, 20, 1), ("a", "b"), "memory"

        def __len__(self):
            return 4

        def read(self, i):
            from minicnn.data import Event

            return Event(image(i, (20, 20, 1)), i % 2)

    pytest.importorskip("blosc")
    sparse, dense = (
        tr.Augmented(EventStore(form=form).load(Source()), tr.MirrorTime(1))
        for form in ("sparse", "dense")
    )
    for a, b in zip(sparse.batch([0, 3])[0], dense.batch([0, 3])[0], strict=True):
        np.testing.assert_array_equal(a.to_dense(), b.to_dense())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: tr.Scale(np.nan), "factor must be a finite"),
        (lambda: tr.Clip(), "Clip needs"),
        (lambda: tr.Clip(3, 1), "Clip needs"),
        (lambda: tr.Log(0), "scale must be a positive"),
        (lambda: tr.MirrorTime(1.5), "probability is a fraction"),
        (lambda: tr.Shift(0.5, 1), "whole numbers"),
        (lambda: tr.Shift(-1, 1), "whole numbers"),
        (lambda: tr.GainJitter(-1), "positive"),
        (lambda: tr.DeadWires(2), "fraction"),
        (lambda: tr.Compose([3]), "called with"),
        (
            lambda: tr.Augmented(ArrayDataset([1], [0]), None, numbers=[1, 2]),
            "2 numbers for 1 events",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""What is learned of an event: classes, numbers, labels of pixels; in stores, batches, transforms
and planes.
"""

import numpy as np
import pytest

import minicnn as mc
from helpers import Source
from minicnn.data import (
    IGNORED,
    PARTICLE,
    ArrayDataset,
    Event,
    EventError,
    EventStore,
    Planes,
    SparseImage,
    class_weights,
)
from minicnn.data import transforms as tr
from minicnn.data.batches import as_dataset, batches
from minicnn.data.dataset import Dataset, EventSource, begin_epoch, epoch_order

SHAPE = (20, 16, 3)


def make_event(i, labelled=True):
    """An event whose pixel labels follow from the first channel's values, wherever pixels go."""
    rng = np.random.default_rng(i)
    values = rng.integers(1, 100, SHAPE) * (rng.random(SHAPE) < 0.2)
    image = SparseImage.from_dense(values)
    particles = np.zeros(1, PARTICLE)
    particles["parent"], particles["momentum"] = -1, (3.0 * (i + 1), 0, 4.0 * (i + 1))
    labels = label_of_values(image) if labelled else None
    return Event(image, i % 3, (1, 0, i), particles, labels)


def label_of_values(image):
    sums = np.rint(image.values.sum(1)).astype(int)
    return np.where(sums % 5 == 0, IGNORED, sums % 2).astype(np.uint8)


def source(n=7):
    return Source([make_event(i) for i in range(n)], SHAPE)


@pytest.mark.parametrize("form", ("sparse", "dense"))
@pytest.mark.parametrize("codec", ("zstd", "none"))
def test_stores_keep_every_kind_of_target(codec, form):
    events = source()

    def store(target):
        # in two parts: a store can be filled from several files
        return EventStore(codec, 1, form, target).load(events, [4, 1]).load(events, [6])

    images, labels = store("label").batch([2, 0])
    assert labels.dtype == np.int64 and labels.tolist() == [0, 1]
    for image, number in zip(images, (6, 4)):
        dense = image if form == "dense" else image.to_dense()
        assert np.array_equal(dense, events.read(number).image.to_dense())
    momentum = store("momentum").batch([2, 0])[1]
    assert momentum.dtype == np.float32 and momentum.tolist() == [[35.0], [25.0]]
    direction = store("direction").batch([0])[1]
    np.testing.assert_allclose(direction, [[0.6, 0.0, 0.8]], rtol=1e-6)
    images, pixels = store("pixel_labels").batch([1, 2])
    assert isinstance(pixels, list) and [p.dtype for p in pixels] == [np.uint8] * 2
    for labels, number in zip(pixels, (1, 6)):
        event = events.read(number)
        if form == "dense":
            expected = np.full(SHAPE[:2], IGNORED)
            expected[tuple(event.image.coords.T)] = event.pixel_labels
            assert np.array_equal(labels, expected)
        else:
            assert np.array_equal(labels, event.pixel_labels)
    assert store("momentum").labels.tolist() == [1, 1, 0]


def test_functions_are_targets():
    def batch(function):
        return EventStore(target=function).load(source(), [3, 0]).batch([0, 1])[1]

    assert batch(lambda e: e.label == 0).tolist() == [1, 1]
    assert batch(lambda e: e.label == 0).dtype == np.int64
    assert batch(lambda e: e.momentum / 1000).dtype == np.float32
    np.testing.assert_allclose(batch(lambda e: e.momentum / 1000), [[0.02], [0.005]])
    assert batch(lambda e: e.particles["momentum"][0]).tolist() == [[12, 0, 16], [3, 0, 4]]
    pixels = batch(lambda e: (e.image.values[:, 0] > 50).astype(int))
    assert [p.dtype for p in pixels] == [np.uint8] * 2
    assert np.array_equal(pixels[0], make_event(3).image.values[:, 0] > 50)


@pytest.mark.parametrize(
    "target, event, text",
    [
        ("label", Event(make_event(0).image, -1), "event 1 has the label -1, not one of"),
        ("momentum", Event(make_event(0).image, 0), "event 1 has no momentum: it has 0 primary"),
        ("direction", Event(make_event(0).image, 0), "event 1 has no direction: it has 0 primary"),
        (
            "pixel_labels",
            make_event(0, False),
            "event 1 has no pixel labels: Simulator.pixel_truth",
        ),
        (lambda e: np.nan, make_event(0), "event 0: the target function gave"),
        (lambda e: [1, 2], make_event(0), "event 0: the target function's pixel labels are one"),
        (lambda e: "a", make_event(0), "event 0: a target function gives an integer"),
        (lambda e: 1.0 if e.label else 0, make_event(0), "event 1 has a target of the kind class"),
        (
            lambda e: np.ones(2 + e.label),
            make_event(0),
            "vector of 2, those before it are vector of 3",
        ),
    ],
)
def test_an_event_without_the_target_is_named_when_it_is_loaded(target, event, text):
    events = source(2)
    events.events = [make_event(1), event]
    store = EventStore(target=target)
    with pytest.raises(EventError, match=text):
        store.load(events)
    assert len(store) == 0 and store.image_shape is None


def test_an_error_in_a_target_function_says_where():
    with pytest.raises(ZeroDivisionError) as caught:
        EventStore(target=lambda e: 1 / e.label).load(source())
    assert "event 0" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="target is one of label, momentum, direction, pixel_la"):
        EventStore(target="energy")


def test_sample_weights_come_with_the_batches():
    store = EventStore(weights=lambda e: 1 + e.label).load(source())
    images, targets, weights = store.batch([4, 2])
    assert weights.dtype == np.float32 and weights.tolist() == [2, 3] and len(images) == 2
    for wrapped in (Planes(store), tr.Augmented(store, tr.MirrorWire(1))):
        assert wrapped.batch([4, 2])[2].tolist() == [2, 3]
    with pytest.raises(EventError, match="event 0 got the sample weight -1"):
        EventStore(weights=lambda e: -1).load(source())
    data = ArrayDataset(images, targets, [1.0, 2.0])
    assert data.batch([1])[2].tolist() == [2.0]
    with pytest.raises(ValueError, match="2 images, but sample weights of shape"):
        ArrayDataset(images, targets, [1.0])


def test_class_weights_balance_what_occurs():
    events = source(7)
    events.class_names = ("a", "b", "c", "never")
    weights = class_weights(EventStore().load(events))  # 3, 2, 2 events
    assert weights == {0: pytest.approx(7 / 9), 1: pytest.approx(7 / 6), 2: 7 / 6, 3: 0}
    for form in ("sparse", "dense"):
        store = EventStore(form=form, target="pixel_labels").load(events)
        labels = np.concatenate([events.read(i).pixel_labels for i in range(7)])
        counts = np.bincount(labels[labels != IGNORED])
        expected = {k: pytest.approx(counts.sum() / (2 * counts[k])) for k in range(2)}
        assert class_weights(store) == expected
    with pytest.raises(ValueError, match="the target of this store is 'momentum'"):
        class_weights(EventStore(target="momentum").load(events))


def test_every_transform_moves_labels_with_their_pixels():
    """Labels follow from the values, which these transforms keep; all but DeadWires by size."""
    pipeline = tr.Compose([tr.MirrorWire(), tr.MirrorTime(), tr.Shift(4, 5)])
    for i in range(30):
        event = make_event(i)
        image, labels = pipeline.apply(event.image, event.pixel_labels, tr.event_rng(0, 0, i))
        assert np.array_equal(labels, label_of_values(image)) and labels.dtype == np.uint8
        same = pipeline(event.image, tr.event_rng(0, 0, i))
        assert same.coords.tobytes() == image.coords.tobytes()
        assert same.values.tobytes() == image.values.tobytes()
    event = make_event(3)
    where = {tuple(at): k for at, k in zip(event.image.coords.tolist(), event.pixel_labels)}
    wires = tr.DeadWires(0.5)
    image, labels = wires.apply(event.image, event.pixel_labels, tr.event_rng(0, 0, 1))
    assert image.nnz < event.image.nnz
    assert [where[tuple(at)] for at in image.coords.tolist()] == labels.tolist()
    for t in (tr.Scale(2), tr.Clip(high=30), tr.Log(), tr.GainJitter(0.1)):
        image, labels = t.apply(event.image, event.pixel_labels, tr.event_rng(0, 0, 1))
        assert labels is event.pixel_labels and image.coords is event.image.coords


@pytest.mark.parametrize("form", ("sparse", "dense"))
def test_augmented_events_keep_their_labels(form):
    store = EventStore(form=form, target="pixel_labels").load(source())
    data = tr.Augmented(store, tr.Compose([tr.MirrorWire(), tr.Shift(3, 3)]), seed=1)
    images, labels = data.batch([5, 1, 1])
    for image, its_labels in zip(images, labels):
        assert np.array_equal(its_labels, label_of_values(image))
    begin_epoch(data, 3)
    assert data.epoch == 3 and data.kind == "pixels" and data.class_names == ("a", "b", "c")


def test_functions_are_transforms_as_long_as_pixels_stay():
    event = make_event(0)

    def halved(image, rng):
        return SparseImage(image.coords, image.values / 2, image.shape)

    def dropped(image, rng):
        return SparseImage(image.coords[1:], image.values[1:], image.shape)

    both = tr.Compose([halved, tr.MirrorWire(1)])
    image, labels = both.apply(event.image, event.pixel_labels, tr.event_rng(0, 0, 0))
    mirrored = SparseImage(image.coords, image.values * 2, image.shape)
    assert np.array_equal(labels, label_of_values(mirrored))
    assert tr.Compose([dropped])(event.image).nnz == event.image.nnz - 1
    with pytest.raises(ValueError, match=r"dropped.*derive it from.*Transform"):
        tr.Compose([dropped]).apply(event.image, event.pixel_labels)
    with pytest.raises(ValueError, match="infinite"):
        tr.Scale(3e38)(event.image)


def test_planes_are_handed_out_one_by_one():
    events = source()
    store = EventStore(target="pixel_labels").load(events)
    planes = Planes(store)
    assert planes.image_shape == (20, 16, 1) and len(planes) == 7 and planes.planes == 3
    images, labels = planes.batch([2, 6])
    assert len(images) == len(labels) == 3 and [len(part) for part in images] == [2, 2, 2]
    for k, number in enumerate((2, 6)):
        event = events.read(number)
        for c in range(3):
            assert np.array_equal(images[c][k].to_dense()[..., 0], event.image.to_dense()[..., c])
            lit = event.image.values[:, c] != 0
            assert np.array_equal(labels[c][k], event.pixel_labels[lit])
    assert planes.batch([])[0] == ([], [], [])
    classes = Planes(tr.Augmented(EventStore(form="dense").load(events), tr.MirrorWire(1)))
    images, targets = classes.batch([1])
    assert targets.tolist() == [1] and np.array_equal(
        images[1][0].to_dense()[..., 0], events.read(1).image.to_dense()[::-1, :, 1]
    )
    begin_epoch(classes, 5)
    assert classes.epoch == classes.dataset.epoch == 5
    with pytest.raises(ValueError, match="does not say how many planes"):
        Planes(ArrayDataset([1], [0]))
    with pytest.raises(ValueError, match="several inputs"):
        tr.Augmented(planes, tr.MirrorWire()).batch([0])
    with pytest.raises(ValueError, match="Planes takes a data set"):
        Planes([1, 2], 3)


def test_arrays_of_every_kind_are_data_sets():
    x = np.zeros((4, 5, 5, 1), np.float32)
    lit = [np.arange(n) % 2 for n in (3, 3, 0, 1)]
    for y, expected in (
        ([0, 1, 2, 3], [1, 3]),
        (np.arange(8.0).reshape(4, 2), [[2, 3], [6, 7]]),
        ([[0.5, 1], [1, 2], [3, 4], [5, 6]], [[1, 2], [5, 6]]),
    ):
        got = ArrayDataset(x, y).batch([1, 3])[1]
        assert isinstance(got, np.ndarray) and got.tolist() == expected
    got = ArrayDataset(x, lit).batch(np.array([1, 2]))[1]
    assert isinstance(got, list) and [part.tolist() for part in got] == [[0, 1, 0], []]
    # two inputs, two outputs
    data = as_dataset(((x, x + 1), (np.arange(4), lit)))
    images, targets = data.batch([3])
    assert [part[0].max() for part in images] == [0, 1]
    assert targets[0].tolist() == [3] and targets[1][0].tolist() == [0]
    with pytest.raises(ValueError, match="4 images, but 3 labels"):
        ArrayDataset(x, [1, 2, 3])
    with pytest.raises(ValueError, match="inputs of 4 and 3 images"):
        ArrayDataset((x, x[:3]), [1, 2, 3, 4])
    with pytest.raises(ValueError, match="got a tuple of 4"):
        as_dataset((x, x, x, x))
    # shares of three ranks, sample weights among them
    shares = [as_dataset((x, np.arange(4), np.arange(4) / 2), rank, 3) for rank in range(3)]
    assert sorted(int(y) for share in shares for y in share.targets) == [0, 1, 2, 3]
    assert all((share.weights == share.targets / 2).all() for share in shares)


def test_what_training_asks_of_a_data_set():
    store = EventStore().load(source())
    for data in (store, tr.Augmented(store, tr.MirrorWire()), Planes(store)):
        assert isinstance(data, Dataset) and as_dataset(data) is data
        order = epoch_order(data, 3, 1, 0, 2)
        assert sorted(order) == list(range(7))
        assert len(list(batches(data, order, 3, 3))) == 3
        begin_epoch(data, 1)

    class Dealing(EventStore):
        def order(self, seed, epoch, events):
            return np.array([seed, epoch, events])

    dealing = Planes(Dealing().load(source()))
    assert epoch_order(dealing, 3, 1, 0, 2).tolist() == [3, 1, 2]
    assert isinstance(source(), EventSource) and isinstance(mc.data.Simulator(), EventSource)


def test_what_a_notebook_shows():
    store = EventStore(target="momentum")
    assert repr(store) == "EventStore(0 events, 0.0 MB as zstd 1 (sparse), target momentum)"
    assert "7 events of 20 x 16 x 3" in repr(store.load(source()))
    assert repr(Planes(store)).startswith("Planes(EventStore(7 events")
    assert "pixels: " in repr(make_event(0)) and "1 particle, primary of 5 MeV/c" in repr(
        make_event(0)
    )
    assert "Simulator" in dir(mc.data) and "Planes" in dir(mc.data)

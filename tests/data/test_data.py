"""Sparse images, shards, batches, the compressed store."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minicnn as mc
from helpers import Source
from minicnn.data import Event, EventError, EventStore, SparseImage, batches, shard, split

images = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    elements=st.floats(-1e6, 1e6, width=32) | st.just(0.0),
)


@given(images)
def test_sparse_round_trip_is_exact(image):
    sparse = SparseImage.from_dense(image)
    assert np.array_equal(sparse.to_dense(), image) and sparse.nnz == (image != 0).any(-1).sum()


def test_background_and_scale():
    image = np.full((4, 5, 1), 475, np.float32)
    image[2, 3] = 700
    sparse = SparseImage.from_dense(image, background=475)
    assert sparse.nnz == 1 and np.array_equal(sparse.to_dense(function=lambda v: 2 * v), 2 * image)


@pytest.mark.parametrize(
    "coords, values, text",
    [
        ([[0, 0], [0, 0]], [1, 2], r"pixel 1 at \(row 0, column 0\) is given twice"),
        ([[1, 0], [0, 3]], [1, 2], r"pixel 1 at \(row 0, column 3\) is not in row-major order"),
        ([[0, 4]], [1], r"pixel 0 at \(row 0, column 4\) lies outside the image of 4 x 4"),
        ([[-1, 0]], [1], "lies outside"),
        ([[0, 0], [2, 1]], [1, np.nan], r"pixel 1 at \(row 2, column 1\) has the value \[nan\]"),
    ],
)
def test_sparse_images_are_checked(coords, values, text):
    with pytest.raises(ValueError, match=text):
        SparseImage(np.array(coords), np.array(values, np.float32), (4, 4, 1))


def test_from_pixels_sorts_and_adds_up():
    sparse = SparseImage.from_pixels([3, 0, 3], [1, 2, 1], [1.0, 5.0, 2.0], (4, 4, 1))
    assert sparse.coords.tolist() == [[0, 2], [3, 1]] and sparse.values.ravel().tolist() == [
        5.0,
        3.0,
    ]


@given(st.integers(1, 500), st.integers(1, 40), st.integers(0, 5))
def test_every_event_belongs_to_one_rank(events, ranks, seed):
    if events < ranks:
        with pytest.raises(ValueError, match=f"{events} events cannot be shared by {ranks} ranks"):
            shard(events, ranks, 0, seed)
        return
    shards = [shard(events, ranks, r, seed) for r in range(ranks)]
    assert sorted(np.concatenate(shards)) == list(range(events))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_file_sorted_by_class_gives_mixed_shards():
    labels = np.repeat(np.arange(5), 100)
    for rank in range(4):
        assert np.bincount(labels[shard(500, 4, rank)], minlength=5).min() >= 10


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.integers(0, 2))
@settings(deadline=None)
def test_an_epoch_uses_every_event_once_at_any_rank_count(events, batch, ranks, prefetch):
    ranks = min(ranks, events)
    data = [
        mc.data.ArrayDataset(shard(events, ranks, r), shard(events, ranks, r)) for r in range(ranks)
    ]
    steps = max(-(-len(d) // batch) for d in data)
    seen = []
    for d in data:
        got = list(batches(d, np.random.default_rng(0).permutation(len(d)), batch, steps, prefetch))
        assert len(got) == steps and all(len(y) <= batch for _, y in got)
        seen += [int(i) for x, y in got for i in x]
    assert sorted(seen) == list(range(events))


def test_split_is_disjoint_and_says_when_there_is_too_little():
    train, validation = split(50, 30, 15, seed=3)
    assert len(set(train) | set(validation)) == 45
    with pytest.raises(
        ValueError, match="40 training and 15 validation events cannot be taken from 50"
    ):
        split(50, 40, 15)


def some_events(n=7, shape=(12, 9, 2), seed=0):
    rng = np.random.default_rng(seed)
    dense = [
        np.where(rng.random(shape[:2])[..., None] < 0.2, rng.standard_normal(shape), 0).astype(
            np.float32
        )
        for _ in range(n)
    ]
    return Source(
        [Event(SparseImage.from_dense(d), i % 3) for i, d in enumerate(dense)], shape
    ), dense


@pytest.mark.parametrize("form", ("sparse", "dense"))
@pytest.mark.parametrize("codec", ("zstd", "lz4", "lz4hc", "blosclz", "zlib", "none"))
def test_store_round_trip_is_exact(form, codec):
    source, dense = some_events()
    calls = []
    store = EventStore(codec, 3, form).load(source, [5, 0, 3], lambda *a: calls.append(a))
    assert (
        calls == [(1, 3), (2, 3), (3, 3)] and len(store) == 3 and store.labels.tolist() == [2, 0, 0]
    )
    x, y = store.batch([2, 0])
    assert y.tolist() == [0, 2]
    for image, number in zip(x, (3, 5)):
        assert np.array_equal(image.to_dense() if form == "sparse" else image, dense[number])
    assert store.stats()["dense_bytes"] == 3 * 12 * 9 * 2 * 4 and store.nbytes > 0


@pytest.mark.parametrize("concurrent", (False, True))
@pytest.mark.parametrize("threads", (2, 5))
def test_threads_load_the_same_store(threads, concurrent):
    source, _ = some_events(40)
    source.concurrent, calls, indices = concurrent, [], np.random.default_rng(1).permutation(40)
    alone = EventStore().load(source, indices)
    together = EventStore().load(source, indices, lambda *a: calls.append(a), threads=threads)
    assert together.events == alone.events and together.labels.tolist() == alone.labels.tolist()
    assert (
        calls == [(k, 40) for k in range(1, 41)]
        and together.stats()["bytes"] == alone.stats()["bytes"]
    )
    source.events[17] = Event(source.events[17].image, -1)
    store = EventStore().load(source, [0], threads=threads)
    with pytest.raises(EventError, match="event 17 has the label -1"):
        store.load(source, threads=threads)
    assert len(store) == 1 and len(store.labels) == 1  # as it was before
    assert not [t for t in threading.enumerate() if t.name.startswith("ordered_map")]


def test_images_of_more_pixels_than_an_int32_counts():
    shape = (70000, 50000, 1)
    image = SparseImage([[0, 3], [3, 0], [69999, 49999]], [1.0, 2.0, 3.0], shape)
    got = EventStore().load(Source([Event(image, 0)], shape)).image(0)
    assert (
        got.coords.tolist() == image.coords.tolist()
        and got.values.tolist() == image.values.tolist()
    )


def test_store_keeps_the_background_and_empty_events():
    empty = SparseImage(np.zeros((0, 2)), np.zeros((0, 1)), (5, 5, 1), background=2)
    store = EventStore().load(Source([Event(empty, 0)], (5, 5, 1)))
    assert store.image(0).background == 2 and store.image(0).nnz == 0


@pytest.mark.parametrize("form", ("sparse", "dense"))
def test_one_flipped_bit_is_an_error_that_names_the_event(form):
    from dataclasses import replace

    source, _ = some_events()
    store = EventStore(form=form).load(source)
    rng = np.random.default_rng(0)
    for _ in range(50):
        damaged = bytearray(store.events[4].data)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        sound, store.events[4] = store.events[4], replace(store.events[4], data=bytes(damaged))
        with pytest.raises(EventError, match="event 4: its compressed copy in memory is damaged"):
            store.batch([4])
        store.events[4] = sound
    store.batch([4])


def test_store_refuses_what_cannot_be_trained_on():
    source, _ = some_events()
    source.events[2] = Event(source.events[2].image, -1)
    with pytest.raises(EventError, match="event 2 has the label -1"):
        EventStore().load(source)
    other, _ = some_events(shape=(9, 9, 2))
    with pytest.raises(EventError, match="cannot join a store"):
        EventStore().load(source, [0]).load(other)
    for arguments in (("gzip",), ("zstd", 0), ("zstd", 5, "ragged")):
        with pytest.raises(ValueError, match="must be one of"):
            EventStore(*arguments)


def test_prefetch_raises_in_its_place():
    class Broken:
        def batch(self, part):
            if 3 in part:
                raise EventError("event 3 is bad")
            return list(part), np.zeros(len(part), int)

    source = batches(Broken(), np.arange(6), 1, 6, prefetch=2)
    assert [next(source)[0] for _ in range(3)] == [[0], [1], [2]]
    with pytest.raises(EventError, match="event 3 is bad"):
        next(source)

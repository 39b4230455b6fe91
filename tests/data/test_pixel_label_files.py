"""Event files of version 2: the class of each pixel, beside files without."""

import json

import numpy as np
import pytest

from minicnn.data import IGNORED, Event, EventError, EventStore, EventWriter, generate, open_events
from minicnn.data.readers import EventFile, minicnn_hdf5
from minicnn.data.readers.placement import shrink, shrink_labels
from minicnn.data.sparse import SparseImage
from minicnn.simulate import Simulator

h5py = pytest.importorskip("h5py")
SHAPE = (40, 40, 2)


def make_event(seed, labelled=True, lit=None):
    rng = np.random.default_rng(seed)
    key = np.sort(rng.choice(1600, rng.integers(1, 300) if lit is None else lit, replace=False))
    image = SparseImage(np.stack(np.divmod(key, 40), 1), rng.normal(size=(len(key), 2)), SHAPE)
    labels = rng.choice([0, 1, IGNORED], len(key)).astype(np.uint8) if labelled else None
    return Event(image, seed % 5, (1, 0, seed), pixel_labels=labels)


def write(path, events):
    with EventWriter(path, SHAPE) as writer:
        for event in events:
            writer.append(event)
    return path


def version(path):
    with h5py.File(path) as file:
        return int(file.attrs["version"]), "pixels/label" in file


def test_labels_of_pixels_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(minicnn_hdf5, "BUFFER_BYTES", 3000)
    events = [make_event(k, lit=0 if k == 3 else None) for k in range(20)]
    path = write(tmp_path / "a.h5", events)
    assert version(path) == (2, True)
    with open_events(path) as file:
        assert file.version == 2 and file.has_pixel_labels
        for k in (7, 0, 19, 3, 4, 5):
            got = file.read(k)
            assert got.pixel_labels.dtype == np.uint8
            assert np.array_equal(got.pixel_labels, events[k].pixel_labels)
            assert np.array_equal(got.image.values, events[k].image.values)
        store = EventStore(target="pixel_labels").load(file)
    assert np.array_equal(store.batch([5])[1][0], events[5].pixel_labels)


def test_files_without_labels_stay_version_1(tmp_path):
    path = write(tmp_path / "a.h5", [make_event(k, False) for k in range(3)])
    assert version(path) == (1, False)
    with open_events(path) as file:
        assert file.version == 1 and file.read(1).pixel_labels is None
        with pytest.raises(EventError, match=r"a\.h5: event 0 has no pixel labels.*version 2"):
            EventStore(target="pixel_labels").load(file)


@pytest.mark.parametrize("labelled", [(0, 1, 0), (1, 0, 1), (0, 0, 1)])
@pytest.mark.parametrize("buffer", [1, 1 << 20])
def test_events_without_labels_are_ignored_in_a_file_with_them(
    tmp_path, monkeypatch, labelled, buffer
):
    monkeypatch.setattr(minicnn_hdf5, "BUFFER_BYTES", buffer)
    events = [make_event(k, has) for k, has in enumerate(labelled)]
    with open_events(write(tmp_path / "a.h5", events)) as file:
        for event, got, has in zip(events, file, labelled):
            expected = event.pixel_labels if has else np.full(event.image.nnz, IGNORED)
            assert np.array_equal(got.pixel_labels, expected)


def test_summed_pixels_have_the_label_of_most_charge(tmp_path):
    image = SparseImage(
        [[0, 0], [0, 1], [1, 1], [2, 2], [3, 2], [3, 3]],
        [[-9.0], [4.0], [4.0], [1.0], [2.0], [50.0]],
        (4, 4, 1),
    )
    small = shrink(image, (2, 2, 1))
    labels = np.array([1, 0, 0, 0, 1, IGNORED], np.uint8)
    assert shrink_labels(labels, image, small).tolist() == [1, 1]
    assert shrink_labels(np.full(6, IGNORED), image, small).tolist() == [IGNORED, IGNORED]
    path = write(tmp_path / "a.h5", [make_event(k) for k in range(4)])
    with open_events(path, size=10) as file, open_events(path) as full:
        for k in range(4):
            got, event = file.read(k), full.read(k)
            expected = shrink_labels(event.pixel_labels, event.image, got.image)
            assert np.array_equal(got.pixel_labels, expected)


def test_damage_in_the_labels_names_the_event(tmp_path, monkeypatch):
    monkeypatch.setattr(minicnn_hdf5, "PIXEL_CHUNK", 64)
    path = write(tmp_path / "a.h5", [make_event(k, lit=64) for k in range(6)])
    with h5py.File(path) as file:
        chunk = file["pixels/label"].id.get_chunk_info(4)
    with open(path, "rb+") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 16]))
    with open_events(path) as file:
        for k in (0, 3, 5):
            file.read(k)
        with pytest.raises(EventError, match=r"a\.h5, event 4: .*damaged"):
            file.read(4)


def test_a_labelled_file_that_contradicts_itself(tmp_path):
    path = write(tmp_path / "a.h5", [make_event(1)])
    with h5py.File(path, "r+") as file:
        del file["pixels/label"]
    with pytest.raises(EventError, match="'pixels/label' is missing"):
        open_events(path)
    path = write(tmp_path / "b.h5", [make_event(1)])
    with h5py.File(path, "r+") as file:
        file["pixels/label"].resize(3, 0)
    with pytest.raises(EventError, match="'pixels/label' has 3 rows"):
        open_events(path)


def test_labels_that_do_not_fit_their_image_are_refused():
    image = make_event(1, lit=5).image
    for labels, text in (
        (np.zeros(4, np.uint8), r"each of the 5 lit pixels.*got uint8 \(4,\)"),
        (np.zeros(5), "got float64"),
        (np.full(5, 256), "0 to 255, got 256 to 256"),
    ):
        with pytest.raises(ValueError, match=text):
            Event(image, 0, pixel_labels=labels)
    event = make_event(2, lit=5)
    smaller = event.with_pixels(np.array([0, 1, 1, 0, 1], bool))
    assert np.array_equal(smaller.pixel_labels, event.pixel_labels[[1, 2, 4]])
    assert np.array_equal(smaller.image.coords, event.image.coords[[1, 2, 4]])


def test_simulated_files_hold_the_classes(tmp_path):
    """Also resumed: parts of a run without labels belong to another simulation."""
    simulator = Simulator(seed=4, shape=360, pixel_truth=True, sample="isotropic")
    generate(tmp_path / "a.h5", 5, simulator, part=2)
    with EventFile(tmp_path / "a.h5") as file:
        assert file.metadata["pixel_classes"] == ["shower", "track"]
        for i, event in enumerate(file):
            assert np.array_equal(event.pixel_labels, simulator.read(i).pixel_labels)
    plain = tmp_path / "b.h5"
    generate(plain, 2, Simulator(seed=4, shape=360, sample="isotropic"))
    assert version(plain) == (1, False)
    with h5py.File(plain) as file:
        assert "pixel_classes" not in json.loads(file.attrs["metadata"])
    parts = tmp_path / "c.h5.parts"
    parts.mkdir()
    plain.rename(parts / "events-000000000.h5")
    with pytest.raises(EventError, match="another simulation"):
        generate(tmp_path / "c.h5", 4, simulator, part=2)

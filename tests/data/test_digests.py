"""Digests of event files: whatever another program changes in one is found, sums or not."""

import hashlib

import numpy as np
import pytest

from helpers.cli import make_events, run
from minicnn.data import Event, EventError, EventWriter, SparseImage, open_events
from minicnn.data.readers.digests import digest_of_input

h5py = pytest.importorskip("h5py")


def labelled(path):
    image = SparseImage([[1, 2], [3, 4]], [[1.0], [2.0]], (40, 40, 1))
    with EventWriter(path, (40, 40, 1), metadata={"units": "MeV", "pair": (1, 2)}) as writer:
        writer.append(Event(image, 0, (1, 2, 3)))
        writer.append(Event(image, 1, (1, 2, 4), pixel_labels=np.array([0, 1])))
        writer.append(Event(image, -1, (1, 2, 5)))
    return path


def put(name, place, value):
    return lambda file: file[name].__setitem__(place, value)


def particle(file):
    row = file["particles/table"][3]
    row["momentum"][1] = 7
    file["particles/table"][3] = row


def swapped(name):
    def change(file):
        file[name][1:3] = file[name][1:3][::-1]

    return change


CHANGES = {
    "a value": put("pixels/values", 3, 12.0),
    "a place": put("pixels/coords", 0, (5, 5)),
    "a label": put("events/label", 2, 0),
    "an id": put("events/id", 1, (1, 2, 99)),
    "a particle": particle,
    "an event's beginning": put("events/offset", 1, 2),
    "two labels": swapped("events/label"),
    "a digest": put("events/digest", (1, 5), 1),
    "the digest of the file": lambda file: file.attrs.__setitem__("digest", "0" * 32),
    "no digest of the file": lambda file: file.attrs.__delitem__("digest"),
    "no digests of events": lambda file: file.__delitem__("events/digest"),
    "the background": lambda file: file.attrs.__setitem__("background", np.float32(1)),
    "the classes": lambda file: file.attrs.__setitem__("class_names", ["e", "g", "m", "p", "K"]),
    "the metadata": lambda file: file.attrs.__setitem__("metadata", '{"units": "ADC"}'),
    "the shape": lambda file: file.attrs.__setitem__("image_shape", np.array([44, 44, 1])),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_anything_is_found(tmp_path, what):
    path = make_events(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        CHANGES[what](file)
    with pytest.raises(
        EventError, match=r"a\.h5.*(digest differs|digest.* is missing|given twice)"
    ):
        with open_events(path) as reader:
            list(reader)


def test_labels_of_pixels_are_covered(tmp_path):
    path = labelled(tmp_path / "a.h5")
    with open_events(path) as reader:
        assert [event.label for event in reader] == [0, 1, -1] and reader.has_digests
    for event, row, value in ((0, 1, 0), (1, 2, 1), (1, slice(2, 4), 255), (2, 5, 0)):
        labelled(path)
        with h5py.File(path, "r+") as file:
            file["pixels/label"][row] = value
        with open_events(path) as reader:
            with pytest.raises(EventError, match=f"event {event}: the digest differs"):
                reader.read(event)
            reader.read((event + 1) % 3)


@pytest.mark.parametrize("make", [make_events, labelled])
def test_files_without_digests_are_read(tmp_path, make):
    """Those of before, of both versions."""
    path = make(tmp_path / "a.h5")
    with open_events(path) as reader:
        expected = [event.image.values.tobytes() for event in reader]
    with h5py.File(path, "r+") as file:
        del file["events/digest"], file.attrs["digest"]
    with open_events(path) as reader:
        assert [event.image.values.tobytes() for event in reader] == expected
        assert not reader.has_digests


def test_convert_records_digests_of_its_inputs(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "a.npy", np.eye(12, dtype=np.float32))
    np.save(tmp_path / "b.npy", np.eye(12, dtype=np.float32))
    out = tmp_path / "o.h5"
    status, _, _ = run(capsys, "convert", tmp_path / "images", tmp_path / "b.npy", "--out", out)
    file = hashlib.sha256((tmp_path / "b.npy").read_bytes()).hexdigest()
    folder = hashlib.sha256(b"a.npy\0" + file.encode()).hexdigest()
    with open_events(out) as reader:
        assert reader.metadata["sha256"] == {"images": folder, "b.npy": file}
    assert status == 0 and digest_of_input(tmp_path / "images") == folder

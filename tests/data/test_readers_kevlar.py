"""kevlar HDF5: files as its converters write them, with known signals."""

import numpy as np
import pytest

from minicnn.data.event import EventError
from minicnn.data.readers import Kevlar, kevlar, open_events

h5py = pytest.importorskip("h5py")
SPECIES = ("e-", "e+", "proton", "pi0", "pi+", "pi-", "mu-", "mu+", "K+", "gamma")
#: of each event: how many of which species, {(plane, tick, wire): signal}
EVENTS = [
    ({"mu-": 1}, {(2, 3, 5): 90, (2, 4, 5): 20, (0, 1, 1): 70}),
    ({"mu-": 1, "e-": 7}, {}),
    ({"proton": 1}, {(1, 29, 19): 45}),
    ({"gamma": 1}, {(2, 0, 0): 41}),
]


def write(path, events=EVENTS, shape=(3, 30, 20)):
    with h5py.File(path, "w") as file:
        file.attrs["kevlar_version"] = np.bytes_(b"1.0")
        options = {"compression": "gzip", "compression_opts": 7, "fillvalue": 0}
        images = file.create_dataset(
            "image/wires", (0, *shape), "i4", maxshape=(None, *shape), chunks=(1, *shape), **options
        )
        kinds = file.create_dataset(
            "label/type", (0, 10), "i4", maxshape=(None, 10), chunks=(1, 10), **options
        )
        for k, name in enumerate(SPECIES):
            kinds.attrs.create(f"label_index{k}", name.encode(), dtype="S256")
        for k, (counts, signals) in enumerate(events):
            image = np.zeros(shape, "i4")
            for place, value in signals.items():
                image[place] = value
            images.resize(k + 1, 0)
            kinds.resize(k + 1, 0)
            images[k], kinds[k] = image, [counts.get(name, 0) for name in SPECIES]
        file.create_dataset("label/uvyt", data=np.zeros((len(events), 4), "i4"))
    return path


def pixels(event):
    places = zip(event.image.coords.tolist(), event.image.values.tolist())
    return {tuple(at): value for at, value in places}


def test_events_and_labels(tmp_path):
    with open_events(write(tmp_path / "a.h5")) as reader:
        assert isinstance(reader, Kevlar) and reader.image_shape == (30, 30, 1)
        # Several species: which of them is the primary is not told. Protons are no class.
        assert reader.labels.tolist() == [2, -1, -1, 0]
        first, *others = reader
    assert pixels(first) == {(5 + 5, 3): [90]}  # 20 wires centred on 30; below 40 is gone
    assert [pixels(event) for event in others] == [{}, {}, {(5, 0): [41]}]
    with open_events(tmp_path / "a.h5", label="mu+-", planes=(0, 2), threshold=None) as reader:
        assert reader.labels.tolist() == [2] * 4
        expected = {(6, 1): [70, 0], (10, 3): [0, 90], (10, 4): [0, 20]}
        assert pixels(reader.read(0)) == expected
    with open_events(
        tmp_path / "a.h5", ticks=(2, 12), size=10
    ) as reader:  # 20 x 10, in blocks of 2
        assert reader.axes[1].start == 2 - 5
        assert pixels(reader.read(0)) == {(2, 3): [90]}


def test_the_shares_of_their_production(tmp_path, monkeypatch):
    """Of 9600 ticks (here a tenth) the drift is read, and of 3600 places the 3456 wires."""
    monkeypatch.setattr(kevlar, "READOUT", 960)
    monkeypatch.setattr(kevlar, "DRIFT", (220, 540))
    signals = {(2, 220, 0): 50, (2, 539, 3455): 60, (2, 219, 7): 70}
    path = write(tmp_path / "a.h5", [({}, signals)], (3, 960, 3600))
    with open_events(path, size=3600) as reader:  # 72 wires a side, as in other MicroBooNE files
        assert pixels(reader.read(0)) == {(72, 1640): [50], (3527, 1959): [60]}


def test_errors(tmp_path):
    path = write(tmp_path / "a.h5")
    for options, message in (
        ({"plane": 3}, "planes are 0 to 2"),
        ({"ticks": (5, 40)}, r"ticks are \(first, end\) of 30"),
        ({"label": "tau"}, "label= is one of the classes gamma"),
        ({"size": 0}, "positive"),
    ):
        with pytest.raises(ValueError, match=message):
            open_events(path, **options)
    with h5py.File(path, "r+") as file:
        file["label/type"].resize(3, 0)
    with pytest.raises(EventError, match=r"label/type has the shape \(3, 10\) for 4 events"):
        open_events(path)
    path = write(tmp_path / "b.h5", [({}, {(0, 100, 2400): 5})], (3, 200, 3456))
    with pytest.raises(
        EventError, match="event 0: plane 0 of 2400 wires has a signal on wire 2400"
    ):
        open_events(path, plane=0).read(0)

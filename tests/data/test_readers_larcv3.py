"""larcv3 HDF5, 2-D images and particles; the real SBND file where it is."""

import numpy as np
import pytest

from helpers import SHARED
from helpers.larcv3 import (
    EVENTS,
    pixels,
    write_larcv3,
)
from minicnn.data.event import EventError
from minicnn.data.readers import Larcv3, open_events

h5py = pytest.importorskip("h5py")
REAL = SHARED / "sbnd_cosmic_tagging_larcv3.h5"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="the SBND file is not on this machine")


@pytest.mark.parametrize("kind", ["sparse2d", "image2d"])
def test_sparse_and_dense(tmp_path, kind):
    with open_events(write_larcv3(tmp_path / "a.h5", EVENTS, kind)) as reader:
        assert (
            isinstance(reader, Larcv3) and reader.planes == (2,) and reader.image_shape == (8, 8, 1)
        )
        assert reader.labels.tolist() == [2, -1, 1]  # the muon has more momentum than the proton
        events = list(reader)
    assert [event.id for event in events] == [(1, 2, 3), (1, 2, 4), (1, 2, 5)]
    assert pixels(events[0]) == {
        (7, 5): [9.5],
        (2, 4): [1.5],
    }  # 5 ticks centred on 8: one to the left
    assert pixels(events[1]) == {}
    assert pixels(events[2]) == {(0, 1): [3], (0, 2): [-4]}
    proton, muon, michel = events[0].particles
    assert [p["parent"] for p in (proton, muon, michel)] == [-1, -1, 1] and muon["pdg"] == 13
    assert (
        muon["momentum"].tolist() == [0, 0, 500]
        and muon["start"].tolist() == [1, 2, 3]
        and muon["end"].tolist() == [5, 6, 7]
    )
    assert events[2].particles["parent"].tolist() == [-1]  # its own parent


def test_options(tmp_path):
    path = write_larcv3(tmp_path / "a.h5", EVENTS)
    with open_events(path, planes=(0, 2), size=10) as reader:
        assert reader.image_shape == (10, 10, 2)
        assert pixels(reader.read(0)) == {(2, 2): [7, 0], (8, 6): [0, 9.5], (3, 5): [0, 1.5]}
    with open_events(path, size=4, threshold=2) as reader:  # 8 x 8 in blocks of 2
        assert reader.image_shape == (4, 4, 1) and pixels(reader.read(0)) == {(3, 2): [9.5]}
    with open_events(path, label_of_pdg={2212: 0, 13: 1}, class_names=("p", "mu")) as reader:
        assert reader.labels.tolist() == [1, -1, -1] and reader.class_names == ("p", "mu")
    for options, message in (
        ({"plane": 5}, r"projections out of \[0, 1, 2\]"),
        ({"planes": (1, 1)}, "each once"),
        ({"producer": "x"}, "no images 'x'; choose by producer= one of sparse2d_wire"),
        ({"class_names": ("one",)}, "label_of_pdg gives labels"),
        ({"size": 0}, "positive"),
        ({"tick_sum": 2}, "has no option tick_sum; it has producer, plane"),
    ):
        with pytest.raises(EventError, match=r"a\.h5: .*" + message):
            open_events(path, **options)


def test_several_producers(tmp_path):
    path = write_larcv3(tmp_path / "a.h5", EVENTS, producers=("wire", "cosmicseg"))
    assert open_events(path).producer == "sparse2d_wire"
    assert open_events(path, producer="cosmicseg").producer == "sparse2d_cosmicseg"
    path = write_larcv3(tmp_path / "b.h5", EVENTS, producers=("a", "b"), particles=False)
    with pytest.raises(EventError, match="choose by producer= one of sparse2d_a, sparse2d_b"):
        open_events(path)
    with open_events(path, producer="b") as reader:
        assert reader.labels.tolist() == [-1] * 3 and len(reader.read(0).particles) == 0


@pytest.mark.parametrize(
    "name, place, field, value, message",
    [
        ("voxels", 3, "id", 40, "pixel id 40 in an image of 8 x 5"),
        ("voxels", 3, "value", np.nan, "has the value"),
        ("voxels", 3, "id", 13, "given twice"),
        ("voxel_extents", 2, "N", 99, "has 5 pixels, should have 99"),
        ("image_meta", 8, "projection_id", 1, "has projection 2 0 times"),
        ("extents", 0, "N", 0, "should have 1"),
    ],
)
def test_damage_names_the_event(tmp_path, name, place, field, value, message):
    path = write_larcv3(tmp_path / "a.h5", EVENTS)
    with h5py.File(path, "r+") as file:
        data = file["Data/sparse2d_wire_group"][name]
        row = data[place]
        row[field] = value
        data[place] = row
    event = 2 if place == 8 else 0
    with (
        pytest.raises(EventError, match=rf"a\.h5, event {event}: .*" + message),
        open_events(path, plane=2) as reader,
    ):
        assert not pixels(reader.read(1))
        reader.read(event)


def test_a_file_that_contradicts_itself(tmp_path):
    for change, message in (
        (lambda f: f["Data/sparse2d_wire_group"].pop("image_meta"), "has no dataset 'image_meta'"),
        (
            lambda f: f["Events/event_id"].resize((2,)),
            "2 event ids, but sparse2d_wire has 3 events",
        ),
        (
            lambda f: f["Data/particle_truth_group/particles"].resize((1,)),
            "counts 4 particles in 3 events",
        ),
    ):
        path = write_larcv3(tmp_path / "a.h5", EVENTS)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(EventError, match=r"a\.h5: .*" + message):
            open_events(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(EventError, match=r"a\.h5: .*truncated"):
        open_events(path)


@needs_real
def test_the_real_sbnd_file():
    with open_events(REAL) as reader:
        assert reader.producer == "sparse2d_sbndwire" and reader.image_shape == (2048, 2048, 1)
        events = list(reader)
    assert [event.image.nnz for event in events] == [10084, 10191, 12218, 12336, 3066]
    fractions = [event.image.nnz / (2048 * 1280) for event in events]
    assert 0.001 < min(fractions) and max(fractions) < 0.005
    assert (
        min(e.image.values.min() for e in events) > 5
        and 2771 < max(e.image.values.max() for e in events) < 2772
    )
    with h5py.File(REAL) as file:  # the third projection of the second event, by hand
        first, count, _ = file["Data/sparse2d_sbndwire_group/voxel_extents"][5]
        voxels = file["Data/sparse2d_sbndwire_group/voxels"][int(first) : int(first + count)]
    dense = np.zeros((2048, 1280), np.float32)
    dense.reshape(-1)[voxels["id"]] = voxels["value"]
    np.testing.assert_array_equal(events[1].image.to_dense()[:, 384:-384, 0], dense)
    with open_events(
        REAL, label_of_pdg={14: 0, 12: 1}, class_names=("numu", "nue"), size=720, planes=(0, 1, 2)
    ) as reader:
        assert reader.labels.tolist() == [0, 1, 1, 0, 0] and reader.read(4).image.shape == (
            720,
            720,
            3,
        )


@pytest.mark.parametrize("first", [0, 1])
def test_an_event_without_images_is_reported_alone(tmp_path, first):
    path = write_larcv3(tmp_path / "a.h5", EVENTS)
    with h5py.File(path, "r+") as file:
        extents = file["Data/sparse2d_wire_group/extents"][:]
        extents["N"][first] = 0
        file["Data/sparse2d_wire_group/extents"][...] = extents
    with open_events(path) as reader:
        for k in range(3):
            if k != first:
                reader.read(k)
        with pytest.raises(EventError, match=f"event {first}: has 0 projections"):
            reader.read(first)


def test_particles_of_several_producers(tmp_path):
    path = write_larcv3(tmp_path / "a.h5", EVENTS)
    with h5py.File(path, "r+") as file:
        (name,) = (name for name in file["Data"] if name.startswith("particle_"))
        file.copy(f"Data/{name}", "Data/particle_another_group")
        table = file["Data/particle_another_group/particles"]
        rows = table[:]
        rows["pdg"] = 22
        table[...] = rows
        file.move(f"Data/{name}", "Data/particle_one_group")
    with pytest.raises(EventError, match="choose by particles= one of another, one"):
        open_events(path)
    assert open_events(path, particles="another").labels.tolist() == [0, -1, 0]
    with h5py.File(path, "r+") as file:
        file.move("Data/particle_one_group", "Data/particle_mctruth_group")
    assert open_events(path).labels.tolist() == [2, -1, 1]


def test_a_file_of_other_products_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["Events/event_id"] = [0]
        file.create_group("Data/cluster3d_pcluster_group")
    with pytest.raises(EventError, match="larcv3 file holds cluster3d_pcluster_group, and no imag"):
        open_events(tmp_path / "a.h5")

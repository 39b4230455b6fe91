"""ndlar_flow: files with datasets and references as h5flow makes them, with known hits."""

import numpy as np
import pytest

from minicnn.data.event import EventError
from minicnn.data.readers import Flow, open_events

h5py = pytest.importorskip("h5py")
EVENT = np.dtype(
    [("id", "u8"), ("nhit", "u4"), ("ADC", "f8"), ("ts_start", "f8"), ("ts_end", "f8")]
    + [("n_ext_trigs", "u4"), ("unix_ts", "u8")]
)
HIT = np.dtype(
    [("id", "u4"), ("x", "f8"), ("y", "f8"), ("z", "f8"), ("t_drift", "f8"), ("ts_pps", "u8")]
    + [("io_group", "u8"), ("io_channel", "u8"), ("Q", "f8"), ("E", "f8")]
)
TRAJECTORY = np.dtype(
    [("event_id", "u4"), ("vertex_id", "u8"), ("file_vertex_id", "u8"), ("traj_id", "u4")]
    + [("file_traj_id", "u4"), ("parent_id", "i4"), ("primary", "?"), ("E_start", "f4")]
    + [("pxyz_start", "f4", (3,)), ("xyz_start", "f4", (3,)), ("t_start", "f8"), ("E_end", "f4")]
    + [("pxyz_end", "f4", (3,)), ("xyz_end", "f4", (3,)), ("t_end", "f8"), ("pdg_id", "i4")]
)
REGION = np.dtype([("start", "i4"), ("stop", "i4")])
#: row of the event, (x, y, z), E; Q is ten times that
HITS = [
    (0, (1.1, 0, 2.1), 3.0),
    (1, (9.5, 0, 9.5), 0.25),
    (0, (0.1, 5, 0.1), 8.0),
    (0, (0.2, -5, 0.4), 1.0),  # seen as zx in the pixel of the one before
    (1, (np.nan, 0, 9.5), 1.0),
    (1, (9.5, 0, 9.5), np.nan),
]
#: vertex, track, parent, pdg, pz (MeV/c); interactions 0 and 1 are of raw event 1, 2 of 0
TRACKS = [
    (7, 0, -1, 13, 500),
    (7, 1, 0, 11, 900),
    (8, 0, -1, 211, 700),
    (8, 1, 0, 13, 9),
    (9, 0, -1, 2212, 300),
]
INTERACTIONS = [(1, 0), (1, 1), (0, 2)]


def table(file, name, rows):
    data = file.create_dataset(f"{name}/data", (0,), rows.dtype, maxshape=(None,))
    data.resize((len(rows),))
    data[:] = rows


def refer(file, parent, child, pairs):
    """References parent -> child, kept at the parent, and where those of each row are, at both."""
    pairs = np.array(pairs, "u4").reshape(-1, 2)
    group = f"{parent}/ref/{child}"
    file.create_dataset(f"{group}/ref", data=pairs, maxshape=(None, 2), chunks=True)
    for column, (one, other) in enumerate(((parent, child), (child, parent))):
        region = np.zeros(len(file[f"{one}/data"]), REGION)
        for row in range(len(region)):
            places = np.flatnonzero(pairs[:, column] == row)
            region[row] = (places.min(), places.max() + 1) if len(places) else (0, 0)
        made = file.create_dataset(
            f"{one}/ref/{other}/ref_region", (len(region),), REGION, maxshape=(None,)
        )
        if len(pairs):  # h5flow writes nothing where nothing refers
            made[:] = region


def write(path, hits=HITS, truth=True, kinds=("prompt", "final"), tracks=TRACKS):
    rows = np.zeros(len(hits), HIT)
    for row, (_, place, energy) in zip(rows, hits):
        row["x"], row["y"], row["z"] = place
        row["E"], row["Q"] = energy, 10 * energy
    events = np.zeros(3, EVENT)
    events["id"] = (40, 41, 42)
    with h5py.File(path, "w") as file:
        table(file, "charge/events", events)
        table(file, "charge/raw_events", events[["id", "unix_ts"]].copy())
        # the second raw event came first
        refer(file, "charge/raw_events", "charge/events", [(1, 0), (0, 1), (2, 2)])
        for kind in kinds:
            name = f"charge/calib_{kind}_hits"
            rows["E"] *= 1 if kind == kinds[0] else 2
            table(file, name, rows)
            refer(file, "charge/events", name, [(event, k) for k, (event, *_) in enumerate(hits)])
        if truth:
            made = np.zeros(len(tracks), TRAJECTORY)
            for row, (vertex, track, parent, pdg, pz) in zip(made, tracks):
                row["vertex_id"], row["traj_id"], row["parent_id"] = vertex, track, parent
                row["pdg_id"], row["pxyz_start"] = pdg, (0, 0, pz)
            table(file, "mc_truth/trajectories", made)
            table(file, "mc_truth/interactions", np.zeros(3, [("event_id", "i8"), ("Enu", "f4")]))
            refer(file, "charge/raw_events", "mc_truth/interactions", INTERACTIONS)
            of = [(vertex - 7, k) for k, (vertex, *_) in enumerate(tracks)]
            refer(file, "mc_truth/interactions", "mc_truth/trajectories", of)
    return path


def pixels(event):
    places = zip(event.image.coords.tolist(), event.image.values[:, 0].tolist())
    return {tuple(at): pytest.approx(value) for at, value in places}


def test_hits_and_labels(tmp_path):
    path = write(tmp_path / "a.h5")
    with open_events(path, hits="prompt", pitch=1, region=(0, 10, 0, 10)) as reader:
        assert isinstance(reader, Flow) and reader.image_shape == (10, 10, 1)
        assert reader.labels.tolist() == [3, -1, -1]  # the pion of the second interaction; a proton
        first, second, third = reader
        assert reader.notes == {1: "hits without place or charge left out: 2"}
        assert (reader.axes[0].length, reader.axes[0].cm, reader.unit) == ("z", 1, "MeV")
    assert pixels(first) == {(0, 0): 9, (2, 1): 3} and first.id == (0, 0, 40)
    assert pixels(second) == {(9, 9): 0.25} and pixels(third) == {}
    assert first.particles["pdg"].tolist() == [13, 11, 211, 13]
    assert first.particles["parent"].tolist() == [-1, 0, -1, 2]  # tracks count anew at each vertex
    assert second.particles["pdg"].tolist() == [2212] and len(third.particles) == 0


def test_options(tmp_path):
    path = write(tmp_path / "a.h5")
    with open_events(path) as reader:  # final hits, and what holds all of them
        assert reader.hits == "final" and reader.image_shape == (20, 20, 1)
        assert reader.read(0).image.values.sum() == 24
        assert reader.read(0).image.values.sum() == 24 and list(reader.notes) == []
    with open_events(path, charge="Q", hits="prompt", plane="yx", pitch=1, threshold=20) as reader:
        assert reader.unit == "ke" and pixels(reader.read(0)) == {(5, 1): 30, (10, 0): 80}
    with open_events(path, hits="prompt", region=(0, 1, 0, 10), size=40) as reader:
        assert reader.read(0).image.values.sum() == 9 and reader.image_shape == (40, 40, 1)
        assert reader.notes[0] == "3 MeV lie outside the region"
    with open_events(write(tmp_path / "b.h5", kinds=("prompt",), truth=False)) as reader:
        assert reader.hits == "prompt" and reader.labels.tolist() == [-1, -1, -1]
    for options, message in (
        ({"hits": "raw"}, "hits are final or prompt, got 'raw'"),
        ({"charge": "x"}, "the charge of a hit is E or Q, got 'x'"),
        ({"hits": "final"}, r"b\.h5: has no final hits, only prompt"),
        ({"plane": "zz"}, "a plane is two of x, y, z"),
    ):
        with pytest.raises(ValueError, match=message):
            open_events(tmp_path / "b.h5", **options)


def test_errors(tmp_path):
    name = "charge/events/ref/charge/calib_final_hits/"
    for change, message in (
        (lambda file: file.__delitem__(name + "ref"), r"a\.h5: .*calib_final_hits/ref"),
        (
            lambda file: file[name + "ref"].__setitem__((1, 1), 9),
            r"event 1: has a reference to row",
        ),
        (
            lambda file: file[name + "ref_region"].__setitem__(1, (2, 99)),
            "event 1: has references to charge/calib_final_hits in rows 2 to 99 of a table of 6",
        ),
        (
            lambda file: file["charge/raw_events/ref/mc_truth/interactions/ref"].__setitem__(
                (0, 1), 9
            ),
            r"a\.h5, event 0: has a reference to row 9 of mc_truth/interactions, which has 3",
        ),
    ):
        path = write(tmp_path / "a.h5")
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(EventError, match=message), open_events(path) as reader:
            reader.read(0)
            reader.read(1)
    with pytest.raises(EventError, match=r"a\.h5: holds 3 events and 0 hits"):
        open_events(write(tmp_path / "a.h5", hits=[]))
    nowhere = [(0, (np.nan,) * 3, 1.0)]
    with pytest.raises(EventError, match=r"a\.h5: no hit has a place"):
        open_events(write(tmp_path / "a.h5", hits=nowhere))

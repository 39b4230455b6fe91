"""larnd-sim: files with the tables of its dumpTree.py, with known deposits."""

import numpy as np
import pytest
from numpy.lib.recfunctions import rename_fields, repack_fields

from minicnn.data.event import EventError
from minicnn.data.readers import LarndSim, open_events

h5py = pytest.importorskip("h5py")
SEGMENT = np.dtype(
    [("event_id", "u4"), ("vertex_id", "u8"), ("file_vertex_id", "u8"), ("segment_id", "u4")]
    + [("z_end", "f4"), ("traj_id", "u4"), ("file_traj_id", "u4"), ("tran_diff", "f4")]
    + [("z_start", "f4"), ("x_end", "f4"), ("y_end", "f4"), ("n_electrons", "u4")]
    + [("pdg_id", "i4"), ("x_start", "f4"), ("y_start", "f4"), ("t_start", "f4")]
    + [("t0_start", "f8"), ("t0_end", "f8"), ("t0", "f8"), ("dx", "f4"), ("long_diff", "f4")]
    + [("pixel_plane", "i4"), ("t_end", "f4"), ("dEdx", "f4"), ("dE", "f4"), ("t", "f4")]
    + [("y", "f4"), ("x", "f4"), ("z", "f4"), ("n_photons", "f4")],
    align=True,
)
TRAJECTORY = np.dtype(
    [("event_id", "u4"), ("vertex_id", "u8"), ("file_vertex_id", "u8"), ("traj_id", "u4")]
    + [("file_traj_id", "u4"), ("parent_id", "i4"), ("primary", "?"), ("E_start", "f4")]
    + [("pxyz_start", "f4", (3,)), ("xyz_start", "f4", (3,)), ("t_start", "f8"), ("E_end", "f4")]
    + [("pxyz_end", "f4", (3,)), ("xyz_end", "f4", (3,)), ("t_end", "f8"), ("pdg_id", "i4")]
    + [("start_process", "u4"), ("start_subprocess", "u4"), ("end_process", "u4")]
    + [("end_subprocess", "u4"), ("dist_travel", "f4")],
    align=True,
)
OLDER = {"event_id": "eventID", "traj_id": "trackID", "parent_id": "parentID", "pdg_id": "pdgId"}
#: event_id, (x, y, z) of the start, of the end, dE
SEGMENTS = [
    (7, (1.1, 0, 2.1), (1.1, 0, 2.1), 3.0),  # a point
    (7, (0.1, 5, 0.1), (0.1, -5, 4.1), 8.0),  # along z: 4 cm, in pixels of 1 cm
    (9, (9.5, 0, 9.5), (9.5, 0, 9.5), 0.25),
]
#: event_id, vertex, track, parent, pdg, pz (MeV/c)
TRACKS = [(7, 0, 0, -1, 13, 500), (7, 0, 1, 0, 11, 900), (7, 1, 0, -1, 2212, 300)]


def write(path, segments=SEGMENTS, older=False, tracks=TRACKS):
    rows = np.zeros(len(segments), SEGMENT)
    for row, (event, start, end, energy) in zip(rows, segments):
        row["event_id"], row["dE"] = event, energy
        for k, axis in enumerate("xyz"):
            row[f"{axis}_start"], row[f"{axis}_end"] = start[k], end[k]
    made = np.zeros(len(tracks), TRAJECTORY)
    for row, (event, vertex, track, parent, pdg, pz) in zip(made, tracks):
        row["event_id"], row["vertex_id"], row["traj_id"] = event, vertex, track
        row["parent_id"], row["pdg_id"], row["pxyz_start"] = parent, pdg, (0, 0, pz)
    with h5py.File(path, "w") as file:
        for name, table in (("trajectories", made), ("segments", rows)):
            if older:
                table = rename_fields(repack_fields(table), OLDER)
            file.create_dataset(name, (0,), dtype=table.dtype, maxshape=(None,))
            file[name].resize((len(table),))
            file[name][:] = table
        file.create_dataset("vertices", (0,), dtype="f4", maxshape=(None,))
    return path


def pixels(event):
    places = zip(event.image.coords.tolist(), event.image.values[:, 0].tolist())
    return {tuple(at): pytest.approx(value) for at, value in places}


@pytest.mark.parametrize("older", [False, True])
def test_deposits_and_labels(tmp_path, older):
    path = write(tmp_path / "a.h5", older=older)
    with open_events(path, pitch=1, region=(0, 10, 0, 10)) as reader:
        assert isinstance(reader, LarndSim) and reader.image_shape == (10, 10, 1)
        assert reader.labels.tolist() == [2, -1]  # the muon: the electron is no primary
        first, second = reader
    # z are rows: the segment lies in rows 0 to 4, a tenth of a pixel in the last
    assert pixels(first) == {(0, 0): 2, (1, 0): 2, (2, 0): 2, (2, 1): 3, (3, 0): 2}
    assert pixels(second) == {(9, 9): 0.25} and second.id == (0, 0, 9)
    assert first.particles["parent"].tolist() == [-1, 0, -1]  # tracks count anew at each vertex
    assert first.particles["momentum"][0].tolist() == [0, 0, 500]


def test_options(tmp_path):
    path = write(tmp_path / "a.h5")
    with open_events(path, pitch=0.5) as reader:  # what holds all of the file
        assert reader.image_shape == (20, 20, 1) and reader.axes[0].cm == 0.5
        total = [event.image.values.sum() for event in reader]
    np.testing.assert_allclose(total, [11, 0.25])
    with open_events(path, pitch=1, region=(0, 3, 0, 10), plane="yx", size=20) as reader:
        np.testing.assert_allclose(reader.read(0).image.values.sum(), 3 + 8 * 3 / 10, rtol=0.05)
        assert reader.notes[0].endswith("MeV lie outside the region")
    with open_events(path, pitch=1, threshold=2.5) as reader:
        assert list(pixels(reader.read(0)).values()) == [3]
    for options, message in (
        ({"plane": "zz"}, "a plane is two of x, y, z"),
        ({"pitch": 0}, "the pitch is a positive number"),
        ({"region": (5, 1, 0, 1)}, "the region must be"),
        ({"pitch": 1e-6}, "more than"),
    ):
        with pytest.raises(ValueError, match=message):
            open_events(path, **options)


def test_errors(tmp_path):
    for segments, message in (
        ([*SEGMENTS, SEGMENTS[0]], "event_id 7 in /segments are not together"),
        ([], "holds no segments"),
    ):
        with pytest.raises(EventError, match=r"a\.h5: .*" + message):
            open_events(write(tmp_path / "a.h5", segments))
    bad = [*SEGMENTS, (10, (0, 0, 0), (0, 0, 0), np.nan), (11, (0, 0, 0), (0, 0, 999), 1)]
    with open_events(write(tmp_path / "a.h5", bad), region=(0, 10, 0, 10)) as reader:
        for k, message in ((2, "not finite"), (3, "longer than the detector")):
            with pytest.raises(EventError, match=rf"a\.h5, event {k}: has a segment .*{message}"):
                reader.read(k)

"""PILArNet: small files in both published layouts, with known points."""

import numpy as np
import pytest

from minicnn.data.event import EventError
from minicnn.data.readers import Pilarnet, open_events

h5py = pytest.importorskip("h5py")
#: clusters of an event: semantic class, [(x, y, z, energy)]
EVENTS = [
    [(4, [(0, 0, 0, 0.1)]), (1, [(1, 2, 3, 0.5), (1, 7, 3, 0.25), (5, 6, 7, 2)])],
    [],
    [(0, [(767, 0, 766, 1)])],
]
#: flat layout: PDG code, [(x, y, z, charge)]
PARTICLES = [(13, [(1, 2, 3, 0.5), (1, 7, 3, 0.25)]), (2212, [(5, 6, 7, 2)]), (22, [])]


def write_vlen(path, events):
    with h5py.File(path, "w") as file:
        point = file.create_dataset("point", (len(events),), h5py.vlen_dtype(np.float32))
        cluster = file.create_dataset("cluster", (len(events),), h5py.vlen_dtype(np.int64))
        for k, clusters in enumerate(events):
            point[k] = np.array(
                [(*p, -1, 2.5, 100, 0.3) for _, points in clusters for p in points], "f4"
            ).ravel()
            cluster[k] = np.array(
                [(len(points), 0, 0, 0, semantic) for semantic, points in clusters], "i8"
            ).ravel()
    return path


def write_flat(path, particles):
    points = np.array([p for _, some in particles for p in some], "f4").reshape(-1, 4)
    ends = np.cumsum([len(some) for _, some in particles])
    with h5py.File(path, "w") as file:
        for name, values, dtype in (
            ("coordinates", points[:, :3], "i2"),
            ("charge", points[:, 3], "f2"),
            ("end_indices", ends, "i8"),
            ("start_indices", [0, *ends[:-1]], "i8"),
            ("labels", [pdg for pdg, _ in particles], "i2"),
            ("energy_init", np.ones(len(ends)), "f2"),
            ("mom", np.ones((len(ends), 3)), "f2"),
        ):
            values = np.asarray(values, dtype)
            file.create_dataset(
                name,
                data=values,
                maxshape=(None, *values.shape[1:]),
                chunks=True,
                compression="gzip",
            )
        file["event_0/indices"] = np.arange(len(ends), dtype="i4")
    return path


def pixels(event):
    return {
        tuple(at): value.tolist()
        for at, value in zip(event.image.coords.tolist(), event.image.values)
    }


def test_vlen(tmp_path):
    path = write_vlen(tmp_path / "a.h5", EVENTS)
    with open_events(path) as reader:
        assert (
            isinstance(reader, Pilarnet)
            and reader.image_shape == (768, 768, 1)
            and reader.labels.tolist() == [-1] * 3
        )
        first, second, third = reader
    assert pixels(first) == {
        (0, 0): [np.float32(0.1)],
        (3, 1): [0.75],
        (7, 5): [2],
    }  # rows z, columns x, energies added up
    assert pixels(second) == {} and pixels(third) == {(766, 767): [1]} and third.id == (0, 0, 2)
    with open_events(path, planes=(1, "zy"), without=(4,), threshold=0.4, size=256) as reader:
        assert reader.planes == ("yx", "zy") and reader.image_shape == (256, 256, 2)
        # (2, 1), (7, 1) and (6, 5) in yx; (3, 2), (3, 7) and (7, 6) in zy; below 0.4 is gone; then
        # blocks of 3
        assert pixels(reader.read(0)) == {
            (0, 0): [0.5, 0],
            (2, 1): [2, 0],
            (1, 0): [0, 0.5],
            (2, 2): [0, 2],
        }
    with open_events(path, size=1000) as reader:
        assert pixels(reader.read(2)) == {(766 + 116, 767 + 116): [1]}


def test_flat(tmp_path):
    with open_events(write_flat(tmp_path / "a.h5", PARTICLES)) as reader:
        assert isinstance(reader, Pilarnet) and reader.labels.tolist() == [2, -1, 0]
        events = list(reader)
    assert [pixels(event) for event in events] == [{(3, 1): [0.75]}, {(7, 5): [2]}, {}]
    assert [event.particles["pdg"].tolist() for event in events] == [[13], [2212], [22]]
    with open_events(tmp_path / "a.h5", label_of_pdg={2212: 0}, class_names=("p",)) as reader:
        assert reader.labels.tolist() == [-1, 0, -1]


def test_semantic_classes_are_labels_of_pixels(tmp_path):
    """A pixel has the class of most energy; a low-energy deposit (4) has none."""
    events = [
        [
            (1, [(1, 2, 3, 0.5), (9, 0, 9, 1.0)]),
            (0, [(1, 7, 3, 0.25)]),  # in zx on the first point: less energy
            (2, [(9, 0, 9, 3.0)]),  # a Michel electron on the end of the track
            (3, [(20, 0, 20, 1.0)]),
            (4, [(30, 0, 30, 1.0)]),
        ]
    ]
    path = write_vlen(tmp_path / "a.h5", events)
    expected = {(3, 1): 1, (9, 9): 0, (20, 20): 0, (30, 30): 255}
    with open_events(path, pixel_labels=True) as reader:
        event = reader.read(0)
    found = zip(map(tuple, event.image.coords.tolist()), event.pixel_labels.tolist())
    assert dict(found) == expected
    with open_events(path, pixel_labels=True, size=24, planes=(0, 1)) as reader:
        event = reader.read(0)
        assert len(event.pixel_labels) == event.image.nnz and event.pixel_labels[0] == 0
    with open_events(path) as reader:
        assert reader.read(0).pixel_labels is None
    flat = write_flat(tmp_path / "b.h5", PARTICLES)
    with pytest.raises(EventError, match="pixel_labels= needs semantic classes"):
        open_events(flat, pixel_labels=True)


def test_wrong_options(tmp_path):
    path = write_flat(tmp_path / "a.h5", PARTICLES)
    for options, message in (
        ({"plane": 3}, "two of x, y, z"),
        ({"plane": "xx"}, "two of x, y, z"),
        ({"extent": 0}, "positive"),
        ({"without": (4,)}, "does not have"),
        ({"class_names": ("a",)}, "label_of_pdg gives"),
        ({"producer": 1}, "has no option producer"),
    ):
        with pytest.raises(ValueError, match=message):
            open_events(path, **options)


def test_bad_events_are_named(tmp_path):
    bad = [
        [(1, [(768, 0, 0, 1)])],
        [(1, [(0, -1, 0, 1)])],
        [(1, [(np.nan, 0, 0, 1)])],
        [(1, [(0, 0, 0, np.inf)])],
        EVENTS[0],
    ]
    path = write_vlen(tmp_path / "a.h5", bad)
    with h5py.File(path, "r+") as file:
        file["cluster"][4] = np.array([1, 0, 0, 0, 1])
    with open_events(path) as reader:
        for number, message in (
            (0, r"a point at \(768.0, 0.0, 0.0\), outside the cube of 768 .*extent="),
            (1, "outside"),
            (2, "outside"),
            (3, "has the value"),
            (4, "has 4 points, but its clusters count 1"),
        ):
            with pytest.raises(EventError, match=rf"a\.h5, event {number}: .*{message}"):
                reader.read(number)
    with h5py.File(path, "r+") as file:
        file["point"][0] = np.zeros(7, "f4")
    with (
        open_events(path) as reader,
        pytest.raises(EventError, match="event 0: has 7 numbers for its points"),
    ):
        reader.read(0)


def test_a_file_that_contradicts_itself(tmp_path):
    for change, message in (
        (lambda f: f["labels"].resize((2,)), "differ in length"),
        (lambda f: f["charge"].resize((2,)), "3 coordinates, but 2 charges"),
        (
            lambda f: f["end_indices"].write_direct(np.array([9, 9, 9])),
            "event 0 has the points 0 to 9 of 3",
        ),
    ):
        path = write_flat(tmp_path / "a.h5", PARTICLES)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(EventError, match=r"a\.h5: .*" + message):
            open_events(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(EventError, match=r"a\.h5: .*truncated"):
        open_events(path)


#: clusters as published since: fragment, group, semantic class, particle, [(x, y, z, energy)]
WITH_PARTICLES = [
    [
        (0, 0, 4, -1, [(0, 0, 0, 0.1)]),  # low-energy deposits
        (1, 1, 1, 2, [(1, 2, 3, 0.5), (1, 7, 3, 0.25)]),  # a muon
        (2, 1, 3, 1, [(5, 6, 7, 2)]),  # a delta ray of its group
        (4, 3, 0, 1, [(9, 9, 9, 1), (8, 8, 8, 1)]),  # a fragment of a photon's shower, larger
        (3, 3, 0, 0, [(10, 10, 10, 3)]),  # the photon itself
    ],
    [],
    [(7, 7, 1, 4, [(20, 20, 20, 1)])],
]


def write_with_particles(path, events=WITH_PARTICLES, extra=True, cut=0):
    with h5py.File(path, "w") as file:
        kind = h5py.vlen_dtype(np.float32)
        names = ("point", "cluster", *["cluster_extra"] * extra)
        sets = {name: file.create_dataset(name, (len(events),), kind) for name in names}
        for k, clusters in enumerate(events):
            points = [(*p, -1, 2.5, 100, 0.3) for *_, some in clusters for p in some]
            rows = [(len(c[4]), c[0], c[1], 0, c[2], c[3]) for c in clusters]
            sets["point"][k] = np.array(points, "f4").ravel()
            sets["cluster"][k] = np.array(rows, "f4").ravel()
            if extra:
                sets["cluster_extra"][k] = np.ones(5 * max(0, len(rows) - cut), "f4")
    return path


@pytest.mark.parametrize("extra", [True, False])
def test_clusters_that_name_their_particle(tmp_path, extra):
    """As PILArNet-M is published now; 5 clusters of 6 numbers are a multiple of 5 too."""
    path = write_with_particles(tmp_path / "a.h5", extra=extra)
    with open_events(path) as reader:
        assert len(reader) == 3 and reader.labels.tolist() == [-1] * 3
        first = pixels(reader.read(0))
        assert len(first) == 6 and first[3, 1] == [0.75] and first[10, 10] == [3]
        assert pixels(reader.read(1)) == {}
    with open_events(path, single=True) as reader:
        assert reader.labels.tolist() == [2, 0, -1]  # muon, photon, proton
        muon, photon, proton = reader
    assert pixels(muon) == {(3, 1): [0.75], (7, 5): [2]} and muon.id == (0, 0, 1)
    assert pixels(photon) == {(9, 9): [1], (8, 8): [1], (10, 10): [3]} and photon.id == (0, 0, 3)
    assert proton.id == (0, 2, 7) and proton.particles["pdg"].tolist() == [2212]
    with open_events(path, single=True, without=(3,), pixel_labels=True) as reader:
        event = reader.read(0)
        assert pixels(event) == {(3, 1): [0.75]} and event.pixel_labels.tolist() == [1]


def test_particles_that_are_not_named(tmp_path):
    for path, message in (
        (write_vlen(tmp_path / "a.h5", EVENTS), "event 0 has 10 numbers .* name their particle"),
        (write_flat(tmp_path / "b.h5", PARTICLES), "holds single particles already"),
    ):
        with pytest.raises(EventError, match=message):
            open_events(path, single=True)
    path = write_with_particles(tmp_path / "c.h5", cut=1)
    with pytest.raises(EventError, match="event 0: has 30 numbers for 4 clusters"):
        open_events(path).read(0)

"""MicroBooNE Open Samples: small files in the exact layout of the release, with known wires and
particles.
"""

import tracemalloc

import numpy as np
import pytest

from minicnn.data.event import PARTICLE, EventError
from minicnn.data.readers import OpenSamples, OpenSamplesHits, open_events

h5py = pytest.importorskip("h5py")
TICKS = 6400
#: g4_id, pdg, parent_id, momentum (GeV/c), start, end (cm)
MUON = (1, 13, 0, 0.5, (10, 0, 20), (10, 0, 120))
PROTON = (2, 2212, 0, 0.3, (10, 0, 20), (10, 0, 25))
MICHEL = (3, -11, 1, 0.04, (10, 0, 120), (13, 4, 120))
ELECTRON = (1, 11, 0, 0.2, (1, 2, 3), (1, 2, 3))
ORPHAN = (9, 22, 77, 0.01, (0, 0, 0), (0, 0, 1))


def write_open_samples(path, events, particles=True, ticks=TICKS):
    """events: list of (id, {(plane, wire): {tick: adc}}, [particle rows]); a file as the release
    has them.
    """

    def table(file, name, ids, counts, **columns):
        group = file.create_group(name)
        group["event_id"] = np.repeat(np.array(ids, "i4").reshape(-1, 3), counts, axis=0)
        used = [k for k, count in enumerate(counts) if count]  # events without rows are left out
        group["event_id.seq_cnt"] = np.array([(k, counts[k]) for k in used], "i8").reshape(-1, 2)
        for column, (values, dtype, width) in columns.items():
            group[column] = np.array(values, dtype).reshape(-1, width)

    ids = [event[0] for event in events]
    wires = [
        (plane, wire, pulses) for event in events for (plane, wire), pulses in event[1].items()
    ]
    adc = np.zeros((len(wires), ticks), "f4")
    for row, (_, _, pulses) in enumerate(wires):
        adc[row, list(pulses)] = list(pulses.values())
    with h5py.File(path, "w") as file:
        table(file, "event_table", ids, [1] * len(ids))
        table(
            file,
            "wire_table",
            ids,
            [len(event[1]) for event in events],
            tpc=([0] * len(wires), "i4", 1),
            local_plane=([w[0] for w in wires], "i4", 1),
            local_wire=([w[1] for w in wires], "f4", 1),
            adc=(adc, "f4", ticks),
        )
        if particles:
            rows = [row for event in events for row in event[2]]
            names = (
                "g4_id i4 1",
                "g4_pdg i4 1",
                "parent_id i4 1",
                "momentum f4 1",
                "start_position f4 3",
                "end_position f4 3",
            )
            table(
                file,
                "particle_table",
                ids,
                [len(event[2]) for event in events],
                **{
                    name.split()[0]: (
                        [row[k] for row in rows],
                        name.split()[1],
                        int(name.split()[2]),
                    )
                    for k, name in enumerate(names)
                },
            )
    return path


EVENTS = [
    (
        (1, 2, 3),
        {
            (2, 5): {0: 8, 1: 9, 100: 6, 101: 3},
            (2, 3455): {6399: 250},
            (0, 7): {10: 50},
            (1, 9): {12: 60},
            (2, 4): {0: 30, 1: -4},
        },
        [PROTON, MUON, MICHEL],
    ),  # wires in no order, as files may have them
    ((1, 2, 4), {(2, 0): {2: 11.5}}, []),
    ((1, 2, 5), {(0, 1): {0: 99}}, [ORPHAN, ELECTRON]),
    ((1, 2, 6), {(2, 9): {0: 99}}, [PROTON]),
]


def pixels(event):
    return {
        tuple(at): value.tolist()
        for at, value in zip(event.image.coords.tolist(), event.image.values)
    }


def test_collection_plane(tmp_path):
    with open_events(write_open_samples(tmp_path / "a.h5", EVENTS)) as reader:
        assert (
            isinstance(reader, OpenSamples)
            and len(reader) == 4
            and reader.image_shape == (3600, 3600, 1)
        )
        assert reader.labels.tolist() == [2, -1, 1, -1]
        events = list(reader)
    assert [event.id for event in events] == [(1, 2, 3), (1, 2, 4), (1, 2, 5), (1, 2, 6)]
    # wires + 72; ticks / 2 + 200; sums below 10 ADC are gone
    assert pixels(events[0]) == {(76, 200): [26], (77, 200): [17], (3527, 3399): [250]}
    assert pixels(events[1]) == {(72, 201): [11.5]}
    assert pixels(events[2]) == {} and events[2].label == 1


def test_options(tmp_path):
    path = write_open_samples(tmp_path / "a.h5", EVENTS)
    with open_events(path, threshold=None, clip=100) as reader:
        assert pixels(reader.read(0)) == {
            (76, 200): [26],
            (77, 200): [17],
            (77, 250): [9],
            (3527, 3399): [100],
        }
    with open_events(path, planes=(0, 1, 2)) as reader:
        assert reader.image_shape == (3600, 3600, 3)
        assert pixels(reader.read(0)) == {
            (607, 205): [50, 0, 0],
            (609, 206): [0, 60, 0],
            (76, 200): [0, 0, 26],
            (77, 200): [0, 0, 17],
            (3527, 3399): [0, 0, 250],
        }
    with open_events(path, plane=0, size=720, tick_sum=4) as reader:  # 1600 columns, 1000 a side
        assert reader.image_shape == (720, 720, 1)
        assert pixels(reader.read(0)) == {(121, 200): [50]}
    with open_events(path, label_of_pdg={2212: 0}, class_names=("proton",)) as reader:
        assert reader.labels.tolist() == [-1, -1, -1, 0]
    with open_events(path, tick_sum=1, crop=True) as reader:  # ticks 1400 to 4999
        assert pixels(reader.read(0)) == {}
    for options, message in (
        ({"planes": (0, 3)}, "planes are 0, 1"),
        ({"size": 0}, "a positive number of pixels"),
        ({"tick_sum": 1}, "do not fit on 3600 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            open_events(path, **options)
    for options, message in (({"tick_sum": 7}, "6400 ticks cannot be summed in blocks of 7"),):
        with (
            open_events(path, **options) as reader,
            pytest.raises(EventError, match=r"a\.h5, event 0: .*" + message),
        ):
            reader.read(0)
    with pytest.raises(EventError, match="label_of_pdg gives labels"):
        open_events(path, class_names=("one",))


def test_particles(tmp_path):
    with open_events(write_open_samples(tmp_path / "a.h5", EVENTS)) as reader:
        proton, muon, michel = reader.read(0).particles
        orphan, electron = reader.read(2).particles
        assert len(reader.read(1).particles) == 0 and reader.read(1).particles.dtype == PARTICLE
    assert (proton["pdg"], muon["pdg"], michel["pdg"]) == (2212, 13, -11)
    assert (proton["parent"], muon["parent"], michel["parent"], orphan["parent"]) == (-1, -1, 1, -1)
    np.testing.assert_allclose(muon["momentum"], (0, 0, 500), rtol=1e-6)  # MeV/c, from start to end
    np.testing.assert_allclose(michel["momentum"], (24, 32, 0), rtol=1e-6)
    np.testing.assert_allclose(
        electron["momentum"], (0, 0, 200), rtol=1e-6
    )  # start = end: along the beam
    np.testing.assert_array_equal(muon["end"], (10, 0, 120))


def test_events_without_wires_are_left_out(tmp_path):
    events = [
        ((1, 1, 0), {}, [MUON]),
        ((1, 1, 1), {(2, 1): {0: 50}}, [ELECTRON]),
        ((1, 1, 2), {}, []),
    ]
    with open_events(write_open_samples(tmp_path / "a.h5", events)) as reader:
        assert reader.labels.tolist() == [1] and reader.read(0).id == (1, 1, 1)
        assert reader.read(0).particles["pdg"].tolist() == [11]


def test_no_particle_table(tmp_path):
    with open_events(write_open_samples(tmp_path / "a.h5", EVENTS, particles=False)) as reader:
        assert reader.labels.tolist() == [-1] * 4 and len(reader.read(0).particles) == 0


def test_an_event_is_read_in_blocks_of_wires(tmp_path):
    events = [
        ((1, 1, k), {(2, wire): {wire: 40 + k} for wire in range(1000)}, []) for k in range(3)
    ]
    path = write_open_samples(tmp_path / "a.h5", events)  # 25.6 MB of wires an event
    with open_events(path) as reader:
        tracemalloc.start()
        event = reader.read(1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert event.image.nnz == 1000 and (event.image.values == 41).all()
    assert (
        peak < 22e6
    )  # below one event, let alone three: 256 wires are 6.6 MB, as read, as float and summed


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("adc", (1, 3, np.nan), "wire 3455 of plane 2 is not finite"),
        ("adc", (1, 3, np.inf), "wire 3455 of plane 2 is not finite"),
        ("local_wire", (0, 0, 3456), "plane 2 has a wire 3456.0, expected 0 to 3455"),
        ("local_wire", (0, 0, 4), "wire 4 of plane 2 is given twice"),
        ("local_wire", (0, 0, np.nan), "plane 2 has a wire nan"),
    ],
)
def test_bad_wires_name_the_event(tmp_path, column, value, message):
    path = write_open_samples(tmp_path / "a.h5", EVENTS)
    with h5py.File(path, "r+") as file:
        file["wire_table"][column][value[0], value[1]] = value[2]
    with open_events(path) as reader:
        assert pixels(reader.read(1))
        with pytest.raises(EventError, match=r"a\.h5, event 0: .*" + message):
            reader.read(0)


def test_a_file_that_contradicts_itself(tmp_path):
    def broken(change):
        path = write_open_samples(tmp_path / "a.h5", EVENTS)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    def drop_rows(file):
        kept = file["wire_table/local_wire"][:-1]
        del file["wire_table/local_wire"]
        file["wire_table/local_wire"] = kept

    def miscount(file):
        file["wire_table/event_id.seq_cnt"][0, 1] = 4

    for change, message in (
        (drop_rows, "columns of wire_table differ in length"),
        (miscount, "seq_cnt counts 7 rows for 4 events, the table has 8"),
        (lambda file: file["wire_table"].pop("local_plane"), "has no column 'local_plane'"),
        (lambda file: file["particle_table"].pop("g4_pdg"), "has no column 'g4_pdg'"),
    ):
        with pytest.raises(EventError, match=r"a\.h5: .*" + message):
            open_events(broken(change))
    path = write_open_samples(tmp_path / "a.h5", EVENTS)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(EventError, match=r"a\.h5: .*truncated"):
        open_events(path)


#: hits of each event: plane, wire, time, rms, integral
HITS = [
    [(2, 5, 1001.0, 3.0, 400.0), (2, 5, 1006.0, 2.0, 100.0), (0, 7, 50.5, 1.5, 60.0)],
    [(2, 3455, 6399.5, 2.0, 80.0)],  # half of it behind the last tick
    [],
    [(2, 9, 100.5, 0.0, 33.0)],
]
NEUTRINOS = [(14, 1), (-12, 1), (14, 0), (16, 1)]


def write_without_wires(path):
    """A file of the release without wires: the same tables, hits in the place of wires."""
    write_open_samples(path, EVENTS)
    rows = np.array([hit for hits in HITS for hit in hits], "f4")
    counts = [len(hits) for hits in HITS]
    with h5py.File(path, "r+") as file:
        del file["wire_table"]
        ids = np.array([event[0] for event in EVENTS], "i4")
        table = file.create_group("hit_table")
        table["event_id"] = np.repeat(ids, counts, axis=0)
        filled = [k for k, count in enumerate(counts) if count]
        table["event_id.seq_cnt"] = np.array([(k, counts[k]) for k in filled], "i8")
        table["hit_id"] = np.arange(len(rows), dtype="i4")[:, None]
        table["tpc"] = np.zeros((len(rows), 1), "i4")
        for k, name in enumerate(("local_plane", "local_wire", "local_time", "rms", "integral")):
            table[name] = rows[:, k : k + 1].astype("i4" if k < 2 else "f4")
        for k, name in enumerate(("nu_pdg", "is_cc")):
            file["event_table"][name] = np.array([n[k] for n in NEUTRINOS], "i4")[:, None]
    return path


def test_hits_are_painted(tmp_path):
    path = write_without_wires(tmp_path / "a.h5")
    with open_events(path, threshold=None) as reader:
        assert isinstance(reader, OpenSamplesHits) and reader.image_shape == (3600, 3600, 1)
        # Events without a hit have no rows; labels are those of the particles.
        assert len(reader) == 3 and reader.labels.tolist() == [2, -1, -1]
        first, second, third = reader
    ticks = np.arange(0, 6400, 0.01) + 0.005

    def pulse(time, rms, integral):
        curve = np.exp(-(((ticks - time) / rms) ** 2) / 2) / rms / np.sqrt(2 * np.pi)
        return integral * curve.reshape(3200, 200).sum(1) * 0.01

    expected = pulse(1001, 3, 400) + pulse(1006, 2, 100)
    got = first.image.to_dense()[72 + 5, 200:3400, 0]
    np.testing.assert_allclose(got, expected, atol=0.03)  # cut 4 widths away
    np.testing.assert_allclose(first.image.values.sum(), 500, rtol=1e-4)
    np.testing.assert_allclose(second.image.values.sum(), pulse(6399.5, 2, 80).sum(), rtol=1e-3)
    assert pixels(third) == {(72 + 9, 200 + 50): [33]} and third.id == (1, 2, 6)
    assert first.particles["pdg"].tolist() == [2212, 13, -11]
    with open_events(path, planes=(0, 2), clip=50) as reader:  # below 10 ADC nothing is lit
        values = reader.read(0).image.values
        assert values.max() == 50 and values[values > 0].min() >= 10 and (values[:, 0] > 0).any()


def test_labels_of_the_neutrino(tmp_path):
    path = write_without_wires(tmp_path / "a.h5")
    with open_events(path, label="neutrino") as reader:
        assert reader.class_names == ("nu_e CC", "nu_mu CC", "NC")
        assert reader.labels.tolist() == [1, 0, -1]  # the third event has no hit
    with h5py.File(path, "r+") as file:
        file["event_table/is_cc"][0] = 0
    assert open_events(path, label="neutrino").labels.tolist() == [2, 0, -1]
    for options, message in (
        ({"label": "pion"}, 'label= is "particle" or "neutrino"'),
        ({"tick_sum": 0}, "tick_sum must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            open_events(path, **options)
    plain = write_open_samples(tmp_path / "b.h5", EVENTS)
    with pytest.raises(EventError, match="event_table has no column 'nu_pdg'"):
        open_events(plain, label="neutrino")


def test_wrong_hits_are_named(tmp_path):
    for name, value, message in (
        ("rms", -1, "hit 1 has the width -1"),
        ("integral", np.nan, "hit 1 has the integral nan"),
        ("local_wire", 3456, "plane 2 has a wire 3456"),
    ):
        path = write_without_wires(tmp_path / "a.h5")
        with h5py.File(path, "r+") as file:
            file["hit_table"][name][1] = value
        with pytest.raises(EventError, match=rf"a\.h5, event 0: .*{message}"):
            open_events(path).read(0)

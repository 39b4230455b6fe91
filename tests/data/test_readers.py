"""The minicnn event file and open_events: exact round trips, streaming, errors that name file and
event.
"""

import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicnn.data.event import CLASSES, PARTICLE, Event, EventError
from minicnn.data.readers import EventFile, EventWriter, minicnn_hdf5, open_events
from minicnn.data.sparse import SparseImage

h5py = pytest.importorskip("h5py")


def make_event(seed, shape=(40, 30, 2), lit=None, label=None, background=0.0):
    rng = np.random.default_rng(seed)
    h, w, c = shape
    n = int(rng.integers(0, h * w // 4)) if lit is None else lit
    key = np.sort(rng.choice(h * w, n, replace=False))
    particles = np.zeros(rng.integers(0, 4), PARTICLE)
    particles["pdg"], particles["parent"] = 13, np.arange(len(particles)) - 1
    for name in ("momentum", "start", "end"):
        particles[name] = rng.normal(size=(len(particles), 3))
    image = SparseImage(
        np.stack([key // w, key % w], 1), rng.normal(size=(n, c)), shape, background
    )
    return Event(
        image, seed % 6 - 1 if label is None else label, (7004, seed, 2**40 + seed), particles
    )


def write(path, events, **options):
    options.setdefault("image_shape", events[0].image.shape if events else (40, 30, 2))
    with EventWriter(path, **options) as writer:
        for event in events:
            writer.append(event)
    return path


def assert_same(got, expected):
    np.testing.assert_array_equal(got.image.coords, expected.image.coords)
    assert got.image.values.tobytes() == expected.image.values.tobytes()
    assert got.image.shape == expected.image.shape
    assert got.image.background == expected.image.background
    assert (got.label, got.id) == (expected.label, expected.id)
    assert (
        got.particles.dtype == PARTICLE and got.particles.tobytes() == expected.particles.tobytes()
    )


# --- the event format -----------------------------------------------------------------------------


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.one_of(st.just(0), st.integers(0, 300)), max_size=12),
    st.integers(1, 3),
    st.sampled_from([0.0, -0.5, 0.1]),
    st.sampled_from([1, 500, 1 << 20]),
)
def test_round_trip_is_exact(tmp_path, lit, channels, background, buffer):
    background = float(np.float32(background))
    events = [
        make_event(k, (40, 30, channels), n, background=background) for k, n in enumerate(lit)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minicnn.data.readers.minicnn_hdf5.BUFFER_BYTES", buffer)
        path = write(
            tmp_path / "a.h5",
            events,
            image_shape=(40, 30, channels),
            background=background,
            metadata={"creator": "a test", "unit": "µ"},
        )
    with open_events(path) as reader:
        assert isinstance(reader, EventFile) and len(reader) == len(events)
        assert reader.class_names == CLASSES and reader.image_shape == (40, 30, channels)
        assert (
            reader.metadata == {"creator": "a test", "unit": "µ"}
            and reader.background == background
        )
        assert reader.labels.tolist() == [event.label for event in events]
        for got, expected in zip(reader, events, strict=True):
            assert_same(got, expected)


def test_class_names_may_be_any_text(tmp_path):
    path = write(tmp_path / "a.h5", [make_event(1, label=1)], class_names=("ν", "a class", "x"))
    assert open_events(path).class_names == ("ν", "a class", "x")


def test_size_sums_blocks(tmp_path):
    event = make_event(3, (40, 40, 2))
    path = write(tmp_path / "a.h5", [event])
    with open_events(path, size=10) as reader:
        assert reader.image_shape == (10, 10, 2)
        dense = event.image.to_dense().reshape(10, 4, 10, 4, 2).sum((1, 3))
        np.testing.assert_allclose(reader.read(0).image.to_dense(), dense, atol=1e-5)
    with open_events(path, size=7) as reader:  # centred on 42 x 42, as other formats are
        dense = np.pad(event.image.to_dense(), ((1, 1), (1, 1), (0, 0)))
        dense = dense.reshape(7, 6, 7, 6, 2).sum((1, 3))
        np.testing.assert_allclose(reader.read(0).image.to_dense(), dense, atol=1e-5)


def test_every_dataset_is_checksummed(tmp_path):
    with h5py.File(write(tmp_path / "a.h5", [make_event(0)])) as file:
        names = []
        file.visit(names.append)
        datasets = [file[name] for name in names if isinstance(file[name], h5py.Dataset)]
        assert len(datasets) == 8 and all(data.fletcher32 for data in datasets)


class Spy:
    def __init__(self, data, asked):
        self.data, self.asked = data, asked

    def __getitem__(self, rows):
        self.asked.append(rows)
        return self.data[rows]


def test_reading_an_event_loads_its_rows_only(tmp_path):
    shape, n = (3600, 3600, 1), 50_000
    key = np.arange(n) * 100
    image = SparseImage(np.stack([key // 3600, key % 3600], 1), np.ones(n), shape)
    path = write(tmp_path / "a.h5", [Event(image, k % 5) for k in range(60)])  # 36 MB of pixels
    tracemalloc.start()
    with open_events(path) as reader:
        reader.read(31)
        opened = tracemalloc.get_traced_memory()[1]
        asked = []
        for name in ("pixels/coords", "pixels/values"):
            data = reader._data[name]
            reader._data[name] = Spy(data, asked)
        reader.read(40)
    tracemalloc.stop()
    assert asked == [slice(40 * n, 41 * n)] * 2
    assert opened < 12 * n * 5  # a few copies of one event, not sixty events


def test_an_index_out_of_range(tmp_path):
    with open_events(write(tmp_path / "a.h5", [make_event(0)])) as reader:
        for i in (-1, 1):
            with pytest.raises(IndexError, match="has events 0 to 0"):
                reader.read(i)
    with pytest.raises(EventError, match=r"a\.h5, event 0: the file is closed"):
        reader.read(0)


# --- the writer -----------------------------------------------------------------------------------

BAD_EVENTS = {
    "label 5, expected -1 .unknown. to 4": make_event(0, label=5),
    "label -2, expected": make_event(0, label=-2),
    r"shape \(40, 30, 1\), this file holds \(40, 30, 2\)": make_event(0, (40, 30, 1)),
    "the background is 1.0, this file has 0.0": make_event(0, background=1.0),
    "a particle's parent": Event(
        make_event(0).image, 0, (0, 0, 0), np.full(1, 7, "i4").view("i4").astype(PARTICLE)
    ),
}


@pytest.mark.parametrize("message", BAD_EVENTS)
def test_writer_refuses_a_bad_event_and_goes_on(tmp_path, message):
    good = make_event(1)
    with EventWriter(tmp_path / "a.h5", (40, 30, 2)) as writer:
        writer.append(good)
        with pytest.raises(EventError, match=r"a\.h5, event 1: .*" + message):
            writer.append(BAD_EVENTS[message])
        writer.append(good)
    with open_events(tmp_path / "a.h5") as reader:
        assert len(reader) == 2
        for event in reader:
            assert_same(event, good)


def test_writer_refuses_pixels_that_became_nan(tmp_path):
    event = make_event(1, lit=9)
    event.image.values[4, 1] = np.nan
    with pytest.raises(EventError, match=r"a\.h5, event 0: pixel 4 .* nan"):
        write(tmp_path / "a.h5", [event])
    assert not list(tmp_path.iterdir())


def test_an_exception_leaves_what_was_there(tmp_path):
    path = write(tmp_path / "a.h5", [make_event(1)])
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="simulator"), EventWriter(path, (40, 30, 2)) as writer:
        writer.append(make_event(2))
        raise RuntimeError("simulator")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_failing_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with (
        pytest.raises(OSError, match="no space"),
        EventWriter(tmp_path / "a.h5", (40, 30, 2)) as writer,
    ):
        writer.append(make_event(2))
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_no_file_of_that_name(tmp_path):
    code = (
        "import os, signal, sys, numpy as np\n"
        "from minicnn.data.event import Event\n"
        "from minicnn.data.sparse import SparseImage\n"
        "from minicnn.data.readers import EventWriter\n"
        "w = EventWriter(sys.argv[1], (8, 8, 1))\n"
        "w.append(Event(SparseImage.from_dense(np.eye(8)), 0))\n"
        "w._flush(); w._file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.h5"
    assert (
        subprocess.run([sys.executable, "-c", code, path], check=False).returncode
        == -signal.SIGKILL
    )
    left = {file.suffix for file in tmp_path.iterdir()}
    assert not path.exists() and left <= {".partial", ".lock"}


# --- damaged and foreign files --------------------------------------------------------------------


def test_a_flipped_bit_is_an_error_or_harmless(tmp_path):
    events = [make_event(k, lit=[30, 0, 200, 5][k]) for k in range(4)]
    data = bytearray(write(tmp_path / "a.h5", events).read_bytes())
    rng, path, errors = np.random.default_rng(0), tmp_path / "b.h5", 0
    for place in rng.choice(len(data), 400, replace=False):
        bit = 1 << int(rng.integers(8))
        data[place] ^= bit
        path.write_bytes(data)
        try:
            with open_events(path) as reader:
                for got, expected in zip(reader, events, strict=True):
                    assert_same(got, expected)
        except EventError as error:
            errors += 1
            assert str(error).startswith(str(path))
        data[place] ^= bit
    assert errors > 200


def test_a_flipped_bit_in_the_pixels_names_the_event(tmp_path, monkeypatch):
    monkeypatch.setattr("minicnn.data.readers.minicnn_hdf5.PIXEL_CHUNK", 64)
    events = [make_event(k, lit=64) for k in range(4)]
    path = write(tmp_path / "a.h5", events)
    with h5py.File(path) as file:
        chunk = file["pixels/values"].id.get_chunk_info(2)  # all pixels of event 2
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 16
    path.write_bytes(data)
    with open_events(path) as reader:
        for k in (0, 1, 3):
            assert_same(reader.read(k), events[k])
        with pytest.raises(EventError, match=r"a\.h5, event 2: .*the file is damaged"):
            reader.read(2)


@pytest.mark.parametrize("keep", [0, 1, 8, 100, 0.5, 0.999])
def test_a_truncated_file(tmp_path, keep):
    path = write(tmp_path / "a.h5", [make_event(k) for k in range(3)])
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(EventError, match=r"a\.h5: .*(truncated|empty|not known)"):
        open_events(path)


def damage(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


def set_at(name, place, value):
    def change(file):
        file[name][place] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda f: f.attrs.update(version=3),
            "has version 3 of the event format, this minicnn reads versions 1 and 2",
        ),
        (lambda f: f.__delitem__("pixels/coords"), "'pixels/coords' is missing"),
        (lambda f: f.attrs.__delitem__("image_shape"), "image_shape"),
        (replace("events/label", np.zeros(3, "f8")), "rows of float64"),
        (
            replace("pixels/values", np.zeros((4, 3), "f4")),
            r"float32 \(3,\), expected float32 \(2,\)",
        ),
        (replace("events/label", np.zeros(4, "i4")), "must rise from 0 in 5 steps for 4 labels"),
        (replace("events/id", np.zeros((2, 3), "i8")), "3 labels, but 2 rows of events/id"),
        (
            set_at("events/label", 1, 5),
            r"event 1 has label 5, expected -1 \(unknown\) to 4 \(gamma",
        ),
        (set_at("events/offset", 1, 10**6), "must rise"),
        (set_at("events/offset", 3, 10**6), "ends at 1000000, but 'pixels/coords' has"),
        (set_at("events/offset", 0, 1), "must rise from 0"),
    ],
)
def test_a_file_that_contradicts_itself(tmp_path, change, message):
    path = write(tmp_path / "a.h5", [make_event(k, lit=20) for k in range(3)])
    damage(path, change)
    with pytest.raises(EventError, match=r"a\.h5: .*" + message):
        open_events(path)


@pytest.mark.parametrize(
    "name, place, value, message",
    [
        ("pixels/values", (25, 0), np.nan, "has the value .nan"),
        ("pixels/values", (25, 1), np.inf, "has the value .*inf"),
        ("pixels/coords", (25, 0), 99, "lies outside the image of 40 x 30"),
        ("pixels/coords", (39, 0), 0, "not in row-major order"),
    ],
)
def test_bad_pixels_name_the_event(tmp_path, name, place, value, message):
    path = write(tmp_path / "a.h5", [make_event(k, lit=20) for k in range(3)])
    damage(path, set_at(name, place, value))
    with open_events(path) as reader:
        reader.read(0)
        with pytest.raises(EventError, match=r"a\.h5, event 1: pixel .*" + message):
            reader.read(1)


def test_paths_that_hold_no_events(tmp_path):
    with pytest.raises(EventError, match=r"nope\.h5: no such file"):
        open_events(tmp_path / "nope.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        EventError, match="no event images are in this folder; minicnn reads minicnn events"
    ):
        open_events(tmp_path / "empty")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["Data"] = np.zeros(3)
    (tmp_path / "text.npy").write_text("a text")
    for name in ("foreign.h5", "text.npy"):
        with pytest.raises(
            EventError, match=name + ": the format of this file is not known; minicnn reads"
        ):
            open_events(tmp_path / name)


@pytest.mark.parametrize("order", (range(60), range(0, 60, 3), [5, 5, 4, 40, 41, 59, 0, 1, 20, 21]))
def test_events_read_in_any_order_are_the_same(tmp_path, order, monkeypatch):
    """In order, blocks of events are read at once; the events are those that were written, and
    their arrays are their own.
    """
    monkeypatch.setattr(minicnn_hdf5, "PIXEL_CHUNK", 40)
    events = [
        Event(
            SparseImage.from_dense(np.eye(9, 9, k % 9 - 4, dtype="f4") * (k + 1)), k % 5, (k, 2, 3)
        )
        for k in range(60)
    ]
    path = write(tmp_path / "a.h5", events)
    with open_events(path) as reader:
        got = [reader.read(k) for k in order]
        for k, event in zip(order, got):
            assert (
                event.image.values.tobytes() == events[k].image.values.tobytes()
                and event.id == events[k].id
            )
            assert (
                event.image.coords.tobytes() == events[k].image.coords.tobytes()
                and event.label == events[k].label
            )
            assert (
                event.image.values.base is None
                or event.image.values.base.nbytes == event.image.values.nbytes
            )
        got[0].image.values[:] = -1
        assert reader.read(order[0]).image.values.min() > 0

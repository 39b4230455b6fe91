"""Readers in a child process: what crashes, hangs or eats memory is an EventError of one event."""

import json
import os
import signal

import numpy as np
import pytest

from helpers.cli import make_events, run
from minicnn.data import EventError, open_events
from minicnn.data.readers.isolated import MOST_DEATHS, IsolatedReader, Limits, Sandbox

h5py = pytest.importorskip("h5py")


def endless_file(path, events=2):
    """A PILArNet file in whose heap an object has the size 0: libhdf5 looks for the next one for
    ever, and takes no Ctrl-C meanwhile.
    """
    with h5py.File(path, "w") as file:
        kind = h5py.vlen_dtype(np.float64)
        point, cluster = (file.create_dataset(n, (events,), kind) for n in ("point", "cluster"))
        for k in range(events):
            point[k], cluster[k] = np.ones(4 * 8), np.array([4.0, 0, 0, 0, 1])
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 32] = bytes(16)  # the first object's header: free space of no size
    path.write_bytes(data)
    return path


def test_an_isolated_reader_gives_what_the_reader_gives(tmp_path):
    path = make_events(tmp_path / "a.h5", metadata={"units": "MeV"})
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "a.npy", np.eye(20, dtype=np.float32))
    with Sandbox() as sandbox:
        for source, options in ((path, {}), (tmp_path / "images", {"size": 10}), (path, {})):
            with open_events(source, **options) as plain:
                isolated = IsolatedReader(source, sandbox, **options)
                for name in ("name", "unit", "image_shape", "class_names", "axes"):
                    assert getattr(isolated, name) == getattr(plain, name)
                assert isolated.labels.tolist() == plain.labels.tolist()
                for a, b in zip(isolated, plain, strict=True):
                    assert (a.label, a.id, a.image.shape) == (b.label, b.id, b.image.shape)
                    assert a.image.background == b.image.background
                    assert a.image.coords.tobytes() == b.image.coords.tobytes()
                    assert a.image.values.tobytes() == b.image.values.tobytes()
                    assert a.particles.tobytes() == b.particles.tobytes()
        for wrong, message in (
            ({"colour": 1}, "no option colour"),
            ({"size": 0}, "size of images"),
        ):
            with pytest.raises(EventError, match=message):
                IsolatedReader(path, sandbox, **wrong)


def test_a_file_that_hangs_libhdf5_is_stopped(tmp_path, capsys):
    """And convert goes on with the next file."""
    bad = endless_file(tmp_path / "hangs.h5", 1)
    good = make_events(tmp_path / "good.h5", shape=(768, 768, 1))
    limit = ("--time-limit", "1")
    out = tmp_path / "out.h5"
    status, text, err = run(capsys, "convert", bad, good, "--out", out, *limit)
    assert status == 0 and "wrote 6 events" in text
    assert f"{bad}, event 0: took more than" in err
    status, text, _ = run(capsys, "inspect", bad, *limit)
    assert status == 1 and f"damaged: {bad}, event 0: took more than" in text


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_an_error_of_one_event(tmp_path, number):
    path = make_events(tmp_path / "a.h5")
    with Sandbox() as sandbox:
        reader = IsolatedReader(path, sandbox)
        os.kill(sandbox._child.pid, number)
        with pytest.raises(EventError, match=rf"a\.h5, event 2: crashed .* \({number.name}\)"):
            reader.read(2)
        assert [event.id[2] for event in reader] == list(range(6))  # by a new child


def test_after_some_crashes_the_rest_is_not_read(tmp_path):
    with Sandbox(Limits(seconds=0.7)) as sandbox:
        reader = IsolatedReader(endless_file(tmp_path / "hangs.h5", 6), sandbox)
        for k in range(MOST_DEATHS):
            with pytest.raises(EventError, match=f"event {k}: took more than 0.7 s"):
                reader.read(k)
        with pytest.raises(EventError, match="event 5: not read, because 3 events ended"):
            reader.read(5)


def test_memory_is_limited(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, img=np.ones((8000, 8000), np.uint8))
    with Sandbox(Limits(memory=200 << 20)) as sandbox:
        with pytest.raises(EventError, match=r"a\.npz, event 0: .*allocate"):
            IsolatedReader(path, sandbox).read(0)


def test_a_child_that_hangs_ends_by_itself(tmp_path):
    """Its parent may have been killed."""
    sandbox = Sandbox(Limits(seconds=0.05))  # of which a child may work for a second in all
    path = endless_file(tmp_path / "hangs.h5")
    sandbox._start()
    question = {"ask": "read", "path": str(path), "options": {}, "number": 0}
    sandbox._child.stdin.write(json.dumps(question).encode() + b"\n")
    sandbox._child.stdin.flush()
    assert sandbox._child.wait(60) == -signal.SIGXCPU
    sandbox.close()


def test_a_child_ends_with_its_parent(tmp_path):
    sandbox = Sandbox()
    IsolatedReader(make_events(tmp_path / "a.h5"), sandbox)
    child = sandbox._child
    child.stdin.close()
    assert child.wait(10) == 0
    sandbox.close()

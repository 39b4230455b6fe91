"""Disks that fill up at any moment: a file that has its name is whole, and nothing else is left."""

import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest

from helpers import ROOT
from minicnn.data import Event, EventWriter, SparseImage, open_events
from minicnn.files import atomic_write

pytest.importorskip("h5py")


def limited(size, work):
    """What a child process that may write no file above ``size`` bytes says of ``work()``: the text
    of its OSError, or "done". A crash is an error of the test.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            try:
                work()
                text = "done"
            except OSError as problem:
                text = str(problem)
            os.write(write, text.encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return text


def write(path, events=60, labelled_from=40):
    rng = np.random.default_rng(0)
    with EventWriter(path, (300, 300, 1)) as writer:
        for k in range(events):
            flat = np.sort(rng.choice(90_000, 1000, replace=False))
            image = SparseImage(
                np.stack([flat // 300, flat % 300], 1), rng.normal(size=(1000, 1)), (300, 300, 1)
            )
            labels = np.ones(1000, np.uint8) if k >= labelled_from else None
            writer.append(Event(image, 1, (1, 2, k), pixel_labels=labels))


def test_an_event_file_is_whole_or_absent(tmp_path):
    write(tmp_path / "whole.h5")
    size = (tmp_path / "whole.h5").stat().st_size
    places = [0, 100, 2000, *range(5000, size, size // 20), size - 4097, size - 1, size, size + 1]
    told = []
    for place in places:
        path = tmp_path / "out" / "a.h5"
        path.parent.mkdir()
        told.append(limited(place, lambda: write(path)))  # noqa: B023  called at once
        left = os.listdir(path.parent)
        if told[-1] == "done":
            with open_events(path) as reader:
                assert len(list(reader)) == 60 and left == ["a.h5"]
        else:
            assert str(path) in told[-1] and "too large" in told[-1] and not left
        shutil.rmtree(path.parent)
    assert told[-2:] == ["done"] * 2 and told[:-2] == [t for t in told[:-2] if t != "done"]


def test_what_was_there_stays(tmp_path):
    write(tmp_path / "a.h5", 3)
    before = (tmp_path / "a.h5").read_bytes()
    assert "too large" in limited(9000, lambda: write(tmp_path / "a.h5"))
    for data in ("x" * 10_000, b"x" * 10_000):  # text waits in a buffer, and fails on closing
        assert str(tmp_path / "a.h5") in limited(
            9000,
            lambda: atomic_write(tmp_path / "a.h5", data),  # noqa: B023
        )
    assert (tmp_path / "a.h5").read_bytes() == before and os.listdir(tmp_path) == ["a.h5"]


def test_a_link_in_the_place_of_the_hidden_file_is_not_followed(tmp_path, monkeypatch):
    import secrets

    monkeypatch.setattr(secrets, "token_hex", lambda _: "known")
    (tmp_path / "precious").write_text("old")
    hidden = tmp_path / f".a.txt.{os.getpid()}-known.partial"
    hidden.symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "a.txt", "new")
    assert (tmp_path / "precious").read_text() == "old"


@pytest.mark.parametrize("command", ["convert", "simulate"])
def test_the_commands_end_with_an_error(tmp_path, command):
    """On a real disk that is full, of 64 kB."""
    if os.getuid() or not shutil.which("unshare"):
        pytest.skip("only root can make a small disk")
    source = tmp_path / "source.h5"
    write(source)
    (tmp_path / "disk").mkdir()
    out = tmp_path / "disk" / "a.h5"
    asked = [source] if command == "convert" else ["--events", "40", "--size", "720"]
    script = (
        f'mount -t tmpfs -o size=64k tmpfs "{out.parent}" && echo mounted\n'
        f'"$@"; echo "status $?"; ls -A "{out.parent}"; ls -A "{out.parent}"/*.parts 2>/dev/null'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "minicnn", command]
        + [str(part) for part in (*asked, "--out", out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    if "mounted" not in done.stdout:
        pytest.skip("this container cannot mount a disk")
    assert done.stdout.splitlines()[-1] == "status 2", done.stdout + done.stderr
    assert f"{out}: No space left on device" in done.stderr

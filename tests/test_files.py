"""minicnn/files.py: a file is the old one or the new one, whatever happens while it is written."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from minicnn.files import (
    atomic_file,
    atomic_write,
    describe_machine,
    read_json,
    remove_partial_files,
    write_json,
)


def test_text_and_bytes(tmp_path):
    path = tmp_path / "a.txt"
    for data in ("größer\r\n\n", b"\x00\xff"):
        atomic_write(path, data)
        assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("problem", (RuntimeError, KeyboardInterrupt))
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, problem):
    path = tmp_path / "a.csv"
    atomic_write(path, "old\n")
    with pytest.raises(problem), atomic_file(path) as file:
        file.write("half")
        raise problem
    assert path.read_text() == "old\n" and os.listdir(tmp_path) == ["a.csv"]
    with pytest.raises(problem), atomic_file(tmp_path / "new") as file:
        raise problem
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_kill_in_the_middle_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "history.csv"
    atomic_write(path, "old\n")
    code = (
        "import os, signal, sys\n"
        "from minicnn.files import atomic_file\n"
        "with atomic_file(sys.argv[1]) as file:\n"
        "    file.write('half of the new contents' * 10000)\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path])
    assert done.returncode == -signal.SIGKILL and path.read_text() == "old\n"
    assert len(os.listdir(tmp_path)) == 2
    remove_partial_files(tmp_path)
    assert os.listdir(tmp_path) == ["history.csv"]


def test_links_devices_folders(tmp_path, capfd):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    atomic_write("/dev/null", "nothing")
    assert not os.path.isfile("/dev/null")
    with pytest.raises(IsADirectoryError, match="a folder is in the place"):
        atomic_write(tmp_path, "text")
    with pytest.raises(FileNotFoundError) as missing:
        atomic_write(tmp_path / "no/such", "text")
    assert missing.value.filename == str(tmp_path / "no/such")
    with pytest.raises(ValueError, match="mode must be"), atomic_file(tmp_path / "a", "a"):
        pass


def test_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": np.float32(0.5), "b": [1, None]})
    assert read_json(path) == {"a": 0.5, "b": [1, None]} and path.read_text().endswith("}\n")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: not a JSON file"):
        read_json(path)


def test_the_machine_is_described():
    machine = describe_machine()
    assert machine["cpu"] and machine["cores"] >= 1 and machine["date"][:2] == "20"
    assert machine["commit"] is None or len(machine["commit"]) >= 7
    assert {"minicnn", "python", "numpy", "numba"} <= machine["versions"].keys()

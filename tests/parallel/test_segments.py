"""What killed jobs leave in /dev/shm is removed when the next one starts, and nothing else."""

import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import mpi
from minicnn.parallel import segments

JOB = """
import sys, time
from minicnn.parallel import world
with world() as comm:
    comm.Barrier()
    open(sys.argv[1] + str(comm.rank), "w").close()
    time.sleep(100)
"""

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm here")


def old(path, size=4096):
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - 1000,) * 2)
    return path


def test_only_what_is_old_and_nobody_has_mapped_is_stale(tmp_path):
    stale, used, opened, other = (
        old(tmp_path / name)
        for name in ("mpich_shm_1_0", "mpich_shm_2_0", "vader_segment.3", "somebody_else")
    )
    (tmp_path / "mpich_shm_4_0").write_bytes(b"new: its job is starting")
    with open(used, "r+b") as file, open(opened, "rb"):
        memory = mmap.mmap(file.fileno(), 0)
        os.utime(used, (time.time() - 1000,) * 2)
        assert segments.stale_segments(tmp_path) == [stale]
        memory.close()
    assert other.exists()
    if not os.getuid():
        os.chown(stale, 54321, -1)
        assert stale not in segments.stale_segments(tmp_path)


def test_a_killed_job_leaves_nothing_for_long(tmp_path, monkeypatch):
    """The segment of a job of two ranks that is killed is found, and gone with the next start."""
    before = set(segments.FOLDER.glob("mpich_shm_*"))
    (tmp_path / "job.py").write_text(JOB)
    job = mpi(2, tmp_path / "job.py", tmp_path / "rank", wait=False)
    deadline = time.time() + 60
    while len(list(tmp_path.glob("rank*"))) < 2 and time.time() < deadline:
        time.sleep(0.05)
    left = set(segments.FOLDER.glob("mpich_shm_*")) - before
    mine = [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if str(tmp_path / "job.py").encode() in (process / "cmdline").read_bytes()
    ]
    if not left:
        job.kill()
        pytest.skip("this MPI has no segment in /dev/shm")
    monkeypatch.setattr(segments, "AGE", -1.0)
    assert not left & set(segments.stale_segments())  # its ranks live
    for pid in (*mine, job.pid):
        os.kill(pid, signal.SIGKILL)
    job.wait()
    time.sleep(0.3)
    (path,) = left
    if path.exists():  # the launcher did not clean up behind itself
        assert path in segments.stale_segments()
        os.utime(path, (time.time() - 1000,) * 2)
        code = "from minicnn.parallel import world\nwith world(): pass"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert not path.exists()

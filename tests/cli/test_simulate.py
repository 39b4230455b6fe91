"""``simulate``: the same file by one process and by several, and after a kill."""

import subprocess
import sys

import pytest

import minicnn as mc
from helpers import mpi
from helpers.cli import run
from minicnn.data import EventError, generate, open_events
from minicnn.data.generate import JOINING, _is_part
from minicnn.simulate import SAMPLES

pytest.importorskip("h5py")


def test_simulate_resumes(tmp_path, capsys):
    simulator = mc.data.Simulator(5, (72, 72, 1))
    assert generate(tmp_path / "whole.h5", 50, simulator) == 0

    class Killed(Exception):
        pass

    def stop(done, total, step):
        if done > 30:
            raise Killed

    with pytest.raises(Killed):
        generate(tmp_path / "a.h5", 50, simulator, part=16, progress=stop)
    parts = tmp_path / "a.h5.parts"
    assert (
        sorted(file.name for file in parts.iterdir()) == ["events-000000000.h5"]
        and not (tmp_path / "a.h5").exists()
    )
    with pytest.raises(
        EventError, match=r"holds events of another simulation.*delete the folder .*a\.h5\.parts"
    ):
        generate(tmp_path / "a.h5", 50, mc.data.Simulator(6, (72, 72, 1)), part=16)
    part = parts / "events-000000000.h5"
    sound = part.read_bytes()
    for damaged in (
        b"",
        sound[:-9],
        sound[: len(sound) // 2] + b"x" + sound[len(sound) // 2 + 1 :],
    ):
        part.write_bytes(damaged)
        assert not _is_part(part, range(16), simulator)
    part.write_bytes(sound)
    (parts / ".events-000000016.h5.1.partial").write_bytes(b"left by a kill")
    done = []
    assert (
        generate(
            tmp_path / "a.h5",
            50,
            simulator,
            part=16,
            progress=lambda *at: done.append(at),
        )
        == 16
    )
    assert done[0] == (32, 50, "") and (50, 50, "") in done and not parts.exists()
    assert done[-4:] == [(n, 50, JOINING) for n in (16, 32, 48, 50)]
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    status, out, err = run(
        capsys, "simulate", "--events", 50, "--seed", 5, "--size", 72, "--out", tmp_path / "b.h5"
    )
    assert status == 0 and out.startswith("simulated 50 events in ") and "gamma" in out and not err
    assert (tmp_path / "b.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    with open_events(tmp_path / "b.h5") as plain:
        assert plain.metadata["sample"] == SAMPLES["talk"].record()
    settings = ("--set", "threshold=40", "--set", "noise=0")
    assert (
        run(capsys, "simulate", "--events", 3, "--size", 72, *settings, "--out", tmp_path / "c.h5")[
            0
        ]
        == 0
    )
    with open_events(tmp_path / "c.h5") as changed:
        assert (
            changed.metadata["readout"] == {"threshold": 40, "noise": 0}
            and changed.axes == mc.data.Simulator(0, (72, 72, 1)).axes
        )
        assert all(event.image.values.min() > 40 for event in changed)


def test_simulate_another_sample(tmp_path, capsys):
    """Options of the sample come out in the file, and inspect and convert tell of them."""
    made, out = tmp_path / "a.h5", ("--size", 72, "--out")
    changes = ("--momentum", 400, 500, "--position", 128, 0, -1, "--direction", "any")
    status, text, _ = run(capsys, "simulate", "--events", 3, *changes, *out, made)
    assert status == 2  # no such place
    changes = (*changes[:-3], 500, "--direction", "any", "--shares", "K-=1", "pi-=2")
    options = ("--sample", "talk-6gev", *changes)
    status, text, err = run(capsys, "simulate", "--events", 6, *options, *out, made)
    told = (
        "sample talk-6gev with classes pi+-(pi-=2) K-(K-=1), momentum 400 500, position 128 0 500"
    )
    assert status == 0 and f"{told}, direction any: pi+- " in text, text + err
    with open_events(made) as events:
        assert events.class_names == ("pi+-", "K-")
        for event in events:
            assert 400 <= event.momentum <= 500
            assert event.particles["pdg"][0] == (-211, -321)[event.label]
            assert event.particles["start"][0].tolist() == [128, 0, 500]
    assert told in run(capsys, "inspect", made)[1]
    assert run(capsys, "convert", made, "--out", tmp_path / "b.h5")[0] == 0
    with open_events(made) as events, open_events(tmp_path / "b.h5") as converted:
        assert converted.metadata["sample"] == events.metadata["sample"]
    two = [tmp_path / f"{name}.h5" for name in ("talk", "talk-6gev")]
    for path in two:
        options = ("--events", 1, "--sample", path.stem, *out, path)
        assert run(capsys, "simulate", *options)[0] == 0
    assert run(capsys, "convert", *two, "--out", tmp_path / "both.h5")[0] == 0
    with open_events(tmp_path / "both.h5") as both:
        assert len(both) == 2 and "sample" not in both.metadata
    assert "talk-6gev" in (tmp_path / "both.h5.report.txt").read_text()
    wrong = ("--shares", "tau=1"), ("--shares", "K-=x"), ("--position", 1, 2), ("--spread", 95)
    for options in wrong:
        status, _, err = run(capsys, "simulate", "--events", 1, *options, *out, tmp_path / "e.h5")
        assert status == 2 and "Traceback" not in err and err.count("\n") < 4, (options, err)


@pytest.mark.mpi
def test_simulate_on_two_ranks(tmp_path):
    options = (
        "-m",
        "minicnn",
        "simulate",
        "--events",
        "21",
        "--size",
        "36",
        "--planes",
        "3",
        "--out",
    )
    one = subprocess.run(
        [sys.executable, *options, tmp_path / "one.h5"], capture_output=True, text=True
    )
    assert one.returncode == 0, one.stderr
    arguments = (*options, tmp_path / "two.h5")
    two = mpi(2, *arguments)
    assert two.returncode == 0 and two.stdout.count("simulated 21 events") == 1, two.stderr
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    again = mpi(2, *arguments)
    assert (
        again.returncode != 0
        and again.stderr.count("exists already") == 1
        and "Traceback" not in again.stderr
    )
    other = mpi(2, "-m", "minicnn", "inspect", tmp_path / "two.h5")
    assert other.returncode != 0 and "runs in one process" in other.stderr

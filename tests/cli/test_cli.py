"""The command line, as a user runs it: what it prints, what it leaves, its exit status."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import minicnn as mc
from helpers import mpi, small_model
from minicnn.__main__ import COMMANDS, main
from minicnn.data import Event, EventError, EventWriter, SparseImage, generate, open_events

pytest.importorskip("h5py")


def make_events(path, n=6, shape=(40, 40, 1), labels=(0, 1, 2, 3, 4, -1), **options):
    particles = np.zeros(1, mc.data.PARTICLE)
    particles["parent"] = -1
    with EventWriter(path, shape, **options) as writer:
        for k in range(n):
            particles["pdg"] = (22, 11, 13, 211, 321, 2212)[k % 6]
            coords = np.stack([np.arange(k + 1), np.arange(k + 1)], 1)
            values = np.full((k + 1, shape[2]), 10.0 * (k + 1))
            writer.append(
                Event(
                    SparseImage(coords, values, shape),
                    labels[k % len(labels)],
                    (1, 2, k),
                    particles.copy(),
                )
            )
    return path


def run(capsys, *argv):
    """(exit status, printed, printed to stderr) of a command."""
    status = main([str(a) for a in argv])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_help_lists_all_commands_and_loads_little():
    code = (
        "import sys, runpy; sys.argv = ['minicnn', '--help']\ntry: runpy.run_module('minicnn', "
        "run_name='__main__')\n"
        "except SystemExit: print([m for m in ('numba', 'h5py', 'matplotlib', 'rich', 'mpi4py') if "
        "m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        all(name in done.stdout for name in COMMANDS)
        and done.stdout.endswith("[]\n")
        and not done.stderr
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0 and f"minicnn {command}" in capsys.readouterr().out


def test_errors_are_one_line_and_status_2(tmp_path, capsys):
    events = make_events(tmp_path / "a.h5")
    (tmp_path / "foreign.bin").write_bytes(b"\1\2\3")
    (tmp_path / "short.h5").write_bytes(events.read_bytes()[:3000])
    (tmp_path / "m.safetensors").write_bytes(b"{")
    (tmp_path / "run.json").write_text("[]")
    for argv, message in (
        (["inspect", tmp_path / "no.h5"], "no.h5: no such file"),
        (
            ["inspect", tmp_path / "foreign.bin"],
            "foreign.bin: the format of this file is not known",
        ),
        (["inspect", tmp_path / "short.h5"], "short.h5: .*truncated"),
        (["inspect", tmp_path / "m.safetensors"], "not a readable checkpoint"),
        (["inspect", tmp_path / "run.json"], "not the record of a run"),
        (["inspect", events, "--size", 7], "cannot be shrunk to size 7"),
        (["inspect", events, "--option", "plane"], "NAME=VALUE"),
        (["display", events, "--event", 6], "has events 0 to 5, asked for 6"),
        (["display", events, "--plane", 1], "has no option plane; it has size"),
        (
            ["display", events, "--channel", 3, "--out", tmp_path / "a.png"],
            "channels 0 to 0, asked for 3",
        ),
        (["display", events, "--out", tmp_path / "a.xyz"], "xyz"),
        (["convert", events, "--out", events], "exists already"),
        (["convert", events, "--out", tmp_path / "none" / "b.h5"], "there is no folder"),
        (
            ["convert", events, "--out", tmp_path / "b.h5", "--select", "lit>many"],
            "--select lit>many: expected",
        ),
        (
            ["convert", events, "--out", tmp_path / "b.h5", "--select", "class=x"],
            "no class x, only gamma",
        ),
        (
            ["convert", events, "--out", tmp_path / "b.h5", "--label-map", "muon"],
            "'muon' is not PDG=CLASS",
        ),
        (["convert", events, "--out", tmp_path / "b.h5", "--label-map", "13=a,13=b"], "13 twice"),
        (["simulate", "--events", 0, "--out", tmp_path / "b.h5"], "must be positive"),
        (["simulate", "--events", 1, "--out", events], "exists already"),
        (
            ["simulate", "--events", 1, "--out", tmp_path / "b.h5", "--set", "gain=2"],
            "no setting gain; the readout has",
        ),
        (
            ["simulate", "--events", 1, "--out", tmp_path / "b.h5", "--set", "noise"],
            "--set noise: give it as NAME=NUM",
        ),
        (["simulate", "--events", 1, "--out", tmp_path / "b.h5", "--size", 99999], "shape is"),
    ):
        status, out, err = run(capsys, *argv)
        assert status == 2 and not out and err.startswith("error: ") and err.count("\n") == 1, (
            argv,
            err,
        )
        assert re.search(message, err), (argv, err)
    assert not (tmp_path / "b.h5").exists() and not list(tmp_path.glob(".*partial"))
    with pytest.raises(SystemExit) as end:
        main(["simulate", "--planes", "2", "--events", "1", "--out", "x"])
    assert end.value.code == 2
    with pytest.raises(EventError):
        main(["--debug", "inspect", str(tmp_path / "no.h5")])


def test_inspect_events(tmp_path, capsys):
    status, out, err = run(
        capsys, "inspect", make_events(tmp_path / "a.h5", 12, metadata={"creator": "a test"})
    )
    assert status == 0 and not err
    for text in (
        "minicnn events (HDF5)",
        "40 x 40, 1 plane",
        "10 to 120",
        "all events were read",
        "a test",
    ):
        assert text in out
    rows = {
        line.split()[0]: line.split()[1:]
        for line in out.split("lit fraction")[1].splitlines()
        if line.strip()
    }
    assert rows["gamma"][0] == "2" and rows["unknown"][0] == "2" and rows["all"][0] == "12"
    assert rows["gamma"][1::2] == ["0.0625", "0.25", "0.438"]  # 1 and 7 of 1600 pixels, in percent
    data = bytearray((tmp_path / "a.h5").read_bytes())
    import h5py

    with h5py.File(tmp_path / "a.h5") as file:
        chunk = file["pixels/values"].id.get_chunk_info(0)
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    (tmp_path / "a.h5").write_bytes(bytes(data))
    status, out, err = run(capsys, "inspect", tmp_path / "a.h5")
    assert status == 1 and "12 of 12 events cannot be read" in out and "and 2 more" in out
    assert "damaged: " in out and "event 0: " in out


def test_inspect_is_a_table_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    status, out, _ = run(capsys, "inspect", make_events(tmp_path / "[a] very long name.h5"))
    assert status == 0 and "┃" in out and "│ K+" in out and "[a] very long name.h5" in out


def test_inspect_model(tmp_path, capsys):
    model = small_model(optimizer=mc.SGD(0.01, momentum=0.9))
    model.train_on_batch(np.ones((2, 22, 19, 1), np.float32), np.array([0, 1]))
    model.save(tmp_path / "m.safetensors")
    shutil.copy(tmp_path / "m.safetensors", tmp_path / "m")
    for name in ("m.safetensors", "m"):
        status, out, _ = run(capsys, "inspect", tmp_path / name)
        assert (
            status == 0
            and "digest ok" in out
            and "conv2d_1 (Conv2D)" in out
            and f"{model.parameters.size:,}" in out
        )
        assert "22 x 19 x 1" in out and "training can go on" in out
    data = bytearray((tmp_path / "m").read_bytes())
    data[-5] ^= 1
    (tmp_path / "m").write_bytes(bytes(data))
    status, out, err = run(capsys, "inspect", tmp_path / "m")
    assert status == 2 and "m: its digest differs" in err


def test_inspect_run(tmp_path, capsys):
    epochs = [
        {"epoch": 1, "loss": 1.5, "accuracy": 0.25, "val_loss": 1.25, "seconds: update": 0.5},
        {"epoch": 2, "loss": 0.75, "accuracy": 0.5, "seconds: update": 0.125, "hidden: read": 7.5},
    ]
    (tmp_path / "history.csv").write_text("epoch,loss\n1,1.5\n")
    status, out, _ = run(capsys, "inspect", tmp_path)
    assert status == 0 and "not complete" in out and "1.5" in out
    record = {
        "arguments": {"epochs": 2, "events": None},
        "ranks": 2,
        "threads": 1,
        "seconds": 3.25,
        "versions": {"numpy": "2"},
        "epochs": epochs,
        "loss": 0.8,
        "accuracy": 0.875,
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    for path in (tmp_path, tmp_path / "run.json"):
        status, out, _ = run(capsys, "inspect", path)
        assert (
            status == 0
            and "2 x 1" in out
            and "0.875" in out
            and "val loss" in out
            and "1.25" in out
        )
        assert re.search(r"seconds\n +epoch +1 +2\n +update +0.5 +0.125\n", out) and re.search(
            r"seconds, hidden\n.*\n +read +- +7.5", out
        )


def test_display(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_events(tmp_path / "a.h5", shape=(40, 40, 3))
    status, out, _ = run(capsys, "display", "a.h5", "--event", 2, "--channel", 1)
    assert status == 0 and "3 lit pixels, class mu+-; picture in a-event2.png" in out
    assert (tmp_path / "a-event2.png").read_bytes()[:4] == b"\x89PNG"
    status, out, _ = run(
        capsys, "display", "a.h5", "--event", 5, "--out", "b.pdf", "--size", 20, "--no-zoom"
    )
    assert (
        status == 0 and "class unknown" in out and (tmp_path / "b.pdf").read_bytes()[:4] == b"%PDF"
    )


def test_convert_and_its_options(tmp_path, capsys):
    source = make_events(tmp_path / "a.h5", 12)
    status, out, err = run(capsys, "convert", source, "--out", tmp_path / "b.h5")
    assert (
        status == 0
        and not err
        and "wrote 12 events of 40 x 40 x 1" in out
        and "0 rejected, 0 not selected" in out
    )
    with open_events(source) as before, open_events(tmp_path / "b.h5") as after:
        assert after.labels.tolist() == before.labels.tolist() and after.metadata["sources"] == [
            "a.h5"
        ]
        for a, b in zip(before, after, strict=True):
            assert (
                a.id == b.id
                and a.image.values.tobytes() == b.image.values.tobytes()
                and a.particles == b.particles
            )
    status, out, _ = run(
        capsys,
        "convert",
        source,
        "--out",
        tmp_path / "b.h5",
        "--overwrite",
        "--label-map",
        "13=mu,2212=p,-13=mu",
        "--select",
        "labelled",
        "--select",
        "lit>=4",
        "--size",
        "20",
        "--threshold",
        "45",
    )
    assert status == 0 and "classes: mu 1, p 1" in out and "0 rejected, 10 not selected" in out
    with open_events(tmp_path / "b.h5") as after:
        assert (
            after.class_names == ("mu", "p")
            and [e.id[2] for e in after] == [8, 11]
            and after.image_shape == (20, 20, 1)
        )
    for select, numbers in (
        ("class=gamma,K+", [0, 4, 6, 10]),
        ("events=3:5", [3, 4]),
        ("events=10:", [10, 11]),
        ("lit<=2", [0, 1]),
    ):
        assert (
            run(
                capsys,
                "convert",
                source,
                "--out",
                tmp_path / "b.h5",
                "--overwrite",
                "--select",
                select,
            )[0]
            == 0
        )
        with open_events(tmp_path / "b.h5") as after:
            assert [event.id[2] for event in after] == numbers
    status, out, err = run(
        capsys, "convert", source, "--out", tmp_path / "c.h5", "--select", "lit>=99"
    )
    assert (
        status == 2
        and err == "error: no event was written (0 rejected, 12 not selected)\n"
        and not (tmp_path / "c.h5").exists()
    )


def test_convert_by_several_processes(tmp_path, capsys):
    """The same bytes, notes and rejects as by one."""
    folder = tmp_path / "images"
    for name in ("muon", "kaon"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            np.save(
                folder / name / f"{i:02}.npy",
                np.full((12, 12), np.nan if i == 13 else i % 7, np.float32),
            )
    reports = []
    for k, processes in enumerate((1, 2)):
        out = tmp_path / f"{k}.h5"
        status, text, err = run(
            capsys,
            "convert",
            folder,
            "--out",
            out,
            "--processes",
            processes,
            "--threshold",
            "2",
            "--select",
            "events=3:38",
            "--select",
            "lit>=1",
        )
        assert status == 0 and "2 rejected" in text and "mu+- " in text
        reports.append((out.read_bytes(), err.replace(str(out), ""), text.replace(str(out), "")))
    assert reports[0] == reports[1]
    assert run(capsys, "convert", folder, "--out", tmp_path / "c.h5", "--processes", 0)[0] == 2


def test_convert_reports_every_reject(tmp_path, capsys):
    folder = tmp_path / "images"
    for k, name in enumerate(("muon", "electron", "kaon")):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            image = np.zeros((12, 12), np.float32)
            image[k, i] = np.nan if (k, i) == (1, 3) else 5
            np.save(folder / name / f"{i}.npy", image)
    (folder / "kaon" / "7.npy").write_bytes(b"rubbish")
    (tmp_path / "foreign.txt").write_text("hello")
    arguments = ["convert", folder, tmp_path / "foreign.txt", "--out", tmp_path / "b.h5"]
    status, out, err = run(capsys, *arguments)
    assert (
        status == 0
        and "wrote 22 events" in out
        and "3 rejected" in out
        and "e+- 7, mu+- 8, pi+- 0, K+ 7" in out
    )
    report = (tmp_path / "b.h5.report.txt").read_text()
    assert err.startswith(report) and report.count("rejected: ") == 3
    for text in (
        "electron/3.npy, event 3 of",
        "kaon/7.npy, event 15 of",
        "foreign.txt: the format",
    ):
        assert text in report
    status, out, err = run(capsys, *arguments, "--strict", "--overwrite")
    assert (
        status == 2 and "nothing was written" in err and len(open_events(tmp_path / "b.h5")) == 22
    )  # the old file stays
    status, out, err = run(capsys, "convert", tmp_path / "foreign.txt", "--out", tmp_path / "c.h5")
    assert status == 2 and "foreign.txt: the format" in err and not list(tmp_path.glob("c.h5*"))
    make_events(tmp_path / "a.h5")
    status, out, err = run(capsys, "convert", tmp_path / "a.h5", folder, "--out", tmp_path / "d.h5")
    assert (
        status == 0 and "has images of 12 x 12 x 1, the first input 40 x 40 x 1; give --size" in err
    )


def test_simulate_resumes(tmp_path, capsys):
    simulator = mc.data.Simulator(5, (72, 72, 1))
    assert generate(tmp_path / "whole.h5", 50, simulator) == 0

    class Killed(Exception):
        pass

    def stop(done, total):
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
    (parts / ".events-000000016.h5.1.partial").write_bytes(b"left by a kill")
    done = []
    assert (
        generate(
            tmp_path / "a.h5",
            50,
            simulator,
            part=16,
            progress=lambda n, total: done.append((n, total)),
        )
        == 16
    )
    assert done[0] == (32, 50) and done[-1] == (50, 50) and not parts.exists()
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    status, out, err = run(
        capsys, "simulate", "--events", 50, "--seed", 5, "--size", 72, "--out", tmp_path / "b.h5"
    )
    assert status == 0 and out.startswith("simulated 50 events in ") and "gamma" in out and not err
    assert (tmp_path / "b.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
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


def test_a_reader_of_the_output_that_stops_early(tmp_path):
    path = make_events(tmp_path / "a.h5")
    done = subprocess.run(
        f'"{sys.executable}" -m minicnn inspect "{path}" | true',
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert "Traceback" not in done.stderr

"""The command line, as a user runs it: help, errors, exit status."""

import os
import re
import subprocess
import sys

import pytest

from helpers import ROOT
from helpers.cli import make_events, run
from minicnn.__main__ import COMMANDS, main
from minicnn.data import EventError

pytest.importorskip("h5py")


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


def test_import_beside_a_clone(tmp_path):
    """Its folder is called minicnn too, and Python looks into the present folder first."""
    (tmp_path / "minicnn").symlink_to(ROOT)
    code = "import minicnn; print(minicnn.Sequential.__name__)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout == "Sequential\n", done.stderr


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
        (["inspect", events, "--size", 0], "the size of images is a positive number"),
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

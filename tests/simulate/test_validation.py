"""The simulator against tables, theory, Geant4 and real data (the figures of ``python -m minicnn
validate``), and the page of it.
"""

import hashlib
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from helpers import SHARED
from minicnn.__main__ import main
from minicnn.inspect.report import write_page
from minicnn.simulate import Simulator
from minicnn.simulate.validation import (
    VALIDATIONS,
    Check,
    Figure,
    Series,
    Validation,
    references,
    validate,
)

DATA = SHARED


@pytest.fixture(scope="module")
def source():
    return Simulator(seed=7, sample="isotropic")


@pytest.mark.parametrize("name", VALIDATIONS)
def test_the_simulation_agrees(source, name):
    """Every number lies within its tolerance; tolerances and where the references are from stand
    with the numbers.
    """
    try:
        result = validate(name, source, DATA)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    assert result.checks and result.name == name
    for check in result.checks:
        assert check.holds, check
    assert all(np.isfinite(series.y).all() for series in result.figure.series)


@pytest.mark.parametrize(
    "name, change",
    [("noise", {"noise": 3.6}), ("noise", {"noise": 2.6}), ("wire_noise", {"noise": 0.0})],
)
def test_a_wrong_noise_is_seen(name, change):
    wrong = Simulator(seed=7, sample="isotropic")
    if change["noise"]:
        wrong = Simulator(seed=7, **change, sample="isotropic")
    else:
        wrong._noise = [
            wrong._noise[0],
            wrong._noise[1]._replace(sigma=np.full(3600, 3.1)),
        ]  # blind to the length
    try:
        assert not all(check.holds for check in validate(name, wrong, DATA).checks)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


def test_reference_files_are_known_by_their_digests(tmp_path, monkeypatch):
    assert set(references.REFERENCES) == {file for _, file in VALIDATIONS.values() if file}
    name, content = "geant4_muon_100MeV_in_argon.h5", b"a reference"
    with pytest.raises(FileNotFoundError, match=f"{name}, which is not in"):
        references.reference_file(name, tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: another file than the reference: .* 50a57f0d"):
        references.reference_file(name, tmp_path)
    monkeypatch.setitem(references.REFERENCES, name, hashlib.sha256(content).hexdigest())
    assert references.reference_file(name, tmp_path) == tmp_path / name


@pytest.fixture
def server(tmp_path):
    """The address of a server of the files in tmp_path / "served"."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_reference_files_from_a_server(tmp_path, monkeypatch, server):
    name, content = "geant4_muon_100MeV_in_argon.h5", b"a reference"
    monkeypatch.setattr(references, "cache_folder", lambda part: tmp_path / part)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ValueError, match=r'pip install "minicnn\[reference\]"'):
        references.reference_file(name, server)
    monkeypatch.undo()
    pytest.importorskip("pooch", reason="the extra reference is not installed")
    monkeypatch.setattr(references, "cache_folder", lambda part: tmp_path / part)
    with pytest.raises(ValueError, match=f"{name} cannot be fetched: .*404"):
        references.reference_file(name, server)
    (tmp_path / "served" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be fetched: .*(?s:.*)50a57f0d"):
        references.reference_file(name, server)
    assert not list(tmp_path.glob("reference/*.h5"))
    monkeypatch.setitem(references.REFERENCES, name, hashlib.sha256(content).hexdigest())
    path = references.reference_file(name, server)
    assert path.read_bytes() == content
    (tmp_path / "served" / name).unlink()
    assert references.reference_file(name, server) == path  # kept


def test_page(tmp_path):
    figure = Figure(
        "x",
        "y",
        [
            Series("table", [1, 2], [3, 4], "points"),
            Series("s", [0, 1, 2], [5, 6], "steps"),
            Series("l", [1, 2], [1, 2]),
            Series("b", [0, 1], [1, 1], "bars"),
        ],
        ticks=("one", "two"),
    )
    checks = [
        Check("right", 1.0, 1.1, 0.2, "cm", "a book"),
        Check("wrong", 1.0, 1.3, 0.2, "cm", "a book"),
    ]
    page = write_page(
        tmp_path / "simulation.md",
        [Validation("some", "Some title", "Text.", figure, checks)],
        ["x needs y"],
    )
    text = page.read_text()
    assert "**1 of 2 checks hold.**" in text and "Not compared: x needs y." in text
    assert "| right | 1 cm | 1.1 | ± 0.2 | ok | a book |" in text and "**differs**" in text
    assert (
        "](simulation/some.png)" in text
        and (tmp_path / "simulation/some.png").stat().st_size > 5000
    )


def test_command(tmp_path, capsys, monkeypatch):
    arguments = ["validate", "--only", "michel_spectrum", "noise", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert (
        "not compared: noise is compared with microboone_run3493_raw_waveforms.npz, which is not "
        "given" in text
    )
    assert (
        "5 of 5 checks hold" in text and (tmp_path / "out/simulation/michel_spectrum.png").exists()
    )
    monkeypatch.setitem(
        VALIDATIONS,
        "michel_spectrum",
        (
            lambda simulator: Validation(
                "michel_spectrum",
                "t",
                "t",
                Figure("x", "y", [Series("l", [1], [1])]),
                [Check("w", 1, 2, 0.5, "", "")],
            ),
            None,
        ),
    )
    assert main(arguments) == 1
    for wrong, words in (
        (["--only", "x"], "no comparison x"),
        (["--data", str(tmp_path / "no")], "no such folder"),
    ):
        assert main(["validate", *wrong, "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err

"""``inspect`` and ``display``: what they say of events, models and runs."""

import json
import re
import shutil
import sys

import numpy as np
import pytest

import minicnn as mc
from helpers import small_model
from helpers.cli import make_events, run

pytest.importorskip("h5py")


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

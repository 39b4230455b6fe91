"""What the main job says to bad input: one clear error, and no mark of a complete run."""

import csv
import json

import numpy as np
import pytest

from helpers.main_job import SIZE, job
from minicnn.data import Event, EventWriter, SparseImage

pytestmark = pytest.mark.mpi


def events_file(path, events=6, spoil=None):
    rng = np.random.default_rng(0)
    with EventWriter(path, (SIZE, SIZE, 1)) as writer:
        for i in range(events):
            coords = np.unique(rng.integers(0, SIZE, (30, 2)), axis=0)
            writer.append(
                Event(
                    SparseImage(coords, rng.random((len(coords), 1)), (SIZE, SIZE, 1)),
                    -1 if i == spoil else i % 5,
                )
            )
    return path


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        (lambda p: p / "missing.h5", [], "missing.h5: no such file"),
        (
            lambda p: events_file(p / "e.h5", spoil=4),
            ["--train", "4", "--validation", "2"],
            "event 4 has the label -1",
        ),
        (
            lambda p: events_file(p / "e.h5"),
            ["--train", "5", "--validation", "2"],
            "5 training and 2 validation events cannot be taken from 6",
        ),
        (
            lambda p: events_file(p / "e.h5"),
            ["--train", "1", "--validation", "2"],
            "every rank needs at least one",
        ),
        (
            lambda p: events_file(p / "e.h5"),
            ["--train", "4", "--validation", "2", "--batch-size", "3"],
            "batch size 3 is larger than the 2",
        ),
        (
            lambda p: events_file(p / "e.h5"),
            ["--train", "4", "--validation", "2", "--learning-rate", "1e30", "--batch-size", "1"],
            "not finite",
        ),
        (
            lambda p: events_file(p / "e.h5"),
            ["--train", "4", "--validation", "2", "--codec", "gzip"],
            "codec must be one of",
        ),
        (lambda p: events_file(p / "e.h5"), ["--size", "0"], "size"),
        (
            lambda p: events_file(p / "e.h5"),
            ["--train", "4", "--validation", "2", "--device", "cuda"],
            'device "cuda"',
        ),
        (
            lambda p: (
                (p / "e.h5").write_bytes(events_file(p / "f.h5").read_bytes()[:3000]) and p / "e.h5"
            ),
            [],
            "truncated or damaged",
        ),
    ],
    ids=(
        "missing",
        "no label",
        "too few",
        "fewer than ranks",
        "batch",
        "not finite",
        "codec",
        "size",
        "cuda",
        "truncated",
    ),
)
def test_bad_input_is_one_clear_error_and_no_marker(tmp_path, make, arguments, message, no_gpu):
    done = job("--events", make(tmp_path), "--out", tmp_path / "out", *arguments, timeout=300)
    assert done.returncode != 0 and message in done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "out" / "run.json").exists()


def test_bad_events_stop_the_job_or_are_left_out_by_all_ranks(tmp_path):
    import h5py

    events, out = events_file(tmp_path / "e.h5", events=12, spoil=7), tmp_path / "out"
    with h5py.File(events, "a") as file:
        file["pixels/values"][int(file["events/offset"][3]) + 2] = np.nan
    options = ("--train", 8, "--validation", 4, "--epochs", 1, "--batch-size", 1, "--out", out)
    done = job("--events", events, *options, timeout=300)
    assert done.returncode != 0 and "rank" in done.stderr, done.stdout
    assert "e.h5, event 3: pixel 2" in done.stderr or "event 7 has the label -1" in done.stderr
    assert "--bad-events skip leaves such events out" in done.stderr

    done = job("--events", events, *options, "--bad-events", "skip", timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left out 2 bad events: ") == 2  # when it is known, and at the end
    record = json.loads((out / "run.json").read_text())["bad_events"]
    rows = list(csv.DictReader((out / "bad-events.csv").read_text().splitlines()))
    assert sorted(int(row["event"]) for row in rows) == [3, 7]
    assert [row["reason"] for row in rows] == [one["reason"] for one in record["left_out"]]
    reasons = " ".join(row["reason"] for row in rows)
    assert "nan" in reasons and "event 7 has the label -1" in reasons

    scored = ("--predict", events, "--out", out, "--threads", 1)
    done = job(*scored, timeout=300)
    assert done.returncode != 0 and "--bad-events skip" in done.stderr, done.stdout
    done = job(*scored, "--bad-events", "skip", timeout=300)
    assert done.returncode == 0 and "left out 1 bad event: 3; reasons in" in done.stdout
    predicted = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [int(row["event"]) for row in predicted] == [0, 1, 2, *range(4, 12)]


def test_help_is_printed_once():
    done = job("--help")
    assert done.returncode == 0 and done.stdout.count("usage:") == 1
    done = job("--no-such-option")
    assert done.returncode == 2 and done.stderr.count("usage:") == 1
    done = job("--epochs", "0")
    assert (
        done.returncode == 2
        and done.stderr.count("argument --epochs: must be a whole number above 0, got '0'") == 1
    )

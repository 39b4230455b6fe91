"""examples/microboone.py as a user runs it, on 2 ranks, at a small size; and what it says to bad
input.
"""

import csv
import json
import re

import pytest

from helpers import ROOT, SHARED, mpi
from helpers.ledger import check_timeline, table_adds_up
from helpers.main_job import SIZE, SMALL, job
from minicnn import LARS, Adam, load_model
from minicnn.data import CLASSES

pytestmark = pytest.mark.mpi
KILLED_JOB = ROOT / "tests" / "helpers" / "killed_job.py"
REAL = SHARED / "microboone_open_samples_r7004_s331_e16552_plane2_ds6.npz"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = job(
        *SMALL,
        "--epochs",
        2,
        "--out",
        folder / "out",
        "--cache",
        folder / "cache",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_outputs(run):
    folder, text = run
    out = folder / "out"
    for words in (
        "block1_conv1 (Conv2D)",
        "Total params:",
        "fused, lit",
        "2 ranks x 1 thread",
        "loaded 30 training events",
        "times smaller",
        "epoch 2/2  loss",
        "validation loss",
        "Truth",
        "highest score",
        "sample isotropic; peak memory of a rank",
    ):
        assert words in text, words
    with open(out / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"] and float(rows[1]["loss"]) < float(
        rows[0]["loss"]
    ) * 1.2
    pictures = ("loss", "confusion", "events", "roc", "cuts", "calibration", "accuracy")
    for picture in (*pictures, "misclassified"):
        assert (out / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    with open(out / "validation.csv") as file:
        events = list(csv.DictReader(file))
    assert len({row["event"] for row in events}) == 11  # of both ranks, each once
    right = sum(max(CLASSES, key=lambda name: float(row[name])) == row["truth"] for row in events)
    assert abs(right / 11 - json.loads((out / "run.json").read_text())["accuracy"]) < 1e-9
    assert all(float(row["length in the image [cm]"]) > 0 for row in events)
    html = (out / "report.html").read_text()
    text = re.sub("</?span>", "", html)  # around each word of the command
    for words in ("mpiexec -n 2 python ", "ROC area", "block1_conv1", "numpy", "highest score"):
        assert words in text, words
    assert html.count("data:image/png;base64,") == len(pictures) + 1
    result = json.loads((out / "run.json").read_text())
    assert (
        result["ranks"] == 2 and result["arguments"]["train"] == 30 and len(result["epochs"]) == 2
    )
    assert result["sample"]["name"] == "isotropic" and not result["recipe"]["fixed_start"]
    table = (out / "confusion.txt").read_text()
    assert table.startswith("gamma: ") and table.endswith("\nsample isotropic\n")
    assert (out / "model.safetensors").exists()


def test_same_bits_again_and_from_the_cache(run, tmp_path):
    folder, _ = run
    done = job(
        *SMALL,
        "--epochs",
        2,
        "--out",
        tmp_path,
        "--cache",
        folder / "cache",
    )
    assert done.returncode == 0 and "simulated 41 events" not in done.stdout
    assert (tmp_path / "model.safetensors").read_bytes() == (
        folder / "out/model.safetensors"
    ).read_bytes()


def test_a_killed_run_resumes_to_the_same_bits(run, tmp_path):
    folder, _ = run
    options = [*SMALL, "--epochs", 3, "--batch-size", 1, "--cache", folder / "cache"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert job(*options, "--out", whole).returncode == 0
    end = mpi(2, KILLED_JOB, 1, "--size", SIZE, "--device", "cpu", *options, "--out", killed)
    assert end.returncode != 0 and not (killed / "run.json").exists()
    assert [row["epoch"] for row in history(killed)] == ["1"]
    done = job(*options, "--out", killed, "--resume")
    assert done.returncode == 0 and "going on behind step 0 of epoch 2" in done.stdout, (
        done.stdout + done.stderr
    )
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()

    def figures(out):
        return [
            (row["epoch"], float(row["loss"]), float(row["val_accuracy"])) for row in history(out)
        ]

    assert figures(killed) == figures(whole) and len(figures(whole)) == 3
    other = job(*options, "--batch-size", 2, "--out", killed, "--resume")
    assert other.returncode != 0 and "batch size: the checkpoint has 1, now 2" in other.stderr


def history(folder):
    """The rows of a run's history."""
    with open(folder / "history.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("ranks", (2, 4))
def test_ledger(run, tmp_path, ranks):
    folder, _ = run
    done = job(
        *SMALL,
        "--epochs",
        2,
        "--out",
        tmp_path,
        "--cache",
        folder / "cache",
        "--ledger",
        ranks=ranks,
    )
    assert done.returncode == 0, done.stderr
    assert (
        table_adds_up(done.stdout) == 2
        and f"on {ranks} ranks" in done.stdout
        and "hidden beside it" in done.stdout
    )
    events = check_timeline(tmp_path / "timeline.json", ranks)
    assert {"step", "allreduce", "wait for the slowest rank", "decompress"} <= {
        e["name"] for e in events
    }
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "history.csv") as file:
        for row in csv.DictReader(file):
            mean, slowest = (
                {
                    key.partition(": ")[2]: float(value)
                    for key, value in row.items()
                    if key.startswith(title + ": ")
                }
                for title in ("seconds", "slowest rank")
            )
            assert mean.keys() == slowest.keys() and sum(mean.values()) < float(row["seconds"])
    if ranks == 2:  # looking changes nothing
        assert (tmp_path / "model.safetensors").read_bytes() == (
            folder / "out/model.safetensors"
        ).read_bytes()


@pytest.mark.parametrize("mode", ("overlap", "delayed"))
def test_parallel_options(run, tmp_path, mode):
    """Shared store, a mode that hides communication, accumulation, scaled rate: the ledger still
    adds up, every event is seen once.
    """
    folder, _ = run
    done = job(
        *SMALL,
        "--epochs",
        2,
        "--out",
        tmp_path,
        "--cache",
        folder / "cache",
        "--ledger",
        "--augment",
        "--shared-store",
        "--sync",
        mode,
        *(["--bucket", 64] if mode == "overlap" else []),
        "--batch-size",
        3,
        "--accumulate",
        2,
        "--scale-from",
        6,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "training events shared by 2 ranks of each node" in done.stdout
        and f"12 events per step; sync: {mode}" in done.stdout
    )
    assert table_adds_up(done.stdout) == 2 and "exposed communication" in done.stdout
    names = {e["name"] for e in check_timeline(tmp_path / "timeline.json", 2)}
    assert {"step", "exposed communication", "allreduce"} <= names


def test_predict(run):
    folder, _ = run
    done = job("--predict", next((folder / "cache").glob("*.h5")), "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    with open(folder / "out/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["event"]) for r in rows] == list(range(41))
    assert all(abs(sum(float(r[name]) for name in CLASSES) - 1) < 1e-5 for r in rows)
    assert len(list((folder / "out").glob("predicted-*-?.png"))) == 6
    assert done.stdout.count(" lit pixels, truth ") == 20 and ": 21 more events" in done.stdout
    right = sum(max(CLASSES, key=lambda name: float(r[name])) == r["truth"] for r in rows)
    assert (
        f"of 41 events of known class {100 * right / 41:.1f} % have the highest score there"
        in done.stdout
    )
    assert all(90 < float(r["momentum of the particle [MeV/c]"]) < 1010 for r in rows)
    slopes = [float(value) for r in rows for name, value in r.items() if "collection wires" in name]
    assert len(slopes) == len(rows) and 0 <= min(slopes) < 0.3 and 0.7 < max(slopes) <= 1
    assert all(
        (folder / f"out/predicted-{what}.png").exists()
        for what in ("confusion", "accuracy", "roc", "cuts", "calibration")
    )
    assert "ROC area" in done.stdout
    assert (folder / "out/run.json").exists()


def test_predict_as_a_command(run, tmp_path):
    folder, _ = run
    model, events = folder / "out/model.safetensors", next((folder / "cache").glob("*.h5"))
    options = ("--weights", model, "--device", "cpu", "--out", tmp_path)
    done = mpi(2, "-m", "minicnn", "predict", events, *options)
    assert done.returncode == 0 and "of 41 events of known class" in done.stdout, done.stderr
    assert (tmp_path / "predictions.csv").exists()
    assert load_model(model, device="reference").class_names == tuple(CLASSES)


def test_another_sample_is_an_error(run, tmp_path):
    folder, _ = run
    events = next((folder / "cache").glob("*.h5"))
    done = job("--events", events, "--sample", "talk", "--out", tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert f"{events} is of the sample isotropic, asked for was the sample talk;" in done.stderr
    done = mpi(2, "-m", "minicnn", "train", "--position", "1", "2", "--out", tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.count("--position 1 2: give x y z, three numbers, or any") == 1


def test_the_talks_sample_is_the_default(tmp_path):
    """With other particles instead, whose classes the network then has."""
    options = ("--train", 8, "--validation", 4, "--epochs", 1, "--shares", "proton=1", "gamma=2")
    done = job(*options, "--out", tmp_path / "out", "--cache", tmp_path)
    words = "sample talk with classes gamma(gamma=2) proton(proton=1)"
    assert done.returncode == 0 and done.stdout.count(words) == 2, done.stdout + done.stderr
    result = json.loads((tmp_path / "out/run.json").read_text())
    assert result["sample"]["momentum"] == [1500, 1500] and result["recipe"]["classes"] == 2
    assert list(result["sample"]["classes"]) == ["gamma", "proton"]
    assert result["recipe"]["fixed_start"] and result["recipe"]["mirror_x"] == 100
    done = job(*options, "--no-mirror-start", "--out", tmp_path / "plain", "--cache", tmp_path)
    result = json.loads((tmp_path / "plain/run.json").read_text())
    assert result["recipe"]["fixed_start"] and result["recipe"]["mirror_x"] is None


def test_without_validation_events(run, tmp_path):
    folder, _ = run
    events = next((folder / "cache").glob("*.h5"))
    numbers = ("--train", 20, "--validation", 0, "--epochs", 1)
    done = job("--events", events, *numbers, "--out", tmp_path)
    assert done.returncode == 0 and "no validation events" in done.stdout, done.stderr
    assert "nan" not in done.stdout and "validation loss" not in done.stdout
    assert json.loads((tmp_path / "run.json").read_text())["accuracy"] is None


@pytest.mark.skipif(not REAL.exists(), reason="the real MicroBooNE event is not here")
def test_predict_a_real_event(run):
    folder, _ = run
    done = job("--predict", REAL, "--out", folder / "out")
    assert done.returncode == 0 and "event 0:" in done.stdout and "truth unknown" in done.stdout


@pytest.mark.parametrize(
    "extra",
    (
        ["--sync", "weights", "--sync-every", "3"],
        ["--store", "dense", "--codec", "lz4:1"],
        ["--optimizer", "lars", "--batch-size", "8"],
    ),
    ids=str,
)
def test_options(run, tmp_path, extra):
    folder, _ = run
    done = job(
        *SMALL,
        "--epochs",
        1,
        "--out",
        tmp_path,
        "--cache",
        folder / "cache",
        *extra,
    )
    assert done.returncode == 0 and (tmp_path / "run.json").exists(), done.stderr
    assert isinstance(
        load_model(tmp_path / "model.safetensors", device="reference").optimizer,
        LARS if "lars" in extra else Adam,
    )

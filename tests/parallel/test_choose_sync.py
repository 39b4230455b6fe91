"""The sync mode that a training chooses by itself."""

import json

import pytest

from helpers import SYNC_CASES, mpi, random_batch, small_model
from helpers.main_job import SMALL, job
from minicnn.parallel import AUTO, make_sync
from minicnn.train.choose_sync import MARGIN, decide

CASES = (
    "auto_agrees",
    "auto_measures",
    "auto_leaves_no_trace",
    "auto_goes_on",
    "auto_fails_together",
    "auto_takes_no_iterable",
)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", (2, 3))
def test_ranks_choose_together(ranks):
    done = mpi(ranks, SYNC_CASES, *CASES)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("ok")] == [f"ok {case}" for case in CASES]
    said = [line for line in lines if line.startswith("sync auto: ")]
    assert f"sync auto: bf16, {ranks} ranks on 1 node: the Allreduce of " in done.stdout
    assert "  faster, but with another update: bf16 by 8 % (--allow bf16)" in lines
    assert any("and so no mode could gain 2 %" in line for line in said)
    assert "sync auto: overlap, as in the step that is saved" in said


def test_one_rank_exchanges_nothing(capsys):
    auto = make_sync(AUTO, None, allow=("bf16",))
    small_model().fit(random_batch(4), sync=auto)
    assert capsys.readouterr().out == "sync auto: gradients, one rank exchanges nothing\n"
    assert auto.record == {"mode": "gradients", "why": "one rank exchanges nothing"}


def test_the_plainest_of_equally_fast_modes_is_taken():
    def best(allow=(), **steps):
        return decide({"gradients": [1.0, 2.0, 4.0], **steps}, allow)

    little, much = 1 - MARGIN / 2, 1 - 2 * MARGIN
    assert best() == ("gradients", {})
    assert best(overlap=[little, 2 * little, 4 * little])[0] == "gradients"
    assert best(overlap=[much, 2 * much, 4 * much])[0] == "overlap"
    # Turn by turn: the machine was busy in the last one, and for all modes.
    assert best(overlap=[0.9, 1.8, 40.0])[0] == "overlap"
    mode, faster = best(overlap=[0.9, 1.8, 3.6], bf16=[0.45, 0.9, 1.8], fp16=[0.9, 1.8, 3.6])
    assert mode == "overlap" and faster == {"bf16": pytest.approx(0.5)}
    steps = {"overlap": [0.9, 1.8, 3.6], "fp16": [0.5, 1.0, 2.0], "delayed": [0.495, 0.99, 1.98]}
    assert best(("fp16", "delayed"), **steps) == ("fp16", {})
    assert best(("delayed",), **steps) == ("delayed", {})


@pytest.mark.parametrize(
    "mode, options, message",
    (
        ("gradients", {"allow": ("bf16",)}, 'allowing .*bf16.* goes with sync="auto", got \'grad'),
        (AUTO, {"allow": ("weights",)}, "can be allowed fp16, bf16, delayed, got weights"),
        (AUTO, {"bucket": 64}, "a bucket size goes with sync=\"overlap\", got 'auto'"),
        (AUTO, {"every": 2}, "goes with sync=\"weights\", got 'auto'"),
        ("automatic", {}, "one of gradients, .*, weights, auto, got 'automatic'"),
    ),
)
def test_options_that_mean_nothing_are_refused(mode, options, message):
    with pytest.raises(ValueError, match=message):
        make_sync(mode, None, **options)


def test_a_single_step_needs_a_name():
    model = small_model()
    with pytest.raises(ValueError, match="give a single step the name of a mode"):
        make_sync(AUTO, None).reduce_gradients(model)


@pytest.mark.mpi
def test_the_main_job_records_its_choice(tmp_path):
    options = (*SMALL, "--out", tmp_path / "out", "--cache", tmp_path, "--sync", "auto")
    done = job(*options, "--epochs", 1, "--allow", "bf16", "delayed")
    assert done.returncode == 0 and done.stdout.count("sync auto: ") == 1, done.stderr
    first = json.loads((tmp_path / "out/run.json").read_text())
    assert first["arguments"]["allow"] == ["bf16", "delayed"]
    sync = first["sync"]
    assert sync["mode"] in ("gradients", "overlap", "bf16", "delayed") and sync["ranks"] == 2
    assert sync["compute_ms"] > 0 < sync["allreduce_ms"]
    again = job(*options, "--epochs", 2, "--resume")
    assert again.returncode == 0, again.stderr
    assert f"sync auto: {sync['mode']}, as in the step that is saved" in again.stdout
    assert json.loads((tmp_path / "out/run.json").read_text())["sync"] == sync | {"every": 1}

"""A training that is stopped by a signal goes on at that very step, to the same bits."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

import minicnn as mc
from helpers import ROOT, mpi, random_batch
from helpers.fault_cases import BATCH, EPOCHS, EVENTS, train
from minicnn.parallel import Alone
from minicnn.parallel.signals import INTERRUPTED, PREEMPTED, Preempted
from minicnn.train.callbacks import CSVLogger, read_history
from minicnn.train.checkpoint import read_arrays, write_arrays
from minicnn.train.step_checkpoint import FORMAT, StepCheckpoint

CASES = ROOT / "tests" / "helpers" / "fault_cases.py"


def case(ranks, *arguments):
    """The job, and {mode: what it prints at its end}."""
    done = mpi(ranks, CASES, *arguments)
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"mode')]
    return done, {end.pop("mode"): end for end in ends}


def used_events(folder):
    """[(epoch, event)] of all ranks."""
    lines = [line for path in folder.glob("events-*.txt") for line in path.read_text().splitlines()]
    return sorted(tuple(map(int, line.split())) for line in lines)


@pytest.mark.mpi
def test_a_signal_on_one_rank_saves_the_step_and_nothing_is_lost(tmp_path):
    modes = ("gradients", "delayed", "fp16", "bf16", "weights")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir(), stopped.mkdir()
    _, expected = case(2, "train", whole, ",".join(modes), 0, "new")
    assert expected.keys() == set(modes)
    done, _ = case(2, "train", stopped, ",".join(modes), 8, "new")
    assert done.returncode == PREEMPTED, done.stderr
    for words in ("SIGTERM: step ", "of epoch 2 of 3 is saved in"):
        assert done.stdout.count(words) == len(modes), done.stdout
    again, results = case(2, "train", stopped, ",".join(modes), 0, "resume")
    assert again.stdout.count("going on behind step") == len(modes), again.stderr
    assert results == expected
    for mode in modes:
        everything = [(e, i) for e in range(EPOCHS) for i in range(EVENTS)]
        assert used_events(stopped / mode) == everything, mode


@pytest.mark.mpi
@pytest.mark.parametrize("modes, before, after", (("gradients,fp16", 2, 3), ("weights", 3, 1)))
def test_another_number_of_ranks_uses_the_rest_of_the_epoch_once(tmp_path, modes, before, after):
    done, _ = case(before, "train", tmp_path, modes, 5, "new")
    assert done.returncode == PREEMPTED, done.stderr
    again, results = case(after, "train", tmp_path, modes, 0, "resume")
    assert again.returncode == 0, again.stderr
    for mode in modes.split(","):
        everything = [(e, i) for e in range(EPOCHS) for i in range(EVENTS)]
        assert used_events(tmp_path / mode) == everything, mode
        rows = results[mode]["rows"]
        assert len(rows) == EPOCHS and all(np.isfinite(rows).ravel())


def test_one_process_stops_at_every_step_and_goes_on(tmp_path):
    expected, table = train(None, tmp_path, "gradients", 0, False)
    folder = tmp_path / "often"
    folder.mkdir()
    for stops in range(2 + EPOCHS * EVENTS // BATCH):
        try:
            model, again = train(None, folder, "gradients", 2, stops > 0)
            break
        except Preempted as end:
            assert end.code == PREEMPTED
    assert stops > 10
    assert model.parameters.tobytes() == expected.parameters.tobytes()
    assert [row["loss"] for row in again.rows] == [row["loss"] for row in table.rows]
    assert used_events(folder) == [(e, i) for e in range(EPOCHS) for i in range(EVENTS)]


def test_the_step_is_saved_by_the_clock(tmp_path):
    class Seen(mc.callbacks.Callback):
        def __init__(self):
            self.there = []

        def on_batch_end(self, step, logs):
            self.there.append((tmp_path / "step.safetensors").exists())

    x, y = random_batch(8)
    for minutes, expected in ((1e-9, True), (5.0, False)):
        seen = Seen()
        model = mc.Sequential([mc.Flatten(), mc.Dense(3)], (22, 19, 1), device="reference")
        (tmp_path / "step.safetensors").unlink(missing_ok=True)
        model.fit((x, y), callbacks=[seen], checkpoint=StepCheckpoint(tmp_path, minutes))
        assert not seen.there[0] and seen.there[-1] == expected
        assert (tmp_path / "step.safetensors").exists()  # at the epoch's end
    with pytest.raises(ValueError, match="above 0, got 0"):
        StepCheckpoint(tmp_path, 0)


@pytest.mark.parametrize(
    "change, message",
    (
        ({"seed": 1}, "seed: the checkpoint has 0, now 1"),
        ({"batch_size": 3}, "batch size: the checkpoint has 2, now 3"),
        ({"accumulate": 2}, "accumulate: the checkpoint has 1, now 2"),
        ({"optimizer": mc.SGD(0.1)}, 'optimizer type: the checkpoint has "Adam", now "SGD"'),
        ({"optimizer": mc.Adam(0.5)}, "optimizer options learning_rate: the checkpoint has"),
        ({"validation_data": random_batch(4, (9, 8, 1))}, "validation events: the checkpoint has"),
        ({"epochs": 4}, None),
        ({"sync": "fp16"}, None),
    ),
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_training_is_refused_with_both_values(tmp_path, change, message):
    with pytest.raises(Preempted):
        train(None, tmp_path, "gradients", 3, False)
    if message is None:
        assert train(None, tmp_path, "gradients", 0, True, **change)
        return
    with pytest.raises(ValueError, match="What may change: epochs, ranks") as refused:
        train(None, tmp_path, "gradients", 0, True, **change)
    assert message in str(refused.value)


def test_residuals_go_on_in_another_compressed_mode_and_are_said_to_be_dropped_in_others(
    tmp_path, capsys
):
    with pytest.raises(Preempted):
        train(None, tmp_path, "gradients", 3, False)
    path = tmp_path / "checkpoint" / "step.safetensors"
    arrays, state = read_arrays(path, (FORMAT,))
    error = np.full((1, arrays["parameters"].size), 1e-3, np.float32)
    residuals = {"sync:error": error, "sync:owner_error": np.zeros_like(error[0])}
    write_arrays(path, arrays | residuals, state | {"sync": ["fp16", 1]})
    with pytest.raises(Preempted):
        train(None, tmp_path, "bf16", 1, True)
    carried = read_arrays(path, (FORMAT,))[0]
    assert carried["sync:error"].tobytes() == error.tobytes()
    assert "dropped" not in capsys.readouterr().out
    train(None, tmp_path, "gradients", 0, True)
    out = capsys.readouterr().out
    assert "sync bf16 has become gradients" in out and "is dropped (of norm 0.0" in out


@pytest.mark.mpi
def test_residuals_are_dropped_by_another_mode_on_another_number_of_ranks(tmp_path):
    done, _ = case(2, "train", tmp_path, "fp16", 5, "new")
    assert done.returncode == PREEMPTED, done.stderr
    (tmp_path / "fp16").rename(tmp_path / "gradients")
    again, results = case(3, "train", tmp_path, "gradients", 0, "resume")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("sync fp16 has become gradients") == 1
    assert len(results["gradients"]["rows"]) == EPOCHS


def test_the_sync_of_a_saved_step_is_that_of_its_number_of_ranks(tmp_path):
    class Two(Alone):
        size = 2

    with pytest.raises(Preempted):
        train(None, tmp_path, "fp16", 3, False)
    folder = tmp_path / "checkpoint"
    again = StepCheckpoint(folder, resume=True)
    assert again.saved_sync(Alone()) == {"mode": "fp16", "every": 1}
    assert again.saved_sync(Two()) is None
    assert StepCheckpoint(folder).saved_sync(Alone()) is None
    assert StepCheckpoint(tmp_path, resume=True).saved_sync(Alone()) is None


def test_other_events_are_refused(tmp_path):
    x, y = random_batch(6)
    model = mc.Sequential([mc.Flatten(), mc.Dense(3)], (22, 19, 1), device="reference")
    model.fit((x, y), checkpoint=StepCheckpoint(tmp_path))
    x[3, 5, 5] += 1e-3
    with pytest.raises(ValueError, match=r"training events: the checkpoint has .6 \(digest"):
        model.fit((x, y), checkpoint=StepCheckpoint(tmp_path, resume=True))


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(Preempted):
        train(None, tmp_path, "gradients", 3, False)
    path = tmp_path / "checkpoint" / "step.safetensors"
    whole = path.read_bytes()
    for damaged in (
        whole[:-7],
        whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
        whole.replace(b"batch size", b"batch sise"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"step\.safetensors: .*(damaged|readable)"):
            train(None, tmp_path, "gradients", 0, True)


def test_a_second_interrupt_ends_at_once():
    code = """if True:
        import os, signal, sys, threading, time
        from minicnn.parallel import Alone
        from minicnn.parallel.signals import Signals
        with Signals() as signals:
            def send():
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)  # at the same moment: a launcher's copy
                time.sleep(0.8)
                print(signals.asked, flush=True)
                os.kill(os.getpid(), signal.SIGINT)
            threading.Thread(target=send).start()
            os.read(os.pipe()[0], 1)  # as in a call that does not return
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (INTERRUPTED, f"{int(signal.SIGINT)}\n"), done.stderr


def test_signals_are_as_before_after_a_training(tmp_path):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    with pytest.raises(Preempted):
        train(None, tmp_path, "gradients", 3, False)
    assert before == {number: signal.getsignal(number) for number in before}


@pytest.mark.parametrize(
    "content",
    (
        b"",
        b"\xff\xfe\x00binary",
        b"a,b\n1,2\n",
        b"epoch,loss\nnan,1\n",
        b"epoch,loss\n1,2,3\n",
        None,
    ),
    ids=("empty", "binary", "no epoch", "nan", "a cell more", "a folder"),
)
def test_a_damaged_history_keeps_no_training_from_going_on(tmp_path, capsys, content):
    path = tmp_path / "history.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    logger = CSVLogger(path)
    model = mc.Sequential([mc.Flatten(), mc.Dense(3)], (22, 19, 1), device="reference")
    logger.on_train_begin(model, {"rank": 0, "comm": None, "initial_epoch": 2})
    assert logger.rows == [] and "rows of epochs 1, 2 are missing" in capsys.readouterr().err


def test_a_history_cut_anywhere_gives_whole_rows_alone(tmp_path):
    path = tmp_path / "history.csv"
    rows = ["epoch,loss,seconds", "1,0.5,12.25", "2,0.25,11.75", ""]
    text = "\r\n".join(rows).encode()
    for length in range(len(text) + 1):
        path.write_bytes(text[:length])
        found, problem = read_history(path, 2)
        assert (
            found
            == [
                {"epoch": 1, "loss": 0.5, "seconds": 12.25},
                {"epoch": 2, "loss": 0.25, "seconds": 11.75},
            ][: len(found)]
        )
        assert (problem is None) == (len(found) == 2)


@pytest.mark.mpi
def test_ranks_that_differ_are_refused():
    done = mpi(2, CASES, "differ", timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in (0, 1):
        for message in (
            "ranks differ in optimizer options learning_rate: rank 0 has 0.1, rank 1 0.2",
            "ranks differ in epochs: rank 0 has 1, rank 1 2",
            'ranks differ in sync: rank 0 has ["gradients", 1], rank 1 ["weights", 1]',
            'ranks differ in version minicnn: rank 0 has "',
            "ranks differ in source: rank 0 has",
        ):
            assert done.stdout.count(f"{rank}: {message}") == 1, (rank, message, done.stdout)


@pytest.mark.mpi
def test_ranks_that_see_other_events_are_refused(tmp_path):
    done = mpi(2, CASES, "differ_in_events", tmp_path, timeout=60)
    message = (
        "ranks differ in the event file's events: rank 0 has 6, rank 1 7; the event file's digest"
    )
    assert done.returncode != 0 and message in done.stderr, done.stdout + done.stderr


def test_history_of_a_whole_training_is_in_the_checkpoint(tmp_path):
    """Also where history.csv is gone when it goes on."""
    with pytest.raises(Preempted):
        train(None, tmp_path, "gradients", 20, False)
    (tmp_path / "history.csv").unlink()
    _, table = train(None, tmp_path, "gradients", 0, True)
    assert [row["epoch"] for row in table.rows] == [1, 2, 3]

"""The ledger: every tick of the clock has one name, hidden work is apart, ranks share a clock, the
timeline is well formed.
"""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicnn as mc
from helpers import LEDGER_CASES, mpi, random_batch, small_model
from helpers.ledger import check_timeline
from minicnn import trace
from minicnn.inspect import report
from minicnn.inspect.report.ledger import LedgerReport
from minicnn.watch import waiting


class Ticks:
    """A clock that advances by one at every reading; ``now`` looks without reading."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


trees = st.recursive(
    st.just([]),
    lambda inner: st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(trees, min_size=1, max_size=3))
def test_exclusive_times_add_up(steps):
    """With a clock that moves only inside a span's own body, every part gets exactly its
    own time.
    """
    time, expected = [0], {}

    def walk(tree, name):
        time[0] += 1
        expected[name] = expected.get(name, 0) + 1
        for part, inner in tree:
            with trace.span(part):
                walk(inner, part)

    with trace.Ledger(detail=True, clock=lambda: time[0]) as ledger:
        for tree in steps:
            walk(tree, trace.OTHER)
            ledger.step()
    assert {part: s for (part, _), s in ledger.epoch.seconds.items() if s} == expected
    assert sum(ledger.epoch.seconds.values()) == sum(ledger.epoch.walls) == time[0]


def fit(detail=True, prefetch=1, batch_size=4, n=12, model=None, **options):
    ticks = Ticks()
    ledger, model = trace.Ledger(detail, clock=ticks, **options), model or small_model("cpu")
    history = model.fit(
        random_batch(n), epochs=2, batch_size=batch_size, ledger=ledger, prefetch=prefetch
    )
    return ledger, history, ticks, model


def test_a_step_is_the_sum_of_its_parts():
    seen, ticks = [], Ticks()

    class Look(mc.callbacks.Callback):
        def on_epoch_begin(self, epoch):
            seen.append(ticks.now)

        def on_epoch_end(self, epoch, logs):
            seen.append(ticks.now)

    ledger = trace.Ledger(True, clock=ticks)
    small_model("cpu").fit(
        random_batch(12), epochs=2, batch_size=4, ledger=ledger, prefetch=0, callbacks=[Look()]
    )
    for summary, begin, end in zip(ledger.summaries, seen[::2], seen[1::2]):
        parts = 3 * sum(summary.mean.values())
        assert summary.steps == 3 and abs(parts - 3 * summary.wall) < 1e-9
        assert 0 <= (end - begin) - parts <= 5  # opening the ledger, and aligning the clocks
    names = {name for name, _ in ledger.summaries[0].mean}
    assert names >= {
        "wait for data",
        "read",
        "transfer",
        "forward",
        "loss",
        "backward",
        "pack weights",
        "check finite",
        "update",
        "other",
    }
    layers = {layer for name, layer in ledger.summaries[0].mean if name == "backward"}
    assert layers >= {
        "conv2d_1",
        "conv2d_2",
        "dense_1",
        "elu_2",
        "dense_2",
        "flatten_1",
    }


def test_averaging_weights_packs_them():
    ledger = trace.Ledger(True, clock=Ticks())
    small_model("cpu").fit(random_batch(12), batch_size=4, sync="weights", ledger=ledger)
    assert ("pack", "") in ledger.summaries[0].mean


@pytest.mark.parametrize("suppression", ("never", "always"))
def test_the_numbers_are_the_same_with_and_without(suppression):
    on, off = (small_model("cpu", zero_suppression=suppression) for _ in range(2))
    fit(True, model=on)
    fit(False, model=off)
    assert np.array_equal(on.parameters, off.parameters)


def test_off_reads_no_clock_inside():
    assert trace.span("forward", "layer") is trace._NOTHING
    assert isinstance(trace.collective(), waiting)  # that the watchdog needs
    reads = [fit(False, 0, batch, n)[2].now for batch, n in ((1, 3), (4, 12))]
    assert (
        reads[0] == reads[1] < 2 * 3 * 16
    )  # whatever the batch, no more than the few outer spans of a step
    assert fit(True, 0)[2].now > 3 * reads[1]
    assert fit(False)[0].timeline == [] and trace._open is None


def test_history_without_details_and_with():
    _, history, _, _ = fit(False)
    assert {key for key in history.rows[0] if ": " in key} == {
        f"seconds: {name}"
        for name in ("wait for data", "forward+backward", "allreduce", "update", "callbacks")
    }
    _, history, _, _ = fit(True)
    assert {
        "seconds: forward conv2d_1",
        "slowest rank: forward conv2d_1",
        "hidden: read",
        "seconds: other",
    } <= history.rows[0].keys()


def test_the_prefetching_thread_is_hidden_work():
    ahead, _, _, _ = fit(prefetch=1)
    inline, _, _, _ = fit(prefetch=0)
    assert ("read", "") in ahead.summaries[0].hidden and ("read", "") not in ahead.summaries[0].mean
    assert ("read", "") in inline.summaries[0].mean and not inline.summaries[0].hidden


def test_an_error_closes_the_ledger():
    with pytest.raises(ZeroDivisionError), trace.Ledger(detail=True), trace.span("forward"):
        raise ZeroDivisionError
    assert trace._open is None and trace.span("forward") is trace._NOTHING


def test_hidden_work_without_a_thread():
    with trace.Ledger(detail=True, clock=Ticks()) as ledger:
        start = trace.now()
        trace.hidden("allreduce", start, trace.now(), layer="bucket 0")
        ledger.step()
    ledger.close(None)
    assert ledger.summaries[0].hidden == {("allreduce", "bucket 0"): 1.0}
    assert [p.lane for p in ledger.timeline] == ["communication", "main"]


def test_the_live_line():
    now = [0.0]
    ledger = trace.Ledger(detail=True, clock=lambda: now[0])
    with ledger:
        for name, seconds in (("forward", 0.6), ("wait for data", 0.1), ("allreduce", 0.2)):
            with ledger.span(name):
                now[0] += seconds
        now[0] += 0.1
        ledger.step()
    assert (
        ledger.line() == "1000.0 ms/step: computing 60 %, data 10 %, other ranks 20 %, other 10 %"
    )


def test_the_timeline_is_bounded(monkeypatch):
    ledger, _, _, _ = fit(keep=1)
    assert {p.step for p in ledger.timeline} == {0, 3}
    monkeypatch.setattr(trace, "PIECES", 10)
    ledger, _, _, _ = fit(keep=8)
    assert {p.step for p in ledger.timeline} == {0}


def test_timeline_and_picture(tmp_path):
    ledger = trace.Ledger(detail=True)
    small_model("cpu").fit(random_batch(12), epochs=2, batch_size=4, ledger=ledger)
    ranks = ledger.gather(None)
    events = check_timeline(report.write_timeline(tmp_path / "timeline.json", ranks), 1)
    assert {"forward conv2d_1", "backward dense_2", "update", "loss"} <= {e["name"] for e in events}
    assert report.draw_step(tmp_path / "step.png", ranks).read_bytes().startswith(b"\x89PNG")
    many = [(rank, "host", ranks[0][2]) for rank in range(20)]
    assert report.draw_step(tmp_path / "many.png", many, step=1).exists()
    with pytest.raises(ValueError, match="nothing of step 99"):
        report.draw_step(tmp_path / "no.png", ranks, step=99)
    with pytest.raises(ValueError, match="holds no step"):
        report.draw_step(tmp_path / "no.png", [])


def test_table():
    summary = trace.Summary(
        2,
        10,
        0.1,
        {
            ("forward", "a"): 0.03,
            ("forward", "b"): 0.05,
            ("forward", "c"): 1e-6,
            ("forward", "d"): 2e-6,
            (trace.WAIT, ""): 0.01,
            ("other", ""): 0.009997,
        },
        {("decompress", ""): 0.02},
        1,
        0.1,
        {("forward", "a"): 0.04, ("forward", "b"): 0.06},
        {("decompress", ""): 0.03},
    )
    text = report.ledger_table(summary, "epoch 1")
    assert (
        "10 steps of 100.00 ms on 2 ranks" in text and "rank 1 *" in text and "2 small ones" in text
    )
    assert re.search(
        r"  forward +80\.003 +80\.0 %  ████████ +100\.000\n    a +30\.000 +30\.0 % +40\.000", text
    )
    assert re.search(r"decompress +20\.000 +20\.0 %  ██ +30\.000", text)
    assert "exposed communication 0.00 % of the step, waiting for the slowest rank 10.00 %" in text


def test_a_report_that_cannot_be_written_does_not_cost_the_history(tmp_path, capsys):
    ledger = trace.Ledger(detail=True)
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "new" / "folder", tmp_path / "file" / "folder"):
        history = small_model().fit(
            random_batch(4),
            epochs=2,
            ledger=ledger,
            callbacks=[LedgerReport(ledger, folder)],
        )
        assert len(history.rows) == 2
    assert (tmp_path / "new/folder/timeline.json").exists()
    assert "file/folder could not be written" in capsys.readouterr().err
    assert repr(ledger).startswith("Ledger of every part: 16 steps, 4 epochs, ")


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", (2, 4))
def test_ranks(ranks):
    done = mpi(ranks, LEDGER_CASES, "clock", "ledger")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["ok clock", "ok ledger"], done.stdout + done.stderr

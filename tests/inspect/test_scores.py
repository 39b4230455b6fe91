"""Figures of scores are what their definitions say, event by event."""

import numpy as np
import pytest

from helpers import Source
from minicnn.data import Event, SparseImage
from minicnn.data.axes import PLAIN, Axis
from minicnn.inspect.report.scores import (
    ScoredEvents,
    binomial,
    calibration,
    cuts,
    draw_calibration,
    draw_cuts,
    draw_roc,
    roc,
    scores_table,
)
from minicnn.jobs.scores import (
    LENGTH_CM,
    LENGTH_PIXELS,
    Noting,
    Prediction,
    PredictionTable,
    Quantities,
    draw_scores,
    quantities_of,
    worst_mistakes,
)

NAMES = ("gamma", "e+-", "mu+-")


def scored(n=400, seed=0, names=NAMES):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), n)
    raw = rng.normal(size=(n, len(names))) + 1.5 * np.eye(len(names))[labels]
    scores = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    return ScoredEvents(
        tuple(names), labels, np.round(scores, 2) / np.round(scores, 2).sum(1)[:, None]
    )


def test_wilson_interval():
    # of 8 in 10 with z = 1: (0.8 + 0.05 -+ sqrt(0.8 * 0.2 / 10 + 1 / 400)) / 1.1
    fraction, low, high = binomial(8, 10)
    half = np.sqrt(0.016 + 0.0025)
    assert fraction == 0.8 and np.allclose([low, high], [(0.85 - half) / 1.1, (0.85 + half) / 1.1])
    _, low, high = binomial([0, 10, 3], [10, 10, 0])
    assert abs(low[0]) < 1e-12 and high[0] > 0.05 and low[1] < 0.95 and abs(high[1] - 1) < 1e-12
    assert np.isnan(low[2]) and np.isnan(high[2])


def test_roc_is_the_chance_that_a_signal_event_scores_higher():
    events = scored()
    for k in range(3):
        kept, mistaken, area = roc(events, k)
        signal, others = (
            events.scores[chosen, k] for chosen in (events.labels == k, events.labels != k)
        )
        higher = signal[:, None] - others
        assert np.isclose(area, np.mean((higher > 0) + 0.5 * (higher == 0)))
        assert (kept[0], mistaken[0], kept[-1], mistaken[-1]) == (0, 0, 1, 1)
        assert (np.diff(kept) >= 0).all() and (np.diff(mistaken) >= 0).all()
    assert np.isnan(roc(ScoredEvents(NAMES, np.zeros(4, int), np.eye(3)[[0, 0, 1, 2]]), 0)[2])


def test_cuts_and_calibration_count_events():
    events = scored()
    for k in range(3):
        found = cuts(events, k)
        for place in (0, 17, 50, 100):
            passing = events.scores[:, k] >= found.cut[place]
            right = passing & (events.labels == k)
            assert np.isclose(found.efficiency[0][place], right.sum() / (events.labels == k).sum())
            if passing.any():
                assert np.isclose(found.purity[0][place], right.sum() / passing.sum())
        product = found.efficiency[0] * found.purity[0]
        assert product[found.best] == np.nanmax(product)
    mean, n, k, error = calibration(events)
    highest, right = events.scores.max(1), events.predicted == events.labels
    inside = (highest >= 0.6) & (highest < 0.7)
    assert n[6] == inside.sum() and k[6] == right[inside].sum() and n.sum() == 400
    assert np.isclose(mean[6], highest[inside].mean()) and 0 < error < 0.5
    perfect = ScoredEvents(NAMES, np.arange(3), np.eye(3))
    assert calibration(perfect)[3] == 0 and roc(perfect, 1)[2] == 1


def test_table_and_pictures(tmp_path):
    events = scored()
    text = scores_table(events)
    right = np.sum((events.labels == 0) & (events.predicted == 0))
    assert f"{100 * right / np.sum(events.labels == 0):.1f} +" in text and "ROC area" in text
    rare = ScoredEvents(("a", "b$b$"), np.zeros(1, int), np.array([[0.4, 0.6]]))
    for name, case in (("many", events), ("rare", rare)):
        assert scores_table(case)
        for draw in (draw_roc, draw_cuts, draw_calibration):
            path = draw(tmp_path / f"{name}-{draw.__name__}.png", case)
            assert path.read_bytes().startswith(b"\x89PNG")
    empty = ScoredEvents(NAMES, np.zeros(0, int), np.zeros((0, 3)))
    assert "expected calibration error 0.00 %" in scores_table(empty)
    draw_scores(empty, lambda what: tmp_path / f"empty-{what}.png")
    assert not list(tmp_path.glob("empty-*"))
    with pytest.raises(ValueError, match=r"scores of shape \(4, 2\), expected \(4, 3\)"):
        ScoredEvents(NAMES, np.zeros(4, int), np.zeros((4, 2)))


def test_what_is_known_of_an_event():
    image = SparseImage(np.array([[2, 3], [4, 3], [5, 7]]), np.ones(3), (9, 9, 1))
    axes = (Axis("wire", cm=0.3), Axis("tick", cm=0.1))
    known = quantities_of(Event(image, 1), PLAIN)
    assert known.lit_pixels == 3 and np.isclose(known.length, np.hypot(4, 5))
    assert np.isclose(quantities_of(Event(image, 1), axes).length, np.hypot(1.2, 0.5))
    dark = SparseImage(np.zeros((0, 2)), np.zeros(0), (9, 9, 1))
    assert np.isnan(quantities_of(Event(dark, 1), PLAIN).length)
    noting = Noting(Source([Event(image, 1), Event(dark, 0)], (9, 9, 1)))
    assert len(noting) == 2 and noting.image_shape == (9, 9, 1) and noting.read(0).label == 1
    assert list(noting.noted) == [0] and noting.noted[0][::3] == known[::3]
    table, cm = PredictionTable(NAMES, PLAIN), PredictionTable(NAMES, axes)
    one = Prediction(0, 1, known, np.array([0.2, 0.7, 0.1]))
    for to in (table, cm):
        to.add("a.h5", [one, one._replace(truth=-1)], ("mu+-", "gamma"), PLAIN)
        assert to.known().labels.tolist() == [0]  # by name, not by number
    assert table.known().quantities[LENGTH_PIXELS] == [known.length]
    assert np.isnan(cm.known().quantities[LENGTH_CM]).all()


def test_the_most_confident_mistakes():
    known = Quantities(1, 1.0, 1.0, 1.0)

    def one(number, truth, *scores):
        return Prediction(number, truth, known, np.array(scores))

    found = [one(n, 0, 0.1, 0.5 + n / 100, 0.4 - n / 100) for n in range(5)]
    found += [one(7, 1, 0.1, 0.8, 0.1), one(8, -1, 0.9, 0.1, 0.0), one(9, 2, 0.6, 0.3, 0.1)]
    assert [p.number for p in worst_mistakes(found)] == [9, 4, 3]

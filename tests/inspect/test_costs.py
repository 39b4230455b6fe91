"""What a whole training costs: failures against a simulation of them, times to a loss."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from helpers.performance import calibration
from minicnn.inspect.allreduce_costs import Link
from minicnn.inspect.costs import (
    Campaign,
    Study,
    best_save_every,
    lost_part,
    seconds_to_loss,
    training_cost,
)
from minicnn.inspect.extrapolation import Question, extrapolate
from minicnn.inspect.performance import ScalingModel, Setting
from minicnn.inspect.report.extrapolation import extrapolation_text

LOSSES = {16: [0.5, 0.4, 0.3], 64: [0.6, 0.45, 0.35], 256: [0.9, 0.8, 0.75]}


def simulated_seconds(campaign, mtbf, segments, rng):
    """A job of so many saves, with failures at random, also while it starts again."""
    clock = done = 0.0
    failure = rng.exponential(mtbf)
    while done < segments:
        end = clock + campaign.save_every + campaign.save
        if end <= failure:
            clock, done = end, done + 1
            continue
        clock = failure
        failure = clock + rng.exponential(mtbf)
        while clock + campaign.restart > failure:
            clock = failure
            failure = clock + rng.exponential(mtbf)
        clock += campaign.restart
    return clock


@pytest.mark.parametrize("mtbf", [400.0, 2000.0, 50_000.0])
def test_failures_cost_what_a_simulation_of_them_takes(mtbf):
    campaign = Campaign(save_every=300.0, save=10.0, restart=60.0)
    rng = np.random.default_rng(0)
    taken = simulated_seconds(campaign, mtbf, 20_000, rng) / (20_000 * campaign.save_every)
    assert 1 + lost_part(campaign, mtbf) == pytest.approx(taken, rel=0.03)


@pytest.mark.parametrize("mtbf", [2000.0, 50_000.0, 1e7])
def test_the_best_time_between_saves_loses_least(mtbf):
    campaign = Campaign(save=10.0)
    best = best_save_every(campaign, mtbf)
    least = min(lost_part(replace(campaign, save_every=best * f), mtbf) for f in (0.5, 0.8, 1.3, 2))
    assert lost_part(replace(campaign, save_every=best), mtbf) < least
    assert best == pytest.approx(math.sqrt(2 * 10 * mtbf), rel=0.1)
    assert best_save_every(campaign, 4.0) == 4.0


def test_a_training_costs_its_nodes_for_its_hours():
    c = calibration(rank_bytes=2e8, event_bytes=1e4, file_bytes=2e4, read=1e-3)
    step = ScalingModel(c).step(8, 4, Setting(Link(2e-6, 1e-9), 4))
    campaign = Campaign(epochs=3, save=0.0, node_mtbf=1e12, file_system=1e9)
    cost = training_cost(c, step, 4, 32_000, campaign)
    assert cost.nodes == 2 and cost.memory == 4 * (2e8 + 4000 * 1e4)
    assert cost.reading == pytest.approx(4000 * 1e-3)
    slow = training_cost(c, step, 4, 32_000, replace(campaign, file_system=1e6))
    assert slow.reading == pytest.approx(32_000 * 2e4 / 1e6)
    assert cost.training == pytest.approx(3 * 1000 * step.total)
    assert cost.node_hours == pytest.approx(2 * (4 + cost.training) / 3600, rel=1e-6)
    unknown = training_cost(calibration(), step, 4, 32_000, campaign)
    assert unknown.memory is None and unknown.reading is None


def test_epochs_to_a_loss_lie_between_two_epochs(tmp_path):
    path = tmp_path / "study.json"
    rows = [{"events_per_step": n, "val_loss": losses} for n, losses in LOSSES.items()]
    path.write_text(json.dumps({"train": 1000, "rows": rows}))
    study = Study.load(path)
    assert study.losses == LOSSES and study.common_loss() == 0.35
    assert study.epochs_to(16, 0.35) == pytest.approx(2.5)
    assert study.epochs_to(64, 0.35) == 3 and study.epochs_to(256, 0.35) is None
    assert study.epochs_to(16, 0.9) == 1
    for text in ("{}", "[1]", '{"train": 0, "rows": []}', '{"train": 5, "rows": [{}]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="study"):
            Study.load(path)


def test_the_time_to_a_loss_is_its_updates():
    study, c = Study(1000, LOSSES), calibration()
    model, setting = ScalingModel(c), Setting(Link(2e-6, 1e-9), 4)
    found = seconds_to_loss(model, study, 0.35, [1, 4, 16, 64], setting)
    assert found[256] == {"epochs": None, "seconds": {}}
    assert set(found[16]["seconds"]) == {1, 4, 16} and set(found[64]["seconds"]) == {1, 4, 16, 64}
    updates = 2.5 * 1000 / 16
    assert found[16]["seconds"][4] == pytest.approx(updates * model.step(4, 4, setting).total)
    text = extrapolation_text(extrapolate(c, Question(most_ranks=64, study=study)))
    assert "Time to a validation loss of 0.3500 with 1,000 events per epoch" in text
    assert "      256   not reached in 3 epochs" in text
    assert "A training of 10 epochs of 30,000 events" in text and "lost work" in text

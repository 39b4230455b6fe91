"""The talk's network with events that take a set time asleep instead of computing: many nodes then
fit on few cores, and what is measured is the exchange. Gradients are reported where the engine
does.
"""

import time
from functools import partial

from minicnn.jobs.recipe import Recipe

#: The forward pass's share of an event's time; blocks that divide the rest.
FORWARD, BLOCKS = 0.6, 4


class NoUpdate:
    """An optimizer that leaves the weights as they are."""

    steps, state = 0, {}

    def prepare(self, model):
        pass

    def update(self, model, events):
        self.steps += 1


def paced_model(seconds):
    """Return the model and an optimizer for it. seconds: of an event, asleep."""
    model = Recipe().build_model(device="reference")
    stops = [model._plan.stop_offset(stage.context) for stage in model._plan.stages]
    *starts, _ = sorted(filter(None, stops))
    model.accumulate = partial(_sleep_through, model, seconds, (0, *starts))
    return model, NoUpdate()


def _sleep_through(model, seconds, starts, x, y, rng=None, more=False, progress=None, weights=None):
    time.sleep(seconds * len(y) * FORWARD)
    for number, start in reversed([*enumerate(starts)]):
        if number < BLOCKS:  # the dense layers behind them take no time
            time.sleep(seconds * len(y) * (1 - FORWARD) / BLOCKS)
        if progress:
            progress(start)
    model.gradients[model.parameters.size] = len(y)

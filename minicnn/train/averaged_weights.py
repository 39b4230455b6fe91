"""The running mean of the weights, which generalises better than where the last step ended."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..kernels.types import Array

if TYPE_CHECKING:
    from ..engine.engine import Engine

#: The vector's name in an optimizer's state.
AVERAGE = "average"
#: Updates between two samples of the mean: it hardly differs, and costs a pass over the weights.
EVERY = 8


def add_sample(average: Array, weights: Array, updates: int, horizon: float) -> None:
    """Move ``average`` towards ``weights`` behind update number ``updates`` (1, 2, ...): the mean
    of all samples so far, and once it spans more than ``horizon`` updates, the exponential one,

        average += (1 - exp(-EVERY / horizon)) * (weights - average)

    Before update number EVERY the mean is the weights themselves. Polyak, Juditsky 1992.
    """
    every = min(EVERY, updates)
    if updates % every == 0:
        share = max(every / updates, -math.expm1(-every / horizon))
        average += average.dtype.type(share) * (weights - average)


@contextmanager
def averaged(model: Engine) -> Iterator[None]:
    """Give ``model`` the mean of its weights within the context, where its optimizer keeps one."""
    average = model.optimizer.state.get(AVERAGE)
    if average is None:
        yield
        return
    own = model.parameters.copy()
    take_average(model)
    try:
        yield
    finally:
        model.parameters[...] = own
        model.weights_changed()


def take_average(model: Engine) -> None:
    """Give ``model`` the mean of its weights for good, where its optimizer keeps one."""
    average = model.optimizer.state.get(AVERAGE)
    if average is not None:
        model.parameters[...] = average
        model.weights_changed()

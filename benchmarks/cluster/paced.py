"""The talk's network with events that take a set time asleep instead of computing, and ranks that
sleep where they wait for others, as MPI would spin: many nodes then fit on few cores, and what is
measured is the exchange. Gradients are reported where the engine does.
"""

import time
from functools import partial

from minicnn.jobs.recipe import Recipe

#: The forward pass's share of an event's time; blocks that divide the rest.
FORWARD, BLOCKS = 0.6, 4

#: Seconds asleep between two looks at what is under way.
NAP = 0.2e-3


class Asleep:
    """A communicator whose ranks sleep while a collective is under way. MPI's own would spin, and
    of more ranks than cores those that have nothing to do would take the cores of those that have
    data to move: 8 nodes on 2 cores took 1.6 times as long.
    """

    def __init__(self, comm):
        self._comm = comm

    def __getattr__(self, name):
        found = getattr(self._comm, name)
        if name in ("Allreduce", "Allgather", "Allgatherv", "Alltoall", "Bcast", "Reduce_scatter"):
            found = getattr(self._comm, f"I{name[0].lower()}{name[1:]}")
            return lambda *arguments: wait_asleep([found(*arguments)])
        if name in ("Split", "Split_type", "Dup"):
            return lambda *arguments: Asleep(found(*arguments))
        return found


def wait_asleep(requests):
    """Wait until all requests are complete."""
    from mpi4py import MPI

    while not MPI.Request.Testall(requests):
        time.sleep(NAP)


def wait_for_sums(under_way):
    """In place of UnderWay.wait."""
    under_way._some.clear()
    with under_way._calls:
        under_way._begin()
        wait_asleep(under_way._requests)
        under_way._requests = []


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

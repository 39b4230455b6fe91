"""Which sync mode a training takes where it is left to choose: every mode makes steps on the ranks,
the events and the network of the job, without updates, before the training begins.

Steps and not exchanges alone are timed, because what a mode hides depends on how often the engine
calls MPI while it computes (docs/parallel.md). Of each time the slowest rank's counts, as a step
ends when its last rank does; rank 0 decides by these, and all ranks do what it says.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..inspect.trace import Ledger
from ..parallel import AutoSync, agree, everywhere, make_sync, ordered
from ..parallel.machine import ranks_of_nodes
from ..parallel.sync.auto import OTHER_UPDATE, SAME_UPDATE
from ..progress import say
from ..text import bytes_text, counted
from .iterables import IterableData
from .step import reduce_gradients

if TYPE_CHECKING:
    from ..engine.model import Model
    from ..parallel import Sync

#: A mode is left for a less plain one that makes the step shorter by more than this part of it.
MARGIN = 0.02
#: Turns of every mode, steps of a turn that are timed, seconds after which no further turn begins.
TURNS, STEPS, SECONDS = 5, 2, 10.0
#: {mode: seconds per step, one number for each of its turns}.
Times = Mapping[str, Sequence[float]]


def as_sync(sync: Any, comm: Any, every: int, data: Any) -> Any:
    """Return ``sync``, made of its name if it is one; ValueError for one that belongs to other
    ranks, for an option it would ignore, and for "auto" of ``data`` that can be read only once.
    """
    if isinstance(sync, str):
        sync = make_sync(sync, comm, every)
    elif sync.comm is not comm or every != 1:
        raise ValueError(
            "a sync that is made already takes its communicator and sync_every from make_sync: "
            "give fit the same comm, and no sync_every"
        )
    if isinstance(sync, AutoSync) and comm and isinstance(data, IterableData):
        raise ValueError(
            'sync "auto" tries the modes on the first events of a store or of arrays, and would '
            "use up batches of an iterable: name a mode"
        )
    return sync


def choose_sync(
    auto: AutoSync, model: Model, read: Callable[[], list[Any]], saved: dict[str, Any] | None = None
) -> Sync:
    """Return the sync of the mode that is fastest for ``model``, on all ranks together, and say
    why; the same goes to ``auto.record``, for run.json.

    auto: an AutoSync, which knows the ranks and what is allowed. read: returns this rank's batches
    of a step. saved: the record of the training that goes on; its mode is taken, unmeasured.
    Bad input that ``read`` or the first step finds on one rank is an error of all. What the
    training computes does not depend on what is tried: the model is left as it was.
    """
    comm = auto.comm
    if saved:
        record, why = dict(saved), "as in the step that is saved"
    elif comm.size == 1:
        record, why = {"mode": "gradients"}, "one rank exchanges nothing"
    else:
        record = _measured(auto, model, read)
        why = record["why"]
    auto.record = {"mode": record["mode"], "why": why} | record
    say(comm, f"sync auto: {record['mode']}, {why}")
    return make_sync(record["mode"], comm, record.get("every", 1))


def _measured(auto: AutoSync, model: Model, read: Callable[[], list[Any]]) -> dict[str, Any]:
    """Return the record of a choice: mode, why, and all that was measured, in ms."""
    comm, nbytes = auto.comm, model.gradients.nbytes
    nodes = ranks_of_nodes(comm)
    trial = everywhere(comm, lambda: Trial(comm, model, read()))
    compute, exchange = trial.compute(), trial.exchange("gradients")[0]
    record: dict[str, Any] = {
        **{"ranks": comm.size, "nodes": len(nodes), "bytes": nbytes},
        **{"compute_ms": 1e3 * compute, "allreduce_ms": 1e3 * exchange},
    }
    where = f"{comm.size} ranks on {counted(len(nodes), 'node')}"
    costs = (
        f"the Allreduce of {bytes_text(nbytes)} takes {1e3 * exchange:.1f} ms, computing a step "
        f"{1e3 * compute:.1f} ms"
    )
    if ordered(comm, lambda: exchange < MARGIN * compute):
        why = f"{where}: {costs}, and so no mode could gain {100 * MARGIN:.0f} %"
        return {"mode": "gradients", "why": why} | record
    half = {mode: trial.exchange(mode) for mode in ("fp16", "bf16")}
    several = len(nodes) < comm.size and len(nodes) > 1  # else "hierarchical" is "gradients"
    modes = [mode for mode in (*SAME_UPDATE, *OTHER_UPDATE) if several or mode != "hierarchical"]
    times = trial.steps(modes)
    mode, faster = ordered(comm, lambda: decide(times, auto.allow))
    record |= {
        "half_ms": {name: 1e3 * seconds for name, (seconds, _) in half.items()},
        "packing_ms": {name: 1e3 * packing for name, (_, packing) in half.items()},
        "step_ms": {name: 1e3 * statistics.median(of_mode) for name, of_mode in times.items()},
        "turns": len(times[mode]),
    }
    steps = ", ".join(f"{name} {ms:.1f}" for name, ms in record["step_ms"].items())
    why = f"{where}: {costs}; in ms a step {steps}"
    if faster:
        gains = ", ".join(f"{name} by {100 * gain:.0f} %" for name, gain in faster.items())
        why += f"\n  faster, but with another update: {gains} (--allow {' '.join(faster)})"
    return {"mode": mode, "why": why} | record


def decide(times: Times, allow: Sequence[str] = ()) -> tuple[str, dict[str, float]]:
    """Return the mode to take, and {mode: part by which it would be faster still} of modes that are
    not allowed.

    Modes are compared turn by turn, and the median of the ratios counts: all of a turn were made
    within seconds, whatever else the machine or the network had to do.
    """
    best = "gradients"
    for mode in times:
        taken = mode in SAME_UPDATE or mode in allow
        if taken and _gain(times, mode, best) > MARGIN:
            best = mode
    others = {mode: _gain(times, mode, best) for mode in times if mode in OTHER_UPDATE}
    return best, {m: gain for m, gain in others.items() if m not in allow and gain > MARGIN}


def _gain(times: Times, mode: str, other: str) -> float:
    """Return the part of the step with ``other`` by which that with ``mode`` is shorter."""
    return 1 - statistics.median(a / b for a, b in zip(times[mode], times[other]))


class Trial:
    """Steps without updates on the same ``batches`` again and again; all ranks of ``comm`` call
    everything together, and get the seconds of the slowest of them.
    """

    def __init__(self, comm: Any, model: Model, batches: list[Any]) -> None:
        self.comm, self.model, self.batches = comm, model, batches

    def compute(self) -> float:
        """Return the seconds of a step that exchanges nothing."""
        alone = make_sync("gradients", None)
        # A batch that the model refuses is found here, where no rank waits for another yet.
        turns = [everywhere(self.comm, lambda: self._turn(alone)) for _ in range(3)]
        return self._slowest(statistics.median(turns))

    def exchange(self, mode: str) -> tuple[float, float]:
        """Return the seconds of an exchange beside no computation, and those of them that packing
        in half precision takes.
        """
        sync, model, done = make_sync(mode, self.comm), self.model, []
        for _ in range(4):
            model.clear_gradients()
            self.comm.Barrier()
            with Ledger(detail=True, keep=0) as ledger:
                sync.reduce_gradients(model)
                model.kernels.synchronize()
                ledger.step()
            done.append((ledger.epoch.walls[0], ledger.epoch.seconds.get(("pack", ""), 0.0)))
        seconds, packing = zip(*done[1:])  # the first one sets up buffers and connections
        return self._slowest(statistics.median(seconds)), self._slowest(statistics.median(packing))

    def steps(self, modes: Sequence[str]) -> dict[str, list[float]]:
        """Return the Times of the modes, which take turns; the first turn counts for nothing."""
        syncs = {mode: make_sync(mode, self.comm) for mode in modes}
        times: dict[str, list[float]] = {mode: [] for mode in modes}
        for sync in syncs.values():
            self._turn(sync)
        end = time.perf_counter() + SECONDS
        for _ in range(TURNS):
            for mode, sync in syncs.items():
                times[mode].append(self._slowest(self._turn(sync)))
            if ordered(self.comm, lambda: time.perf_counter() > end):
                break
        return times

    def _turn(self, sync: Any) -> float:
        """Return the seconds per step of this rank, after one that is not timed."""
        model = self.model
        state = model.buffers.state.copy()
        for step in range(STEPS + 1):
            if step == 1:
                model.kernels.synchronize()
                began = time.perf_counter()
            model.weights_changed()  # as after an update
            reduce_gradients(model, self.batches, sync, Ledger())
        model.kernels.synchronize()
        seconds = (time.perf_counter() - began) / STEPS
        sync.collect_pending(model)
        model.buffers.state[...] = state
        return seconds

    def _slowest(self, seconds: float) -> float:
        return max(agree(self.comm, value=seconds))

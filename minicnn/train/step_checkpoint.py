"""Checkpoints of a step: what a training needs to go on at that very step, to the same bits.

    folder/step.safetensors          weights, optimizer, states of layers, place in the epoch, sums
                                     of history and ledger, settings: of rank 0
    folder/rank-3-TAG.safetensors    what rank 3 has that differs: residuals of fp16 and bf16,
                                     weights between two means, running statistics

step.safetensors is written last and names the TAG of the others: a job that is killed at any moment
leaves the old set or the new one.
"""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..inspect import trace
from ..parallel import agree, everywhere, make_sync, ordered
from ..parallel.collective import Notices, together
from ..parallel.signals import Preempted, Signals
from ..parallel.sync import CompressedSync
from ..parallel.sync.compressed import in_whole
from ..watch import waiting
from .checkpoint import read_arrays, write_arrays
from .identity import MAY_CHANGE, differences

if TYPE_CHECKING:
    from ..engine.model import Model

FORMAT = "minicnn-step-1"


@dataclass
class Place:
    """Where a training is, beside its model.

    epoch: from 0. step: steps of it that are done, in this order of events. used (events of the
    file,): the events of this epoch that were used in another order, by another number of ranks
    (numbers in the file). total: the sums of the epoch's figures. seconds: that it took. books: of
    this rank's ledger. callbacks: what they remember.
    """

    epoch: int = 0
    step: int = 0
    used: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    total: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    books: dict[str, Any] | None = None
    callbacks: list[list[Any]] = field(default_factory=list)


class StepCheckpoint:
    """``fit(checkpoint=StepCheckpoint(folder))`` saves the step every so many ``minutes``, at every
    epoch's end, and after SIGINT, SIGTERM or SIGUSR1, where ``fit`` then ends with Preempted, a
    SystemExit of status 75. ``resume``: go on with what is in ``folder``, if there is anything.

    folder: all ranks see it. settings: JSON-ready, of whoever trains; saved, and compared where
    the training goes on: what is not in identity.MAY_CHANGE must be the same.
    """

    def __init__(
        self,
        folder: str | Path,
        minutes: float = 5.0,
        resume: bool = False,
        settings: dict[str, Any] | None = None,
    ) -> None:
        if not minutes > 0:
            raise ValueError(f"a step is saved every so many minutes, above 0, got {minutes}")
        self.folder, self.minutes, self.resume = Path(folder), minutes, resume
        self.settings = settings or {}
        self.facts: dict[str, Any] = {}
        self.comm: Any = None
        self.signals = Signals()

    @property
    def path(self) -> Path:
        """The file of rank 0, which is there if and only if there is a checkpoint."""
        return self.folder / "step.safetensors"

    # ----------------------------------------------------------------------------- when to save
    def begin(self, comm: Any, facts: dict[str, Any]) -> None:
        """Take signals from here on; ``comm``: all ranks; ``facts``: what the training is, see
        identity.
        """
        self.comm, self.facts = comm, facts | self.settings
        self.notices = Notices(comm)
        self.signals.__enter__()
        self.saved_at = time.monotonic()

    def end(self, problem: BaseException | None) -> None:
        """Leave signals as they were before; ``problem``: what ended the training, if any."""
        self.signals.__exit__(None, None, None)
        if self.comm and (problem is None or getattr(problem, "together", False)):
            self.notices.collect()  # nobody may free what MPI still writes to

    def edge(self, save: Callable[[], str], always: bool = False) -> None:
        """Between two steps, on all ranks: ``save()`` where it is time, ``always`` or after a
        signal; raises Preempted after a signal.
        """
        late = self.comm.rank == 0 and time.monotonic() - self.saved_at > 60 * self.minutes
        asked, due = self.notices.exchange(self.signals.asked, int(late))
        if not (asked or due or always):
            return
        with waiting("the saving of a step"):
            where = save()
        self.saved_at = time.monotonic()
        if asked:
            if self.comm.rank == 0:
                name = signal.Signals(asked).name
                print(f"\n{name}: {where} is saved in {self.folder}; resume to go on", flush=True)
            raise Preempted

    # ----------------------------------------------------------------------------------- saving
    def save(self, model: Model, sync: Any, place: Place, used: np.ndarray) -> None:
        """Write the checkpoint of ``model`` and of what ``sync`` carries from one step into the
        next, on all ranks together; ``used``: the events that this rank used in
        the order of ``place``, as numbers in the file.

        Raises RuntimeError on all ranks where weights that must be equal on all of them are not.
        """
        comm, arrays = self.comm, _arrays(model, sync)
        digests = {name: _digest(array) for name, array in arrays.items()}
        first = comm.bcast(digests)
        own = {name: array for name, array in arrays.items() if digests[name] != first.get(name)}
        problem = None
        if not sync.updates_before_reduction and any(_is_common(name) for name in own):
            problem = f"rank {comm.rank} has other weights than rank 0"
        tag = comm.bcast(f"{model.updates}-{time.time_ns():x}")
        own_file = self.folder / f"rank-{comm.rank}-{tag}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if own and not problem:
                write_arrays(own_file, own, {"format": FORMAT})
        except OSError as failure:
            problem = f"rank {comm.rank}: {own_file}: {failure.strerror}"
        per_rank = agree(comm, problem, {"own": bool(own), "books": place.books}, RuntimeError)
        all_used = comm.gather(used)
        state = {
            "format": FORMAT,
            "facts": self.facts,
            "tag": tag,
            "ranks": per_rank,
            "sync": [sync.mode, getattr(sync, "every", 1)],
            "updates": model.updates,
            "optimizer": {
                "steps": model.optimizer.steps,
                "rate_factor": model.optimizer.rate_factor,
            },
            "place": {
                name: getattr(place, name)
                for name in ("epoch", "step", "total", "seconds", "callbacks")
            },
        }
        state = json.loads(json.dumps(state, default=float))  # NumPy's numbers become floats

        def write() -> None:
            after = _marked(place.used, *all_used) if place.step else place.used
            order = {"used": np.packbits(place.used), "used after": np.packbits(after)}
            write_arrays(self.path, arrays | order, state)

        ordered(comm, write)
        for before in self.folder.glob(f"rank-{comm.rank}-*.safetensors"):
            if before != own_file:
                before.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------- going on
    def saved_sync(self, comm: Any) -> dict[str, Any] | None:
        """Return the record of the sync of the step that the training goes on with, {"mode",
        "every", ...}, on all ranks of ``comm`` together; None where there is none, or of another
        number of ranks.
        """

        def read() -> dict[str, Any] | None:
            if not (self.resume and self.path.exists()):
                return None
            _, state = read_arrays(self.path, (FORMAT,))
            mode, every = state["sync"]
            same = len(state["ranks"]) == comm.size
            return (
                state["facts"].get("sync choice", {}) | {"mode": mode, "every": every}
                if same
                else None
            )

        return ordered(comm, read)

    def restore(self, model: Model, sync: Any) -> Place | None:
        """Bring model, optimizer and ``sync`` to where they were, on all ranks together; return the
        place, None where nothing was saved.

        Raises ValueError on all ranks where a file is damaged, and where another training wrote it,
        naming what differs.
        """
        comm = self.comm
        if not self.resume or not ordered(comm, self.path.exists):
            return None
        arrays, state = everywhere(comm, lambda: self._read(model))
        again = len(state["ranks"]) == comm.size
        found = differences(state["facts"], self.facts, again)
        if found:
            raise together(
                ValueError(
                    f"{self.path} is of another training: {'; '.join(found)}. What may change: "
                    f"{', '.join(MAY_CHANGE)}; for all else begin anew, in another folder"
                )
            )
        place = Place(**state["place"])
        place.used = np.unpackbits(arrays.pop("used" if again else "used after")).astype(bool)
        if not again and "sync:pending" in arrays:  # their weights have become the mean already
            figures = arrays.pop("sync:pending").tolist()[1:]
            _add(place.total, dict(zip(model.targets.tail, figures)))
        _add(place.total, self._set(model, sync, arrays, state))
        if again:
            place.books = state["ranks"][comm.rank]["books"]
        else:  # the rest of the epoch is dealt anew, and epochs have another number of steps
            place.step = 0
            steps, before = self.facts["steps per epoch"], state["facts"]["steps per epoch"]
            model.optimizer.steps = round(model.optimizer.steps * steps / before)
        if comm.rank == 0:
            step = f"step {state['place']['step']} of epoch {place.epoch + 1}, "
            print(f"{self.path}: going on behind {step}{model.updates} updates", flush=True)
        return place

    def _read(self, model: Model) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and state for this rank: its own arrays in place of rank 0's; with another
        number of ranks what all of them become.
        """
        arrays, state = read_arrays(self.path, (FORMAT,))
        ranks, tag = state["ranks"], state["tag"]

        def own(rank: int) -> dict[str, np.ndarray]:
            if not ranks[rank]["own"]:
                return {}
            return read_arrays(self.folder / f"rank-{rank}-{tag}.safetensors", (FORMAT,))[0]

        if len(ranks) == self.comm.size:
            return arrays | own(self.comm.rank), state
        if any(of_rank["own"] for of_rank in ranks):
            arrays = _merged([arrays | own(rank) for rank in range(len(ranks))], model, state)
            if self.comm.rank and "sync:error" in arrays:  # the sum of them goes on with rank 0
                arrays["sync:error"] = np.zeros_like(arrays["sync:error"])
        return arrays, state

    def _set(
        self, model: Model, sync: Any, arrays: dict[str, np.ndarray], state: dict[str, Any]
    ) -> dict[str, float] | None:
        """Give model, optimizer and ``sync`` their state; return the figures of steps that another
        sync mode left unfinished, which are finished here.
        """
        from .step import flush

        kernels, optimizer = model.kernels, model.optimizer
        model.parameters[...] = kernels.asarray(arrays["parameters"])
        if model.buffers.state.size:
            model.buffers.state[...] = kernels.asarray(arrays["state"])
        for name, array in arrays.items():
            if name.startswith("optimizer:"):
                optimizer.state[name[10:]][...] = kernels.asarray(array)
        optimizer.steps = state["optimizer"]["steps"]
        optimizer.rate_factor = state["optimizer"]["rate_factor"]
        model.updates = state["updates"]
        model.weights_changed()
        carried = {name[5:]: array for name, array in arrays.items() if name.startswith("sync:")}
        mode, every = state["sync"]
        both_compressed = "error" in carried and isinstance(sync, CompressedSync)
        if mode == sync.mode or not carried or both_compressed:
            sync.set_state(model, carried)
            return None
        if "error" in carried:
            self._say_dropped(mode, sync.mode, carried["error"])
        before = make_sync(mode, self.comm, every)
        before.set_state(model, carried)
        return flush(model, optimizer, before, trace.Ledger())

    def _say_dropped(self, before: str, now: str, error: np.ndarray) -> None:
        """Say what a mode without error feedback cannot carry on with."""
        norms = self.comm.allgather(float(np.linalg.norm(error)))
        if self.comm.rank == 0:
            print(
                f"{self.path}: sync {before} has become {now}, so what rounding took away from the "
                f"gradients before is dropped (of norm {max(norms):.3g} on a rank); --sync "
                f"{before} goes on with it",
                flush=True,
            )


def _arrays(model: Model, sync: Any) -> dict[str, np.ndarray]:
    """Return all that a rank computes with in the next step, on the host."""
    to_host = model.kernels.to_host
    arrays = {"parameters": to_host(model.parameters), "state": to_host(model.buffers.state)}
    arrays |= {f"optimizer:{name}": to_host(v) for name, v in model.optimizer.state.items()}
    return arrays | {f"sync:{name}": array for name, array in sync.state(model).items()}


def _add(total: dict[str, float], figures: dict[str, float] | None) -> None:
    for name, value in (figures or {}).items():
        total[name] = total.get(name, 0.0) + value


def _is_common(name: str) -> bool:
    return name == "parameters" or name.startswith("optimizer:")


def _digest(array: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).digest()


def _marked(used: np.ndarray, *numbers: np.ndarray) -> np.ndarray:
    """Return ``used`` with further events marked."""
    size = max([len(used), *(int(n.max()) + 1 for n in numbers if len(n))])
    marked = np.zeros(size, bool)
    marked[: len(used)] = used
    for each in numbers:
        marked[each] = True
    return marked


def _merged(
    per_rank: list[dict[str, np.ndarray]], model: Model, state: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Return the arrays of another number of ranks: weights between two means become their mean,
    running statistics as well; residuals of compressed gradients are added up.
    """
    merged, size = dict(per_rank[0]), model.parameters.size
    if "sync:pending" in merged:
        figures = [arrays["sync:pending"] for arrays in per_rank]
        events = np.array([each[1] for each in figures])
        for name in filter(_is_common, merged):
            total = sum(n * arrays[name].astype(np.float64) for n, arrays in zip(events, per_rank))
            merged[name] = (total / max(events.sum(), 1)).astype(merged[name].dtype)
        merged["sync:pending"] = np.sum(figures, 0)
    states = np.stack([arrays["state"] for arrays in per_rank])
    merged["state"] = states.mean(0, np.float64).astype(states.dtype)
    if "sync:error" in merged:
        merged["sync:error"] = np.sum(
            [
                in_whole(arrays[name], size, rank)
                for name in ("sync:error", "sync:owner_error")
                for rank, arrays in enumerate(per_rank)
            ],
            0,
        )
        merged.pop("sync:owner_error")
    return merged

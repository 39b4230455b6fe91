"""What tests/parallel runs on several ranks, like mpi_cases.py: the mode that a training chooses by
itself, and what is under way beside its computation.
"""

import tempfile
import time
from contextlib import contextmanager
from unittest import mock

import numpy as np

import minicnn as mc
from helpers import random_batch
from helpers.mpi_cases import run, same_everywhere, two_nodes
from minicnn.parallel import AUTO, make_sync, ordered
from minicnn.parallel.sync import progress
from minicnn.parallel.sync.auto import OTHER_UPDATE, SAME_UPDATE
from minicnn.train import choose_sync
from minicnn.train.step_checkpoint import StepCheckpoint


def model_with_state():
    """A network whose forward pass draws at random and moves running statistics."""
    layers = [mc.Flatten(), mc.Dense(8), mc.BatchNormalization(), mc.Dropout(0.3), mc.Dense(3)]
    return mc.Sequential(layers, (22, 19, 1), optimizer=mc.SGD(0.05, 0.9), device="reference")


def fit(comm, sync, epochs=2, **options):
    model = model_with_state()
    x, y = random_batch(6 * comm.size + 1)
    model.fit((x, y), batch_size=2, accumulate=2, epochs=epochs, comm=comm, sync=sync, **options)
    return model


@contextmanager
def patched(**values):
    """Set names of choose_sync for a while."""
    with mock.patch.multiple(choose_sync, **values):
        yield


def chosen(mode):
    """Let all be measured, and this mode be the fastest."""
    return patched(decide=lambda times, allow: (mode, {}), MARGIN=-1.0, TURNS=1)


def ask(comm, seconds, allow=()):
    """Return (sync, record) of ranks that measure ``seconds`` {mode: of a step}; "none" computes
    alone.
    """

    def turn(trial, sync):
        return seconds["none" if sync.size == 1 else sync.mode]

    def exchange(trial, mode):
        return trial._slowest(seconds["exchange"]), 0.0

    auto = make_sync(AUTO, comm, allow=allow)
    with mock.patch.multiple(choose_sync.Trial, _turn=turn, exchange=exchange):
        return choose_sync.choose_sync(auto, model_with_state(), list), auto.record


def case_auto_agrees(comm):
    """Ranks measure different times: the slowest one's count, and all do the same."""
    last = comm.rank == comm.size - 1
    fast = {"none": 0.1, "exchange": 0.1, "gradients": 0.2, "overlap": 0.12, "hierarchical": 0.2}
    fast |= {"fp16": 0.19, "bf16": 0.11, "delayed": 0.2}
    for changed, allow, expected in (
        ({}, (), "overlap"),
        ({}, ("bf16",), "bf16"),
        ({"overlap": 0.3}, (), "gradients"),  # of the last rank: its step is everybody's
        ({"overlap": 0.3}, ("fp16", "delayed"), "fp16"),
        ({"gradients": 0.9, "overlap": 0.5}, (), "overlap"),
        ({"none": 9.0}, (), "gradients"),  # no mode could gain anything
    ):
        sync, record = ask(comm, fast | (changed if last else {}), allow)
        assert sync.mode == record["mode"] == expected, (changed, allow, record)
        assert sync.comm is comm and comm.allgather(record) == [record] * comm.size
        assert ("step_ms" in record) == ("none" not in changed)
    with patched(SECONDS=0.0 if last else 1e9):  # rank 0 says when it is enough
        assert ask(comm, fast)[1]["turns"] == choose_sync.TURNS


def case_auto_measures(comm):
    """Times are positive, and what they decide is said."""
    with patched(MARGIN=-1.0, TURNS=2):
        auto = make_sync(AUTO, comm)
        fit(comm, auto)
    record = auto.record
    assert comm.allgather(record) == [record] * comm.size
    assert set(record["step_ms"]) == {"gradients", "overlap", *OTHER_UPDATE}
    assert set(record["half_ms"]) == set(record["packing_ms"]) == {"fp16", "bf16"}
    for name in ("step_ms", "half_ms", "packing_ms"):
        assert all(ms > 0 for ms in record[name].values()), record
    assert record["mode"] in SAME_UPDATE and (record["ranks"], record["nodes"]) == (comm.size, 1)
    assert 0 < record["packing_ms"]["fp16"] < record["half_ms"]["fp16"]
    assert record["compute_ms"] > 0 < record["allreduce_ms"]


def case_auto_leaves_no_trace(comm):
    """To have tried all modes changes no bit of the training that follows, in whatever mode."""
    for mode in ("gradients", "overlap", *OTHER_UPDATE):
        with chosen(mode):
            auto = make_sync(AUTO, comm, allow=OTHER_UPDATE)
            tried = fit(comm, auto)
        assert auto.record["mode"] == mode
        named = fit(comm, mode)
        assert tried.parameters.tobytes() == named.parameters.tobytes(), mode
        assert tried.buffers.state.tobytes() == named.buffers.state.tobytes(), mode
        assert tried.updates == named.updates and same_everywhere(comm, tried.parameters)


def case_auto_goes_on(comm):
    """A training that goes on takes the saved mode, and keeps what was measured."""
    folder = ordered(comm, tempfile.mkdtemp)
    auto, again = make_sync(AUTO, comm), make_sync(AUTO, comm)
    with chosen("overlap"):
        fit(comm, auto, checkpoint=StepCheckpoint(folder))
    with patched(_measured=None):  # whoever measured anew would fail
        went_on = fit(comm, again, epochs=4, checkpoint=StepCheckpoint(folder, resume=True))
    whole = fit(comm, "overlap", epochs=4)
    assert went_on.parameters.tobytes() == whole.parameters.tobytes()
    assert again.record == auto.record | {"every": 1} and "step_ms" in again.record
    with patched(_measured=None):  # what had been named as well
        folder = ordered(comm, tempfile.mkdtemp)
        fit(comm, "fp16", checkpoint=StepCheckpoint(folder))
        fit(comm, again, epochs=3, checkpoint=StepCheckpoint(folder, resume=True))
    assert again.record["mode"] == "fp16"


class Unreadable:
    """Events of which rank 1 cannot read any, or has a class that the model lacks."""

    def __init__(self, comm, label):
        self.rank, self.label = comm.rank, label

    def __len__(self):
        return 4

    def batch(self, indices):
        if self.rank == 1 and self.label is None:
            raise ValueError("event 3 of rank 1 is damaged")
        x, y = random_batch(len(indices))
        return x, y if self.rank != 1 else np.full(len(y), self.label)


def case_auto_fails_together(comm):
    """What is wrong on one rank is an error of all, in words, before any of them waits."""
    for label, message in ((None, "event 3 of rank 1 is damaged"), (99, "99")):
        try:
            model_with_state().fit(Unreadable(comm, label), comm=comm, sync=AUTO)
        except ValueError as problem:
            assert message in str(problem) and problem.together, problem
        else:
            raise AssertionError(message)


def case_auto_takes_no_iterable(comm):
    try:
        model_with_state().fit([random_batch(2)] * 3, comm=comm, sync=AUTO)
    except ValueError as problem:
        assert "name a mode" in str(problem)
    else:
        raise AssertionError("batches of an iterable were used up")


def case_residuals(comm):
    """What rounding took away is saved and goes on: on the same nodes to the same bits, on others
    as a sum that loses nothing.
    """
    from minicnn.parallel import shared

    node_of = shared.node_of

    class Model:
        kernels, parameters = mc.kernels.get_backend("reference"), np.zeros(1001, np.float32)
        gradients = np.zeros(1005, np.float32)

    def sums(sync, step):
        rng = np.random.default_rng([comm.rank, step])
        Model.gradients[:] = np.append(rng.standard_normal(1001), [1, 1, 1, 0])
        sync.reduce_gradients(Model)
        return Model.gradients.tobytes()

    def total(state):
        return comm.allreduce(sum(np.asarray(a, np.float64) for a in state.values()))

    for mode in ("fp16", "bf16"):
        for nodes, others in ((node_of, "two"), ("two", node_of)):
            place(comm, nodes)
            before = make_sync(mode, comm)
            sums(before, 0)
            state = {name: array.copy() for name, array in before.state(Model).items()}
            assert total(state).any()
            again = make_sync(mode, comm)
            again.set_state(Model, state)
            assert sums(before, 1) == sums(again, 1)
            with mc.trace.Ledger(detail=True) as ledger:
                sums(before, 2)
                ledger.step()
            assert len(set(comm.allgather(len(ledger.epoch.collectives)))) == 1, "also without work"
            place(comm, others)
            other = make_sync(mode, comm)
            other.set_state(Model, state)
            left = total(other.state(Model))
            assert np.allclose(left, total(state), rtol=1e-5, atol=1e-9)
            assert same_everywhere(comm, np.frombuffer(sums(other, 1), np.float32))
    shared.node_of = node_of


def place(comm, nodes):
    """Put the ranks on the nodes that they are on, or on two of them."""
    from minicnn.parallel import shared

    two_nodes(comm) if nodes == "two" else setattr(shared, "node_of", nodes)


def case_delayed_goes_on(comm):
    """Sums of a saved step were not under way in this process: nothing of them is on its ledger."""

    class Model:
        kernels, parameters = mc.kernels.get_backend("reference"), np.zeros(5, np.float32)
        gradients = np.ones(9, np.float32)

    sync = make_sync("delayed", comm)
    with mc.trace.Ledger(detail=True) as ledger:
        sync.set_state(Model, {"sums": np.full(9, 7, np.float32)})
        assert sync.reduce_gradients(Model) and (Model.gradients == 7).all()
        assert not ledger.epoch.hidden and not ledger.epoch.collectives
        Model.gradients[:] = 1
        assert sync.reduce_gradients(Model) and (Model.gradients == comm.size).all()
        assert ledger.epoch.hidden and len(ledger.epoch.collectives) == 1
    sync.collect_pending(Model)


def case_progress(comm):
    """Of several nodes, what is under way completes while the main thread calls no MPI; by its
    calls alone on one node, and where MPI allows no other thread.
    """
    from mpi4py import MPI

    from minicnn.parallel import shared

    node_of = shared.node_of
    for nodes, level in (
        ("two", MPI.THREAD_MULTIPLE),
        ("two", MPI.THREAD_SERIALIZED),
        (node_of, MPI.THREAD_MULTIPLE),
    ):
        place(comm, nodes)
        with (
            mock.patch.object(MPI, "Query_thread", lambda level=level: level),
            mock.patch.object(progress, "IDLE", 0.05),
        ):
            under_way = progress.UnderWay(comm)
            exchange(comm, under_way, thread=nodes == "two" and level == MPI.THREAD_MULTIPLE)
            exchange(comm, under_way, thread=under_way._by_thread)  # a new one: the idle one ends


def exchange(comm, under_way, thread):
    pieces = [np.full(n, comm.rank + 1, np.float32) for n in (1 << 20, 1, 5000)]
    for piece in pieces:
        under_way.add(piece)
    assert (under_way._thread is not None) == thread

    def summed():
        under_way.progress()  # does nothing where a thread does it
        return all((piece == sum(range(comm.size + 1))).all() for piece in pieces)

    until(summed)
    under_way.wait()
    assert summed()
    until(lambda: under_way._thread is None)


def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(1e-3)


if __name__ == "__main__":
    run(globals())

"""What test_parallel.py runs of stores that the ranks of a node share, like mpi_cases.py: python
tests/mpi_store_cases.py CASE.
"""

import os
import signal

import numpy as np

import minicnn as mc
from helpers import Source, small_model
from helpers.mpi_cases import failing, run, same_everywhere, two_nodes


def sparse_source(n):
    """Events whose number of lit pixels, values and label tell them apart."""
    rng = np.random.default_rng(7)
    events = []
    for i in range(n):
        coords = np.argwhere(rng.random((22, 19)) < rng.random())
        events.append(
            mc.data.Event(
                mc.data.SparseImage(coords, rng.normal(i % 3, 1, len(coords)), (22, 19, 1), i % 2),
                i % 3,
            )
        )
    return Source(events, (22, 19, 1))


def node_store(comm, source, form="sparse"):
    store = mc.data.EventStore("lz4", form=form)
    store.load(source, mc.data.shard(len(source), comm.size, comm.rank))
    shared = mc.data.NodeStore(store, comm)
    assert len(store) == 0
    return shared


def case_node_store(comm):
    """Every rank reads every event of its node, each event comes once per epoch, and steps are
    dealt evenly.
    """
    source = sparse_source(41)
    for nodes in (1, 2):
        if nodes == 2:
            two_nodes(comm)
        store = node_store(comm, source, ("sparse", "dense")[nodes - 1])
        own = mc.data.shard(len(source), comm.size, comm.rank)
        assert len(store) == len(own) and np.array_equal(store.numbers[: len(own)], own)
        assert sorted(store.numbers) == sorted(np.concatenate(store.memory.node.allgather(own)))
        images, labels = store.batch(range(store.reach))
        for number, image, label in zip(store.numbers, images, labels):
            event = source.read(number)
            same = image.to_dense() if store.form == "sparse" else image
            assert np.array_equal(same, event.image.to_dense()) and label == event.label
        for epoch in range(3):
            mine = store.order(5, epoch, 4)
            assert sorted(store.memory.node.allreduce(list(store.numbers[mine]))) == sorted(
                store.numbers
            )
            assert sorted(comm.allreduce(list(store.numbers[mine]))) == list(range(len(source)))
            steps = comm.allreduce(-(-len(mine) // 4), max)
            assert steps == -(-max(comm.allgather(len(store))) // 4), (
                "more steps than fit agreed on"
            )
            for step in range(steps):
                lit = store.memory.node.allgather(
                    [source.read(n).image.nnz for n in store.numbers[mine[4 * step : 4 * step + 4]]]
                )
                assert max(map(len, lit)) - min(map(len, lit)) <= 1
                there_and_back = [
                    sorted(column, reverse=turn % 2 == 0) for turn, column in enumerate(zip(*lit))
                ]
                assert [sorted(some, reverse=True) for some in lit] == lit and list(
                    zip(*lit)
                ) == list(map(tuple, there_and_back))
        assert comm.size == 1 or not np.array_equal(store.order(5, 0, 4), store.order(5, 1, 4))
        for forbidden in (
            lambda store=store: store.memory.pieces[0].__setitem__(0, 1),
            lambda store=store: store.load(source),
        ):
            try:
                forbidden()
            except TypeError:
                pass
            else:
                raise AssertionError("a shared store was written to")
        store.close()


def case_node_store_fit(comm):
    source = sparse_source(10 * comm.size + 1)
    store = node_store(comm, source)
    flip = mc.data.transforms
    data = flip.Augmented(store, flip.GainJitter(0.01))
    assert np.array_equal(data.numbers, store.numbers)
    model = small_model("cpu", seed=comm.rank)
    history = model.fit(
        data, validation_data=store, epochs=4, batch_size=5, comm=comm, optimizer=mc.SGD(0.02, 0.9)
    )
    assert history["loss"][-1] < 0.8 * history["loss"][0] and same_everywhere(
        comm, model.parameters
    )
    assert model.evaluate(store, comm=comm).events == len(source)
    empty = mc.data.NodeStore(mc.data.EventStore(), comm)
    assert len(empty) == empty.reach == 0 and model.evaluate(empty, comm=comm).events == 0


def case_node_store_damaged(comm):
    """A bit that flips in the shared copy is an error that names the event, whichever rank meets
    it.
    """
    source = sparse_source(3 * comm.size)
    store = node_store(comm, source)
    if comm.rank == 0:
        memoryview(store.memory.window.Shared_query(0)[0]).cast("B")[3] ^= 16
    store.memory.window.Fence()
    damaged = (-store.first) % store.reach  # rank 0's first event, as this rank counts
    for i in range(store.reach):
        try:
            store.image(i)
        except mc.data.EventError as problem:
            assert i == damaged and f"event {store.numbers[i]}:" in str(problem), problem
        else:
            assert i != damaged


def case_node_memory_is_short(comm):
    from minicnn.parallel import shared

    shared.free_shared_memory = lambda: 1000 if comm.rank else 10**9
    node_store(comm, sparse_source(12))


def case_killed_on_rank_1(comm):
    """A rank that is killed while the others read shared events: mpiexec ends them."""
    store = node_store(comm, sparse_source(12))
    failing(comm)
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    store.batch(range(store.reach))
    comm.Barrier()


if __name__ == "__main__":
    run(globals())

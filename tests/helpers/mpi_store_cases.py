"""What tests/parallel/test_parallel.py runs of stores that the ranks of a node share, like
mpi_cases.py: PYTHONPATH=tests mpiexec -n 2 python tests/helpers/mpi_store_cases.py CASE.
"""

import os
import signal
from dataclasses import replace

import numpy as np

import minicnn as mc
from helpers import Source, small_model
from helpers.mpi_cases import failing, run, same_everywhere, two_nodes
from minicnn.data.balance import lit_cells, relative_costs

mc.data.sparse.CHECK_TRUSTED = True


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


def node_store(comm, source, form="sparse", **options):
    store = mc.data.EventStore("lz4", form=form, **options)
    store.load(source, mc.data.shard(len(source), comm.size, comm.rank))
    shared = mc.data.NodeStore(store, comm)
    assert len(store) == 0
    return shared


def case_node_store(comm):
    """Every rank reads every event of its node, each event comes once per epoch, and batches have
    about equal work.
    """
    source = sparse_source(41)
    for nodes in (1, 2):
        if nodes == 2:
            two_nodes(comm)
        store = node_store(comm, source, ("sparse", "dense")[nodes - 1])
        own = mc.data.shard(len(source), comm.size, comm.rank)
        assert len(store) == len(own) and np.array_equal(store.file_indices[: len(own)], own)
        assert sorted(store.file_indices) == sorted(
            np.concatenate(store.memory.node.allgather(own))
        )
        images, labels = store.batch(range(store.node_events))
        for number, image, label in zip(store.file_indices, images, labels):
            event = source.read(number)
            same = image.to_dense() if store.form == "sparse" else image
            assert np.array_equal(same, event.image.to_dense()) and label == event.label
        cells = [lit_cells(source.read(n).image) for n in store.file_indices]
        assert store.costs.tolist() == relative_costs(cells).tolist()
        for epoch in range(3):
            mine, work = store.order(5, epoch, 4), []
            assert sorted(store.memory.node.allreduce(list(store.file_indices[mine]))) == sorted(
                store.file_indices
            )
            assert sorted(comm.allreduce(list(store.file_indices[mine]))) == list(
                range(len(source))
            )
            steps = comm.allreduce(-(-len(mine) // 4), max)
            assert steps == -(-max(comm.allgather(len(store))) // 4), (
                "more steps than fit agreed on"
            )
            for step in range(steps):
                lit = store.memory.node.allgather(
                    store.costs[mine[4 * step : 4 * step + 4]].tolist()
                )
                assert max(map(len, lit)) - min(map(len, lit)) <= 1
                work.append(list(map(sum, lit)))
            whole = np.array(work[: store.node_events // (4 * store.ranks)])
            assert not whole.size or whole.std() < 0.5 * 2 * store.costs.std()  # of 4 random ones
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
    every_kind_of_target(comm, source)


def every_kind_of_target(comm, source):
    """Targets and sample weights of the other ranks' events are in the same order as the events."""
    source.events = [
        replace(event, pixel_labels=(event.image.values[:, 0] > 1).astype(np.uint8))
        for event in source.events
    ]

    def lit(event):
        return [float(event.image.nnz), float(event.label)]

    def events_of(store):
        return [source.read(number) for number in store.file_indices]

    store = node_store(comm, source, target=lit, weights=lambda event: event.label + 0.5)
    images, targets, weights = store.batch(range(store.node_events))
    assert [[image.nnz, e.label] for image, e in zip(images, events_of(store))] == targets.tolist()
    assert weights.tolist() == [event.label + 0.5 for event in events_of(store)]
    store.close()
    for form in ("sparse", "dense"):
        store = node_store(comm, source, form, target="pixel_labels")
        _, targets = store.batch(range(store.node_events))
        for labels, event in zip(targets, events_of(store)):
            if form == "dense":
                labels = labels[tuple(event.image.coords.T)]
            assert np.array_equal(labels, event.pixel_labels)
        weights = mc.data.class_weights(store, comm)
        counts = np.bincount(np.concatenate([e.pixel_labels for e in source.events]))
        assert np.allclose([weights[0], weights[1]], counts.sum() / (2 * counts))
        store.close()
    if comm.size > 2:  # with 2 ranks on two nodes there is no other rank to differ from
        kinds = (lambda event: 1, lambda event: 1.0)
        try:
            node_store(comm, source, target=kinds[comm.rank >= comm.size - 1])
        except mc.data.EventError as problem:
            assert "different kinds, class and vector of 1" in str(problem)
        else:
            raise AssertionError("ranks with different targets share a store")


def case_node_store_fit(comm):
    source = sparse_source(10 * comm.size + 1)
    store = node_store(comm, source)
    flip = mc.data.transforms
    data = flip.Augmented(store, flip.GainJitter(0.01))
    assert np.array_equal(data.file_indices, store.file_indices)
    model = small_model("cpu")
    history = model.fit(
        data, validation_data=store, epochs=4, batch_size=5, comm=comm, optimizer=mc.SGD(0.02, 0.9)
    )
    assert history["loss"][-1] < 0.8 * history["loss"][0] and same_everywhere(
        comm, model.parameters
    )
    assert model.evaluate(store, comm=comm).events == len(source)
    empty = mc.data.NodeStore(mc.data.EventStore(), comm)
    assert len(empty) == empty.node_events == 0 and model.evaluate(empty, comm=comm).events == 0


def case_node_store_damaged(comm):
    """A bit that flips in the shared copy is an error that names the event, whichever rank meets
    it.
    """
    source = sparse_source(3 * comm.size)
    store = node_store(comm, source)
    if comm.rank == 0:
        memoryview(store.memory.window.Shared_query(0)[0]).cast("B")[3] ^= 16
    store.memory.window.Fence()
    damaged = (-store.first) % store.node_events  # rank 0's first event, as this rank counts
    for i in range(store.node_events):
        try:
            store.image(i)
        except mc.data.EventError as problem:
            assert i == damaged and f"event {store.file_indices[i]}:" in str(problem), problem
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
    store.batch(range(store.node_events))
    comm.Barrier()


if __name__ == "__main__":
    run(globals())

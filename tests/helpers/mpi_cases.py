"""What tests/parallel runs on several ranks; each case asserts on all of them, rank 0 prints
"ok".
"""

import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

import minicnn as mc
from helpers import random_batch, small_model
from minicnn.parallel import MODES, make_sync, threads_per_rank, world
from minicnn.train.step import flush, train_step

STEPS = 5


def unequal_batches(ranks, step):
    """Split a batch of events unequally; in step 2 the last rank gets nothing."""
    x, y = random_batch(2 * ranks + 3, seed=step)
    cuts = [
        0,
        *sorted(np.random.default_rng(step).choice(np.arange(1, len(y)), ranks - 1, replace=False)),
        len(y),
    ]
    if step == 2:
        cuts[-2] = len(y)
    return x, y, [slice(a, b) for a, b in pairwise(cuts)]


def optimizer(**options):
    return mc.SGD(0.05, momentum=0.9, weight_decay=0.01, **options)


def train(comm, mode, every=1, nesterov=True, make_optimizer=optimizer, **options):
    """Train on this rank's parts of STEPS batches; the initial weights of other ranks are spoiled
    to see the broadcast work.
    """
    model = small_model("cpu", seed=0 if comm.rank == 0 else 17)
    model.kernels.set_threads(threads_per_rank(comm))
    o = make_optimizer(nesterov=nesterov) if make_optimizer is optimizer else make_optimizer()
    sync = make_sync(mode, comm, every, **options)
    sync.broadcast(model, o)
    tails = []
    for step in range(STEPS):
        x, y, parts = unequal_batches(comm.size, step)
        batch = x[parts[comm.rank]], y[parts[comm.rank]]
        tails.append(train_step(model, [batch], o, sync))
    tails.append(flush(model, o, sync, mc.trace.Ledger()))
    return model, o, tails


def same_everywhere(comm, a):
    return len(set(comm.allgather(a.tobytes()))) == 1


def close(a, b, tolerance=2e-5):
    return np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def case_equals_one_rank(comm):
    model, o, tails = train(comm, "gradients")
    alone, o1 = small_model("cpu"), optimizer(nesterov=True)
    start = alone.parameters.copy()
    for step in range(STEPS):
        x, y, _ = unequal_batches(comm.size, step)
        tail = train_step(alone, [(x, y)], o1)
        assert (
            tail["events"] == tails[step]["events"] == len(y)
            and tail["correct"] == tails[step]["correct"]
        )
        assert abs(tail["loss"] - tails[step]["loss"]) < 1e-4 * tail["loss"]
    assert same_everywhere(comm, model.parameters) and same_everywhere(comm, o.state["velocity"])
    assert close(model.parameters - start, alone.parameters - start) and close(
        o.state["velocity"], o1.state["velocity"]
    )


def case_lars_equals_one_rank(comm):
    """Large batches: N ranks of b events make the update of one rank with N * b, also where layers
    have rates of their own.
    """

    def lars():
        return mc.LARS(
            mc.optim.linear_scaling(1.0, comm.size, 3), 0.9, weight_decay=0.01, trust=0.05
        )

    model, o, _ = train(comm, "gradients", make_optimizer=lars)
    alone, o1 = small_model("cpu"), lars()
    start = alone.parameters.copy()
    for step in range(STEPS):
        x, y, _ = unequal_batches(comm.size, step)
        train_step(alone, [(x, y)], o1)
    assert same_everywhere(comm, model.parameters)
    assert close(model.parameters - start, alone.parameters - start) and close(
        o.state["velocity"], o1.state["velocity"]
    )


def case_same_sums(comm):
    """Buckets of any size and sums by nodes: the updates of the one Allreduce."""
    want, _, tails = train(comm, "gradients")
    two_nodes(comm)
    for mode, options in (
        ("overlap", {"bucket": 4}),
        ("overlap", {"bucket": 1000}),
        ("overlap", {}),
        ("hierarchical", {}),
    ):
        got, _, other = train(comm, mode, **options)
        assert (
            other == tails
            if comm.size == 2
            else [t and t["events"] for t in other] == [t and t["events"] for t in tails]
        )
        assert same_everywhere(comm, got.parameters)
        equal = np.array_equal(got.parameters, want.parameters)
        assert equal if comm.size == 2 else close(got.parameters, want.parameters, 1e-6), (
            mode,
            options,
        )


def case_compressed(comm):
    """Between all ranks, and between two nodes that add up in float32 first."""
    for nodes in (lambda comm: None, two_nodes):
        nodes(comm)
        compressed(comm)


def compressed(comm):
    start, (want, _, tails) = small_model("cpu").parameters, train(comm, "gradients")
    for mode, tolerance in (("fp16", 2e-3), ("bf16", 1e-2)):
        got, _, other = train(comm, mode)
        assert [t and (t["events"], t["correct"]) for t in other][:2] == [
            t and (t["events"], t["correct"]) for t in tails
        ][:2]
        assert same_everywhere(comm, got.parameters)
        assert close(got.parameters - start, want.parameters - start, tolerance)
        assert not close(got.parameters - start, want.parameters - start, tolerance / 100), (
            "not compressed"
        )


def case_error_feedback(comm):
    """What was sent in many steps adds up to the gradients, within a rounding or two: errors do
    not. Sizes may change by 10^10.
    """
    for nodes in (lambda comm: None, two_nodes):
        nodes(comm)
        error_feedback(comm)


def error_feedback(comm):
    class Model:
        kernels, parameters, gradients = (
            mc.kernels.get_backend("reference"),
            np.zeros(1001, np.float32),
            np.zeros(1005, np.float32),
        )

    for mode, bits in (("fp16", 11), ("bf16", 8)):
        sync = make_sync(mode, comm)
        exact = sent = 0
        for step in range(60):
            g = [
                np.random.default_rng(rank).normal(1, 0.01, 1001)
                * (1e6 if step < 20 else 1e-4 if step < 40 else 1.0)
                for rank in range(comm.size)
            ]
            Model.gradients[:] = np.append(g[comm.rank], [1, 2, 3, 0])
            assert sync.reduce_gradients(Model) and np.array_equal(
                Model.gradients[1001:], comm.size * np.array([1, 2, 3, 0])
            )
            exact, sent = exact + np.sum(g, 0), sent + Model.gradients[:1001].astype(np.float64)
            if step in (0, 19):
                rounding = 2.0**-bits * comm.size * 1.05e6
                assert 0 < np.abs(sent - exact).max() < 4 * rounding, (
                    mode,
                    step,
                    np.abs(sent - exact).max() / rounding,
                )
        left = np.abs(sent - exact).max()
        assert left < 8 * comm.size * 2.0**-bits + 60e6 * comm.size * 1e-7, (mode, left)


def case_delayed(comm):
    """Equal to a serial loop that applies each step's gradients one step later."""
    model, o, tails = train(comm, "delayed")
    alone, o1, waiting = small_model("cpu"), optimizer(nesterov=True), None

    def apply():
        alone.gradients[...] = waiting
        o1.update(alone, alone.tail()["events"])

    for step in range(STEPS):
        x, y, _ = unequal_batches(comm.size, step)
        alone.clear_gradients()
        alone.accumulate(x, y)
        fresh = alone.gradients.copy()
        if waiting is not None:
            apply()
        waiting = fresh
    apply()
    assert tails[0] is None and [t["events"] for t in tails[1:]] == [2 * comm.size + 3] * STEPS
    assert (
        o.steps == STEPS
        and same_everywhere(comm, model.parameters)
        and close(model.parameters, alone.parameters)
    )


def case_weights_equal_gradients(comm):
    for nesterov in (False, True):
        a, oa, ta = train(comm, "gradients", nesterov=nesterov)
        b, ob, tb = train(comm, "weights", 1, nesterov)
        assert close(b.parameters, a.parameters, 1e-6) and close(
            ob.state["velocity"], oa.state["velocity"], 1e-4
        )
        assert ta.pop() is tb.pop() is None  # nothing outstanding at the end
        assert [t["events"] for t in ta] == [t["events"] for t in tb]
        assert np.allclose([t["loss"] for t in ta], [t["loss"] for t in tb], rtol=1e-4)
        assert same_everywhere(comm, b.parameters)


def case_weights_every_k(comm):
    model, _, tails = train(comm, "weights", 2)
    assert [t is None for t in tails] == [True, False, True, False, True, False]
    assert tails[1]["events"] == 2 * (2 * comm.size + 3)
    assert same_everywhere(comm, model.parameters)


def case_same_bits_again(comm):
    a, b = train(comm, "gradients")[0], train(comm, "gradients")[0]
    assert np.array_equal(a.parameters, b.parameters)


def case_fit(comm):
    x, y = random_batch(10 * comm.size + 1)

    def gentle():
        return {"optimizer": mc.SGD(0.02, 0.5), "epochs": 8}  # for few updates, or stale ones

    for options in (
        {},
        {"sync": "weights", "sync_every": 3},
        {"sync": "fp16"},
        {"sync": "overlap", "accumulate": 2, **gentle()},
        {"sync": "delayed", **gentle()},
        {"sync": make_sync("overlap", comm, bucket=64)},
        {"sync": "hierarchical"},
    ):
        model = small_model("cpu")
        model.parameters[...] *= 1 + comm.rank
        options = {"optimizer": mc.SGD(0.05, 0.9), "epochs": 4} | options
        history = model.fit((x, y), validation_data=(x, y), batch_size=5, comm=comm, **options)
        assert history["loss"][-1] < 0.7 * history["loss"][0], (options, history["loss"])
        assert same_everywhere(comm, model.parameters) and same_everywhere(
            comm, np.array(history["val_loss"])
        )
        result = model.evaluate((x, y), comm=comm)
        alone = model.evaluate((x, y))
        assert result.events == alone.events == len(y) and np.array_equal(
            result.confusion, alone.confusion
        )
        assert abs(result.loss - alone.loss) < 1e-9


def case_collectives(comm):
    sync = make_sync("gradients", comm)
    for dtype in (np.float32, np.float64):
        a = np.arange(7, dtype=dtype) + comm.rank
        sync.allreduce(a)
        assert a.dtype == dtype and np.array_equal(
            a, comm.size * np.arange(7) + sum(range(comm.size))
        )


def case_threads(comm):
    """A made-up node of 12 cores: shared by all ranks, bound two by two, limited, too small."""
    allowed, limit = os.sched_getaffinity, os.environ.pop("NUMBA_NUM_THREADS")
    cores = {
        "all of them": range(12),
        "two of its own": (2 * comm.rank, 2 * comm.rank + 1),
        "one": (7,),
    }
    found = []
    for of_rank in cores.values():
        os.sched_getaffinity = lambda _, own=of_rank: set(own)
        found.append(threads_per_rank(comm))
    os.sched_getaffinity = lambda _: set(range(12))
    os.environ["NUMBA_NUM_THREADS"] = "2"
    found.append(threads_per_rank(comm))
    os.sched_getaffinity, os.environ["NUMBA_NUM_THREADS"] = allowed, limit
    assert found == [{2: 6, 3: 4, 4: 3}[comm.size], 2, 1, 2], found


def case_cold_cache(comm):
    """Where no kernel is compiled yet, each is compiled by one rank and loaded by the others."""
    mc.Sequential(
        [mc.Flatten(), mc.Dense(8), mc.ELU(), mc.Dense(3)], (22, 19, 1), device="cpu"
    ).fit(random_batch(2 * comm.size), comm=comm)
    rooms = [
        module for name, module in sys.modules.items() if name.startswith("minicnn.kernels.cpu.")
    ]
    functions = {f for room in rooms for f in vars(room).values() if hasattr(f, "stats")}
    compiled = {
        (f.py_func.__module__, f.__name__, sig) for f in functions for sig in f.stats.cache_misses
    }
    ranks, files = (
        comm.allgather(compiled),
        len(list(Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbc"))),
    )
    assert sum(map(len, ranks)) == len(set.union(*ranks)) == files > 5, (
        list(map(len, ranks)),
        files,
    )


def two_nodes(comm):
    """Make of the machine two nodes (one of a single rank where there are two or three)."""
    from minicnn.parallel import shared

    shared.node_of = lambda comm: comm.Split(int(comm.rank >= comm.size // 2), comm.rank)


def case_emulated(comm):
    """Three steps of the CUDA kernels, dense and zero-suppressed and in every mode to stay one
    model, are those of the CPU.
    """
    for i, mode in enumerate(MODES):
        suppression = ("always", "never")[i % 2]
        models = []
        for device in ("emulated", "cpu"):
            model = small_model(device, zero_suppression=suppression)
            model.kernels.set_threads(threads_per_rank(comm))
            o, sync = optimizer(nesterov=True), make_sync(mode, comm, 1)
            sync.broadcast(model, o)
            start = model.kernels.to_host(model.parameters).copy()
            for step in range(3):
                x, y, parts = unequal_batches(comm.size, step)
                x = np.where(np.abs(x) < 1.5, np.float32(0), x)
                batch = x[parts[comm.rank]], y[parts[comm.rank]]
                tail = train_step(model, [batch], o, sync)
                assert mode == "delayed" or tail["events"] == len(y)
            flush(model, o, sync, mc.trace.Ledger())
            models.append(model.kernels.to_host(model.parameters) - start)
            assert same_everywhere(comm, models[-1]), mode
        assert close(*models, 2e-2 if mode in ("fp16", "bf16") else 1e-4), (
            mode
        )  # rounding to 11 or 8 bits may fall either way


def failing(comm):
    """Print when the failure happens, so that the time until the job's end does not count the
    start.
    """
    comm.Barrier()
    if comm.rank == 1:
        print(f"failing at {time.time()}", flush=True)


def run(cases):
    """Run the cases that the command line names, of the functions in ``cases``."""
    from minicnn.parallel import shared

    node_of = shared.node_of
    with world() as comm:
        for name in sys.argv[1:]:
            cases["case_" + name](comm)
            shared.node_of = node_of  # two_nodes
            comm.Barrier()
            if comm.rank == 0:
                print("ok", name, flush=True)


if __name__ == "__main__":
    run(globals())

"""What test_parallel.py runs on several ranks: python tests/mpi_cases.py CASE. Each case asserts on every rank; rank 0 prints "ok"."""
import os
import sys
import time
from itertools import pairwise

import numpy as np
from conftest import random_batch, small_model

import minicnn as mc
from minicnn.parallel import make_sync, threads_per_rank, world
from minicnn.train import train_step

STEPS = 5


def unequal_batches(ranks, step):
    """Split a batch of events unequally; in step 2 the last rank gets nothing."""
    x, y = random_batch(2 * ranks + 3, seed=step)
    cuts = [0, *sorted(np.random.default_rng(step).choice(np.arange(1, len(y)), ranks - 1, replace=False)), len(y)]
    if step == 2:
        cuts[-2] = len(y)
    return x, y, [slice(a, b) for a, b in pairwise(cuts)]


def optimizer(**options):
    return mc.SGD(0.05, momentum=0.9, weight_decay=0.01, **options)


def train(comm, mode, every=1, nesterov=True):
    """Train on this rank's parts of STEPS batches; the initial weights of other ranks are spoiled to see the broadcast work."""
    model = small_model("cpu", seed=0 if comm.rank == 0 else 17)
    model.kernels.set_threads(threads_per_rank(comm))
    o, sync = optimizer(nesterov=nesterov), make_sync(mode, comm, every)
    sync.broadcast(model, o)
    tails = []
    for step in range(STEPS):
        x, y, parts = unequal_batches(comm.size, step)
        tails.append(train_step(model, x[parts[comm.rank]], y[parts[comm.rank]], o, sync, comm.rank))
    sync.flush(model, o)
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
        tail = train_step(alone, x, y, o1)
        assert tail["events"] == tails[step]["events"] == len(y) and tail["correct"] == tails[step]["correct"]
        assert abs(tail["loss"] - tails[step]["loss"]) < 1e-4 * tail["loss"]
    assert same_everywhere(comm, model.parameters) and same_everywhere(comm, o.state["velocity"])
    assert close(model.parameters - start, alone.parameters - start) and close(o.state["velocity"], o1.state["velocity"])


def case_weights_equal_gradients(comm):
    for nesterov in (False, True):
        a, oa, ta = train(comm, "gradients", nesterov=nesterov)
        b, ob, tb = train(comm, "weights", 1, nesterov)
        assert close(b.parameters, a.parameters, 1e-6) and close(ob.state["velocity"], oa.state["velocity"], 1e-4)
        assert [t["events"] for t in ta] == [t["events"] for t in tb]
        assert np.allclose([t["loss"] for t in ta], [t["loss"] for t in tb], rtol=1e-4)
        assert same_everywhere(comm, b.parameters)


def case_weights_every_k(comm):
    model, _, tails = train(comm, "weights", 2)
    assert [t is None for t in tails] == [True, False, True, False, True]
    assert tails[1]["events"] == 2 * (2 * comm.size + 3)
    assert same_everywhere(comm, model.parameters)


def case_same_bits_again(comm):
    a, b = train(comm, "gradients")[0], train(comm, "gradients")[0]
    assert np.array_equal(a.parameters, b.parameters)


def case_fit(comm):
    x, y = random_batch(10 * comm.size + 1)
    for options in ({}, {"sync": "weights", "sync_every": 3}):
        model = small_model("cpu", seed=comm.rank)
        history = model.fit((x, y), validation_data=(x, y), epochs=4, batch_size=5, comm=comm, optimizer=mc.SGD(0.05, 0.9), **options)
        assert history["loss"][-1] < 0.7 * history["loss"][0], history["loss"]
        assert same_everywhere(comm, model.parameters) and same_everywhere(comm, np.array(history["val_loss"]))
        result = model.evaluate((x, y), comm=comm)
        alone = model.evaluate((x, y))
        assert result.events == alone.events == len(y) and np.array_equal(result.confusion, alone.confusion)
        assert abs(result.loss - alone.loss) < 1e-9


def case_collectives(comm):
    sync = make_sync("gradients", comm)
    for dtype in (np.float32, np.float64):
        a = np.arange(7, dtype=dtype) + comm.rank
        sync.allreduce(a)
        assert a.dtype == dtype and np.array_equal(a, comm.size * np.arange(7) + sum(range(comm.size)))


def case_threads(comm):
    assert threads_per_rank(comm) == max(1, len(os.sched_getaffinity(0)) // comm.size)


def case_not_finite(comm):
    """A NaN on one rank stops all at the same step, with equal, finite weights."""
    x, y = random_batch(4 * comm.size)
    model = small_model("cpu", optimizer=mc.SGD(0.01))

    class Poison(mc.callbacks.Callback):
        def on_batch_end(self, step, logs):
            if step == 1 and self.rank == comm.size - 1:
                model.parameters[0] = np.nan
                model.weights_changed()
    try:
        model.fit((x, y), batch_size=1, comm=comm, callbacks=[Poison()])
    except mc.NotFiniteError as problem:
        assert model.updates == 3 and f"on 1 of {comm.size} ranks at update 3" in str(problem), problem
    else:
        raise AssertionError("went on")


def case_emulated(comm):
    """Three steps of the CUDA kernels, zero-suppressed and with both ways to stay one model, are those of the CPU."""
    for mode, suppression in (("gradients", "always"), ("weights", "never")):
        models = []
        for device in ("emulated", "cpu"):
            model = small_model(device, seed=comm.rank, zero_suppression=suppression)
            model.kernels.set_threads(threads_per_rank(comm))
            o, sync = optimizer(nesterov=True), make_sync(mode, comm, 1)
            sync.broadcast(model, o)
            start = model.kernels.to_host(model.parameters).copy()
            for step in range(3):
                x, y, parts = unequal_batches(comm.size, step)
                x = np.where(np.abs(x) < 1.5, np.float32(0), x)
                tail = train_step(model, x[parts[comm.rank]], y[parts[comm.rank]], o, sync, comm.rank)
                assert tail["events"] == len(y)
            models.append(model.kernels.to_host(model.parameters) - start)
            assert same_everywhere(comm, models[-1])
        assert close(*models, 1e-4)


def case_batch_larger_than_shard(comm):
    mc.Sequential([mc.Flatten(), mc.Dense(3)], (22, 19, 1), device="reference").fit(
        random_batch(2 * comm.size + 1), batch_size=3, comm=comm)


def case_few_events(comm):
    small_model().fit(random_batch(comm.size - 1), comm=comm)


def failing(comm):
    """Print when the failure happens, so that the time until the job's end does not count the start."""
    comm.Barrier()
    if comm.rank == 1:
        print(f"failing at {time.time()}", flush=True)


def case_exception_on_rank_1(comm):
    failing(comm)
    if comm.rank == 1:
        raise KeyError("the reason on rank 1")
    comm.Barrier()


def case_exit_on_rank_1(comm):
    failing(comm)
    if comm.rank == 1:
        sys.exit("leaving early")
    comm.Barrier()


def case_thread_fails_on_rank_1(comm):
    import threading
    failing(comm)
    if comm.rank == 1:
        threading.Thread(target=lambda: 1 / 0).start()
        time.sleep(60)
    comm.Barrier()


if __name__ == "__main__":
    with world() as communicator:
        globals()["case_" + sys.argv[1]](communicator)
        if communicator.rank == 0:
            print("ok")

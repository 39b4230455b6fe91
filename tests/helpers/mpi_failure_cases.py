"""What tests/parallel runs of ranks that fail, like mpi_cases.py."""

import sys
import time

import numpy as np

import minicnn as mc
from helpers import random_batch, small_model
from helpers.mpi_cases import failing, run
from minicnn.parallel import MODES


def case_compiler_fails_on_rank_1(comm):
    """The others wait for what it compiles."""
    from minicnn.kernels import cpu
    from minicnn.kernels.cpu import jit

    def fail(*_):
        failing(comm)
        raise KeyError("no space left")

    if comm.rank == 1:
        jit._LockedCache.save_overload = fail
    else:
        failing(comm)
    cpu.relu(np.ones(3, np.float32))
    comm.Barrier()


def case_batch_larger_than_shard(comm):
    mc.Sequential([mc.Flatten(), mc.Dense(3)], (22, 19, 1), device="reference").fit(
        random_batch(2 * comm.size + 1), batch_size=3, comm=comm
    )


def case_few_events(comm):
    small_model().fit(random_batch(comm.size - 1), comm=comm)


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


def case_not_finite(comm):
    """A NaN on one rank stops all at the same step, with equal, finite weights."""
    x, y = random_batch(4 * comm.size)
    for mode in MODES:
        model = small_model("cpu", optimizer=mc.SGD(0.01))

        class Poison(mc.callbacks.Callback):
            def on_batch_end(self, step, logs, model=model):
                if step == 1 and self.rank == comm.size - 1:
                    model.parameters[0] = np.nan
                    model.weights_changed()

        try:
            model.fit((x, y), batch_size=1, comm=comm, callbacks=[Poison()], sync=mode)
        except mc.NotFiniteError as problem:
            update = 4 if mode == "delayed" else 3
            assert (
                model.updates == update
                and f"on 1 of {comm.size} ranks at update {update}" in str(problem)
            ), (mode, problem)
        else:
            raise AssertionError(f"{mode} went on")
        if mode != "weights" and comm.rank != comm.size - 1:
            assert np.isfinite(model.parameters).all()


def case_gradient_not_finite(comm):
    """The same for a gradient that is lost on one rank while its weights and loss are finite."""
    x, y = random_batch(4 * comm.size)
    for mode in MODES:
        model = small_model("cpu", optimizer=mc.SGD(0.01))
        backward = model.run_backward

        def poisoned(gradients, run, progress=None, model=model, backward=backward):
            backward(gradients, run, None)
            if model.updates == 1 and comm.rank == 0:
                model.gradients[3] = np.nan
            for stage in model.plan().stages[::-1] if progress else ():
                progress(stage)

        model.run_backward = poisoned
        try:
            model.fit((x, y), batch_size=1, comm=comm, sync=mode)
        except mc.NotFiniteError as problem:
            update = 3 if mode == "delayed" else 2
            assert (
                model.updates == update
                and f"on 1 of {comm.size} ranks at update {update}" in str(problem)
            ), (mode, problem)
        else:
            raise AssertionError(f"{mode} went on")


if __name__ == "__main__":
    run(globals())

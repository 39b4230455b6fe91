"""What tests/train/test_step_checkpoint.py runs on several ranks: trainings that are stopped and go
on.

    mpiexec -n 2 python tests/helpers/fault_cases.py train FOLDER MODES STOP-AFTER-STEPS new|resume
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import minicnn as mc
from helpers import random_batch
from minicnn.parallel import world
from minicnn.parallel.signals import Preempted
from minicnn.train.step_checkpoint import StepCheckpoint

EVENTS, EPOCHS, BATCH = 24, 3, 2


class Watched:
    """Arrays that write down which events were fetched in which epoch."""

    def __init__(self, dataset, path):
        self.dataset, self.path, self.epoch = dataset, path, 0
        self.file_indices = dataset.file_indices
        self.costs = 1.0 + self.file_indices % 7  # so that steps of equal work are made

    def __len__(self):
        return len(self.dataset)

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def batch(self, indices):
        with open(self.path, "a") as file:
            for i in indices:
                file.write(f"{self.epoch} {self.file_indices[i]}\n")
        return self.dataset.batch(indices)


class SignalAt(mc.callbacks.Callback):
    """Sends a signal to one rank, this process, after so many steps in all."""

    def __init__(self, step, rank, number=signal.SIGTERM):
        self.step, self.of, self.number, self.seen = step, rank, number, 0

    def on_batch_end(self, step, logs):
        self.seen += 1
        if self.seen == self.step and self.rank == self.of:
            os.kill(os.getpid(), self.number)
            time.sleep(0.02)  # a turn for the thread that receives it, else more steps are made


def network(seed=3):
    layers = [
        mc.Conv2D(4, 3, padding="same"),
        mc.BatchNormalization(),
        mc.ReLU(),
        mc.Flatten(),
        mc.Dropout(0.3),
        mc.Dense(3),
    ]
    return mc.Sequential(layers, (9, 8, 1), device="reference", seed=seed)


def train(comm, folder, mode, stop, resume, **options):
    """Train and return the model; ``stop``: after so many steps the last rank gets SIGTERM."""
    from minicnn.data.batches import as_dataset

    folder = Path(folder)
    size, rank = (comm.size, comm.rank) if comm else (1, 0)
    x, y = random_batch(EVENTS, (9, 8, 1))
    data = Watched(as_dataset((x, y), rank, size, 0), folder / f"events-{rank}.txt")
    every = {"sync_every": 3} if mode == "weights" else {}
    table = mc.callbacks.CSVLogger(folder / "history.csv")
    stops = [SignalAt(stop, size - 1)] if stop else []
    model = network()
    settings = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "optimizer": mc.Adam(mc.optim.Cosine(0.01, 40, 0.001)).average(12),
        "sync": mode,
        "prefetch": 0,
        "checkpoint": StepCheckpoint(folder / "checkpoint", resume=resume),
    }
    model.fit(data, comm=comm, callbacks=[table, *stops], **{**settings, **every, **options})
    return model, table


def case_train(comm, folder, modes, stop, resume):
    """Trainings in several sync modes, "fp16,bf16", one after the other, each in a folder of its
    own; the last one that is asked to end does so as the process would.
    """
    codes = []
    for mode in modes.split(","):
        place = Path(folder) / mode
        place.mkdir(exist_ok=True)
        try:
            model, table = train(comm, place, mode, int(stop), resume == "resume")
        except Preempted as end:
            codes.append(end.code)
            if len(codes) == modes.count(",") + 1:
                raise
            continue
        if not comm or comm.rank == 0:
            h = hashlib.blake2b(model.parameters.tobytes())
            h.update(model.buffers.state.tobytes())
            rows = [[row["loss"], row["accuracy"]] for row in table.rows]
            print(json.dumps({"mode": mode, "bits": h.hexdigest(), "rows": rows}), flush=True)


def case_differ(comm):
    """Rank 1 has another setting, version or source file: an error of both, which leaves them
    ready for the next.
    """
    from minicnn.train import identity

    other, version, digest = comm.rank == 1, mc.__version__, identity.source_digest
    for what in ("rate", "epochs", "sync", "version", "source"):
        mc.__version__ = "0.0.9" if other and what == "version" else version
        identity.source_digest = (lambda: "another") if other and what == "source" else digest
        identity.versions.cache_clear()
        model = mc.Sequential([mc.Flatten(), mc.Dense(3)], (22, 19, 1), device="reference")
        try:
            model.fit(
                random_batch(6),
                optimizer=mc.SGD(0.2 if other and what == "rate" else 0.1),
                epochs=2 if other and what == "epochs" else 1,
                sync="weights" if other and what == "sync" else "gradients",
                comm=comm,
            )
        except ValueError as problem:
            print(f"{comm.rank}: {problem}", flush=True)
        comm.Barrier()


def case_differ_in_events(comm, folder):
    """The event file of the same path has other content on the node of rank 1."""
    from helpers.cli import make_events
    from minicnn.jobs.recipe import Recipe
    from minicnn.jobs.train import TrainingJob, TrainOptions

    path = make_events(Path(folder) / f"{comm.rank}.h5", 6 + comm.rank)
    TrainingJob(comm, Recipe(size=40), TrainOptions(path, out=Path(folder) / "out")).open_events()


if __name__ == "__main__":
    with world() as comm:
        globals()[f"case_{sys.argv[1]}"](comm, *sys.argv[2:])

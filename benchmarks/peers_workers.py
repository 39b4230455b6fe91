"""The processes of peers.py: each engine gets one of its own, and the parent asks it by
commands.
"""

import multiprocessing
import os
import tempfile
import time
from contextlib import suppress
from functools import partial

import numpy as np
from peers_engines import ENGINES, peak_memory


def serve(connection, log, make):
    """A process with the job that ``make()`` returns: answers (method, arguments) until told to
    stop; an exception is the answer where one occurs.

    What it writes goes into the file ``log``: TensorFlow says a lot that has no bearing here.
    """
    with open(log, "a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out this process goes, not another one
    try:
        job = make()
        connection.send(peak_memory())
        while (message := connection.recv())[0] != "stop":
            connection.send(getattr(job, message[0])(*message[1:]))
    except Exception as problem:
        with suppress(OSError):
            connection.send(RuntimeError(f"{type(problem).__name__}: {str(problem).strip()[:300]}"))


class Job:
    """The commands of a worker with an engine."""

    def __init__(self, engine, size, weights, threads):
        kind = ENGINES[engine]
        self.engine = kind.make(size, weights, threads, **kind.options)

    def check(self, images, labels):
        """Return (loss, gradients, change of the weights by two steps)."""
        batch = self.engine.batch(images, labels)
        loss, gradients = self.engine.gradients(*batch)
        gradients = {name: np.array(g) for name, g in gradients.items()}
        before = {name: np.array(w) for name, w in self.engine.weights().items()}
        for _ in range(2):
            self.engine.step(*batch)
        return (
            loss,
            gradients,
            {name: w - before[name] for name, w in self.engine.weights().items()},
        )

    def events(self, images, labels, size):
        """Take a set of events for batches of ``size``, and make one step that is not timed."""
        self.images, self.labels, self.size, self.next = images, labels, size, 0
        return self.turn(0)

    def turn(self, seconds):
        """Return (seconds per event of one turn, peak memory in MB)."""
        total, count, events = 0.0, 0, len(self.images)
        while count == 0 or total < seconds or (count > events and count % events):
            some = [(self.next + i) % len(self.images) for i in range(self.size)]
            batch = self.engine.batch(
                [self.images[i] for i in some], [self.labels[i] for i in some]
            )
            start = time.perf_counter()
            loss = self.engine.step(*batch)
            total += time.perf_counter() - start
            if not np.isfinite(loss):
                raise ArithmeticError(f"the loss is {loss}")
            self.next, count = self.next + self.size, count + self.size
        return total / count, peak_memory()


class Worker:
    """The parent's side of a process; ``problem`` says why it ended."""

    def __init__(self, engine, make):
        context = multiprocessing.get_context("spawn")
        self.engine, self.problem = engine, None
        self.connection, theirs = context.Pipe()
        descriptor, self.log = tempfile.mkstemp(suffix=".log")
        os.close(descriptor)
        self.process = context.Process(target=serve, args=(theirs, self.log, make), daemon=True)
        self.process.start()
        theirs.close()
        self.idle = self._answer()  # memory before the first step

    @classmethod
    def of(cls, engine, args, weights):
        """Return the worker of an engine by its name."""
        return cls(engine, partial(Job, engine, args.size, weights, args.threads))

    def _answer(self):
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            with open(self.log, errors="replace") as file:
                said = " ".join(file.read().split())[-300:]
            answer = RuntimeError(
                f"the process ended with exit code {self.process.exitcode}"
                + (" (out of memory?)" if self.process.exitcode == -9 else f": {said}")
            )
        if isinstance(answer, RuntimeError):
            self.problem = str(answer)
            return None
        return answer

    def ask(self, *message):
        """Return the worker's answer, None if it has ended."""
        if self.problem:
            return None
        try:
            self.connection.send(message)
        except OSError:
            pass
        return self._answer()

    def stop(self):
        with suppress(OSError):
            self.connection.send(("stop",))
        self.process.join(10)
        if self.process.is_alive():
            self.process.terminate()
        os.unlink(self.log)


def take_turns(workers, args, first):
    """Ask each worker the message ``first``, then args.repeats times for a turn, one after the
    other; returns {engine: answers to the turns}.
    """
    samples = {worker.engine: [] for worker in workers}
    for repeat in range(-1, args.repeats):
        for worker in workers:
            answer = worker.ask(*first) if repeat < 0 else worker.ask("turn", args.seconds)
            if answer and repeat >= 0:
                samples[worker.engine].append(answer)
            time.sleep(args.pause)  # threads of this engine stop spinning
    return samples

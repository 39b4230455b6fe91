"""A training on 2 ranks under faults that never end: ranks killed, stopped, asked to end, disks
full.

    python tests/faults/soak.py [--minutes 30] [--ranks 2] [--seed 0] [--json FILE]
    python tests/faults/soak.py --memory [--json FILE]

First a job runs undisturbed. Then the same job is started by ``minicnn launch --restarts`` again
and again, and every few seconds one of FAULTS happens to it; where it ends because it was asked to,
or because of a full disk, an operator (this program) starts it again with --resume. Each must end
with the bits and the history of the undisturbed one. The figures are printed and go to --json; the
exit status is 1 where a promise is broken.

--memory lets one job train undisturbed for MEMORY_EPOCHS epochs, of several steps each, and prints
how fast the memory of its ranks grows.
"""

import argparse
import csv
import hashlib
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.cli import make_events
from minicnn.files import describe_machine, write_json
from minicnn.train.checkpoint import load_model

SIZE, EVENTS = 40, 36
MEMORY_EPOCHS = 4000
SMALL_FILE = 20_000  # bytes: a checkpoint does not fit
#: Columns of the history that must be the same.
COMPARED = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")
GIVES_UP = 900  # seconds without an end of a job: it hangs


def rank_processes(launcher):
    """The ranks that have started to train, and not their launchers."""
    found = []
    for process in launcher.children(recursive=True):
        try:
            line = process.cmdline()
            if "train" in line and "python" in line[0] and process.num_threads() > 1:
                found.append(process)
        except psutil.Error:
            pass
    return found


# ----------------------------------------------------------------------------------------- faults
def kill(rank, launcher, rng):
    rank.send_signal(signal.SIGKILL)


def ask(number):
    def send(rank, launcher, rng):
        rng.choice((rank, launcher)).send_signal(number)

    return send


def stall(rank, launcher, rng):
    rank.send_signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.5, 5))
    rank.send_signal(signal.SIGCONT)


def stop(rank, launcher, rng):
    """For ever: the others say so after the stall limit, and all end."""
    rank.send_signal(signal.SIGSTOP)
    psutil.wait_procs([rank], timeout=GIVES_UP)


def full_disk(rank, launcher, rng):
    """Files of every rank may not grow any more."""
    for one in rank_processes(launcher):
        one.rlimit(resource.RLIMIT_FSIZE, (rng.choice((0, SMALL_FILE)), resource.RLIM_INFINITY))


#: {name: (fault, how often it comes)}
FAULTS = {
    "SIGKILL": (kill, 5),
    "SIGTERM": (ask(signal.SIGTERM), 2),
    "SIGUSR1": (ask(signal.SIGUSR1), 2),
    "SIGINT": (ask(signal.SIGINT), 2),
    "stopped for seconds": (stall, 2),
    "stopped for ever": (stop, 1),
    "full disk": (full_disk, 3),
}


# ------------------------------------------------------------------------------------------- jobs
def command(options, events, out, resume):
    launcher = ["launch", "-n", options.ranks, "--restarts", 1000, "--min-ranks", options.ranks]
    training = ["train", "--events", events, "--out", out, "--size", SIZE, "--device", "cpu"]
    training += ["--epochs", options.epochs, "--batch-size", 2, "--threads", 1, "--seed", 3]
    training += ["--save-every", 0.05, "--stall-limit", options.stall_limit, "--sync", "fp16"]
    words = [*launcher, "--", *training, *["--resume"] * resume]
    return [sys.executable, "-m", "minicnn", *map(str, words)]


def result(out):
    """What must be the same: the digest of weights and states, loss and accuracy of every epoch."""
    model = load_model(out / "model.safetensors", device="reference")
    digest = hashlib.blake2b(model.parameters.tobytes() + model.buffers.state.tobytes())
    with open(out / "history.csv", newline="") as file:
        rows = [[row[name] for name in COMPARED] for row in csv.DictReader(file)]
    return digest.hexdigest(), rows


class Memory:
    """Resident bytes of processes over time."""

    def __init__(self):
        self.samples = {}

    def look(self, processes):
        for process in processes:
            try:
                point = (time.monotonic(), process.memory_info().rss)
                self.samples.setdefault((process.pid, process.create_time()), []).append(point)
            except psutil.Error:
                pass

    def slopes(self, least=20.0, settled=0.4):
        """MB per minute of every process that was watched for ``least`` seconds, behind the first
        part of its life.
        """
        found = []
        for points in self.samples.values():
            t, rss = np.array(points).T
            late = t > t[0] + settled * (t[-1] - t[0])
            if t[-1] - t[0] > least and late.sum() > 5:
                found.append(float(np.polyfit(t[late], rss[late], 1)[0] * 60 / 2**20))
        return found


def undisturbed(options, events, out, log):
    """Return (result, seconds, Memory) of the job that nothing happens to."""
    memory, start = Memory(), time.monotonic()
    running = psutil.Popen(command(options, events, out, False), stdout=log, stderr=log)
    while running.poll() is None:
        memory.look(rank_processes(running))
        time.sleep(0.5)
    if running.returncode:
        raise RuntimeError(
            f"the undisturbed job ended with status {running.returncode}: {log.name}"
        )
    return result(out), time.monotonic() - start, memory


def disturbed(options, events, out, rng, log):
    """Return what happened to a job until it was complete: ({fault: times}, {status: times})."""
    happened, ended = Counter(), Counter()
    names, weights = list(FAULTS), [often for _, often in FAULTS.values()]
    begun = time.monotonic()
    while True:
        running = psutil.Popen(command(options, events, out, bool(ended)), stdout=log, stderr=log)
        next_fault = time.monotonic() + rng.uniform(0.5, options.every)
        while running.poll() is None:
            time.sleep(0.1)
            if time.monotonic() - begun > GIVES_UP:
                processes = [running, *running.children(recursive=True)]
                states = [(p.pid, p.status(), " ".join(p.cmdline()[:6])) for p in processes]
                for process in processes[::-1]:
                    process.kill()
                raise RuntimeError(
                    f"a job did not come to its end in {GIVES_UP} s. It met {dict(happened)} and "
                    f"ended with the status {dict(ended)}; now it has the processes {states}, and "
                    f"its ranks have said\n{_last_lines(Path(log.name))}"
                )
            ranks = rank_processes(running)
            if time.monotonic() < next_fault or len(ranks) < options.ranks:
                continue
            name = rng.choices(names, weights)[0]
            happened[name] += 1
            try:
                FAULTS[name][0](rng.choice(ranks), running, rng)
            except psutil.Error:  # it has just ended by itself
                happened[name] -= 1
            next_fault = time.monotonic() + rng.uniform(0.5, options.every)
        ended[running.returncode] += 1
        if running.returncode == 0:
            return happened, ended


def watch_memory(options):
    """Let one job train for long, and say how the memory of its ranks grows."""
    options.epochs = MEMORY_EPOCHS
    with tempfile.TemporaryDirectory() as place, open(Path(place) / "log.txt", "w") as log:
        events = make_events(Path(place) / "a.h5", EVENTS, (SIZE, SIZE, 1), (0, 1, 2, 3, 4))
        _, seconds, memory = undisturbed(options, events, Path(place) / "long", log)
    slopes = memory.slopes()
    print(
        f"{MEMORY_EPOCHS:,} epochs in {seconds:.0f} s: the memory of the ranks grows by "
        f"{', '.join(f'{slope:+.2f}' for slope in slopes) or '(too short to say)'} MB per minute"
    )
    figures = {"epochs": MEMORY_EPOCHS, "seconds": seconds, "ranks": options.ranks}
    figures |= {"memory_slope_mb_per_minute": slopes, "machine": describe_machine()}
    if options.json:
        write_json(options.json, figures)
    return 0


def _last_lines(path, count=60):
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=60, help="of every job")
    parser.add_argument("--every", type=float, default=8.0, help="most seconds between two faults")
    parser.add_argument("--stall-limit", type=float, default=0.5, help="of the job, in minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--memory", action="store_true", help="watch the memory of one long job")
    options = parser.parse_args()
    if options.memory:
        return watch_memory(options)
    rng, end = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    faults, statuses, equal, jobs = Counter(), Counter(), 0, 0
    with tempfile.TemporaryDirectory() as place, open(Path(place) / "log.txt", "w") as log:
        folder = Path(place)
        events = make_events(folder / "events.h5", EVENTS, (SIZE, SIZE, 1), (0, 1, 2, 3, 4))
        expected, seconds, _ = undisturbed(options, events, folder / "whole", log)
        while time.monotonic() < end or not jobs:
            out = folder / f"job-{jobs}"
            happened, ended = disturbed(options, events, out, rng, log)
            same = result(out) == expected
            jobs, equal = jobs + 1, equal + same
            faults, statuses = faults + happened, statuses + ended
            said = ", ".join(f"{name} {count}" for name, count in sorted(happened.items()) if count)
            print(f"job {jobs}: {said or 'nothing'}; {'the same bits' if same else 'OTHER BITS'}")
            sys.stdout.flush()
        text = (folder / "log.txt").read_text(errors="replace")
    record = {
        "minutes": options.minutes,
        "ranks": options.ranks,
        "undisturbed_seconds": seconds,
        "jobs": jobs,
        "equal": equal,
        "faults": dict(faults),
        "ends": {str(status): count for status, count in statuses.items()},
        "restarts_by_launch": text.count(" again, with "),
        "machine": describe_machine(),
    }
    print(
        f"{jobs} jobs, {sum(faults.values())} faults, {equal} with the bits of the quiet job; "
        f"launch started again {record['restarts_by_launch']} times"
    )
    if options.json:
        write_json(options.json, record)
    return int(equal < jobs)


if __name__ == "__main__":
    sys.exit(main())

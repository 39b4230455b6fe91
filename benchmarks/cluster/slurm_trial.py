"""Try examples/slurm/cpu.sh in a Slurm of four nodes (cluster.py, slurm.py): a whole job, the
signal before the end, a time limit, preemption, a killed rank, a lost node, an array.

    python benchmarks/cluster/slurm_trial.py [--only "lost node"] [--json FILE]

Each is done to a real job, and what became of it is compared with what is promised. It needs root
and Debian's slurm-wlm and munge, takes some minutes, and leaves nothing behind.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path += [str(HERE), str(HERE.parent)]

from common import record  # noqa: E402

SCRIPT = ROOT / "examples" / "slurm" / "cpu.sh"
TRAINING = ["--size", "40", "--device", "reference", "--batch-size", "1", "--no-augment"]
SHAPE = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--time=10"]
NODE_TIMEOUT = 10


def run(*words, check=True):
    """Run a command and return what it prints; SystemExit where it fails."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr or done.stdout}")
    return done.stdout.strip()


def cluster(*words, **options):
    return run(sys.executable, HERE / "cluster.py", *words, **options)


def slurm(*words):
    return run(sys.executable, HERE / "slurm.py", "run", *words)


class Job:
    """A job of the script, in the folder in which it was sent."""

    def __init__(self, name, events, epochs, *options):
        self.name, self.out = name, Path("runs") / name
        words = [*SHAPE, f"--job-name={name}", *options, SCRIPT, events, *TRAINING]
        said = slurm("sbatch", *words, "--epochs", epochs)
        self.number = said.split()[-1]

    def facts(self):
        """Return what Slurm says of the job, {"JobState": ..., "Restarts": ...}."""
        words = slurm("scontrol", "show", "job", self.number, "-o").split()
        return dict(word.partition("=")[::2] for word in words if "=" in word)

    def epochs(self):
        """Return how many epochs its table holds."""
        return len(rows(self.out))

    def until(self, true, seconds=300):
        """Wait until ``true()``; SystemExit with the job's log where that does not come."""
        began = time.monotonic()
        while not true():
            late = time.monotonic() - began > seconds
            if late or (true != self.ended and self.ended() and not true()):
                raise SystemExit(f"{self.name}: {self.facts()}\n{self.log()}")
            time.sleep(0.2)

    def ended(self):
        """Tell whether the job has come to its end, for good."""
        return self.facts()["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")

    def log(self):
        return Path(f"{self.name}-{self.number}.log").read_text()


def rows(folder):
    """Return the epochs of a run's table."""
    path = folder / "history.csv"
    return [row["epoch"] for row in csv.DictReader(path.open())] if path.exists() else []


# -------------------------------------------------------------------------- what is done to the job
def whole(send):
    job = send("whole", 4)
    job.until(job.ended)
    return job


def signal(send):
    """What --signal=USR1@120 sends two minutes before the time is up."""
    job = send("signal", 25)
    job.until(lambda: job.epochs() >= 2)
    slurm("scancel", "--signal=USR1", job.number)
    job.until(job.ended)
    return job


def time_limit(send):
    """The script's own --signal, a minute before a limit of three; Slurm may send it a minute
    early.
    """
    job = send("limit", 100_000, "--time=3", "--signal=USR1@60")
    job.until(lambda: int(job.facts()["Restarts"]) >= 1)
    before = job.epochs()
    job.until(lambda: job.epochs() > before + 1)
    slurm("scancel", job.number)
    job.until(job.ended)
    return job


def preemption(send):
    """A job of higher priority takes its nodes."""
    job = send("preempted", 25, "--nodes=4")
    job.until(lambda: job.epochs() >= 2)
    urgent = send("urgent", 2, "--nodes=4", "--partition=urgent")
    urgent.until(urgent.ended)
    job.until(job.ended)
    return job


def killed_rank(send):
    """kill -9 of a rank: the others must not wait for it until the time is up."""
    job = send("killed", 100_000)
    job.until(lambda: job.epochs() >= 2)
    node = job.facts()["NodeList"].strip("node[]").split("-")[-1].split(",")[-1]
    cluster("on", node, "pkill", "-9", "-f", "minicnn train", check=False)
    job.until(job.ended, 60)
    return job


def lost_node(send):
    """The cable of one of its nodes is pulled: Slurm starts the job again on others."""
    job = send("lost", 40)
    job.until(lambda: job.epochs() >= 2)
    node = job.facts()["NodeList"].strip("node[]").split("-")[-1].split(",")[-1]
    cluster("link", node, "down")
    job.until(job.ended)
    cluster("link", node, "up")
    return job


def array(send):
    """Two jobs of one array have folders of their own."""
    job = send("array", 2, "--array=1-2", "--nodes=1")
    folders = [Path(f"runs/array-{k}/run.json") for k in (1, 2)]
    job.until(lambda: all(folder.exists() for folder in folders))
    job.until(job.ended)
    job.out = folders[0].parent
    return job


#: {trial: (what is done, state that is promised, least restarts)}
TRIALS = {
    "whole job": (whole, "COMPLETED", 0),
    "signal before the end": (signal, "COMPLETED", 1),
    "time limit": (time_limit, "CANCELLED", 1),
    "preemption": (preemption, "COMPLETED", 1),
    "killed rank": (killed_rank, "FAILED", 0),
    "lost node": (lost_node, "COMPLETED", 1),
    "array": (array, "COMPLETED", 0),
}


def tried(name, events):
    """Try one thing; return its row, printed."""
    act, state, restarts = TRIALS[name]
    began = time.monotonic()
    job = act(lambda job, epochs, *options: Job(job, events, epochs, *options))
    facts, table = job.facts(), rows(job.out)
    row = {
        "trial": name,
        "state": facts["JobState"],
        "exit": facts["ExitCode"],
        "restarts": int(facts["Restarts"]),
        "epochs": len(table),
        "seconds": time.monotonic() - began,
        "complete": (job.out / "run.json").exists(),
    }
    row["as promised"] = (
        row["state"] == state
        and row["restarts"] >= restarts
        and table == [str(k) for k in range(1, len(table) + 1)]  # each epoch once, none lost
    )
    print(
        f"{name:<24}{row['state']:<12}{row['exit']:<8}{row['restarts']:>3} restarts"
        f"{row['epochs']:>7} epochs{row['seconds']:>8.0f} s   "
        f"{'as promised' if row['as promised'] else 'NOT AS PROMISED'}",
        flush=True,
    )
    if not row["as promised"]:
        print(job.log(), file=sys.stderr)
    return row


def main():
    made = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    made.add_argument("--only", choices=TRIALS, nargs="+", default=list(TRIALS))
    made.add_argument("--events", type=Path, help="default: 40 simulated ones")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    args = made.parse_args()
    args.json = args.json and args.json.resolve()
    os.environ["CLUSTER"] = f"trial-{os.getpid()}"
    os.environ["VENV"] = str(Path(sys.prefix).resolve())
    with tempfile.TemporaryDirectory() as folder:
        events = args.events and args.events.resolve()
        os.chdir(folder)
        if events is None:
            events = Path("events.h5").resolve()
            simulate = ["-m", "minicnn", "simulate", "--events", "40", "--size", "40"]
            run(sys.executable, *simulate, "--out", events)
        try:
            cluster("up", 4, "--rate", "1gbit")
            run(sys.executable, HERE / "slurm.py", "up", "--node-timeout", NODE_TIMEOUT)
            version = slurm("sinfo", "--version")
            print(f"{version}, 4 nodes, {SCRIPT.name} on 2 nodes x 1 rank\n")
            found = [tried(name, events) for name in args.only]
        finally:
            run(sys.executable, HERE / "slurm.py", "down")
    record(args.json, {"slurm": version, "trials": found})
    return not all(row["as promised"] for row in found)


if __name__ == "__main__":
    sys.exit(main())

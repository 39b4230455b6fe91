"""How long a user waits before anything happens: import, and the first training step of the talk's
network, in fresh processes.

    python benchmarks/startup.py [--cold [N]] [--repeats 7] [--threads 2] [--size 3600] [--json
    FILE]

Each process imports minicnn, reads a simulated event, makes the model and trains one step with it.
Compiled kernels are on disk already: a process that is not counted sees to that. --cold measures N
processes more that find no compiled kernel at all.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import parser, record

from minicnn.files import cpu_model
from minicnn.jobs.recipe import input_scale

#: A process: its arguments are the event's file, the size, the threads and what pixels are
#: multiplied by; it prints (seconds of each part, time at the end, peak bytes).
PROCESS = """
import sys, time
at = [time.perf_counter()]
import minicnn
at.append(time.perf_counter())
with minicnn.data.open_events(sys.argv[1]) as source:
    event = source.read(0)
at.append(time.perf_counter())
size, threads, scale = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
optimizer = minicnn.SGD(1e-3, momentum=0.9)
model = minicnn.models.microboone(size, device="cpu", input_scale=scale, optimizer=optimizer)
model.kernels.set_threads(threads)
at.append(time.perf_counter())
for _ in range(2):
    loss = model.train_on_batch([event.image], [event.label])
    at.append(time.perf_counter())
    end = time.time() if len(at) == 5 else end
assert loss == loss and loss > 0, loss
import json
from minicnn.parallel.machine import peak_memory_bytes
print(json.dumps(([b - a for a, b in zip(at, at[1:])], end, peak_memory_bytes())))
"""
PARTS = (
    "import minicnn",
    "reading an event",
    "making the model",
    "first step",
    "second step",
    "start of the process to end of first step",
)
#: Seconds that a part may take, on 2 cores at size 3600 with kernels compiled before.
ASKED = {"import minicnn": 0.3, "first step": 2.0}


def one(event, size, threads, cache=None):
    """Return ([seconds of each of PARTS], peak memory in MB) of a new process; ``cache``: folder of
    compiled kernels.
    """
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, *map(str, (event, size, threads, input_scale(size)))],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "NUMBA_CACHE_DIR": cache} if cache else None,
    )
    seconds, end, memory = json.loads(done.stdout)
    return [*seconds, end - start], memory / 2**20


def table(title, processes):
    """Print and return the row of every part, from what ``one`` returned of each process."""
    print(
        f"{title + f', processes: {len(processes)}':<42}{'median s':>10}{'min':>8}{'max':>8}  "
        "asked on 2 cores"
    )
    rows = []
    for what, seconds in zip(PARTS, zip(*(seconds for seconds, _ in processes))):
        rows.append(
            {
                "kernels": title,
                "what": what,
                "median": statistics.median(seconds),
                "min": min(seconds),
                "max": max(seconds),
            }
        )
        asked = f"  < {ASKED[what]}" if title == "compiled before" and what in ASKED else ""
        print(
            f"{what:<42}{rows[-1]['median']:>10.3f}{min(seconds):>8.3f}{max(seconds):>8.3f}{asked}"
        )
    memory = max(memory for _, memory in processes)
    print(f"{'peak memory':<42}{memory:>10.0f} MB\n")
    return [*rows, {"kernels": title, "what": "peak memory", "mb": memory}]


def main():
    p = parser(__doc__)
    p.add_argument("--repeats", type=int, default=7, help="processes")
    p.add_argument(
        "--cold",
        type=int,
        nargs="?",
        const=1,
        default=0,
        metavar="N",
        help="processes that have to compile all kernels",
    )
    args = p.parse_args()
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    print(
        f"start of a process at {args.size} x {args.size}, {args.threads} threads, "
        f"{os.cpu_count()} cores, {cpu_model()}; "
        f"load average before: {', '.join(f'{x:.2f}' for x in load)}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        event = Path(folder) / "event.h5"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "minicnn",
                "simulate",
                "--events",
                "1",
                "--size",
                str(args.size),
                "--out",
                event,
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        one(event, args.size, args.threads)
        rows = table(
            "compiled before", [one(event, args.size, args.threads) for _ in range(args.repeats)]
        )
        if args.cold:
            rows += table(
                "to be compiled",
                [one(event, args.size, args.threads, f"{folder}/{i}") for i in range(args.cold)],
            )
    record(
        args.json,
        {
            "size": args.size,
            "threads": args.threads,
            "cores": os.cpu_count(),
            "load": load,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()

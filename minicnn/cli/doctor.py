"""``doctor``: is this machine, this launcher and this data set fit for training? Each line ok,
warning or error, with the remedy.
"""

import argparse
import os
import sys
import textwrap
from typing import Any

from ..jobs.recipe import FULL_SIZE_PARAMETERS
from .common import launched_rank, reader_arguments, reader_options

COLOURS = {"ok": "32", "warning": "33", "error": "31"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Run it as you would train: mpiexec -n 4 python -m minicnn doctor --threads 2 "
        "my_events.h5. The exit status is 1 "
        "where something is wrong; warnings alone leave it 0."
    )
    parser.add_argument("file", nargs="?", help="events to train on: do they fit into memory?")
    parser.add_argument(
        "--threads",
        type=int,
        help="threads per rank that you mean to use (default: what training would take)",
    )
    parser.add_argument(
        "--device", default="auto", help="device that you mean to use: auto, cpu, cuda, cuda:K"
    )
    reader_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from ..inspect.doctor import ERROR, Finding, examine, facts
    from ..parallel import agree, ordered, world
    from ..parallel.launch import announced_size
    from ..parallel.machine import mpi_facts

    try:
        with world() as comm:
            per_rank = agree(comm, value=facts(comm, args.threads, args.device))
            findings = examine(per_rank) + _communication(comm)
            if args.file:
                findings += ordered(comm, lambda: _data(args, per_rank))
            if not comm or comm.rank == 0:
                report(findings, per_rank)
            return int(any(f.level == ERROR for f in findings))
    except RuntimeError as problem:  # the launcher is another MPI's: nobody can talk to anybody
        size, launcher = announced_size()
        if size == 1:
            raise
        if launched_rank() == 0:
            alone = facts(None, args.threads, args.device) | mpi_facts(None)
            findings = examine([alone]) or [Finding(ERROR, "launcher", f"{launcher}: {problem}")]
            report(findings, [alone])
        return 1


def _communication(comm: Any) -> list[Any]:
    """Return the findings of a short exchange between the ranks: it works, how fast, and how far
    their clocks are apart.
    """
    import time

    from ..inspect.doctor import OK, Finding
    from ..parallel import agree
    from ..parallel.clock import clock_offset
    from ..parallel.machine import allreduce_seconds

    if not comm:
        return []
    values = FULL_SIZE_PARAMETERS + 4  # the gradients of the talk's network and the tail
    seconds = max(agree(comm, value=allreduce_seconds(comm, values)))
    uncertain = max(agree(comm, value=clock_offset(comm, time.perf_counter)[1]))
    return [
        Finding(
            OK,
            "communication",
            f"Allreduce of the talk's gradients ({4e-6 * values:.1f} MB) on {comm.size} ranks: "
            f"{1e3 * seconds:.2f} ms; clocks are known within {1e6 * uncertain:.0f} us",
        )
    ]


def _data(args: argparse.Namespace, per_rank: list[dict[str, Any]]) -> list[Any]:
    from ..data.event import EventError
    from ..inspect.doctor import ERROR, Finding, data_facts, examine_data

    try:
        return examine_data(per_rank, data_facts(args.file, reader_options(args)))
    except (OSError, EventError, ValueError) as problem:
        return [
            Finding(
                ERROR, "events", str(problem), "python -m minicnn inspect says more about a file"
            )
        ]


def report(findings: list[Any], per_rank: list[dict[str, Any]]) -> None:
    """Print the findings, and how many are not ok."""
    hosts = sorted({facts["host"] for facts in per_rank})
    nodes = hosts[0] if len(hosts) == 1 else f"{len(hosts)} nodes"
    print(
        f"minicnn doctor: {len(per_rank)} rank{'s' * (len(per_rank) > 1)} on {nodes}, Python "
        f"{per_rank[0]['python']}\n"
    )
    width = max(len(f.topic) for f in findings)
    terminal = sys.stdout.isatty()
    columns = max(os.get_terminal_size().columns if terminal else 140, 70)
    for f in findings:
        level = f"{f.level:<7}"
        level = f"\033[{COLOURS[f.level]}m{level}\033[0m" if terminal else level
        lines = textwrap.wrap(f.text, columns - width - 13) + textwrap.wrap(
            "-> " + f.remedy if f.remedy else "", columns - width - 13, subsequent_indent="   "
        )
        for i, line in enumerate(lines):
            print(f"  {level if not i else ' ' * 7}  {f.topic if not i else '':<{width}}  {line}")
    counts = {level: sum(f.level == level for f in findings) for level in ("error", "warning")}
    words = [f"{n} {level}{'s' * (n > 1)}" for level, n in counts.items() if n]
    print("\n" + (", ".join(words) if words else "all is well"), flush=True)

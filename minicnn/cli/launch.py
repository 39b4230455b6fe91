"""``launch``: a training on several ranks that starts again, from its last step, when it fails.

python -m minicnn launch -n 4 --restarts 5 --min-ranks 2 -- train --events my.h5 --out runs/mine
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .common import one_process, positive_count


@dataclass(frozen=True)
class LaunchOptions:
    """ranks: to begin with. restarts: at most so many. min_ranks: a start that came to no new
    checkpoint is followed by one with a rank less, down to these.
    """

    ranks: int
    restarts: int = 3
    min_ranks: int = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the launcher; behind them stands the training's command line."""
    parser.epilog = (
        "Ends with status 0 only where run.json is there; after SIGTERM, SIGUSR1 and Ctrl-C, which "
        "it passes on, with that of the training (docs/reliability.md)."
    )
    add = parser.add_argument
    add("-n", "--ranks", type=positive_count, required=True, help="ranks to begin with")
    add("--restarts", type=int, default=3, help="starts after failures, at most")
    add("--min-ranks", type=positive_count, help="fewest ranks to start again with (default: -n)")
    add("training", nargs=argparse.REMAINDER, metavar="-- train OPTIONS", help="what to start")


def run(args: argparse.Namespace) -> int:
    """Launch the training; return its exit status."""
    from ..jobs.run_folder import RunFolder
    from ..parallel.machine import find_mpiexec
    from . import train

    one_process("launch")
    command = [word for word in args.training[:1] if word != "--"] + args.training[1:]
    if command[:1] != ["train"]:
        raise ValueError(f"launch starts a training: ... -- train OPTIONS, got {command[:1]}")
    parser = argparse.ArgumentParser("python -m minicnn launch ... -- train")
    train.arguments(parser)
    folder = RunFolder(parser.parse_args(command[1:]).out)
    mpiexec = find_mpiexec()
    if mpiexec is None:
        raise ValueError('there is no mpiexec: pip install "minicnn[mpi]"')
    program = [sys.executable, "-m", "minicnn", *command]

    def start(ranks: int, again: bool) -> list[str]:
        return [mpiexec, "-n", str(ranks), *program, *["--resume"] * again]

    options = LaunchOptions(args.ranks, args.restarts, args.min_ranks or args.ranks)
    return supervise(start, folder.marker, folder.checkpoint / "step.safetensors", options)


def supervise(
    start: Callable[[int, bool], Sequence[str]],
    marker: Path,
    checkpoint: Path,
    options: LaunchOptions,
) -> int:
    """Run the command ``start(ranks, again)`` until ``marker`` is there; return the exit status.

    It is run again where ranks have failed: not after an error that all ranks agreed on, and not
    after a signal. The absence of the marker is a failure, whatever the launcher says.
    """
    from ..parallel.signals import INTERRUPTED, PREEMPTED

    ranks = options.ranks
    for restart in range(options.restarts + 1):
        before = _changed(checkpoint)
        status, asked = _run(start(ranks, restart > 0))
        if status == 0 and marker.exists():
            return 0
        if status == 0:
            _say(f"all ranks ended with status 0, but {marker} is not there: a rank left early")
            status = 1
        if asked or status in (2, PREEMPTED, INTERRUPTED):
            return status
        if restart < options.restarts:
            if _changed(checkpoint) == before and ranks > options.min_ranks:
                ranks -= 1
            _say(
                f"the training failed with status {status}; start {restart + 1} of at most "
                f"{options.restarts} again, with {ranks} ranks"
            )
    return status


def _run(command: Sequence[str]) -> tuple[int, bool]:
    """Return (exit status, whether a signal came), passing signals on."""
    from ..parallel.signals import ASKING

    asked: list[int] = []
    # A session of its own, or the terminal would send Ctrl-C to it a second time.
    process = subprocess.Popen(command, start_new_session=True)

    def pass_on(number: int, frame: object) -> None:
        asked.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in ASKING}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return (128 - status if status < 0 else status), bool(asked)


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _say(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)

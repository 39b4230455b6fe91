"""The command line: ``python -m minicnn COMMAND ...``; ``--help`` lists the commands, ``COMMAND
--help`` the options of one.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module

from .cli.common import Formatter, launched_rank
from .watch import failed

#: Commands and what they do; each is a module of minicnn.cli with ``arguments(parser)`` and
#: ``run(args)`` -> exit status.
COMMANDS = {
    "train": "train the five-class network on simulated events or your own, and report",
    "launch": "start a training on several ranks, and again after a failure, from its last step",
    "predict": "classify events with a trained model: scores, pictures, how many are right",
    "simulate": "make a file of simulated single-particle events",
    "convert": "turn files of any known format into a minicnn event file",
    "inspect": "say what is in a file of events, a model or the folder of a run, and "
    "whether it is whole",
    "compare": "set runs side by side: settings, results, timings, ledgers",
    "report": "make the page of a run anew, report.html",
    "display": "draw an event to a picture",
    "lit": "draw what of every feature map is at rest and what is lit",
    "export": "write a trained model for ONNX, Keras, PyTorch or C++ (TorchScript)",
    "import": "read a network from a Keras file, or weights from Keras or PyTorch",
    "doctor": "check MPI, cores, memory, GPU and a data set before training, and say what to do",
    "model": "predict step and epoch times for thousands of ranks from measurements here",
    "validate": "compare the simulation with tables, theory and data, and write the page of it",
}
EPILOG = "python -m minicnn COMMAND --help shows the options of a command."


def parser(argv: list[str]) -> argparse.ArgumentParser:
    """Return the argument parser; only the module of the command in ``argv`` is loaded."""
    main_parser = argparse.ArgumentParser(
        "python -m minicnn", description=__doc__.split(":")[0] + " of minicnn.", epilog=EPILOG
    )
    main_parser.add_argument(
        "--debug", action="store_true", help="show where in the code an error came from"
    )
    commands = main_parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, what in COMMANDS.items():
        command = commands.add_parser(
            name, help=what, description=what[0].upper() + what[1:] + ".", formatter_class=Formatter
        )
        if name in argv:
            import_module(f".cli.{name}", __package__).arguments(command)
    return main_parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 2 for what the user can put right (said in one
    line), 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    with quiet_after_rank_0():  # under mpiexec usage and help come once
        args = parser(argv).parse_args(argv)
    try:
        return import_module(f".cli.{args.command}", __package__).run(args)
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as problem:  # EventError and CheckpointError are ValueErrors
        failed(problem)
        if args.debug:
            raise
        if isinstance(problem, BrokenPipeError):  # the reader of a pipe has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"error: {_one_line(problem)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as problem:
        failed(problem)
        print("interrupted", file=sys.stderr)
        return 130


@contextmanager
def quiet_after_rank_0() -> Iterator[None]:
    """``with quiet_after_rank_0(): ...`` prints on the first process of a launcher alone."""
    if launched_rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _one_line(problem: BaseException) -> str:
    if isinstance(problem, OSError) and problem.strerror and problem.filename:
        return f"{problem.filename}: {problem.strerror}"
    return " ".join(str(problem).split()) or type(problem).__name__


if __name__ == "__main__":
    sys.exit(main())

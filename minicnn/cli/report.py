"""``report``: the page of a run, made anew from its folder."""

import argparse
from pathlib import Path

from .common import one_process


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a report."""
    parser.epilog = "Training writes the page by itself; this makes it anew, as of older runs."
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a complete run")


def run(args: argparse.Namespace) -> int:
    """Write report.html; return the exit status."""
    from ..jobs.results import write_report
    from ..jobs.run_folder import RunFolder, read_record

    one_process("report")
    folder = RunFolder(args.run)
    if not folder.marker.exists():
        raise ValueError(f"{args.run}: no complete run is here (it has no run.json)")
    write_report(folder, read_record(folder.marker))
    print(f"wrote {folder.page}")
    return 0

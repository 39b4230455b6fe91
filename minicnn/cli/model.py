"""``model``: the performance model. Measure on the ranks that run here, predict them, compare, and
extrapolate to thousands, with a page and a picture.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..files import atomic_write, read_json, write_json
from ..inspect.costs import YEAR, Campaign, Study
from ..inspect.extrapolation import Question
from ..jobs.recipe import FULL_SIZE
from ..progress import Meter
from ..text import counted


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the performance model."""
    parser.epilog = (
        "In one process it starts the ranks to measure by itself; under mpiexec it measures with "
        "these ranks. python -m minicnn model --out docs remakes docs/model.md and docs/model.png."
    )
    _measuring_arguments(parser)
    _question_arguments(parser)
    add = parser.add_argument
    add("--save", type=Path, metavar="FILE", help="write the calibration to this file (JSON)")
    add("--out", type=Path, metavar="FOLDER", help="write model.md and model.png there")
    add("--worker", type=Path, help=argparse.SUPPRESS)  # of the ranks it starts: where to write


def _measuring_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--ranks",
        type=int,
        nargs="+",
        default=[1, 2, 4],
        help="rank counts to measure (those without cores of their own are marked)",
    )
    add("--threads", type=int, default=1, help="threads per rank")
    add("--size", type=int, default=FULL_SIZE, help="side of the images in pixels")
    add("--events-per-rank", type=int, default=512, help="events that each rank measures with")
    add("--events", type=Path, help="file to take them from (default: simulate them)")
    add(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="predict from this calibration instead of measuring",
    )


def _question_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, Question()
    add("--batch-size", type=int, default=default.batch, help="events per step and rank")
    add("--to", type=int, default=default.most_ranks, help="extrapolate to so many ranks")
    add("--per-node", type=int, help="ranks per node (default: as measured, or cores / threads)")
    add(
        "--latency",
        type=float,
        help="of the fabric between nodes, microseconds (default: as measured, or else 1.5)",
    )
    add(
        "--bandwidth",
        type=float,
        help="of the fabric, GB/s and node and direction (default: as measured, or else 12.5)",
    )
    add(
        "--as-they-come",
        action="store_true",
        help="predict for events that are not dealt evenly (--no-balance of a training)",
    )
    add("--training-events", type=int, default=default.training_events, help="of an epoch")
    add(
        "--global-batch",
        type=int,
        default=default.global_batch,
        help="events per update of all ranks together, for strong scaling",
    )
    campaign = Campaign()
    add("--epochs", type=int, default=campaign.epochs, help="of a whole training")
    minutes, years = campaign.save_every / 60, campaign.node_mtbf / YEAR
    add("--save-every", type=float, default=minutes, metavar="MIN", help="of a whole training")
    add("--mtbf", type=float, default=years, metavar="YEARS", help="between failures of a node")
    gigabytes = campaign.file_system / 1e9
    add("--file-system", type=float, default=gigabytes, metavar="GB/S", help="of all nodes")
    add("--study", type=Path, metavar="FILE", help="of study.py steps: also say the time to a loss")
    add("--loss", type=float, help="validation loss (default: the lowest that two of them reach)")


def run(args: argparse.Namespace) -> int:
    """Measure, or read a calibration; print and write what it predicts. Return the exit status."""
    from ..inspect.extrapolation import extrapolate
    from ..inspect.performance import Calibration
    from ..inspect.report.extrapolation import extrapolation_text

    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    if args.calibration:
        calibration = Calibration.load_file(args.calibration)
    else:
        results = _results(args)
        if results is None:
            return 0
        from ..inspect.calibrate import calibrate

        calibration = calibrate(results, _measure_options(args))
    if args.save:
        calibration.save(args.save)
    question = Question(
        args.batch_size,
        args.global_batch,
        args.to,
        args.per_node,
        args.latency,
        args.bandwidth,
        args.training_events,
        not args.as_they_come,
        Campaign(
            epochs=args.epochs,
            save_every=60 * args.save_every,
            node_mtbf=args.mtbf * YEAR,
            file_system=1e9 * args.file_system,
        ),
        Study.load(args.study) if args.study else None,
        args.loss,
    )
    answer = extrapolate(calibration, question)
    text = extrapolation_text(answer)
    print(text)
    if args.out:
        from ..inspect.report.scaling import draw_scaling

        draw_scaling(args.out / "model.png", answer)
        atomic_write(args.out / "model.md", _page(text, args))
        print(f"\nwrote {args.out}/model.md and {args.out}/model.png")
    return 0


def _page(text: str, args: argparse.Namespace) -> str:
    from ..inspect.report.extrapolation import extrapolation_page

    command, note = "python -m minicnn model --out docs", ""
    for name in ("calibration", "save", "study"):
        if getattr(args, name):
            command += f" --{name} {getattr(args, name)}"
    if args.calibration:
        note = (
            "\n(that calibration was made by `python -m minicnn model --save "
            f"{args.calibration} --out docs`, which measures anew)"
        )
    return extrapolation_page(text, command, note)


# ---------------------------------------------------------------------------------------- measuring
def _results(args: argparse.Namespace) -> dict[int, Any] | None:
    """Return {ranks: what they measured}, or None where this process has done its part."""
    from ..parallel import ordered, world

    with world() as comm:
        if not comm and not args.worker:
            return _start(args)
        result = _measure(comm, args)
        if args.worker:
            ordered(comm, lambda: write_json(args.worker, result))
            return None
        return None if comm.rank else {comm.size: result}


def _measure(comm: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return what these ranks measure."""
    from ..inspect.calibrate import measure
    from ..parallel import as_comm, threads_per_rank
    from ..parallel.machine import ranks_of_nodes

    comm = as_comm(comm)
    ranks, nodes = comm.size, ranks_of_nodes(comm)
    have_cores = max(map(len, nodes)) * args.threads <= threads_per_rank(None)
    # Several nodes see the working folder, not each other's temporary ones.
    with tempfile.TemporaryDirectory(dir=Path.cwd() if len(nodes) > 1 else None) as folder:
        path = args.events
        if path is None:
            path = Path(comm.bcast(folder)) / "events.h5"
            _simulate(comm, args, path, ranks)
        computing = not args.worker or have_cores or ranks == min(args.ranks)
        return measure(comm, path, replace(_measure_options(args), computing=computing))


def _measure_options(args: argparse.Namespace) -> Any:
    from ..inspect.calibrate import MeasureOptions

    return MeasureOptions(args.size, args.batch_size, args.threads, args.events_per_rank)


def _simulate(comm: Any, args: argparse.Namespace, path: Path, ranks: int) -> None:
    """Make a file with the events of so many ranks, on rank 0."""
    from .. import data
    from ..parallel import ordered

    def make() -> int:
        simulator = data.Simulator(0, (args.size, args.size, 1), sample="isotropic")
        return data.generate(path, ranks * args.events_per_rank, simulator)

    ordered(comm, make)


def _start(args: argparse.Namespace) -> dict[int, Any]:
    """Measure each rank count by mpiexec; return {ranks: result}."""
    from ..parallel.machine import find_mpiexec

    counts = sorted(set(args.ranks))
    mpiexec = find_mpiexec()
    if max(counts) > 1 and not mpiexec:
        raise RuntimeError(
            'no mpiexec to measure several ranks with: pip install "minicnn[mpi]", load the '
            "cluster's MPI, or --ranks 1"
        )
    results = {}
    with tempfile.TemporaryDirectory() as folder, Meter("measuring", len(counts)) as meter:
        events = args.events
        if events is None:
            events = Path(folder) / "events.h5"
            _simulate(None, args, events, max(counts))
        for done, ranks in enumerate(counts):
            meter.update(done, counted(ranks, "rank"))
            out = Path(folder) / f"{ranks}.json"
            launcher = [mpiexec, "-n", str(ranks)] if mpiexec and ranks > 1 else []
            command = [*launcher, sys.executable, "-m", "minicnn", "model", "--worker", str(out)]
            command += ["--events", str(events), "--ranks", str(counts[0])]
            for name in ("threads", "size", "batch_size", "events_per_rank"):
                command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
            finished = subprocess.run(command, capture_output=True, text=True)
            if finished.returncode or not out.exists():
                said = (finished.stderr or finished.stdout).strip()[-800:]
                raise RuntimeError(f"measuring on {ranks} ranks failed: {said}")
            results[ranks] = read_json(out)
    return results

"""``simulate``: a file of simulated events, by one process or by all ranks under mpiexec, resumed
after a kill.
"""

import argparse
import time
from pathlib import Path

from ..data.detector import DETECTOR_SIZE
from ..simulate.samples import DEFAULT_SAMPLE, sample_named, sample_text
from ..text import bytes_text, classes_text
from .common import output, status_of
from .sample import sample_arguments, sample_of


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.epilog = (
        "Also under mpiexec -n N; the events are the same for any N. A job that was killed goes "
        "on where it stopped when it is started again with the same options (every thousand "
        "events are kept in OUT.parts)."
    )
    add("--events", type=int, required=True, help="number of events")
    add("--out", required=True, metavar="FILE.h5", help="event file to write")
    add("--size", type=int, default=DETECTOR_SIZE, help="edge of the images in pixels")
    add("--seed", type=int, default=0, help="another seed, other events")
    add(
        "--planes",
        type=int,
        default=1,
        choices=(1, 3),
        help="collection plane only, or also the two induction planes",
    )
    sample_arguments(parser, momentum=("--momentum",))
    add(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="these classes of the sample only, numbered in this order",
    )
    add(
        "--dead-wires",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="fraction of the wires that read nothing",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a number of the readout: threshold=20, noise=0, padding=8 "
        "(columns kept around a pulse), lifetime, longitudinal, transverse, electrons, shaping, "
        "field, saturation; induced=0.1 (part of the charge that neighbouring wires see), "
        "space_charge=1 (as in MicroBooNE)",
    )
    add(
        "--cosmics",
        type=float,
        default=0.0,
        metavar="KHZ",
        help="muons of cosmic rays that cross the TPC, laid over every event (MicroBooNE: about 5)",
    )
    add(
        "--full-noise",
        action="store_true",
        help="draw the noise of every pixel: slow, and files are much larger",
    )
    add(
        "--pixel-truth",
        action="store_true",
        help="keep what made the charge of each pixel, track or shower: for losses per pixel",
    )
    add("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    return status_of(lambda: _run(args))


def _run(args):
    from ..data import Simulator, generate, open_events
    from ..data.generate import parts_folder
    from ..parallel import as_comm, ordered, world
    from ..progress import Meter

    with world() as comm:
        quiet = as_comm(comm).rank > 0

        def prepare() -> tuple[Path, bool]:
            path = output(args.out, args.overwrite)
            if args.events < 1:
                raise ValueError(f"--events must be positive, got {args.events}")
            return path, parts_folder(path).exists()

        path, resumed = ordered(comm, prepare)
        simulator = ordered(
            comm,
            lambda: Simulator(
                args.seed,
                (args.size, args.size, args.planes),
                args.classes,
                sample=sample_of(args) or sample_named(DEFAULT_SAMPLE),
                dead_wires=args.dead_wires,
                full_noise=args.full_noise,
                pixel_truth=args.pixel_truth,
                cosmic_rate=args.cosmics,
                **_settings(args.set),
            ),
        )
        if resumed and not quiet:
            print(f"going on with the events in {parts_folder(path)}", flush=True)
        start = time.perf_counter()
        with Meter("simulating", args.events, silent=quiet) as meter:
            present = generate(
                path, args.events, simulator, comm, lambda done, _, step: meter.update(done, step)
            )
        seconds = time.perf_counter() - start
        if quiet:
            return 0
        made = args.events - present
        before = f" ({present:,} were there already)" if present else ""
        with open_events(path) as events:
            print(
                f"simulated {made:,} events{before} in {seconds:.1f} s, {made / seconds:.0f}/s, "
                f"into {path} ({bytes_text(path.stat().st_size)}), "
                f"{sample_text(events.metadata['sample'])}: "
                f"{classes_text(events.labels, events.class_names)}"
            )
    return 0


def _settings(texts):
    """{name: number} of texts NAME=VALUE."""
    settings = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            settings[name] = float(value)
        except ValueError:
            raise ValueError(f"--set {text}: give it as NAME=NUMBER") from None
    return settings

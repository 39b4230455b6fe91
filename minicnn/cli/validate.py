"""``validate``: the simulation against tables, theory, Geant4 and real data: a page with a picture
and a table for each comparison.
"""

import argparse
from pathlib import Path

from .common import one_process, table


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.epilog = (
        "The exit status is 1 where a number is farther from its reference than its "
        "tolerance. Takes about a minute."
    )
    add(
        "--data",
        metavar="FOLDER",
        help="folder of the reference files, or the address of a server that has them "
        "(https://...); what needs one that is not there is named and left out",
    )
    add(
        "--out",
        default="validation",
        metavar="FOLDER",
        help="folder for simulation.md and its pictures",
    )
    add("--only", nargs="+", metavar="NAME", help="these comparisons only")
    add("--seed", type=int, default=7, help="seed of the simulated particles")


def run(args: argparse.Namespace) -> int:
    from ..inspect.report.validation import check_rows, write_page
    from ..progress import Meter
    from ..simulate import Simulator
    from ..simulate.validation import VALIDATIONS, validate
    from ..simulate.validation.references import is_address

    one_process("validate")
    names = args.only or list(VALIDATIONS)
    unknown = sorted(set(names) - set(VALIDATIONS))
    if unknown:
        raise ValueError(
            f"there is no comparison {', '.join(unknown)}; there are {', '.join(VALIDATIONS)}"
        )
    if args.data and not is_address(args.data) and not Path(args.data).is_dir():
        raise ValueError(f"--data {args.data}: there is no such folder")
    simulator, done, left_out = Simulator(seed=args.seed, sample="isotropic"), [], []
    with Meter("validating", len(names)) as meter:
        for k, name in enumerate(names):
            meter.update(k, name)
            try:
                done.append(validate(name, simulator, args.data))
            except FileNotFoundError as missing:
                left_out.append(str(missing))
    for validation in done:
        table(
            validation.title,
            ("", "simulated", "reference", "tolerance", "", "from"),
            check_rows(validation),
            right=(1, 2, 3),
        )
        print()
    for text in left_out:
        print(f"not compared: {text}")
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    page = write_page(folder / "simulation.md", done, left_out)
    checks = [check for validation in done for check in validation.checks]
    bad = [check for check in checks if not check.holds]
    print(f"{len(checks) - len(bad)} of {len(checks)} checks hold; page in {page}")
    return 1 if bad else 0

"""The options that say which sample of particles is simulated."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..simulate.samples import DEFAULT_SAMPLE, SAMPLES, SPECIES, Sample, sample_named

ANY = "any"


def sample_arguments(group: Any, momentum: Sequence[str] = ()) -> None:
    """Add the options of a sample; ``momentum``: further names of that option."""
    add = group.add_argument
    add(
        "--sample",
        choices=SAMPLES,
        help=f"particles that are simulated: minicnn/simulate/samples.py (default: "
        f"{DEFAULT_SAMPLE}); what follows changes one thing of it",
    )
    add(
        "--particle-momentum",
        *momentum,
        dest="particle_momentum",
        type=float,
        nargs="+",
        metavar=("LOW", "HIGH"),
        help="of all particles, in MeV/c: one, or uniform between two",
    )
    add(
        "--position",
        nargs="+",
        metavar="X",
        help=f"start x y z in cm, or {ANY}: uniform in the TPC",
    )
    add(
        "--direction",
        nargs="+",
        metavar="X",
        help=f"direction x y z, or {ANY}: isotropic",
    )
    add(
        "--spread",
        type=float,
        metavar="DEGREES",
        help="Gaussian around the direction, in xz and in yz",
    )
    add(
        "--shares",
        nargs="+",
        metavar="SPECIES=N",
        help=f"these species only, in such shares (whole numbers), out of {', '.join(SPECIES)}; "
        "one that the sample does not have is a class of its own",
    )


def sample_of(args: argparse.Namespace) -> Sample | None:
    """Return the sample that the options ask for, None where none of them was given; ValueError
    for one that cannot be shot.
    """
    given = (
        args.sample,
        args.particle_momentum,
        args.position,
        args.direction,
        args.spread,
        args.shares,
    )
    if all(value is None for value in given):
        return None
    sample = sample_named(args.sample or DEFAULT_SAMPLE)
    if args.shares is not None:
        sample = sample.with_shares(dict(_share(text) for text in args.shares))
    changes: dict[str, Any] = {}
    if args.particle_momentum is not None:
        numbers = args.particle_momentum
        if len(numbers) > 2:
            raise ValueError(f"--particle-momentum: one number or two, got {len(numbers)}")
        changes |= {"momentum": (numbers[0], numbers[-1]), "momenta": {}}
    for name in ("position", "direction"):
        if getattr(args, name) is not None:
            changes[name] = _vector(name, getattr(args, name))
    if args.spread is not None:
        changes["spread"] = args.spread
    elif "direction" in changes and changes["direction"] is None:
        changes["spread"] = 0.0
    return replace(sample, **changes)


def _share(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in SPECIES or not number.isdecimal():
        raise ValueError(
            f"--shares {text}: give SPECIES=N with a whole number and one of {', '.join(SPECIES)}"
        )
    return name, int(number)


def _vector(name: str, texts: Sequence[str]) -> tuple[float, ...] | None:
    if list(texts) == [ANY]:
        return None
    try:
        numbers = tuple(map(float, texts))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise ValueError(f"--{name} {' '.join(texts)}: give x y z, three numbers, or {ANY}")
    return numbers

"""The validation page of the simulator: a picture and a table for each validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...files import StrPath, atomic_write
from .figures import save_figure

PREFACE = """# The simulation, validated

`minicnn.data.Simulator` makes events of one particle in a MicroBooNE-like LArTPC from physics, not
from pictures: Bethe's energy loss with Landau's fluctuations, Highland's scattering, hadronic
interactions, decays, an electromagnetic branching Monte Carlo, then recombination, lifetime, drift,
diffusion, field response, shaping, noise and threshold. This page puts its numbers beside tables,
theory, Geant4 and real MicroBooNE data. The same functions are asserted by the tests; this page is
made by

    python -m minicnn validate --data FOLDER --out docs

where FOLDER holds the reference files (named below each figure that needs one), or is the address
of a server that has them (`pip install "minicnn[reference]"`). Their SHA-256 is compared; without
one, what needs it is left out, and named.

Which particles are shot is a sample, by name (`minicnn/simulate/samples.py`, `--sample NAME`):
`talk`, the talk's: gamma, e-, e+, mu-, pi- and K+ of 1.5 GeV/c, 5 degrees around the beam, from one
point behind the upstream face; `talk-6gev`, the same at 6 GeV/c, straight; `isotropic`: 100 to 1000
MeV/c, in all directions, anywhere; `microboone-paper`, the five particles of the MicroBooNE
collaboration's first networks (arXiv:1611.05531).

Hadrons above 0.9 GeV (pions), 0.6 (K+), 1 (nucleons), and all K-, go through an intranuclear
cascade in a uniform sphere; slower ones have smooth cross sections and a few channels: nuclei are
then absorbers and targets without structure, nucleons make no pions. Options, off by default, lay
muons of cosmic rays over every event (`--cosmics 5`, in kHz), let neighbouring wires see a part of
the charge (`--set induced=0.1`) and displace it as slow ions do (`--set space_charge=1`, a sketch
of MicroBooNE's map). What the simulation leaves out: neutrons below 20 MeV in detail, correlations
in nuclei, hyperons but the Lambda, bipolar induction pulses (induction planes are taken as
deconvolved), neutrinos and light.
"""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw_validation(validation: Any, path: StrPath) -> StrPath:
    """Draw the figure of a Validation to ``path``; returns ``path``."""
    import numpy as np
    from matplotlib.figure import Figure

    what = validation.figure
    figure = Figure(figsize=(6.4, 4.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    for k, series in enumerate(what.series):
        colour = COLOURS[(k if series.colour is None else series.colour) % len(COLOURS)]
        label = series.label or None
        if series.kind == "steps":
            axes.stairs(series.y, series.x, color=colour, label=label, linewidth=1.4)
        elif series.kind == "bars":
            axes.bar(series.x, series.y, color=colour, alpha=0.55, label=label)
        elif series.kind == "points":
            axes.plot(
                series.x,
                series.y,
                "o",
                color=colour,
                markersize=5,
                markerfacecolor="none" if "table" in series.label else colour,
                label=label,
            )
        else:
            axes.plot(series.x, series.y, color=colour, label=label, linewidth=1.4)
    if what.log_x:
        axes.set_xscale("log")
    if what.log_y:
        axes.set_yscale("log")
    if what.ticks:
        axes.set_xticks(np.arange(len(what.ticks)), what.ticks, rotation=30, ha="right")
    axes.set_xlabel(what.x)
    axes.set_ylabel(what.y)
    axes.set_title(validation.title, fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    return save_figure(figure, path)


def write_page(path: StrPath, validations: Sequence[Any], left_out: Sequence[str] = ()) -> Path:
    """Write the page ``path`` (.md) and its pictures into the folder of its name beside it; returns
    ``path``.

    validations: a list of Validation. left_out: texts that say what was not compared, and why.
    """
    path = Path(path)
    pictures = path.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    checks = [check for validation in validations for check in validation.checks]
    good = sum(check.holds for check in checks)
    lines = [
        PREFACE,
        f"**{good} of {len(checks)} checks hold.**"
        + "".join(f"\n\nNot compared: {text}." for text in left_out),
    ]
    for validation in validations:
        draw_validation(validation, pictures / f"{validation.name}.png")
        lines += [
            f"\n## {validation.title}\n",
            validation.text + (f" Read from `{validation.file}`." if validation.file else ""),
            f"\n![{validation.title}]({pictures.name}/{validation.name}.png)\n",
            "| | simulated | reference | tolerance | | from |",
            "|---|---|---|---|---|---|",
        ]
        lines += ["| {} |".format(" | ".join(row)) for row in check_rows(validation)]
    atomic_write(path, "\n".join(lines) + "\n")
    return path


def check_rows(validation: Any) -> list[tuple[str, ...]]:
    """Return (what, simulated, reference, tolerance, verdict, source) of every check, as texts."""
    return [
        (
            check.what,
            f"{check.value:.4g} {check.unit}".strip(),
            f"{check.reference:.4g}",
            f"± {check.tolerance:.2g}",
            "ok" if check.holds else "**differs**",
            check.source,
        )
        for check in validation.checks
    ]

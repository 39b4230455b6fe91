"""The detector: charge per wire, pulses, noise and what of an image is lit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ...data.event import CLASSES
from .. import detector, geometry
from ..tiles import new_tiles
from .base import Check, Figure, Series, Validation, histogram, relative


def recombination(simulator: Any) -> Validation:
    """Electrons that escape, at 273 V/cm."""
    loss = np.linspace(1, 25, 200)
    electrons = np.array(
        [0.3e-3 * x * detector.ELECTRONS_PER_MEV * detector.survival(x) for x in loss]
    )
    table = ((2.1, 16.9), (4.2, 26.9), (10.0, 42.5))
    checks = [
        relative(
            f"electrons per 3 mm at {x} MeV/cm",
            np.interp(x, loss, electrons),
            y,
            0.02,
            "thousand",
            "modified box model, ArgoNeuT",
        )
        for x, y in table
    ]
    return Validation(
        "recombination",
        "Recombination",
        "Thousands of electrons that drift away from 3 mm of track.",
        Figure(
            "dE/dx (MeV/cm)",
            "electrons per wire (thousand)",
            [
                Series("simulated", loss, electrons),
                Series("reference", [row[0] for row in table], [row[1] for row in table], "points"),
            ],
        ),
        checks,
    )


def mip_charge(simulator: Any, n: int = 20) -> Validation:
    """Charge of a muon of 600 MeV/c on the wires that it crosses."""
    from ..simulator import Simulator

    quiet = Simulator(seed=simulator.seed, noise=0.0, threshold=0.01, sample="isotropic")
    area = quiet._pulses[0].sum(-1).mean()  # of one ADC count of charge
    charge: Any = []
    for i in range(n):
        image = quiet.simulate(
            i, pdg=13, momentum=600.0, position=(5.0, 0.0, 50.0), direction=(0.02, 0.0, 1.0)
        ).image
        rows = np.bincount(image.coords[:, 0], image.values[:, 0], geometry.FULL)
        first = int(geometry.row_of(0.0, 50.0))
        charge.append(rows[first + 5 : first + 200] / area)
    charge = np.concatenate(charge)
    source = "16.9 thousand electrons at 182 per ADC count"
    checks = [
        relative(
            "mean",
            charge.mean(),
            16900 / 182,
            0.1,
            "ADC",
            source + "; the muon is above the minimum, its deltas are apart",
        ),
        relative(
            "median",
            np.median(charge),
            0.95 * 16900 / 182,
            0.1,
            "ADC",
            "Landau: 5 % or so below the mean",
        ),
    ]
    edges, density = histogram(charge, 60, (0, 240))
    return Validation(
        "mip_charge",
        "Charge of a minimum ionising particle",
        "Charge on a collection wire, the pulse's sum over the sum of "
        "one ADC count's pulse, of a muon along the beam close to the anode.",
        Figure(
            "charge per wire (ADC)",
            "density per ADC",
            [
                Series("simulated", edges, density, "steps"),
                Series("93 ADC", [16900 / 182] * 2, [0, density.max()]),
            ],
        ),
        checks,
    )


def pulse_shape(simulator: Any, path: str | Path) -> Validation:
    """The pulse of a point charge against MicroBooNE's field response."""
    with np.load(path) as file:
        field = file["current"].sum(0).astype(float)  # over impact positions; samples of 0.1 us
    u = np.arange(0, 20, 0.1) / 2.2
    theirs = np.convolve(field / field.sum(), u**4 * np.exp(4 - 4 * u))
    theirs = theirs[5:] + theirs[:-5]  # two ticks
    ours = detector.pulses(detector.Response(longitudinal=0.0))[0].astype(float)
    ours = ours[::-1].T.reshape(-1)  # the phases interleaved: PHASES samples per us
    time = (np.arange(len(ours)) - ours.argmax()) / detector.PHASES
    width = (theirs > theirs.max() / 2).sum() * 0.1
    source = "field response folded with the shaper of 2.2 us"
    checks = [
        relative("height", ours.max(), theirs.max(), 0.03, "ADC", source),
        relative(
            "full width at half maximum",
            (ours > ours.max() / 2).sum() / detector.PHASES,
            width,
            0.03,
            "us",
            source,
        ),
    ]
    theirs_time = 0.1 * (np.arange(len(theirs)) - theirs.argmax())
    seen = np.abs(theirs_time) < 9
    return Validation(
        "pulse_shape",
        "Pulse of a point charge",
        "A semi-Gaussian shaper folded with two Gaussians, and with "
        "MicroBooNE's computed field response of the collection plane, summed over impact "
        "positions.",
        Figure(
            "time from the peak (us)",
            "two ticks, per ADC of charge",
            [
                Series("field response", theirs_time[seen], theirs[seen]),
                Series("simulated", time, ours),
            ],
        ),
        checks,
    )


def correlation(stretches: Any, columns: Any = 6) -> Any:
    """Return the autocorrelation at 0 to ``columns`` - 1 columns of (n, width) stretches of noise
    of mean 0.
    """
    width = stretches.shape[1]
    return (
        np.array([(stretches[:, k:] * stretches[:, : width - k]).mean() for k in range(columns)])
        / stretches.var()
    )


def noise_image(simulator: Any, plane: int = 0) -> Any:
    """Return (FULL, FULL) of noise alone, in every pixel."""
    tiles = new_tiles()
    for i in range(detector.GRID_ROWS):
        for j in range(detector.GRID_COLUMNS):
            detector.tile(tiles, i, j)
    detector.add_noise(np.random.default_rng(0), tiles, simulator._noise[plane].sigma)
    grid = tiles.pixels.reshape(
        detector.GRID_ROWS, detector.GRID_COLUMNS, detector.TILE_ROWS, detector.TILE_COLUMNS
    )
    return grid.transpose(0, 2, 1, 3).reshape(geometry.FULL, geometry.FULL).astype(float)


def quiet_stretches(adc: Any, columns: Any = 39) -> Any:
    """Return, for each quiet collection wire of raw (channel, tick) ADC, (n, columns) of its noise
    of pairs of ticks.
    """
    adc = adc.astype(float)
    adc -= np.median(adc, 1, keepdims=True)
    adc -= np.median(adc, 0)  # what the channels have in common
    out = []
    for wire in adc:
        pairs = (
            wire[: len(wire) // (2 * columns) * 2 * columns]
            .reshape(-1, 2)
            .sum(1)
            .reshape(-1, columns)
        )
        quiet = pairs[np.abs(pairs).max(1) < 14]  # stretches without signal
        if len(quiet) > 100 and quiet.std() < 4.5:
            out.append(quiet - quiet.mean())
    return out


def spectrum(stretches: Any) -> Any:
    """Return (frequency in MHz, amplitude in ADC per sqrt(MHz)) of stretches of pairs of ticks (1
    us).
    """
    window = np.hanning(stretches.shape[1])
    power = (np.abs(np.fft.rfft(stretches * window)) ** 2).mean(0) / (window**2).sum()
    return np.fft.rfftfreq(stretches.shape[1]), np.sqrt(2 * power)


def noise(simulator: Any, path: str | Path) -> Validation:
    """Noise against the quiet collection wires of a real run."""
    with np.load(path) as file:
        wires = quiet_stretches(file["Y_ch7728_7775"])
    rms = np.median([w.std() for w in wires])
    real = np.median([correlation(w) for w in wires], 0)
    image = noise_image(simulator)[72:3528, :3588]
    ours = correlation(image)
    source = f"MicroBooNE run 3493, {len(wires)} wires"
    checks = [relative("RMS of a pixel", image.std(), rms, 0.1, "ADC", source)]
    checks += [
        Check(f"correlation at {k} us", ours[k], real[k], 0.05, "", source) for k in range(1, 5)
    ]
    frequency, theirs = spectrum(np.concatenate(wires))
    _, measured = spectrum(image.reshape(-1, 39))
    middle = frequency > 0.05
    checks.append(
        Check(
            "spectrum, mean of |ratio - 1|",
            np.abs(measured / theirs - 1)[middle].mean(),
            0.0,
            0.12,
            "",
            source + ", above 50 kHz",
        )
    )
    return Validation(
        "noise",
        "Noise",
        "Amplitude spectrum of the noise of pairs of ticks: simulated, and on real collection "
        "wires after the noise that they have in common is subtracted.",
        Figure(
            "frequency (MHz)",
            "ADC per √MHz",
            [
                Series("run 3493", frequency[1:], theirs[1:], "points"),
                Series("simulated", frequency[1:], measured[1:]),
            ],
        ),
        checks,
    )


#: noise of wires by length in cm over that of a collection wire of 233 cm: Wire-Cell,
#: microboone-noise-spectra-v2
LENGTHS = {
    19.6: 0.698,
    97.2: 0.760,
    174.8: 0.833,
    252.4: 0.940,
    330.0: 1.041,
    407.6: 1.114,
    465.9: 1.170,
}


def wire_noise(simulator: Any) -> Validation:
    """Noise of induction wires by their length."""
    rows = noise_image(simulator, 1)[600:3000]
    rms, lengths = rows.std(1) / simulator.response.noise, geometry.wire_lengths(1)
    order = np.argsort(lengths)
    checks = [
        relative(
            f"noise of wires of {length:g} cm",
            rms[np.argsort(np.abs(lengths - length))[:8]].mean(),
            value,
            0.05,
            "",
            "Wire-Cell's measured spectra",
        )
        for length, value in LENGTHS.items()
    ]
    return Validation(
        "wire_noise",
        "Noise of induction wires",
        "RMS on an induction wire over that of a collection wire.",
        Figure(
            "length of the wire (cm)",
            "relative RMS",
            [
                Series("simulated", lengths[order][::20], rms[order][::20], "points"),
                Series("Wire-Cell", list(LENGTHS), list(LENGTHS.values()), "points"),
            ],
        ),
        checks,
    )


def run_lengths(images: Any) -> Any:
    """Return how many cells in a row, in time, are above 10 ADC, for every such run of some (wires,
    cells) images.
    """
    edges = [np.diff((image > 10).astype(int), axis=1, prepend=0, append=0) for image in images]
    return np.concatenate([np.argwhere(e == -1)[:, 1] - np.argwhere(e == 1)[:, 1] for e in edges])


def pulse_length(simulator: Any, path: str | Path, n: int = 40) -> Validation:
    """How many cells a pulse lights against the real event."""
    from ..simulator import Simulator

    with np.load(path) as file:
        real = run_lengths([file["img"] * 100.0 / 255])
    source = Simulator(seed=simulator.seed, shape=(3600, 1200, 1), sample="isotropic")
    ours = run_lengths(
        [source.simulate(i, pdg=13, momentum=900.0).image.to_dense()[..., 0] for i in range(n)]
    )
    series = [
        Series(
            name,
            np.arange(0.5, 13),
            np.histogram(runs, np.arange(0.5, 13))[0] / (runs > 1).sum(),
            "steps",
        )
        for name, runs in (("real event", real), ("simulated muons", ours))
    ]
    means = [r[(r >= 2) & (r <= 5)].mean() for r in (ours, real)]
    checks = [
        relative(
            "mean length of 2 to 5 cells",
            means[0],
            means[1],
            0.15,
            "cells of 3 us",
            "MicroBooNE Open Samples, run 7004, event 16552",
        )
    ]
    return Validation(
        "pulse_length",
        "Length of pulses",
        "Lit cells in a row on a wire, ticks summed by 6 and 10 ADC or more. Longer runs are "
        "tracks along the drift, of which cosmic rays have fewer than particles of any direction; "
        "single cells are mostly noise.",
        Figure("cells in a row", "runs per run of two or more", series),
        checks,
    )


def lit_fractions(simulator: Any, n: int = 500) -> Validation:
    """What one particle of each class lights."""
    events = [simulator.read(i) for i in range(n)]
    lit = [
        np.array([e.image.nnz for e in events if e.label == k]) / geometry.FULL**2 * 100
        for k in range(len(CLASSES))
    ]
    edges = np.geomspace(1e-3, 0.2, 41)
    series = [
        Series(name, edges, np.histogram(values, edges)[0], "steps")
        for name, values in zip(CLASSES, lit)
    ]
    checks = [
        Check(
            f"median, {name}",
            np.median(values),
            0.02,
            0.015,
            "%",
            "0.04 % for a real neutrino's several tracks, see below",
        )
        for name, values in zip(CLASSES, lit)
    ]
    return Validation(
        "lit_fractions",
        "Lit fraction",
        "Pixels above the threshold of 15 ADC, about five times the noise, in % of 3600 x 3600. A "
        "track of 1 m crosses a few hundred wires and lights 8 columns (8 us) on each, so that "
        "one particle below 1 GeV/c lights 0.01 to 0.05 %. The real event of the Open Samples "
        "agrees: 0.41 % of its cells (6 ticks) are lit by 20 or so cosmic rays and one neutrino, "
        "0.040 % by the neutrino's particles together. More is lit with lower thresholds (10 ADC: "
        "0.08 %, most of it noise), kept neighbours (`padding=8`: 0.03 %) or cosmic rays.",
        Figure("lit (%)", "events", series, True),
        checks,
    )


def expected_noise_pixels(simulator: Any) -> Any:
    """Return the mean number of noise pixels above threshold in an image of the collection
    plane.
    """
    return (
        3456
        * geometry.FULL
        * 0.5
        * math.erfc(simulator.response.threshold / simulator.response.noise / math.sqrt(2))
    )

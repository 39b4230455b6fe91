"""From energy deposits to pixels: recombination, electron lifetime, diffusion, response, noise,
threshold.

A pixel's value is the sum of two 0.5 us samples of the wire in ADC counts, pedestal subtracted, as
in a raw event whose ticks are summed by two; induction wires are taken as deconvolved to the
response of collection wires.

The image is kept as a pool of small tiles, made where charge falls; noise is simulated in these
tiles, and elsewhere only as the expected number of noise pixels above the threshold.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ._jit import jit
from .geometry import (
    DRIFT_VELOCITY,
    FIELD,
    FULL,
    PITCH,
    PLANES,
    TRIGGER,
    X_MAX,
    Y_MAX,
    Z_MAX,
    wire_lengths,
)
from .material import DENSITY
from .tiles import (
    GRID_COLUMNS,
    GRID_ROWS,
    TILE_COLUMNS,
    TILE_ROWS,
    Tiles,
    add_pulse,
    clear,
    tile,
)

ELECTRONS_PER_MEV = 1e6 / 23.6
BOX_ALPHA, BOX_BETA = 0.93, 0.212 / (DENSITY * FIELD)  # ArgoNeuT's fit, beta in cm/MeV
SLOWEST_LOSS = 1.0  # MeV/cm: the fit does not hold below
REACH = 3.5  # sigmas of a charge cloud drawn along the pitch
DRIFT_BINS, PHASES = 24, 16  # of the pulses: drift, arrival within a column
BEFORE, PULSE = 6, 16  # columns before the arrival, columns in all
#: current on the collection wires while an electron arrives, summed over impact positions:
#: Gaussians of (charge, time, sigma) in us. Folded with the shaper they follow the field response
#: computed for MicroBooNE (Wire-Cell, Garfield) within 1 % of the peak; the 2.7 % of the charge
#: that is missing flows in the 60 us before.
FIELD_RESPONSE = ((1.590, -0.11, 1.59), (-0.617, 1.15, 0.80))
#: white noise through these has the spectrum that run 3493 shows on quiet collection wires, ticks
#: summed by two: correlations of 0.59, 0.11, -0.07, -0.03 at 1 to 4 columns
NOISE_TAPS = np.array([-0.0448, 0.0208, 0.3238, 0.8862, 0.3238, 0.0208, -0.0448]) / 0.99996


class Response(NamedTuple):
    """Numbers of the readout; the defaults follow MicroBooNE (JINST 12 (2017) P02017, P08003; JINST
    13 (2018) P07006).

    lifetime in us; diffusion in cm2/us (Li et al., NIM A 816 (2016) 160: 3.74 and 5.85 cm2/s);
    electrons per ADC count at the peak of the shaped pulse of a point charge; shaping: peaking time
    in us; field: width of the field response over MicroBooNE's; noise: RMS of one pixel (two
    samples of 1.65 ADC, correlation 0.76) of a collection wire, from which :func:`loudness` takes
    that of the induction wires; threshold: about 5 sigma, of a collection wire; that of an
    induction wire is as many sigmas; saturation: two samples of 12 bits above a pedestal of 475;
    padding: columns that are kept on either side of a pixel above threshold, where positive (a
    region of interest). induced: part of a wire's charge that its neighbours see come and go, a
    signal of both signs. space_charge: strength of the displacement by slow ions, 1 as MicroBooNE
    measured it, see :func:`displaced`. Both are off at 0.
    """

    lifetime: float = 12000.0
    longitudinal: float = 3.74e-6
    transverse: float = 5.85e-6
    electrons: float = 182.0
    shaping: float = 2.2
    field: float = 1.0
    noise: float = 3.1
    threshold: float = 15.0
    saturation: float = 7240.0
    padding: float = 0.0
    induced: float = 0.0
    space_charge: float = 0.0


def pulses(response: Response) -> np.ndarray:
    """Return float32 (drift bin, phase, column): what one ADC count of charge adds to the pixels
    around its arrival.

    The shaper is semi-Gaussian, h(t) = (t / 4 tau)^4 exp(4 - t / tau) with its peak (= 1) at 4 tau
    = ``shaping``; it is folded with the field response, and that with longitudinal diffusion.
    Without diffusion the pulse's peak lies at the arrival. A phase p stands for an arrival at (p +
    1/2) / PHASES of a column.
    """
    dt = 1.0 / (2 * PHASES)
    t = dt * np.arange(-round(20 / dt), round(20 / dt) + 1)
    u = np.clip(t / response.shaping, 0, None)
    shaper = u**4 * np.exp(4 - 4 * u)

    def pulse(diffusion):
        current = np.zeros_like(t)
        for charge, time, sigma in FIELD_RESPONSE:
            width = math.hypot(sigma * response.field, diffusion)
            current += (
                charge
                * np.exp(-0.5 * ((t - time * response.field) / width) ** 2)
                / (width * math.sqrt(2 * math.pi))
            )
        return np.convolve(shaper, current * dt, "same")

    peak = t[pulse(0.0).argmax()]
    out = np.empty((DRIFT_BINS, PHASES, PULSE), np.float32)
    for k in range(DRIFT_BINS):
        drift = (k + 0.5) / DRIFT_BINS * X_MAX / DRIFT_VELOCITY
        shape = pulse(math.sqrt(2 * response.longitudinal * drift) / DRIFT_VELOCITY)
        for phase in range(PHASES):
            time = np.arange(PULSE) - BEFORE - (phase + 0.5) / PHASES + peak
            out[k, phase] = np.interp(time + 0.25, t, shape) + np.interp(
                time + 0.75, t, shape
            )  # the two ticks of a column
    return out


class Noise(NamedTuple):
    """Noise of a plane: sigma float64 (FULL,), its RMS per row, 0 where there is no live wire;
    threshold float64 (FULL,): of each row; expected float64 (FULL,): the mean number of noise
    pixels above threshold in the rows up to each."""

    sigma: np.ndarray
    threshold: np.ndarray
    expected: np.ndarray


class Readout(NamedTuple):
    """How a plane of wires is read: its number; pulses: see :func:`pulses`; dead bool (FULL,): rows
    that read nothing.
    """

    plane: int
    response: Response
    pulses: np.ndarray
    noise: Noise
    dead: np.ndarray


def loudness(plane: int) -> np.ndarray:
    """Return the noise of a plane's wires over that of a collection wire: it grows with a wire's
    length in m, and so its capacitance.

    0.67 + 0.112 length follows the measured spectra of Wire-Cell (microboone-noise-spectra-v2)
    within 4 % from 0.2 to 4.7 m.
    """
    return np.ones(PLANES[0][0]) if plane == 0 else 0.67 + 0.112 * wire_lengths(plane) / 100.0


def plane_noise(response: Response, plane: int, dead: np.ndarray) -> Noise:
    """Return the Noise of a plane whose ``dead`` rows (bool) read nothing."""
    wires = PLANES[plane][0]
    first = (FULL - wires) // 2
    loud = np.ones(FULL)
    loud[first : first + wires] = loudness(plane)
    sigma, threshold = response.noise * loud, response.threshold * loud
    sigma[dead] = sigma[:first] = sigma[first + wires :] = 0.0
    return Noise(
        sigma, threshold, np.cumsum([FULL * above(*pair) for pair in zip(threshold, sigma)])
    )


def above(threshold: float, noise: float) -> float:
    """Return the probability that noise of one pixel exceeds the threshold."""
    return 0.5 * math.erfc(threshold / noise / math.sqrt(2)) if noise > 0 else 0.0


@jit
def survival(loss):
    """Return the fraction of electrons that escape recombination at dE/dx = ``loss`` MeV/cm.

    Modified box model R = ln(alpha + beta dE/dx) / (beta dE/dx) (ArgoNeuT, JINST 8 (2013) P08005,
    eq. 2.3).
    """
    xi = BOX_BETA * max(loss, SLOWEST_LOSS)
    return math.log(BOX_ALPHA + xi) / xi


@jit
def displaced(x, y, z, strength):
    """Return (y, z) where electrons from a point arrive that slow positive ions pull inwards.

    15 cm at the cathode near the top, the bottom and the ends (MicroBooNE, JINST 15 (2020) P12037),
    growing as x^2, linear in y, within about a metre of the ends in z: a sketch of the measured
    map.
    """
    size = 15.0 * strength * (x / X_MAX) ** 2
    return y - size * y / Y_MAX, z + size * (math.exp(-z / 100.0) - math.exp((z - Z_MAX) / 100.0))


@jit
def normal_parts(centre, sigma, first, out):
    """Fill ``out`` with the parts of a normal distribution between first, first + 1, ...; they add
    up to 1.
    """
    scale = 1.0 / (sigma * math.sqrt(2.0))
    low = math.erf((first - centre) * scale)
    for k in range(len(out)):
        high = math.erf((first + k + 1 - centre) * scale)
        out[k] = 0.5 * (high - low)
        low = high


@jit
def charge(steps, readout, tiles):
    """Let the deposits drift to a plane of wires and add their pulses to the tiles.

    A cloud drifts for t = x / v; its electrons survive as exp(-t / lifetime) and diffuse to sigma =
    sqrt(2 D t): along the pitch they are shared among wires, in time they widen the pulse
    (:func:`pulses`).
    """
    response, dead = readout.response, readout.dead
    wires, across_y, across_z, start = PLANES[readout.plane]
    first_row, last_row = (FULL - wires) // 2, (FULL + wires) // 2 - 1
    parts = np.empty(32)
    for k in range(len(steps)):
        x, y, z, time, energy, length = (
            steps[k, 0],
            steps[k, 1],
            steps[k, 2],
            steps[k, 3],
            steps[k, 4],
            steps[k, 5],
        )
        if response.space_charge > 0.0:
            y, z = displaced(x, y, z, response.space_charge)
        drift = x / DRIFT_VELOCITY
        electrons = (
            energy
            * ELECTRONS_PER_MEV
            * survival(energy / length)
            * math.exp(-drift / response.lifetime)
        )
        q = electrons / response.electrons
        row = first_row + (across_y * y + across_z * z - start) / PITCH
        column = TRIGGER + time + drift
        sigma = max(math.sqrt(2.0 * response.transverse * drift) / PITCH, 0.02)
        r0, r1 = math.floor(row - REACH * sigma), math.floor(row + REACH * sigma)
        count = min(r1 - r0 + 1, 32)
        normal_parts(row, sigma, r0, parts[:count])
        c = math.floor(column)
        drift_bin = min(int(x / X_MAX * DRIFT_BINS), DRIFT_BINS - 1)
        pulse = readout.pulses[drift_bin, int((column - c) * PHASES)]
        c0 = c - BEFORE
        if c0 < 0 or c0 + PULSE > FULL:
            continue
        for i in range(count):
            r = r0 + i
            if first_row <= r <= last_row and not dead[r]:
                add_pulse(tiles, r, c0, q * parts[i], pulse)
            if response.induced > 0.0 and c0 > 0 and c0 + PULSE < FULL:
                for side in (r - 1, r + 1):
                    if first_row <= side <= last_row and not dead[side]:
                        add_pulse(tiles, side, c0 - 1, response.induced * q * parts[i], pulse)
                        add_pulse(tiles, side, c0 + 1, -response.induced * q * parts[i], pulse)


@jit
def add_noise(rng, tiles, sigma):
    """Add filtered Gaussian noise of ``sigma`` per row to every pixel of every tile, continued from
    each tile to the next one.
    """
    n = len(NOISE_TAPS)
    white = np.empty(TILE_COLUMNS + n - 1)
    for ti in range(GRID_ROWS):
        if tiles.number[ti].max() < 0:
            continue
        for i in range(TILE_ROWS):
            loud = sigma[ti * TILE_ROWS + i]
            have = 0
            for tj in range(GRID_COLUMNS):
                k = tiles.number[ti, tj]
                if k < 0 or loud == 0.0:
                    have = 0
                    continue
                for j in range(have):
                    white[j] = white[TILE_COLUMNS + j]
                for j in range(have, len(white)):
                    white[j] = rng.standard_normal()
                have = n - 1
                for j in range(TILE_COLUMNS):
                    s = 0.0
                    for m in range(n):
                        s += NOISE_TAPS[m] * white[j + m]
                    tiles.pixels[k, i, j] += loud * s


@jit
def tail(rng, threshold):
    """Draw a standard normal number above ``threshold`` > 0 (Robert, Stat. Comput. 5 (1995)
    121).
    """
    rate = 0.5 * (threshold + math.sqrt(threshold * threshold + 4.0))
    while True:
        v = threshold + rng.standard_exponential() / rate
        if rng.random() < math.exp(-0.5 * (v - rate) ** 2):
            return v


@jit
def add_lone_noise(rng, tiles, noise):
    """Add the noise pixels above threshold outside the tiles: a Poisson number of them, anywhere on
    live wires.
    """
    quiet = tiles.n[0]  # tiles made from here on hold only these pixels
    for _ in range(rng.poisson(noise.expected[-1])):
        row = np.searchsorted(noise.expected, rng.random() * noise.expected[-1], side="right")
        column = int(rng.random() * FULL)
        k = tiles.number[row // TILE_ROWS, column // TILE_COLUMNS]
        sigma = noise.sigma[row]
        value = sigma * tail(rng, noise.threshold[row] / sigma)
        if k < 0 or k >= quiet:
            k = tile(tiles, row // TILE_ROWS, column // TILE_COLUMNS)
            tiles.pixels[k, row % TILE_ROWS, column % TILE_COLUMNS] = value


@jit
def count_lit(tiles, threshold):
    """Return the number of pixels above the threshold of their row."""
    count = 0
    for k in range(tiles.n[0]):
        for i in range(TILE_ROWS):
            least = threshold[tiles.used[k, 0] * TILE_ROWS + i]
            for j in range(TILE_COLUMNS):
                count += tiles.pixels[k, i, j] > least
    return count


@jit
def lit(tiles, response, threshold):
    """Return coords int32 (n, 2) and float32 values of the lit pixels, sorted row by row.

    Lit: above the threshold of its row; or positive and at most ``padding`` columns from such a
    pixel on the same wire.
    """
    padding = int(response.padding)
    most = count_lit(tiles, threshold) * (2 * padding + 1)
    coords, values = np.empty((most, 2), np.int32), np.empty(most, np.float32)
    first, last = np.full(GRID_ROWS, GRID_COLUMNS, np.int64), np.full(GRID_ROWS, -1, np.int64)
    for k in range(tiles.n[0]):
        i, j = tiles.used[k, 0], tiles.used[k, 1]
        first[i], last[i] = min(first[i], j), max(last[i], j)
    wire, keep = np.zeros(FULL, np.float32), np.zeros(FULL, np.bool_)
    n = 0
    for ti in range(GRID_ROWS):
        c0, c1 = first[ti] * TILE_COLUMNS, (last[ti] + 1) * TILE_COLUMNS
        for i in range(TILE_ROWS):
            for tj in range(first[ti], last[ti] + 1):
                k, c = tiles.number[ti, tj], tj * TILE_COLUMNS
                for j in range(TILE_COLUMNS):
                    v = tiles.pixels[k, i, j] if k >= 0 else np.float32(0.0)
                    wire[c + j] = v
                    if v > threshold[ti * TILE_ROWS + i]:
                        keep[max(c0, c + j - padding) : min(c1, c + j + padding + 1)] = True
            for c in range(c0, c1):
                if keep[c]:
                    keep[c] = False
                    if wire[c] > 0.0:
                        coords[n, 0], coords[n, 1] = ti * TILE_ROWS + i, c
                        values[n] = min(wire[c], response.saturation)
                        n += 1
    return coords[:n].copy(), values[:n].copy()


@jit
def expose(rng, steps, readout, tiles, full_noise):
    """Return (coords, values, how many of them are near charge) of the lit pixels of one plane.

    ``full_noise``: draw the noise of all pixels, also far from charge (a hundred times slower,
    statistically the same).
    """
    response, noise = readout.response, readout.noise
    clear(tiles)
    charge(steps, readout, tiles)
    if full_noise:
        near = tiles.n[0]
        for i in range(GRID_ROWS):
            for j in range(GRID_COLUMNS):
                tile(tiles, i, j)
        add_noise(rng, tiles, noise.sigma)
        coords, values = lit(tiles, response, noise.threshold)
        tiles_near = Tiles(tiles.number, tiles.pixels[:near], tiles.used, np.full(1, near))
        return coords, values, count_lit(tiles_near, noise.threshold)
    add_noise(rng, tiles, noise.sigma)
    signal = count_lit(tiles, noise.threshold)
    add_lone_noise(rng, tiles, noise)
    coords, values = lit(tiles, response, noise.threshold)
    return coords, values, signal

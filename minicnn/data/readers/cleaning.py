"""Raw waveforms to lit pixels: pedestal and the noise of a group of channels are subtracted, ticks
summed, and samples kept that stand out of the channel's own noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST_IN_COMMON = 8


@dataclass(frozen=True)
class Cleaning:
    """How waveforms are cleaned.

    pedestal: "median" or "mode" of a channel. group: channels that share electronics; the median
    over them is subtracted at every tick where at least 8 of them are good (0: never). threshold:
    in sigmas of the channel's noise after summing. bipolar: keep negative samples too, as induction
    planes need. noisy: a channel whose noise, in ADC per tick after the subtraction, is above this
    is bad, and so is one that shows none at all. ValueError for what is none of these.
    """

    pedestal: str = "median"
    group: int = 48
    threshold: float = 5.0
    bipolar: bool = False
    noisy: float = 10.0

    def __post_init__(self) -> None:
        if self.pedestal not in ("median", "mode"):
            raise ValueError(
                f"the pedestal is the median or the mode of a channel, got {self.pedestal!r}"
            )
        if self.group < 0 or not self.threshold > 0 or not self.noisy > 0:
            raise ValueError(
                f"group, threshold and noisy are positive, got {self.group}, {self.threshold}, "
                f"{self.noisy}"
            )

    @property
    def at_a_time(self) -> int:
        """Number of channels that are cleaned together."""
        return self.group or 48

    def lit(self, raw: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (coords int (n, 2): channel and column, values (n,), bad channels) of a group.

        raw: finite samples (channels, ticks); starts: at which ticks columns begin, the first is 0.
        """
        adc, bad = self._clean(raw)
        summed = np.add.reduceat(adc, starts, axis=1)
        limit = (self.threshold * noise(summed))[:, None]
        lit = (np.abs(summed) if self.bipolar else summed) > limit
        lit[bad] = False
        coords = np.argwhere(lit)
        return coords, summed[coords[:, 0], coords[:, 1]], np.flatnonzero(bad)

    def _clean(self, raw):
        """(ADC above the pedestal and without the common noise, float32; which channels are bad) of
        a group.
        """
        base = (
            np.median(raw, 1)
            if self.pedestal == "median"
            else np.array(
                [np.bincount(row - row.min()).argmax() + row.min() for row in raw.astype(np.int64)]
            )
        )
        adc = raw.astype(np.float32) - base[:, None].astype(np.float32)
        bad = self._bad(adc)
        if self.group and (~bad).sum() >= FEWEST_IN_COMMON:
            adc -= np.median(adc[~bad], 0)
            bad |= self._bad(adc)
        return adc, bad

    def _bad(self, adc):
        sigma = noise(adc)
        return (sigma > self.noisy) | (sigma == 0)


def noise(adc: np.ndarray) -> np.ndarray:
    """Standard deviation (n,) of each row of (n, ticks) without its signals: of samples within 3 *
    1.4826 median deviations.
    """
    centre = np.median(adc, 1, keepdims=True)
    away = np.abs(adc - centre)
    core = away <= 3 * np.maximum(1.4826 * np.median(away, 1, keepdims=True), 1)
    return np.sqrt(np.where(core, (adc - centre) ** 2, 0).sum(1) / core.sum(1))


def ranges(numbers: np.ndarray) -> str:
    """Return the text of sorted channel numbers: "3-7, 12"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

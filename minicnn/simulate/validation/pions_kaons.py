"""What tells a pi- from a K+ of the talk's sample: the one pair of classes that is hard there."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..samples import sample_named
from .base import Check, Figure, Series, Validation

#: MeV/c from which on a secondary has a track of a few centimetres or more.
TRACK = {211: 100.0, 2212: 350.0, 321: 200.0, 13: 0.0}
#: What the reader of the truth looks at, and the highest value that it tells from others.
LOOKS = {
    "length": 8,  # of the primary, in 40 cm
    "protons": 3,
    "neutral pions": 2,
    "energy": 10,  # deposited in all, in 150 MeV
    "tracks": 6,  # of charged secondaries
}
KAONS, PION, KAON = (321, 311), -211, 321


def pion_or_kaon(simulator: Any, n: int = 600) -> Validation:
    """How often a reader is right who is told where the primary ends, what flies from there and how
    much energy is deposited.

    For each of these the frequencies of its values, in half of the events, give its likelihood
    ratio; the others are judged by the product of all. That is no bound: correlations and the
    energy loss along the primary would help, and to know all this from a picture is another matter.
    """
    start = sample_named("talk").position
    looks = np.zeros((2, n, len(LOOKS)), int)
    interacting, with_kaon = 0, 0
    for kind, pdg in enumerate((PION, KAON)):
        for i in range(n):
            steps, truth = simulator.deposits(
                i, pdg=pdg, momentum=1500.0, position=start, direction=(0.0, 0.0, 1.0)
            )
            born = truth["parent"] == 0
            codes = np.abs(truth["pdg"][born])
            momenta = np.linalg.norm(truth["momentum"][born], axis=1)
            tracks = [c for c, p in zip(codes, momenta) if p > TRACK.get(c, np.inf)]
            length = np.linalg.norm(truth["end"][0] - np.array(start))
            looks[kind, i] = (
                length / 40,
                tracks.count(2212),
                np.count_nonzero(codes == 111),
                steps[:, 4].sum() / 150,
                len(tracks),
            )
            if pdg == KAON and np.count_nonzero(np.isin(codes, (2212, 2112, *KAONS))):
                interacting += 1
                with_kaon += bool(np.isin(codes, KAONS).any())
    looks = np.minimum(looks, list(LOOKS.values()))
    ratios = {name: _log_ratio(looks[:, :, k]) for k, name in enumerate(LOOKS)}
    right = {name: _right(ratio) for name, ratio in ratios.items()}
    right["all of them"] = _right(np.sum(list(ratios.values()), 0))
    return Validation(
        "pion_or_kaon",
        "Pion or kaon",
        f"{n} pi- and K+ each of the talk's sample, told apart by what the truth says of them: by "
        + ", ".join(f"{name} {100 * part:.0f} %" for name, part in right.items())
        + " are right. Both are minimum ionising and interact after a metre; what differs is how "
        "much a K+, which cannot be absorbed, leaves behind.",
        Figure(
            "what is looked at",
            "right, of the events that were not counted",
            [Series("reader of the truth", range(len(right)), list(right.values()), "bars")],
            ticks=tuple(right),
        ),
        [
            Check(
                "interacting K+ that leave a kaon",
                with_kaon / interacting,
                1.0,
                0.03,
                "",
                "strangeness is conserved, and S = +1 has no hyperons; a few kaons are below the "
                "energy that the truth records",
            )
        ],
    )


def _log_ratio(values: np.ndarray) -> np.ndarray:
    """Return log(P(value | K+) / P(value | pi-)) of values (2, n); counted in the even events."""
    counts = [np.bincount(one[::2], minlength=values.max() + 1) + 1.0 for one in values]
    pion, kaon = (count / count.sum() for count in counts)
    return np.log(kaon / pion)[values]


def _right(ratio: np.ndarray) -> float:
    """Return how many of the odd events are told right, of ratios (2, n)."""
    return float(np.mean([np.mean(ratio[0, 1::2] <= 0), np.mean(ratio[1, 1::2] > 0)]))

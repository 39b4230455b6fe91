"""Equal work for all: events dealt so that nobody waits for the rank with the bright ones.

A step ends when its last rank does. What an event costs is known before it is drawn (``lit_cells``,
``relative_costs``). So a file is dealt to ranks, and a rank's events to the batches of an epoch,
such that all have about the same cost, which needs no word between ranks: each does it for itself,
by the seed and its own events, and all come to the same cost because their shares have it.

Gradients stay unbiased. Before anything is balanced the events are in random order, and what then
happens looks at costs alone, never at the number of a rank or of a batch: batches can be renamed,
and everything is as likely as before. So each event is as likely in each batch as in any other, 1 /
batches (of the short last batch its size / events), and the expected gradient of a batch is the
mean gradient of the rank's events, with the same weights, as it is without balancing. What changes
is which events meet: bright ones seldom meet each other. That makes a stratified sample of a random
one, whose mean scatters less or the same as long as gradients vary with brightness at all. Each
event still comes once per epoch, and epochs differ in all but that.
"""

from __future__ import annotations

import numpy as np

from .sparse import SparseImage

#: Windows and pools of the talk's network, whose blocks work on cells of 1, 5, 25 and 125 pixels.
FACTOR, REACH, SCALES = 5, 2, 4
#: Most events of a batch that are tried for a swap.
TRIED = 32
#: Largest distance of a batch from the mean cost that is left alone, and most rounds of swaps.
EVEN_ENOUGH, ROUNDS = 5e-4, 24


def lit_cells(image: SparseImage) -> np.ndarray:
    """Return int32 (SCALES,): how many cells of 1, 5, 25 and 125 pixels a side are lit as the maps
    of a network of convolutions of 5 x 5 and pools of 5 are: of the 5 x 5 cells around a lit one
    all are lit on the next scale, before these are pooled.
    """
    (rows, columns), sides = image.coords.T, np.array(image.shape[:2])
    counts = [len(rows)]
    for _ in range(SCALES - 1):
        pooled = -(-sides // FACTOR)
        lit = np.zeros(pooled, bool)
        # Five rows lie in one or two cells: those of the first and of the last of them.
        near = [
            [np.clip(positions + reach, 0, side - 1) // FACTOR for reach in (-REACH, REACH)]
            for positions, side in zip((rows, columns), sides)
        ]
        for of_row in near[0]:
            for of_column in near[1]:
                lit[of_row, of_column] = True
        (rows, columns), sides = np.nonzero(lit), pooled
        counts.append(len(rows))
    return np.array(counts, np.int32)


def relative_costs(cells: np.ndarray) -> np.ndarray:
    """Return float64 (n,): what events with these ``lit_cells`` (n, SCALES) cost, 1 in the mean.

    It is the mean over scales of lit cells in relation to their mean, since a network spends about
    as much on each of its scales: fewer cells, more channels. benchmarks/event_cost.py says how
    well that, and the lit pixels alone, tell a step's time.
    """
    cells = np.asarray(cells, np.float64).reshape(-1, SCALES)
    if not len(cells):
        return np.zeros(0)
    return (cells / np.maximum(cells.mean(0), 1e-9)).mean(1)


def equal_shares(costs: np.ndarray, parts: int, generator: np.random.Generator) -> np.ndarray:
    """Return int64 (n,): for each event the part, 0 to ``parts`` - 1, that it belongs to. Parts
    differ by at most one event, and little in cost.

    costs: float (n,), in any unit. Events are sorted by cost, ties at random, and cut into strata
    of ``parts`` events, which go to one part each, at random: over m strata the costs of two parts
    differ by about the range of costs / sqrt(m), of m times their mean.
    """
    order = _by_cost(costs, generator)
    strata = np.tile(np.arange(parts), (-(-len(order) // parts), 1))
    owner = np.empty(len(order), np.int64)
    owner[order] = generator.permuted(strata, axis=1).reshape(-1)[: len(order)]
    return owner


def equal_batches(
    costs: np.ndarray, size: int, generator: np.random.Generator, left: int | None = None
) -> np.ndarray:
    """Return a permutation int64 (n,) of the events whose consecutive pieces of ``size``, the
    batches, have about equal costs; ``left`` events, by default the n % size that make no batch,
    come last, and their mean is about that of all.

    costs: float (n,), >= 0, in any unit. It starts from a random permutation. Then, round by round,
    the batch of the highest cost and that of the lowest, the second highest and the second lowest
    and so on swap the two events that bring the pair closest together.
    """
    left = len(costs) % size if left is None else left
    last = _fair_sample(costs, left, generator)
    others = np.setdiff1d(np.arange(len(costs)), last)
    batches = generator.permutation(others).reshape(-1, size)
    for _ in range(ROUNDS):
        if not _swap(batches, costs, generator):
            break
    return np.concatenate([batches.reshape(-1), last])


def unevenness(costs: np.ndarray) -> float:
    """Return how far the largest of ``costs`` is above their mean, as a part of it."""
    mean = float(np.mean(costs)) if len(costs) else 0.0
    return float(np.max(costs)) / mean - 1 if mean > 0 else 0.0


def _by_cost(costs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the events from the most to the least expensive, equal ones in random order."""
    shuffled = generator.permutation(len(costs))
    return shuffled[np.argsort(-np.asarray(costs, np.float64)[shuffled], kind="stable")]


def _fair_sample(costs: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return ``count`` events, each with the same probability, of about the mean cost: every so
    many of them in the order of cost, from a random start (systematic sampling).
    """
    places = (generator.random() + np.arange(count)) * (len(costs) / max(count, 1))
    return generator.permutation(_by_cost(costs, generator)[places.astype(np.int64)])


def _swap(batches: np.ndarray, costs: np.ndarray, generator: np.random.Generator) -> bool:
    """Let pairs of batches (rows of ``batches``, changed in place) swap an event each; tell whether
    it was worth it.
    """
    count, size = batches.shape
    totals = costs[batches].sum(1, dtype=np.float64)
    if count < 2 or np.abs(totals - totals.mean()).max() <= EVEN_ENOUGH * totals.mean():
        return False
    order = np.argsort(totals, kind="stable")
    low, high = order[: count // 2], order[::-1][: count // 2]
    excess = (totals[high] - totals[low]) / 2  # what a swap should take from the higher one
    tried = generator.permutation(size)[:TRIED]
    of_high = costs[batches[np.ix_(high, tried)]].astype(np.float64)
    of_low = costs[batches[np.ix_(low, tried)]].astype(np.float64)
    moved = of_high[:, :, None] - of_low[:, None, :]
    missed = np.abs(moved - excess[:, None, None]).reshape(len(low), -1)
    best = missed.argmin(1)
    better = missed[np.arange(len(low)), best] < excess
    i, j = np.divmod(best, len(tried))
    high, low, i, j = high[better], low[better], tried[i[better]], tried[j[better]]
    batches[high, i], batches[low, j] = batches[low, j], batches[high, i]
    return bool(better.any())

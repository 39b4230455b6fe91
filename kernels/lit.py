"""Geometry of a linear op between feature maps that are lit in few places.

A map is at rest except at its lit positions. At rest, a position's value depends on its *class*
along either axis alone: what its window sees there, pixels of which class, or the padding outside.
For an axis of 20 pixels, a kernel of 3 and "same" padding:

    pixel      . 0 1 2 3 ... 18 19 .           . is outside, class -1
    output 0   [-1 0 0]                        class 0
    output 1       [0 0 0]                     class 2 (outputs 1 to 18 see the same)
    output 19                   [0 0 -1]       class 1

Outputs may be pooled: a *cell* is a window of PH x PW *positions* without overlap, and its class is
what classes its positions have. Without pooling a cell is one position.

Forward, a lit input *feeds* the outputs whose windows hold it, each through one tap of the kernel:

    feeds[tap, a] = cell * PH * PW + position within the cell, or -1
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from .types import Array

#: Of rows and of columns, on the host.
OfAxes: TypeAlias = tuple[np.ndarray, np.ndarray]


class LitGeometry(NamedTuple):
    """How the inputs of a map (H, W) meet the cells (OH, OW) of the next one. Axes come in pairs,
    rows and columns; -1 stands for nowhere. Arrays are int32, on the host.

    feeds: (H, KH, 2) and (W, KW, 2): the cell that an input feeds through a tap, and the position
        in the cell (of rows times PW).
    cells: (H, U) and (W, V): the different cells that an input feeds, ascending.
    inputs: (OH, 2) the first input row that feeds a row of cells or a later one, and the end of
        those that feed it or an earlier one: both ascend.
    positions: (OH * PH,) and (OW * PW,): the class of every output position.
    seen: (R, KH) and (S, KW): of a class of positions, the class of the input under each tap.
    pooled: (RC, PH) and (SC, PW): of a class of cells, the classes of its positions.
    cell_classes: (OH,) and (OW,): the class of every cell.
    alike: uint8 (OH,) and (OW,): whether all positions of a row or column of cells have one class.
    input_pairs: how many classes of rows and of columns the inputs have, (R', S').
    grid: (OH, OW). pool: (PH, PW). before: (top, left) of a convolution of stride and dilation 1:
        under tap k, output i sees input i - before + k; None of any other.
    """

    feeds: OfAxes
    cells: OfAxes
    inputs: np.ndarray
    positions: OfAxes
    seen: OfAxes
    pooled: OfAxes
    cell_classes: OfAxes
    alike: OfAxes
    input_pairs: tuple[int, int]
    grid: tuple[int, int]
    pool: tuple[int, int]
    before: tuple[int, int] | None

    @property
    def taps(self) -> int:
        """KH * KW."""
        return self.feeds[0].shape[1] * self.feeds[1].shape[1]


class LitPairs(NamedTuple):
    """``feeds`` as a GPU wants it: the pairs (lit input, position that it feeds), by groups of
    ``per_group`` cells and within a group by tap, in the order of positions.

    The pairs of group g and tap t are those from group_starts[g] + tap_starts[g, t] to
    group_starts[g] + tap_starts[g, t + 1]. inputs int32, slots uint8: the lit input, and the
    position in the group (cell * PH * PW + position).
    """

    group_starts: Array
    tap_starts: Array
    inputs: Array
    slots: Array
    per_group: int


class LitLists(NamedTuple):
    """Of the lit inputs of some events: the cells that they feed, int32 (m, 2), row-major, rows
    counted on through the events (row i of event e is e * OH + i), and through which taps,
    ``feeds`` int32 (KH * KW, n). chunks: int64 (k, 4), pieces of the cells that have no output in
    common: first and end of the cells, first and end of the inputs that may feed them. pairs: on a
    GPU alone. inputs, events: what the lists are of; where a backend has made them, a block that
    does without needs no ``feeds``, and has none.
    """

    cells: Array
    feeds: Array
    chunks: np.ndarray
    pairs: LitPairs | None = None
    inputs: Array = None
    events: int = 0


def seen_by_convolution(
    size: int, kernel: int, stride: int, dilation: int, before: int, outputs: int
) -> np.ndarray:
    """Return (outputs, kernel): the input under each tap of each output along an axis, -1 outside.
    ``before``: zeros before the first input.
    """
    inputs = np.arange(outputs)[:, None] * stride - before + np.arange(kernel) * dilation
    return np.where((inputs >= 0) & (inputs < size), inputs, -1)


def seen_by_transposed(
    size: int, kernel: int, stride: int, before: int, outputs: int
) -> np.ndarray:
    """The same of a transposed convolution: input i reaches output i * stride - before + tap."""
    taps = np.arange(outputs)[:, None] + before - np.arange(kernel)
    i = taps // stride
    return np.where((taps % stride == 0) & (i >= 0) & (i < size), i, -1)


def _axis(classes, seen, pool, scale):
    """One axis of a LitGeometry; ``seen`` of the positions that belong to cells."""
    size, (outputs, kernel) = len(classes), seen.shape
    at_tap = np.where(seen >= 0, classes[seen], -1)
    patterns, positions = np.unique(at_tap, axis=0, return_inverse=True)
    pooled, cell_classes = np.unique(positions.reshape(-1, pool), axis=0, return_inverse=True)
    feeds = np.full((size, kernel, 2), -1, np.int32)
    out, tap = np.nonzero(seen >= 0)
    feeds[seen[out, tap], tap, 0] = out // pool
    feeds[seen[out, tap], tap, 1] = out % pool * scale
    # Distinct cells in ascending order; those that are nowhere sort behind all.
    ordered = np.sort(np.where(feeds[..., 0] >= 0, feeds[..., 0], outputs), axis=1)
    again = np.concatenate([np.zeros((size, 1), bool), ordered[:, 1:] == ordered[:, :-1]], 1)
    ordered = np.sort(np.where(again, outputs, ordered), axis=1)
    ordered[ordered == outputs] = -1
    most = max(1, int((ordered >= 0).sum(1).max(initial=0)))
    low = np.where(seen >= 0, seen, size).reshape(-1, pool * kernel).min(1)
    high = seen.reshape(-1, pool * kernel).max(1) + 1
    # Taps apart see padding at the border, and the next row of cells an input that lies before.
    low, high = np.minimum.accumulate(low[::-1])[::-1], np.maximum.accumulate(high)
    inputs = np.stack([np.minimum(low, high), high], 1)
    found = ordered[:, :most], inputs, positions.ravel(), patterns, pooled, cell_classes.ravel()
    alike = (pooled == pooled[:, :1]).all(1)[cell_classes.ravel()].astype(np.uint8)
    arrays = feeds, *(np.ascontiguousarray(array, np.int32) for array in found), alike
    before = int(out[0] + tap[0] - seen[out[0], tap[0]]) if len(out) else 0
    plain = np.array_equal(seen, seen_by_convolution(size, kernel, 1, 1, before, outputs))
    return arrays, before if plain else None


def lit_geometry(
    classes: tuple[np.ndarray, np.ndarray],
    seen: tuple[np.ndarray, np.ndarray],
    pool: tuple[int, int] = (1, 1),
) -> LitGeometry:
    """Return the geometry of an op: ``classes`` of the inputs along both axes, ``seen`` (outputs,
    taps) the inputs that each output sees (-1: none). Outputs that fill no cell are dropped.

    An input feeds at most one output through a tap, as in every convolution.
    """
    axes, grid = [], []
    for known, sees, size, scale in zip(classes, seen, pool, (pool[1], 1)):
        cells = len(sees) // size
        grid.append(cells)
        axes.append(_axis(np.asarray(known), sees[: cells * size], size, scale))
    (rows, top), (columns, left) = axes
    pairs = zip(rows, columns)
    feeds, cells_of, inputs, positions, patterns, pooled, cell_classes, alike = pairs
    return LitGeometry(
        feeds,
        cells_of,
        inputs[0],
        positions,
        patterns,
        pooled,
        cell_classes,
        alike,
        (int(classes[0].max()) + 1, int(classes[1].max()) + 1),
        (grid[0], grid[1]),
        pool,
        None if top is None or left is None else (top, left),
    )


class LitBlock(NamedTuple):
    """A convolution of stride and dilation as in ``geometry``, an activation and a pooling:
    y = activation(maximum over the cell of the convolution + b).

    w: (KH, KW, C_in, C_out), b: (C_out,). alpha: of the ELU (0: ReLU); None: no activation.
    """

    w: Array
    b: Array
    geometry: LitGeometry
    alpha: float | None


class Resting(NamedTuple):
    """A block at rest: the inputs ``x`` (R', S', C_in) by pairs of classes, ``sums`` (R, S, C_out)
    of the convolution without bias at the positions, ``y`` (RC, SC, C_out) of the cells, and the
    position ``argmax`` of the maximum.
    """

    x: Array
    sums: Array
    y: Array
    argmax: Array


class Lit(NamedTuple):
    """A block where it is lit, and what its backward pass needs: the changes (n, C_in) of the lit
    inputs from rest, whom they feed, and of the fed cells ``y`` and the first maximum's position
    ``argmax``, (m, C_out).
    """

    changes: Array
    lists: LitLists
    y: Array
    argmax: Array

"""Lists of what lit inputs feed (lit_lists.cu): which cells, and by groups of cells and by taps,
which of their positions.
"""

import numpy as np

from ..lit import LitGeometry, LitLists, LitPairs
from ..types import Array, Kernels
from ..workspace import Workspace
from .checks import integers
from .lists import listed

#: Positions that a group of cells has at most: they are counted in 8 bits, and their sums are in
#: the shared memory of one block.
GROUP_POSITIONS = 256
#: Threads of a block that lists the pairs of a group: a warp per tap at a time.
LIST_THREADS = 256


def most_per_group(pool: tuple[int, int]) -> int:
    """Return how many cells a group may have: a power of two, so that larger groups hold whole
    smaller ones.
    """
    positions = pool[0] * pool[1]
    if positions > GROUP_POSITIONS:
        raise ValueError(
            f"lit_lists takes pools of at most {GROUP_POSITIONS} positions, got "
            f"{pool[0]} x {pool[1]}"
        )
    return 1 << (GROUP_POSITIONS // positions).bit_length() - 1


def _cells_per_group(kernels, pool, cells):
    """Return how many cells a group has: fewer where all multiprocessors would not find work."""
    count = most_per_group(pool)
    while count > 1 and cells < 2 * count * kernels.runtime.multiprocessors:
        count //= 2
    return count


def on_device(
    kernels: Kernels, workspace: Workspace | None, geometry: LitGeometry, *names: str
) -> list[Array]:
    """Return fields of a geometry as device arrays, of each the rows and the columns; they are
    copied once per workspace.
    """

    def make():
        both = [axis for name in names for axis in getattr(geometry, name)]
        return geometry, [integers(kernels, axis) for axis in both]

    return _kept(workspace, names[0], geometry, make)


def _kept(workspace, name, geometry, make):
    """Return what make() returns behind the geometry, from ``workspace`` if this geometry was the
    last one: what is kept holds it, so that no other one has its id.
    """
    return (workspace.keep(f"{name} on the device", id(geometry), make) if workspace else make())[1]


def _sources(geometry, axis):
    """Return int32 (positions, taps): the input that a position sees through a tap, -1 for none."""
    feeds, pool = geometry.feeds[axis], geometry.pool[axis]
    inputs, taps = np.nonzero(feeds[..., 0] >= 0)
    cell, position = feeds[inputs, taps].T
    sources = np.full((geometry.grid[axis] * pool, feeds.shape[1]), -1, np.int32)
    sources[cell * pool + position // (geometry.pool[1] if axis == 0 else 1), taps] = inputs
    return sources


def _row_starts(kernels, positions, rows):
    """Return int32 (rows + 1,): how many of the positions lie before each row, and in all."""
    start = kernels.empty((rows + 1,), np.int32)
    kernels.each("lit_lists.cu", "row_starts", rows + 1, positions, len(positions), start)
    return start


def lit_lists(
    kernels: Kernels,
    positions: Array,
    events: int,
    geometry: LitGeometry,
    channels: tuple[int, int] | None = None,
    workspace: Workspace | None = None,
) -> LitLists:
    """Return the cells that the lit inputs ``positions`` (n, 2) feed, and how. Positions are
    row-major, row r of event e is e * H + r. The host waits once: for the number of cells.
    """
    positions, pool, (oh, ow) = integers(kernels, positions), geometry.pool, geometry.grid
    cell_rows, cell_columns = on_device(kernels, workspace, geometry, "cells")
    height = len(cell_rows)
    mask = kernels.zeros((events * oh, ow), np.uint8)
    kernels.each(
        "lit_lists.cu",
        "mark_fed",
        len(positions),
        positions,
        height,
        oh,
        ow,
        cell_rows,
        cell_rows.shape[1],
        cell_columns,
        cell_columns.shape[1],
        mask,
    )
    cells = listed(kernels, mask)
    feeds = _feeds(
        kernels, positions, cells, _row_starts(kernels, cells, events * oh), geometry, workspace
    )
    per_group = _cells_per_group(kernels, pool, len(cells))
    groups, taps = -(-len(cells) // per_group), geometry.taps
    pairs = LitPairs(
        kernels.zeros((groups + 1,), np.int32),
        kernels.empty((groups, taps + 1), np.int32),
        # An input feeds at most one position through a tap.
        kernels.empty((len(positions) * taps,), np.int32),
        kernels.empty((len(positions) * taps,), np.uint8),
        per_group,
    )
    if groups:
        at_rows = _row_starts(kernels, positions, events * height)
        _list_pairs(kernels, (positions, at_rows, height, cells), pairs, geometry, workspace)
    return LitLists(cells, feeds, np.array([[0, len(cells), 0, len(positions)]], np.int64), pairs)


def _feeds(kernels, positions, cells, cell_rows, geometry, workspace):
    """Return int32 (taps, n): the position that each input feeds through each tap."""
    rows, columns = on_device(kernels, workspace, geometry, "feeds")
    feeds = kernels.empty((geometry.taps, len(positions)), np.int32)
    kernels.each(
        "lit_lists.cu",
        "list_feeds",
        feeds.size,
        positions,
        len(positions),
        len(rows),
        rows,
        columns,
        rows.shape[1],
        columns.shape[1],
        cells,
        cell_rows,
        geometry.grid[0],
        geometry.pool[0] * geometry.pool[1],
        feeds,
    )
    return feeds


def _list_pairs(kernels, positions, pairs, geometry, workspace):
    """Fill ``pairs``: count those of each group and tap, add up, list. positions: the lit inputs,
    where their rows begin, rows of an event, the fed cells.
    """

    def sources():
        return geometry, [integers(kernels, _sources(geometry, axis)) for axis in (0, 1)]

    rows, columns = _kept(workspace, "sources", geometry, sources)
    groups, taps = len(pairs.tap_starts), geometry.taps
    totals = kernels.empty((groups,), np.int32)
    what = (
        *positions,
        len(positions[3]),
        pairs.per_group,
        geometry.grid[0],
        *geometry.pool,
        rows,
        columns,
        rows.shape[1],
        columns.shape[1],
        pairs.tap_starts,
        totals,
    )
    threads = min(32 * taps, LIST_THREADS)
    kernels.launch("lit_lists.cu", "list_pairs", (groups, threads), (*what, None, None, None))
    kernels.launch("lists.cu", "scan_counts", (1, 256), (totals, groups, pairs.group_starts))
    lists = pairs.group_starts, pairs.inputs, pairs.slots
    kernels.launch("lit_lists.cu", "list_pairs", (groups, threads), (*what, *lists))

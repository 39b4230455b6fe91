"""The image while it is exposed: a pool of small tiles of pixels, made where charge falls."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import jit
from .geometry import FULL

TILE_ROWS, TILE_COLUMNS = 8, 24  # 3600 / 8 = 450, 3600 / 24 = 150
GRID_ROWS, GRID_COLUMNS = FULL // TILE_ROWS, FULL // TILE_COLUMNS


class Tiles(NamedTuple):
    """Pixels that were touched: number[tile row, tile column] is a tile's place in ``pixels``, -1
    where there is none.

    pixels float32 (n, TILE_ROWS, TILE_COLUMNS) in ADC; used (n, 2): tile row and column; n: one
    number, the tiles in use.
    """

    number: np.ndarray
    pixels: np.ndarray
    used: np.ndarray
    n: np.ndarray


def new_tiles() -> Tiles:
    """Return empty Tiles with room for the whole image; memory that is not touched costs nothing,
    and one event touches a few hundred.
    """
    capacity = GRID_ROWS * GRID_COLUMNS
    return Tiles(
        np.full((GRID_ROWS, GRID_COLUMNS), -1, np.int32),
        np.zeros((capacity, TILE_ROWS, TILE_COLUMNS), np.float32),
        np.zeros((capacity, 2), np.int32),
        np.zeros(1, np.int64),
    )


@jit
def tile(tiles, i, j):
    """Return the place of the tile in row i and column j of the grid; make it if need be."""
    k = tiles.number[i, j]
    if k < 0:
        k = tiles.n[0]
        tiles.n[0] = k + 1
        tiles.number[i, j] = k
        tiles.used[k, 0], tiles.used[k, 1] = i, j
        tiles.pixels[k] = 0.0
    return k


@jit
def add_pulse(tiles, row, column, q, pulse):
    """Add q times a pulse, at most one tile long, to a row, from ``column`` on."""
    i, j = row // TILE_ROWS, column // TILE_COLUMNS
    k = tile(tiles, i, j)
    split = min((j + 1) * TILE_COLUMNS - column, len(pulse))
    out = tiles.pixels[k, row - i * TILE_ROWS]
    for n in range(split):
        out[column - j * TILE_COLUMNS + n] += q * pulse[n]
    if split < len(pulse):
        k = tile(tiles, i, j + 1)
        out = tiles.pixels[k, row - i * TILE_ROWS]
        for n in range(split, len(pulse)):
            out[n - split] += q * pulse[n]


@jit
def clear(tiles):
    """Forget all tiles."""
    for k in range(tiles.n[0]):
        tiles.number[tiles.used[k, 0], tiles.used[k, 1]] = -1
    tiles.n[0] = 0


@jit
def charge_at(tiles, coords, out):
    """Write the values of the pixels ``coords`` (n, 2) into ``out`` (n,): 0 where there is no
    tile.
    """
    for n in range(len(coords)):
        row, column = coords[n, 0], coords[n, 1]
        k = tiles.number[row // TILE_ROWS, column // TILE_COLUMNS]
        out[n] = tiles.pixels[k, row % TILE_ROWS, column % TILE_COLUMNS] if k >= 0 else 0.0

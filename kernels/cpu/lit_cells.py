"""What the compiled functions of a block on lit maps take together."""

from typing import NamedTuple

import numpy as np

from ..lit import LitBlock
from ..types import Array
from .jit import POSITIVE, jit


class Cells(NamedTuple):
    """The fed cells ``at`` (m, 2), rows counted on through the events, of which each has
    ``rows_of_event``; positions of a cell, down and across; and of every row and column of
    positions the class. Flat, because numba hands no tuple within a tuple to the threads of a
    prange.
    """

    at: Array
    rows_of_event: int
    down: int
    across: int
    row_classes: Array
    column_classes: Array


class Activation(NamedTuple):
    """alpha of an ELU, float32; linear: there is none."""

    alpha: np.float32
    linear: bool


def compiled(block: LitBlock, at: Array) -> tuple[Cells, Activation]:
    """Return the cells and the activation of a block, as compiled functions take them."""
    geometry = block.geometry
    cells = Cells(at, geometry.grid[0], *geometry.pool, *geometry.positions)
    return cells, Activation(np.float32(block.alpha or 0), block.alpha is None)


@jit
def corner(cells, cell):
    """The row within its event and the column of a cell's first position."""
    row, column = cells.at[cell]
    return (row % cells.rows_of_event * cells.down) & POSITIVE, (column * cells.across) & POSITIVE


@jit
def alike(cells, cell):
    """Whether all positions of a cell are of one class."""
    r, c = corner(cells, cell)
    rows, columns = cells.row_classes, cells.column_classes
    for i in range(1, cells.down):
        if rows[r + i] != rows[r]:
            return False
    for j in range(1, cells.across):
        if columns[c + j] != columns[c]:
            return False
    return True

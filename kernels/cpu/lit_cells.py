"""What the compiled functions of a block on lit maps take together."""

from typing import NamedTuple

import numpy as np

from ..lit import LitBlock
from ..types import Array
from .jit import POSITIVE, jit


class Cells(NamedTuple):
    """The fed cells ``positions`` (m, 2), rows counted on through the events, of which each has
    ``rows_of_event``; positions of a cell, down and across; of every row and column of positions
    the class; and of every row and column of cells whether all of its positions have one class.
    Flat, because numba hands no tuple within a tuple to the threads of a prange.
    """

    positions: Array
    rows_of_event: int
    down: int
    across: int
    row_classes: Array
    column_classes: Array
    rows_alike: Array
    columns_alike: Array


class Activation(NamedTuple):
    """alpha of an ELU, float32; linear: there is none."""

    alpha: np.float32
    linear: bool


def compiled(block: LitBlock, positions: Array) -> tuple[Cells, Activation]:
    """Return the cells and the activation of a block, as compiled functions take them."""
    geometry = block.geometry
    cells = Cells(positions, geometry.grid[0], *geometry.pool, *geometry.positions, *geometry.alike)
    return cells, Activation(np.float32(block.alpha or 0), block.alpha is None)


@jit
def corner(cells, cell):
    """Return the row within its event and the column of a cell's first position, and whether all
    positions of the cell are of one class.
    """
    row, column = cells.positions[cell]
    row = (row % cells.rows_of_event) & POSITIVE
    column = column & POSITIVE
    alike = (cells.rows_alike[row] & cells.columns_alike[column]) != 0
    return row * cells.down, column * cells.across, alike


@jit
def first_from(positions, axis, begin, end, least):
    """The first of the inputs begin to end whose row (axis 0) or column (axis 1), in which they
    ascend, is ``least`` or a later one; ``end`` where there is none.
    """
    if begin < end and positions[begin & POSITIVE, axis] >= least:  # all, or none, is the rule
        return begin
    if begin < end and positions[(end - 1) & POSITIVE, axis] < least:
        return end
    while begin < end:
        middle = (begin + end) >> 1
        if positions[middle & POSITIVE, axis] < least:
            begin = middle + 1
        else:
            end = middle
    return begin

"""Weights in the order in which tiles read them, and the split of a size into groups that tiles
exist for.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import prange

from ..types import Array
from ..workspace import Workspace
from .checks import as_contiguous, buffer, cached_until_update
from .emit import LANES
from .jit import tasks, threaded


def split(size: int, most: int) -> np.ndarray:
    """Return the sizes of as few groups as possible of at most ``most``, as equal as possible:
    split(7, 6) = [4, 3].
    """
    groups = -(-size // most)
    return np.array([(size + i) // groups for i in range(groups)][::-1], np.int64)


@cache
def shares(channels: int, lanes: int, most: int) -> np.ndarray:
    """Return (first channel, vectors of ``lanes``) of as few pieces as possible of at most ``most``
    vectors, int64 (n, 2), not to be written to; the last vector may have lanes that are left empty.
    """
    vectors = split(-(-channels // lanes), most)
    return np.stack([lanes * (np.cumsum(vectors) - vectors), vectors], 1)


def few_channels(channels: int) -> bool:
    """Whether lanes of channels would leave more than a quarter of them empty."""
    return 4 * channels < 3 * LANES * -(-channels // LANES)


ROWS = 16  # of w that a task packs


class PackedWeights(NamedTuple):
    """Weights by group of output channels: group g holds ``width[g]`` channels from ``start[g]``,
    as (KH * KW * C_in, width).
    """

    w: np.ndarray
    start: np.ndarray
    width: np.ndarray


def pack(
    w: Array, unit: int, sizes: Array, workspace: Workspace | None = None, name: str = "weights"
) -> PackedWeights:
    """Pack w (KH, KW, C_in, C_out) for tiles whose columns, a number in ``sizes``, are ``unit``
    channels each (LANES or 1). ``name`` is that of the buffer in ``workspace``: each packing that
    is kept has its own, also where several have the same size (the weights of C channels to C, and
    turned).
    """
    rows, co = w.shape[0] * w.shape[1] * w.shape[2], w.shape[3]
    columns, left = [], -(-co // unit)
    while left:
        columns.append(max(n for n in sizes if n <= left))
        left -= columns[-1]
    width = np.array(columns, np.int64) * unit
    start = np.cumsum(width) - width
    # Zero-filled, because a group's width is rounded up beyond the last real channel.
    out = buffer(workspace, f"packed: {name}", (rows * int(width.sum()),), fill=0)
    _pack(tasks(w.size), as_contiguous(w).reshape(rows, co), start, width, out)
    return PackedWeights(out, start, width)


@threaded
def _pack(w, start, width, out):
    rows, co = w.shape
    for task in prange((rows + ROWS - 1) // ROWS):  # reads w in its order
        for i in range(task * ROWS, min(rows, (task + 1) * ROWS)):
            for g in range(start.size):
                line, to = w[i, start[g] :], out[rows * start[g] + i * width[g] :]
                for c in range(min(width[g], co - start[g])):
                    to[c] = line[c]


def packed(
    workspace: Workspace | None, name: str, w: Array, unit: int, sizes: Array
) -> PackedWeights:
    """Return pack(w, unit, sizes), once per weight update where there is a Workspace."""
    return cached_until_update(workspace, name, lambda: pack(w, unit, sizes, workspace, name))

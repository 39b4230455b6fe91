"""Sums of patches, which both gradients of the fused block are made of; see block_backward.py."""

import numpy as np

from .elementary import slope
from .emit import LANES
from .jit import POSITIVE, jit
from .rows import MAX_ROWS, MOST_ROWS, QUADS, Patches, add_rows, patches
from .tile import MAX_VECTORS, Sums

SEGMENT = MAX_VECTORS * LANES  # floats of a row that one patch sum holds in registers


QUADS_FOR = np.array([min(q for q in QUADS if q >= n) for n in range(SEGMENT // 4 + 1)])


@jit
def padded(floats):
    """Length of a row of ``floats``: each begins a cache line, and vectors may read and write over
    its end.
    """
    return (floats + 15) // 16 * 16 + 16


@jit
def sum_patches(kh, kc, summed, sums):
    """out[r, k] += sum over i < count of g[i] * patch i at (r, k) of Patches, into Sums, for rows
    of kc <= SEGMENT floats that fit into registers.
    """
    for r in range(0, kh, MAX_ROWS):
        to = Sums(sums.out + 4 * r * sums.row, sums.row)
        patches(min(MAX_ROWS, kh - r), QUADS_FOR[(kc + 3) // 4], summed, r, to)


@jit
def sum_rows(summed, first, rows, offset, floats, sums):
    """out[r, k] += sum over i < count of g[i] * patch i at (first + r, offset + k) of Patches, into
    Sums, for r < rows and k < floats.

    Writes whole vectors: up to LANES - 1 floats beyond ``floats`` in each row of out must be
    writable.
    """
    vectors = (floats + LANES - 1) // LANES
    for i in range(0, summed.number, MOST_ROWS):
        count, ahead = min(MOST_ROWS, summed.number - i), 8 * i
        some = Patches(count, summed.g + 4 * i, summed.address + ahead, summed.row + ahead)
        add_rows(some, first, rows, offset, vectors, sums)


@jit
def sort_by_argmax(cell, alpha, w, g, address, begin):
    """Sort the channels of a ``cell`` (argmax, dy, y) by their argmax: those of position a are
    begin[a] to begin[a + 1] in ``g``, their gradient, and ``address`` of their weights in w (C_out,
    KH, KC padded). Channels with the same argmax go to the same place: added up before touching
    memory.
    """
    argmax, dy, y = cell
    begin[:] = 0
    for c in range(argmax.size):
        begin[argmax[c]] += 1
    for a in range(1, begin.size):  # where each position's channels end
        begin[a] += begin[a - 1]
    for c in range(
        argmax.size - 1, -1, -1
    ):  # from the last: the end moves down to the beginning, and the order stays
        k = (begin[argmax[c]] - 1) & POSITIVE
        begin[argmax[c]] = k
        g[k] = dy[c] * slope(y[c], alpha)
        address[k] = w.ctypes.data + 4 * c * w.shape[1] * w.shape[2]

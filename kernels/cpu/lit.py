"""A block on feature maps that are lit in few places, as rest + changes: kernels/lit.py has the
geometry, the reference the formulas.

Forward, a task takes a chunk of the fed cells and a group of output channels. The sums of its
positions stay in a near cache, and so do the weights of one tap at a time, which meet all lit inputs
of the chunk, of all events:

    sums of a chunk, one row per position       for every tap: rows of inputs that feed through it
        cell 0 [ rest ........ ] <-------------- d[a] w[tap]       six at a time, see lit_tile.py
               [ rest ........ ]
        cell 1 [ rest ........ ] <-------------- d[b] w[tap]
               ...

then come the maxima. Every sum runs over the taps in their order, so that neither chunks nor groups
nor threads change a bit.
"""

import itertools

import numpy as np
from numba import prange

from ..lit import Lit, LitBlock, LitLists, Resting
from ..types import Array
from ..workspace import Workspace
from .checks import buffer, check_float32, check_shape
from .elementary import activate
from .jit import POSITIVE, aligned_empty, jit, parallel
from .lit_backward import lit_block_backward
from .lit_lists import lit_lists
from .lit_rest import lit_rest, lit_rest_backward
from .lit_tile import add_products, one_product, take_weights
from .tile import LANES, MAX_PIXELS, VECTORS, max_of_rows

__all__ = ["lit_block", "lit_block_backward", "lit_lists", "lit_rest", "lit_rest_backward"]

#: Output channels of a task: the weights of a tap (C_in x GROUP) and the sums fit into near caches.
GROUP = 64


def groups(channels: int) -> np.ndarray:
    """Return (first channel, channels with the lanes that are left empty) of groups of at most
    GROUP, int64 (n, 2).
    """
    count = -(-channels // GROUP)
    cuts = [-(-channels * i // count // LANES) * LANES for i in range(count)] + [channels]
    sizes = [b - a for a, b in itertools.pairwise(cuts)]
    return np.array([(a, -(-n // LANES) * LANES) for a, n in zip(cuts, sizes)], np.int64)


@jit
def _at_rest(cells, begin, end, oh, pool, positions, sums, first, width, z):
    """The sums of the chunk's positions at rest; lanes beyond the last channel hold anything."""
    (ph, pw), (rows, columns), row = pool, positions, 0
    real = min(width, sums.shape[2] - first)
    for cell in range(begin, end):
        r, c = (cells[cell, 0] % oh * ph) & POSITIVE, (cells[cell, 1] * pw) & POSITIVE
        for i in range(ph):
            line = sums[rows[r + i] & POSITIVE]
            for j in range(pw):
                here = line[columns[c + j] & POSITIVE, first:]
                to = z[row * width :]
                for k in range(real):
                    to[k] = here[k]
                row += 1


@jit
def _one_channel(d, feeds, low, high, w, first, width, lowest, count, z):
    """The products of inputs of one channel: a tile of one step would be all loads and stores, but
    the weights of all taps and the outputs of one input are in the nearest cache.
    """
    taps, start = feeds.shape[0], z.ctypes.data
    weights = aligned_empty((taps * width,))
    for tap in range(taps):
        take_weights(w[tap], first, width, weights[tap * width :])
    for a in range(low, high):
        x, at = d[a & POSITIVE, 0], weights.ctypes.data
        for tap in range(taps):
            slot = feeds[tap, a & POSITIVE] - lowest
            if slot >= 0 and slot < count:
                one_product(x, at + 4 * tap * width, start + 4 * slot * width, width // LANES)


@parallel
def _forward(
    d, feeds, cells, chunks, w, b, sums, positions, oh, pool, shares, alpha, linear, y, at
):
    size, ci = pool[0] * pool[1], d.shape[1]
    most = 0
    for k in range(chunks.shape[0]):
        most = max(most, chunks[k, 1] - chunks[k, 0])
    where = np.arange(size).astype(np.uint8)
    for task in prange(chunks.shape[0] * shares.shape[0]):
        g, chunk = task // chunks.shape[0], task % chunks.shape[0]
        first, width = shares[g, 0], shares[g, 1]
        begin, end, low, high = chunks[chunk]
        z = aligned_empty((most * size * width,))
        weights = aligned_empty((ci * width,))
        x_at, z_at = np.empty(MAX_PIXELS, np.int64), np.empty(MAX_PIXELS, np.int64)
        _at_rest(cells, begin, end, oh, pool, positions, sums, first, width, z)
        z_start, d_start = z.ctypes.data, d.ctypes.data
        lowest, count = begin * size, (end - begin) * size
        if ci == 1:
            _one_channel(d, feeds, low, high, w, first, width, lowest, count, z)
        for tap in range(feeds.shape[0] if ci > 1 else 0):
            fed, n, there = feeds[tap], 0, False
            for a in range(low, high):
                slot = fed[a & POSITIVE] - lowest
                if slot < 0 or slot >= count:
                    continue
                if not there:
                    take_weights(w[tap], first, width, weights)
                    there = True
                x_at[n] = d_start + 4 * a * ci
                z_at[n] = z_start + 4 * slot * width
                n += 1
                if n == MAX_PIXELS:
                    add_products(n, x_at, z_at, weights, width, ci)
                    n = 0
            if n:
                add_products(n, x_at, z_at, weights, width, ci)
        _maxima(z, begin, end, size, first, width, where, b, alpha, linear, y, at)


@jit
def _maxima(z, begin, end, size, first, width, where, b, alpha, linear, y, at):
    best, place = aligned_empty((width,)), np.empty(width, np.int32)
    real = min(width, b.size - first)
    for cell in range(begin, end):
        here = z[(cell - begin) * size * width :]
        done = 0
        for n in VECTORS[::-1]:
            while width - done >= n * LANES:
                max_of_rows(
                    n,
                    size,
                    here[done:].ctypes.data,
                    width,
                    where.ctypes.data,
                    best[done:].ctypes.data,
                    place[done:].ctypes.data,
                )
                done += n * LANES
        to, to_at, bias = y[cell & POSITIVE, first:], at[cell & POSITIVE, first:], b[first:]
        if linear:
            for k in range(real):
                to[k] = best[k] + bias[k]
        else:
            for k in range(real):
                to[k] = activate(best[k] + bias[k], alpha)
        for k in range(real):
            to_at[k] = place[k]


def lit_block(
    changes: Array,
    lists: LitLists,
    resting: Resting,
    block: LitBlock,
    work: Workspace | None = None,
) -> Lit:
    """Return the block at the fed cells, for the changes (n, C_in) of the lit inputs from rest.

    With ``work`` the arrays are its buffers, valid until the next call.
    """
    w, b, geometry, alpha = block
    changes, w, b, sums = check_float32("lit_block", changes=changes, w=w, b=b, sums=resting.sums)
    channels = w.shape[3]
    check_shape("lit_block", "changes", changes, (lists.feeds.shape[1], w.shape[2]))
    shape = len(lists.cells), channels
    y, argmax = buffer(work, "y", shape), buffer(work, "argmax", shape, np.uint8)
    if len(lists.cells):
        _forward(
            changes,
            lists.feeds,
            lists.cells,
            lists.chunks,
            w.reshape(-1, *w.shape[2:]),
            b,
            sums,
            geometry.positions,
            geometry.grid[0],
            geometry.pool,
            groups(channels),
            np.float32(alpha or 0),
            alpha is None,
            y,
            argmax,
        )
    return Lit(changes, lists, y, argmax)

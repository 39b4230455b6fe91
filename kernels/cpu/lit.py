"""A block on feature maps that are lit in few places, as rest + changes: kernels/lit.py has the
geometry, the reference the formulas.

Forward, a task takes a chunk of the fed cells and a group of output channels. The sums of its
positions stay in a near cache, and so do the weights of one tap at a time, which meet all lit
inputs of the chunk, of all events:

    sums of a chunk, one row per position       for every tap: rows of inputs that feed through it
        cell 0 [ rest ........ ] <-------------- d[a] w[tap]       six at a time, see lit_tile.py
               [ rest ........ ]
        cell 1 [ rest ........ ] <-------------- d[b] w[tap]
               ...

then come the maxima. Every sum runs over the taps in their order, so that neither chunks nor groups
nor threads change a bit.
"""

import numpy as np
from numba import prange

from ..lit import Lit, LitBlock, LitLists, Resting
from ..types import Array
from ..workspace import Workspace
from . import lit_windows
from .checks import buffer, check_float32, check_shape
from .elementary import activate
from .emit import LANES
from .jit import POSITIVE, aligned_empty, jit, parallel
from .lit_backward import lit_block_backward
from .lit_cells import compiled, corner
from .lit_lists import lit_lists
from .lit_rest import lit_rest, lit_rest_backward
from .lit_tile import add_products, one_product, take_weights
from .pack import shares
from .rows import max_of_rows
from .tile import VECTORS, Best, Sums

__all__ = ["lit_block", "lit_block_backward", "lit_lists", "lit_rest", "lit_rest_backward"]

#: Vectors of output channels of a task: the weights of a tap (C_in x 64 channels) and the sums fit
#: into near caches.
GROUP = 64 // LANES


@jit
def _at_rest(cells, begin, sums, first, z):
    """Set z (positions, channels from ``first`` on) to rest, beginning with the cell ``begin``;
    lanes beyond the last channel hold anything.
    """
    ph, pw, rows, columns = cells.down, cells.across, cells.row_classes, cells.column_classes
    real = min(z.shape[1], sums.shape[2] - first)
    for cell in range(z.shape[0] // (ph * pw)):
        r, c, _ = corner(cells, begin + cell)
        for i in range(ph):
            line = sums[rows[r + i] & POSITIVE]
            for j in range(pw):
                here = line[columns[c + j] & POSITIVE, first:]
                to = z[((cell * ph + i) * pw + j) & POSITIVE]
                for k in range(real):
                    to[k] = here[k]


@jit
def _one_channel(d, feeds, chunk, w, first, lowest, z):
    """Add the products of inputs of one channel: a tile of one step would be all loads and stores,
    but the weights of all taps and the outputs of one input are in the nearest cache.
    """
    taps, (count, width) = feeds.shape[0], z.shape
    weights = aligned_empty((taps * width,))
    for tap in range(taps):
        take_weights(w[tap], first, width, weights[tap * width :])
    for a in range(chunk[2], chunk[3]):
        x, weights_at = d[a & POSITIVE, 0], weights.ctypes.data
        for tap in range(taps):
            slot = feeds[tap, a & POSITIVE] - lowest
            if slot >= 0 and slot < count:
                to = z.ctypes.data + 4 * slot * width
                one_product(x, weights_at + 4 * tap * width, to, width // LANES)


@jit
def _many_channels(d, feeds, chunk, w, first, lowest, z):
    """Add the products tap by tap, of several inputs at a time."""
    ci, (count, width), input_count = d.shape[1], z.shape, chunk[3] - chunk[2]
    weights = aligned_empty((ci * width,))
    x_at, z_at = np.empty(input_count + 1, np.int64), np.empty(input_count + 1, np.int64)
    for tap in range(feeds.shape[0]):
        fed, n = feeds[tap], 0
        for a in range(chunk[2], chunk[3]):
            slot = np.int64(fed[a & POSITIVE]) - lowest
            x_at[n & POSITIVE] = d.ctypes.data + 4 * a * ci
            z_at[n & POSITIVE] = z.ctypes.data + 4 * slot * width
            n += (slot >= 0) & (slot < count)  # no branch: nobody would foresee it
        if n:
            take_weights(w[tap], first, width, weights)
            add_products(n, x_at, z_at, weights, width, ci)


@jit
def _maxima(z, begin, size, first, b, activation, y, argmax):
    """Write the channels from ``first`` on of the cells from ``begin`` on, of ``size``
    positions.
    """
    width, where = z.shape[1], np.arange(size).astype(np.uint8)
    best, place = aligned_empty((width,)), np.empty(width, np.int32)
    real = min(width, b.size - first)
    for cell in range(z.shape[0] // size):
        done, here = 0, z[cell * size].ctypes.data
        for n in VECTORS[::-1]:
            while width - done >= n * LANES:
                max_of_rows(
                    n,
                    size,
                    Sums(here + 4 * done, width),
                    where.ctypes.data,
                    Best(best[done:].ctypes.data, place[done:].ctypes.data),
                )
                done += n * LANES
        to, to_at, bias = y[begin + cell, first:], argmax[begin + cell, first:], b[first:]
        if activation.linear:
            for k in range(real):
                to[k] = best[k] + bias[k]
        else:
            for k in range(real):
                to[k] = activate(best[k] + bias[k], activation.alpha)
        for k in range(real):
            to_at[k] = place[k]


@parallel
def _forward(d, lists, cells, w, b, sums, groups, activation, results):
    """lists: (feeds, chunks). results: (y, argmax)."""
    (feeds, chunks), (y, argmax), size = lists, results, cells.down * cells.across
    most = 0
    for k in range(chunks.shape[0]):
        most = max(most, chunks[k, 1] - chunks[k, 0])
    for task in prange(chunks.shape[0] * groups.shape[0]):
        chunk = chunks[task % chunks.shape[0]]  # a group's weights stay in a cache over all chunks
        first, vectors = groups[task // chunks.shape[0]]
        begin = chunk[0] & POSITIVE
        room = aligned_empty((most * size, vectors * LANES))
        z = room[: (chunk[1] - begin) * size]
        _at_rest(cells, begin, sums, first, z)
        if d.shape[1] == 1:
            _one_channel(d, feeds, chunk, w, first, begin * size, z)
        else:
            _many_channels(d, feeds, chunk, w, first, begin * size, z)
        _maxima(z, begin, size, first, b, activation, y, argmax)


def lit_block(
    changes: Array,
    lists: LitLists,
    resting: Resting,
    block: LitBlock,
    workspace: Workspace | None = None,
) -> Lit:
    """Return the block at the fed cells, for the changes (n, C_in) of the lit inputs from rest.

    With ``workspace`` the arrays are its buffers, valid until the next call.
    """
    changes, w, b, sums = check_float32(
        "lit_block", changes=changes, w=block.w, b=block.b, sums=resting.sums
    )
    channels = w.shape[3]
    inputs = len(lists.inputs) if lists.feeds is None else lists.feeds.shape[1]
    check_shape("lit_block", "changes", changes, (inputs, w.shape[2]))
    shape = len(lists.cells), channels
    y, argmax = buffer(workspace, "y", shape), buffer(workspace, "argmax", shape, np.uint8)
    if lists.feeds is None:
        block, resting = block._replace(w=w, b=b), resting._replace(sums=sums)
        lit_windows.forward(changes, lists, resting, block, (y, argmax), workspace)
    elif len(lists.cells):
        taps, groups = w.reshape(-1, *w.shape[2:]), shares(channels, LANES, GROUP)
        cells, activation = compiled(block, lists.cells)
        feeds = lists.feeds, lists.chunks
        _forward(changes, feeds, cells, taps, b, sums, groups, activation, (y, argmax))
    return Lit(changes, lists, y, argmax)

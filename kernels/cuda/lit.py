"""A convolution, its activation and its pooling on feature maps that are lit in few places, as
*rest + changes*: see kernels/lit.py for the geometry, lit_lists.py for who feeds whom, lit_rest.py
for the rest; here are the changes (lit_block.cu, lit_backward.cu).
"""

import numpy as np

from ..arguments import Wanted
from ..lit import Lit, LitBlock, LitLists, Resting
from ..types import Array, Kernels
from ..workspace import Workspace
from .block import RESERVE, aligned, padded_weights
from .checks import check_float32, check_shape, gradient_targets, integers
from .conv2d import add_parts
from .lit_lists import lit_lists, most_per_group, on_device
from .lit_rest import activation_of, lit_rest, lit_rest_backward, transposed_weights

__all__ = ["lit_block", "lit_block_backward", "lit_lists", "lit_rest", "lit_rest_backward"]

#: Channels of a thread block of lit_block: a wide slice, or a narrow one where their
#: sums find no shared memory.
SLICES = 64, 32
#: Threads of a block of lit_block, and channels of each: as in the .cu file.
THREADS, CHANNELS = 128, 4
#: Input channels whose gradients a warp of lit_dw adds up, and the bytes of a block's sums.
INPUT_SLICE, SUM_BYTES = 64, 40 << 10
#: Warps of a block of lit_dw.
MOST_WARPS = 8
#: Parts of the weights' gradient, at most so many, and so many bytes of them.
PARTS, PART_BYTES = 64, 16 << 20
#: Parts of the sums over classes, each made by one block: at most so many, in as many bytes.
SUM_PARTS = 1024
#: Warps of a block of lit_dx: as in the .cu file.
INPUTS_OF_BLOCK = 4


def lit_block(
    kernels: Kernels,
    changes: Array,
    lists: LitLists,
    resting: Resting,
    block: LitBlock,
    workspace: Workspace | None = None,
) -> Lit:
    """Return the block at the fed cells, for the changes (n, C_in) of the lit inputs from rest."""
    op, geometry = "lit_block", block.geometry
    changes, w, b, sums = check_float32(
        kernels, op, changes=changes, w=block.w, b=block.b, sums=resting.sums
    )
    (*_, ci, co), cells, pairs = w.shape, lists.cells, _pairs(lists, op)
    check_shape(op, "changes", changes, (lists.feeds.shape[1], ci))
    check_shape(op, "b", b, (co,))
    check_shape(op, "sums", sums, (*(len(s) for s in geometry.seen), co))
    y, argmax = kernels.empty((len(cells), co)), kernels.empty((len(cells), co), np.uint8)
    w = padded_weights(kernels, w, CHANNELS, workspace)
    # Every sum is one chain over taps and input channels: slices and groups change none of its
    # bits.
    across, shared = slice_of(kernels, pairs.per_group, geometry.pool, co)
    kernels.launch(
        "lit_block.cu",
        "lit_block",
        ((len(pairs.tap_starts), -(-co // across)), THREADS),
        (
            aligned(kernels, changes),
            ci,
            pairs.inputs,
            pairs.slots,
            pairs.tap_starts,
            pairs.group_starts,
            geometry.taps,
            cells,
            len(cells),
            pairs.per_group,
            geometry.grid[0],
            *geometry.pool,
            *on_device(kernels, workspace, geometry, "positions"),
            sums,
            sums.shape[1],
            w,
            w.shape[3],
            b,
            co,
            across,
            *activation_of(block),
            y,
            argmax,
        ),
        block_constants(ci),
        shared,
    )
    return Lit(changes, lists, y, argmax)


def block_constants(ci: int) -> dict[str, int]:
    """Return the constants of lit_block.cu."""
    return {"LOAD": next(n for n in (4, 2, 1) if ci % n == 0)}


def dx_constants(ci: int) -> dict[str, int]:
    """Return the constants of lit_backward.cu."""
    return {"SUMS": next((n for n in (1, 2) if 32 * n >= ci), 4)}


def slice_of(kernels: Kernels, per_group: int, pool: tuple[int, int], co: int) -> tuple[int, int]:
    """Return the channels of a thread block of lit_block and the bytes of its sums."""
    position = 4 * per_group * pool[0] * pool[1]
    whole = -(-co // CHANNELS) * CHANNELS
    wide, narrow = (min(n, whole) for n in SLICES)
    across = wide if position * wide + RESERVE <= kernels.runtime.shared_memory else narrow
    return across, position * across


def _pairs(lists, op):
    if lists.pairs is None:
        raise ValueError(f"{op} needs the lists that lit_lists of the same backend made")
    return lists.pairs


def lit_block_backward(
    kernels: Kernels,
    dy: Array,
    lit: Lit,
    block: LitBlock,
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array, Array]:
    """Gradients of lit_block for dy (m, C_out): returns (dx or None, sums, dw, db).

    dx (n, C_in): at the lit inputs, all of whose gradient comes from fed cells. sums (R, S, C_out)
    float64: the gradient of what the convolution gives, summed over the positions of a class. dw
    gets the share of the changes alone; that of rest follows from ``sums``, see lit_rest_backward.
    """
    op, geometry, cells = "lit_block_backward", block.geometry, lit.lists.cells
    dy, y, changes, w = check_float32(kernels, op, dy=dy, y=lit.y, changes=lit.changes, w=block.w)
    argmax, (*_, ci, co) = integers(kernels, lit.argmax, np.uint8), w.shape
    for name, array in (("dy", dy), ("y", y), ("argmax", argmax)):
        check_shape(op, name, array, (len(cells), co))
    dw, db = gradient_targets(kernels, op, wanted, dw=w.shape, db=(co,))
    gradient = dy, y, argmax
    dx = kernels.zeros((len(changes), ci)) if wanted.dx else None
    counts = tuple(len(seen) for seen in geometry.seen)
    if not len(cells):
        return dx, kernels.zeros((*counts, co), np.float64), dw, db
    _add_dw(kernels, gradient, changes, lit.lists, block, (dw, db))
    sums = _class_sums(kernels, gradient, cells, block, workspace)
    if dx is not None:
        _input_gradient(kernels, gradient, lit.lists, block, dx, workspace)
    return dx, sums, dw, db


def dw_shape(taps: int, ci: int, co: int) -> tuple[int, int, int, int]:
    """Return (slice of input channels, warps of channels, lines, shared bytes) of a block of
    lit_dw: from the shape alone.
    """
    input_slice = min(ci, INPUT_SLICE)
    room = SUM_BYTES // (4 * 32 * input_slice)
    warps = min(-(-co // 32), MOST_WARPS, room)
    lines = max(1, min(MOST_WARPS // warps, room // warps))
    return input_slice, warps, lines, 4 * 32 * input_slice * warps * lines


def _add_dw(kernels, gradient, changes, lists, block, into):
    """dw += and db += the sums over cells, in chunks that follow from their number alone."""
    (*_, ci, co), taps, cells, pairs = block.w.shape, block.geometry.taps, lists.cells, lists.pairs
    input_slice, warps, lines, shared = dw_shape(taps, ci, co)
    most = max(1, min(PARTS, PART_BYTES // (4 * co * (taps * ci + 1))))
    whole = most_per_group(block.geometry.pool)
    chunk = -(-len(cells) // (most * lines * whole)) * whole
    parts = kernels.empty((-(-len(cells) // (chunk * lines)), co, taps * ci + 1))
    kernels.launch(
        "lit_backward.cu",
        "lit_dw",
        ((len(parts), taps, -(-co // (32 * warps)) * -(-ci // input_slice)), (32, warps, lines)),
        (
            *gradient,
            len(cells),
            co,
            *activation_of(block),
            changes,
            ci,
            pairs.inputs,
            pairs.slots,
            pairs.tap_starts,
            pairs.group_starts,
            pairs.per_group,
            block.geometry.pool[0] * block.geometry.pool[1],
            chunk,
            input_slice,
            parts,
        ),
        dx_constants(ci),
        shared,
    )
    add_parts(kernels, parts, *into)


def _class_sums(kernels, gradient, cells, block, workspace):
    """Return the sums (R, S, C_out) float64 over the positions of each pair of classes."""
    geometry, co = block.geometry, block.w.shape[3]
    counts = tuple(len(seen) for seen in geometry.seen)
    most = max(1, min(SUM_PARTS, PART_BYTES // (8 * counts[0] * counts[1] * co)))
    parts = kernels.empty((min(most, len(cells)), *counts, co), np.float64)
    kernels.launch(
        "lit_backward.cu",
        "lit_sums",
        (len(parts), min(-(-co // 32) * 32, 256)),
        (
            *gradient,
            len(cells),
            co,
            *activation_of(block),
            cells,
            geometry.grid[0],
            *geometry.pool,
            *on_device(kernels, workspace, geometry, "positions"),
            counts[1],
            counts[0] * counts[1],
            parts,
        ),
        dx_constants(block.w.shape[2]),
    )
    return parts.sum(0)


def _input_gradient(kernels, gradient, lists, block, dx, workspace):
    """Fill dx (n, C_in)."""
    constants, (*_, ci, co), pool = (
        dx_constants(block.w.shape[2]),
        block.w.shape,
        block.geometry.pool,
    )
    kernels.launch(
        "lit_backward.cu",
        "lit_dx",
        (
            (-(-len(dx) // INPUTS_OF_BLOCK), -(-ci // (32 * constants["SUMS"]))),
            32 * INPUTS_OF_BLOCK,
        ),
        (
            *gradient,
            co,
            *activation_of(block),
            lists.feeds,
            len(dx),
            len(lists.feeds),
            pool[0] * pool[1],
            transposed_weights(block.w, workspace),
            ci,
            dx,
        ),
        constants,
    )

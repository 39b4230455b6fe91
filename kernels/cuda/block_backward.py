"""The exactly sparse backward of the fused block (block_dw.cu, block_dx.cu)."""

import math
from functools import lru_cache
from typing import Any

from ..arguments import Pooled, Wanted
from ..shapes import Block
from ..types import Array, Kernels
from ..workspace import Workspace
from .block import RESERVE, aligned, largest_divisor, window_bytes, window_constants
from .checks import cached_until_update, check_float32, check_shape, contiguous, gradient_targets
from .conv2d import add_parts

#: Floats of a patch that a lane of block_dw adds up in registers, for one channel.
MAX_SUMS_PER_LANE = 100
#: The same for several channels, all of them together.
MANY_SUMS = 64
#: Warps of a block of block_dw; fewer, for registers, where a lane has more than MANY_SUMS sums.
MAX_WARPS, WARPS_WITH_MANY_SUMS = 16, 12
#: Bytes of windows that block_dw takes into shared memory at a time.
STAGED_WINDOW_BYTES = 40 << 10
#: Cells summed in float32, and the most parts of such sums.
CHUNK, CHUNKS = 256, 32
#: Bytes of weights that window_gradients works through for every cell: they stay in the L1 cache.
WEIGHT_SLICE_BYTES = 100 << 10
#: Bytes of window gradients that exist at a time.
WINDOW_GRADIENT_BYTES = 256 << 20


@lru_cache(maxsize=256)
def dw_constants(
    shared_memory: int, kernel: tuple[int, int], pool: tuple[int, int], ci: int, co: int
) -> tuple[dict[str, Any], int, int, int] | None:
    """Return (constants of block_dw, blocks of channels, tiles of the patch, shared bytes), or None
    where a window does not fit.
    """
    row, window = kernel[1] * ci, window_bytes(kernel, pool, ci)
    if row >= 32:
        lanes = min(-(-row // 32), MAX_SUMS_PER_LANE)
        rows = largest_divisor(kernel[0], max(1, MAX_SUMS_PER_LANE // lanes))
        tiles_in_row = -(-row // (32 * lanes))
        tiles, pad = kernel[0] // rows * tiles_in_row, tiles_in_row * 32 * lanes - row
    else:
        rows, lanes = 1, min(-(-kernel[0] * row // 32), MAX_SUMS_PER_LANE)
        tiles, pad = -(-kernel[0] * row // (32 * lanes)), 0
    channels = max(1, min(MANY_SUMS // (rows * lanes), -(-co // MAX_WARPS)))
    warps = min(
        MAX_WARPS if rows * lanes <= MANY_SUMS else WARPS_WITH_MANY_SUMS, -(-co // channels)
    )
    room = shared_memory - RESERVE
    stage = min(max(1, STAGED_WINDOW_BYTES // window), 64, room // (window + 8 * warps * channels))
    if stage < 1:
        return None
    constants = {
        **window_constants(kernel, pool, ci),
        "TILE_ROWS": rows,
        "TILE_LANES": lanes,
        "CHANNELS": channels,
        "WARPS": warps,
        "STAGE": stage,
    }
    return constants, -(-co // (channels * warps)), tiles, stage * window + 4 * pad


def _add_dw(kernels, launch_plan, gradient, x, where, alpha, into):
    """dw += and db += the sums over cells. launch_plan: as dw_constants has it. gradient: dy, y,
    argmax (n, C_out) of all cells. where: H, W, top, left, OH, OW. into: (dw, db).
    """
    (constants, groups, tiles, shared), (dy, y, argmax), (dw, db) = launch_plan, gradient, into
    n, co = y.shape
    chunk = min(
        CHUNK, max(8, -(-n // CHUNKS))
    )  # given by n alone: the bits do not depend on the GPU
    parts = kernels.empty((-(-n // chunk), co, math.prod(dw.shape[:3]) + 1))
    kernels.launch(
        "block_dw.cu",
        "block_dw",
        ((len(parts), groups, tiles), 32 * constants["WARPS"]),
        (
            dy,
            aligned(kernels, x),
            y,
            argmax,
            *where,
            n,
            chunk,
            co,
            alpha,
            parts,
        ),
        constants,
        shared,
    )
    add_parts(kernels, parts, dw, db)


@lru_cache(maxsize=256)
def slice_constants(
    kernel: tuple[int, int], pool: tuple[int, int], ci: int, co: int
) -> tuple[dict[str, Any], int]:
    """Return the constants of window_gradients and the shared bytes of its block."""
    most = max(1, WEIGHT_SLICE_BYTES // (4 * kernel[0] * kernel[1] * co))
    window = 4 * (pool[0] + kernel[0] - 1) * (pool[1] + kernel[1] - 1)
    size = largest_divisor(ci, max(1, min(most, (47 << 10) // window)))
    warps = max(1, min(8, (47 << 10) // (window * size)))
    return {
        **window_constants(kernel, pool, ci),
        "SLICE": size,
        "WARPS": warps,
    }, warps * size * window


def _window_gradients(kernels, gradient, w, block, workspace):
    """Return (dwindow (n, window), constants) for gradient = dy, y, argmax (n, C_out): the gradient
    of the input window of every cell.
    """
    (dy, y, argmax), (kh, kw, ci, co), pool = gradient, w.shape, block.pool
    constants, shared = slice_constants((kh, kw), pool, ci, co)
    size = constants["SLICE"]
    turned = cached_until_update(
        workspace,
        "turned",
        lambda: (
            w.transpose(2, 3, 0, 1)
            .reshape(ci // size, size, co, kh, kw)
            .transpose(0, 2, 3, 4, 1)
            .copy()
        ),
    )
    n = len(y)
    order, gz, dwindow = (
        kernels.empty((n, co), "int32"),
        kernels.empty((n, co)),
        kernels.empty((n, window_bytes((kh, kw), pool, ci) // 4)),
    )
    kernels.launch(
        "block_dx.cu",
        "sort_channels",
        (n, min(-(-co // 32) * 32, 256)),
        (dy, y, argmax, co, block.alpha, order, gz),
        constants,
        co,
    )
    kernels.launch(
        "block_dx.cu",
        "window_gradients",
        ((-(-n // constants["WARPS"]), ci // size), 32 * constants["WARPS"]),
        (order, gz, n, co, turned, dwindow),
        constants,
        shared,
    )
    return dwindow, constants


def conv2d_block_backward(
    kernels: Kernels,
    dy: Array,
    pooled: Pooled,
    w: Array,
    block: Block,
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d_block: (dx or None, dw, db) for dy (N, OH // PH, OW // PW, C_out)
    float32. Only the window maxima carry a gradient: one output in PH * PW.
    """
    op, pool = "conv2d_block_backward", block.pool
    dy, x, w, y = check_float32(kernels, op, dy=dy, x=pooled.x, w=w, y=pooled.y)
    shape = n, oh, ow, co = block.output(x.shape, w.shape)
    for name, array in (("dy", dy), ("y", y), ("argmax", pooled.argmax)):
        check_shape(op, name, array, shape)
    launch_plan = dw_constants(kernels.runtime.shared_memory, w.shape[:2], pool, *w.shape[2:])
    if launch_plan is None:  # windows too large for shared memory: as in the forward pass
        z_shape = block.geometry.output(x.shape, w.shape)
        dv = kernels.elu_backward(dy, y, block.alpha)
        dz = kernels.maxpool2d_backward(dv, pooled.argmax, z_shape, pool)
        return kernels.conv2d_backward(dz, x, w, block.geometry, wanted)
    dw, db = gradient_targets(kernels, op, wanted, dw=w.shape, db=(co,))
    flat = [array.reshape(-1, co) for array in (dy, y, contiguous(pooled.argmax))]
    (top, _), (left, _) = block.geometry.pads(x.shape, w.shape)
    where = *x.shape[1:3], top, left, oh, ow
    _add_dw(kernels, launch_plan, flat, x, where, block.alpha, (dw, db))
    if not wanted.dx:
        return None, dw, db
    dx = kernels.empty(x.shape)
    events = max(
        1, WINDOW_GRADIENT_BYTES // (oh * ow * window_bytes(w.shape[:2], pool, w.shape[2]))
    )
    for e in range(0, n, events):
        these = slice(e * oh * ow, min(e + events, n) * oh * ow)
        gradient = [array[these] for array in flat]
        dwindow, constants = _window_gradients(kernels, gradient, w, block, workspace)
        part = dx[e : e + events]
        kernels.each(
            "block_dx.cu",
            "gather_windows",
            part.size,
            dwindow,
            *where,
            part,
            **constants,
        )
    return dx, dw, db

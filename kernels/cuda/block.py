"""The fused Conv2D -> ELU -> MaxPooling2D block: the choice of its tile, and its forward pass
(block.cu).
"""

import math
from functools import lru_cache
from typing import Any

from ..arguments import Pooled
from ..shapes import Block
from ..types import Array, Kernels
from ..workspace import Workspace
from .checks import cached_until_update, check_float32, check_shape

#: Pool positions of a thread, chosen by registers: with 4 channels that is 100 sums.
POSITIONS = 25
#: Threads of a block: several small blocks share a multiprocessor and hide each other's loads.
MAX_THREADS = 128
#: Bytes of shared memory for what is small.
RESERVE = 2 << 10
#: Bytes of windows per block, chosen by shared memory: a second block fits beside on large GPUs.
WINDOWS = 100 << 10


def largest_divisor(n: int, most: int) -> int:
    """Return the largest divisor of n that is at most ``most``."""
    return max(d for d in range(1, min(n, most) + 1) if n % d == 0)


def window_constants(kernel: tuple[int, int], pool: tuple[int, int], ci: int) -> dict[str, Any]:
    """Return the constants of windows.cuh."""
    load = next(n for n in (4, 2, 1) if ci % n == 0)
    loads = (pool[1] + kernel[1] - 1) * ci // load
    line = 1 if loads < 16 else 16 if loads < 32 else 32
    return {
        "CI": ci,
        "KH": kernel[0],
        "KW": kernel[1],
        "PH": pool[0],
        "PW": pool[1],
        "LOAD": load,
        "LINE": line,
    }


def window_bytes(kernel: tuple[int, int], pool: tuple[int, int], ci: int) -> int:
    """Return the bytes of one cell's window in shared memory."""
    return 4 * (pool[0] + kernel[0] - 1) * (pool[1] + kernel[1] - 1) * ci


def tile(
    kernels: Kernels, kernel: tuple[int, int], pool: tuple[int, int], ci: int, co: int, cells: int
) -> dict[str, Any] | None:
    """Return the constants of block.cu for so many cells, or None where a window does not fit into
    shared memory.

    They change speed alone, never a bit of the result. Few cells are spread: the rows of a pool go
    to different threads.
    """
    large, small = _tiles(kernels.runtime.shared_memory, kernel, pool, ci, co)
    return (
        large
        if small is None or cells >= 2 * large["CELLS"] * kernels.runtime.multiprocessors
        else small
    )


@lru_cache(maxsize=256)
def _tiles(shared_memory, kernel, pool, ci, co):
    """Return the constants for a large and for a small number of cells; None where shared memory
    does not suffice.
    """
    channels = 5 if ci == 1 and co % 5 == 0 and co % 4 else 4
    group = min(-(-co // channels), 64)
    columns = largest_divisor(pool[1], POSITIONS)
    rows = largest_divisor(pool[0], POSITIONS // columns) if columns == pool[1] else 1
    window, memory = window_bytes(kernel, pool, ci), shared_memory - RESERVE

    def constants(rows, split, cells):
        return {
            **window_constants(kernel, pool, ci),
            "CO": -(-co // channels) * channels,
            "CHANNELS": channels,
            "TR": rows,
            "TC": columns,
            "GROUP": group,
            "SPLIT": split,
            "CELLS": cells,
            "THREADS": -(-cells * group * split // 32) * 32,
        }

    room = min(WINDOWS, memory) // window or memory // window
    if room < 1:
        return None, None
    large = constants(rows, 1, min(MAX_THREADS // group, room))
    split = min(pool[0] * pool[1] // columns, 8, 4 * MAX_THREADS // group)
    room = (memory - 256 * channels) // (
        window + 8 * group * split * channels
    )  # the parts of a pool meet in shared memory
    return large, constants(
        1, split, max(1, min(MAX_THREADS // (group * split), room))
    ) if room else None


def padded_weights(kernels: Kernels, w: Array, channels: int, workspace: Workspace | None) -> Array:
    """Return w with its output channels padded to a multiple of ``channels`` by zeros, from an
    address that float4 can load.
    """
    kh, kw, ci, co = w.shape
    if co % channels == 0 and kernels.runtime.address(w) % 16 == 0:
        return w

    def make():
        padded = kernels.zeros((kh, kw, ci, -(-co // channels) * channels))
        padded[..., :co] = w
        return padded

    return cached_until_update(workspace, f"packed {channels}", make)


def aligned(kernels: Kernels, x: Array) -> Array:
    """Return x, or a copy of it where it does not begin at an address that float4 can load."""
    return x if kernels.runtime.address(x) % 16 == 0 else x.copy()


def tensor_cores(kernels: Kernels, kernel: tuple[int, int], pool: tuple[int, int], ci: int) -> bool:
    """Tell whether block_tf32.cu runs this block: if TF32 was asked for, 8 input channels at least
    fill a product, and its sums and weights find registers and its windows shared memory.
    """
    size = math.prod(p + q - 1 for p, q in zip(pool, kernel))
    return (
        kernels.tf32
        and ci >= 8
        and math.prod(pool) <= 25
        and math.prod(kernel) <= 25
        and 512 * size + RESERVE <= kernels.runtime.shared_memory
    )


def _where(pooled, w, block):
    """Return the integers that the kernels of a block take: H, W, top, left, OH, OW, cells."""
    x, y, _ = pooled
    (top, _), (left, _) = block.geometry.pads(x.shape, w.shape)
    return *x.shape[1:3], top, left, *y.shape[1:3], math.prod(y.shape[:-1])


def _run_tensor_cores(kernels, pooled, w, b, block, workspace):
    """Run block_tf32.cu, as _run does block.cu."""
    (x, y, argmax), (kh, kw, ci, co), pool = pooled, w.shape, block.pool
    chunks, groups = -(-ci // 8), -(-co // 8)

    def fragments():
        """w in the order in which lanes give it to mma: lane 4 g + t has rows t and t + 4 of column
        g.
        """
        padded = kernels.zeros((kh * kw, 8 * chunks, 8 * groups))
        padded[:, :ci, :co] = w.reshape(kh * kw, ci, co)
        # (tap, chunk of rows, half of the chunk, t, group of columns, g), as read above, to
        # (group of columns, chunk of rows, tap, g, t, half of the chunk)
        return padded.reshape(kh * kw, chunks, 2, 4, groups, 8).transpose(4, 1, 0, 5, 3, 2).copy()

    warps = min(4, groups)
    n, size = math.prod(y.shape[:-1]), math.prod(p + q - 1 for p, q in zip(pool, (kh, kw)))
    constants = {**window_constants((kh, kw), pool, ci), "WARPS": warps}
    kernels.launch(
        "block_tf32.cu",
        "conv2d_block_tf32",
        ((-(-n // 16), -(-groups // warps)), 32 * warps),
        (
            x,
            *_where(pooled, w, block),
            cached_until_update(workspace, "fragments", fragments),
            b,
            co,
            block.alpha,
            y,
            argmax,
        ),
        constants,
        512 * size,
    )


def _run(kernels, constants, pooled, w, b, block, workspace):
    """Run block.cu for all cells, into y and argmax of ``pooled``."""
    (x, y, argmax), co = pooled, w.shape[3]
    n = math.prod(y.shape[:-1])
    blocks = (
        -(-n // constants["CELLS"]),
        -(-constants["CO"] // (constants["GROUP"] * constants["CHANNELS"])),
    )
    kernels.launch(
        "block.cu",
        "conv2d_block",
        (blocks, constants["THREADS"]),
        (
            aligned(kernels, x),
            *_where(pooled, w, block),
            padded_weights(kernels, w, constants["CHANNELS"], workspace),
            b,
            co,
            block.alpha,
            y,
            argmax,
        ),
        constants,
        constants["CELLS"] * window_bytes(w.shape[:2], block.pool, w.shape[2]),
    )


def conv2d_block(
    kernels: Kernels,
    x: Array,
    w: Array,
    b: Array,
    block: Block,
    workspace: Workspace | None = None,
) -> Pooled:
    """Conv2D (stride 1) -> ELU -> MaxPooling2D (stride = pool): y = elu(max over the window of
    conv2d(x, w, 0) + b).

    x (N, H, W, C_in), w (KH, KW, C_in, C_out), b (C_out,) float32 -> Pooled with y float32 and
    argmax uint8, both (N, OH // PH, OW // PW, C_out). alpha 0 makes it a ReLU block. Where a window
    of x is too large for shared memory, the three ops run, with the same bits in y.
    """
    x, w, b = check_float32(kernels, "conv2d_block", x=x, w=w, b=b)
    shape, (*kernel, ci, co) = block.output(x.shape, w.shape), w.shape
    check_shape("conv2d_block", "b", b, shape[3:])
    constants = tile(kernels, tuple(kernel), block.pool, ci, co, math.prod(shape[:3]))
    if constants is None:
        z = kernels.conv2d(x, w, b, block.geometry)
        return Pooled(x, *kernels.maxpool2d(kernels.elu(z, block.alpha), block.pool))
    pooled = Pooled(x, kernels.empty(shape), kernels.empty(shape, "uint8"))
    if tensor_cores(kernels, tuple(kernel), block.pool, ci):
        _run_tensor_cores(kernels, pooled, w, b, block, workspace)
    else:
        _run(kernels, constants, pooled, w, b, block, workspace)
    return pooled

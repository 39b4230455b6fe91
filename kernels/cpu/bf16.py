"""bf16 on processors that multiply it (AVX512-BF16): numbers of 16 bits, with the exponent of a
float32 and 8 bits of its fraction.

One instruction multiplies pairs, and adds both products to a float32:

    lane of the sums       s          s + x0 w0 + x1 w1
    one float32 of x     [x1|x0]      two neighbouring channels
    one float32 of w     [w1|w0]      the same channels, to one output channel

so that an image of C channels becomes one of C / 2 pairs, which everything but the multiply-add of
a tile takes for an image of float32. Sums are float32; the backward pass stays as it is.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import prange

from ..types import Array
from ..workspace import Workspace
from .checks import buffer, cached_until_update
from .emit import HAS_BF16
from .jit import jit, threaded

ROWS = 256  # of channels that a task turns into pairs
TAKE, HALF, SIGN = np.uint32(16), np.uint32(0x7FFF), np.uint32(0x7FFFFFFF)
INFINITE, QUIET, ONE = np.uint32(0x7F800000), np.uint32(0x400000), np.uint32(1)


@jit
def _rounded(bits):
    """The bf16 nearest to a float32, ties to even, both as bits; what is no number stays none."""
    if (bits & SIGN) > INFINITE:
        return (bits | QUIET) >> TAKE
    return (bits + HALF + ((bits >> TAKE) & ONE)) >> TAKE


@threaded
def _pair_channels(tasks, x, pairs):
    """pairs (rows, ceil(C / 2)) of x (rows, C), both as bits."""
    rows, channels = x.shape
    for task in prange(tasks):
        for i in range(rows * task // tasks, rows * (task + 1) // tasks):
            line, to = x[i], pairs[i]
            for k in range(channels // 2):
                to[k] = _rounded(line[2 * k]) | _rounded(line[2 * k + 1]) << TAKE
            if channels % 2:
                to[channels // 2] = _rounded(line[channels - 1])


@threaded
def _pair_rows(w, pairs):
    """pairs (taps, ceil(C_in / 2), C_out) of w (taps, C_in, C_out), both as bits."""
    for tap in prange(w.shape[0]):
        for k in range(pairs.shape[1]):
            to, low = pairs[tap, k], w[tap, 2 * k]
            if 2 * k + 1 < w.shape[1]:
                high = w[tap, 2 * k + 1]
                for c in range(to.size):
                    to[c] = _rounded(low[c]) | _rounded(high[c]) << TAKE
            else:
                for c in range(to.size):
                    to[c] = _rounded(low[c])


def paired(x: Array, w: Array, workspace: Workspace | None) -> tuple[Array, Array]:
    """Return x (N, H, W, C_in) and w (KH, KW, C_in, C_out) rounded to bf16, neighbouring input
    channels in pairs: (N, H, W, ceil(C_in / 2)) and (KH, KW, ceil(C_in / 2), C_out), of which each
    float32 is two numbers; an odd last channel has 0 beside it.
    """
    (*image, ci), (kh, kw, _, co) = x.shape, w.shape
    pair_count = -(-ci // 2)

    def weights():
        pairs = buffer(workspace, "pairs of weights", (kh, kw, pair_count, co))
        flat = pairs.view(np.uint32).reshape(-1, pair_count, co)
        _pair_rows(len(flat), w.view(np.uint32).reshape(-1, ci, co), flat)
        return pairs

    pairs = buffer(workspace, "pairs of channels", (*image, pair_count))
    rows = x.view(np.uint32).reshape(-1, ci)
    tasks = -(-len(rows) // ROWS)
    _pair_channels(tasks, tasks, rows, pairs.view(np.uint32).reshape(-1, pair_count))
    return pairs, cached_until_update(workspace, "pairs of weights", weights)


def in_bf16() -> Any:
    """Return this backend with the forward pass of blocks in bf16, 1e-3 off in norm; a block
    of one input channel, lit maps and the backward pass stay in float32.

    Raises RuntimeError for a processor without AVX512-BF16.
    """
    from . import _functions, block

    if not HAS_BF16:
        raise RuntimeError(
            'precision "bf16" needs a processor that multiplies bf16 numbers (AVX512-BF16: AMD Zen '
            '4, Intel Cooper Lake and Sapphire Rapids and later): use precision="float32"'
        )
    everything: dict[str, Any] = {**_functions, "conv2d_block": block.conv2d_block_bf16}
    return SimpleNamespace(name="cpu", microbatch=1, on_device=False, precisions={}, **everything)

"""The parity tests would find a broken kernel: .cu files broken on purpose, one place at a time."""

import faulthandler
import os
import shutil
from contextlib import suppress
from functools import cache
from unittest.mock import patch

import numpy as np
import pytest

from helpers.lit_ops import everything
from helpers.parity import arguments, check_parity, close, host, on_device, wide
from minicnn.kernels import reference
from minicnn.kernels.arguments import Pooled
from minicnn.kernels.cuda import emulator, lit
from minicnn.kernels.cuda.source import read
from minicnn.kernels.shapes import Block

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the emulator needs g++, which is not on the PATH"
)


def block_parity(**options):
    """The block and its gradients against the reference, as in test_kernels_cuda.py; AssertionError
    or RuntimeError where they differ.
    """
    rng = np.random.default_rng(0)
    x, w, b = (
        rng.standard_normal(s).astype(np.float32) for s in ((1, 23, 21, 2), (5, 5, 2, 40), (40,))
    )
    x[0, 5:, 9:] = 0.5  # ties
    k = emulator.backend(
        multiprocessors=1000, shared_memory=6 << 10, **options
    )  # several stages of windows
    d = [k.asarray(a) for a in (x, w, b)]
    block = Block((5, 4))
    _, y, argmax = pooled = k.conv2d_block(*d, block)
    _, y_ref, argmax_ref = reference.conv2d_block(x, w, b, block)
    assert np.allclose(k.to_host(y), y_ref, rtol=1e-4, atol=1e-4)
    z = reference.elu(reference.conv2d(x, w, b))
    tied = (
        np.lib.stride_tricks.sliding_window_view(z, (5, 4), (1, 2))[:, ::5, ::4].std((-1, -2)) == 0
    )
    assert tied.any() and (k.to_host(argmax)[tied] == argmax_ref[tied]).all()
    got = k.conv2d_block_backward(y, pooled, d[1], block)
    dy, x, w = (a.astype(float) for a in (k.to_host(y), x, w))
    pooled = Pooled(x, dy, k.to_host(argmax))
    want = reference.conv2d_block_backward(dy, pooled, w, block)
    for g, r in zip(got, want):
        assert np.linalg.norm(k.to_host(g) - r) <= 1e-5 * np.linalg.norm(r)


def list_parity(**options):
    x = (np.random.default_rng(0).random((1, 90, 60, 1)) < 0.3).astype(np.float32)
    k = emulator.backend(**options)
    assert np.array_equal(k.to_host(k.lit_pixels(k.asarray(x))), reference.lit_pixels(x))


@cache
def op_parity(name):
    """Return the parity of a row of the table of ops."""

    def parity(**options):
        kernels = emulator.backend(**options)
        for seed in range(5):
            check_parity(name, seed, [kernels])

    return parity


def lit_parity(**options):
    """Rest and changes and their gradients against the reference, groups of several cells and of
    one.
    """
    for seed in (3, 8, 12, 14, 19):
        a = arguments("lit_block", seed)
        want = everything(reference, wide(a))
        for multiprocessors in (0, 1000):
            kernels = emulator.backend(multiprocessors=multiprocessors, **options)
            with patch.object(lit, "SUM_PARTS", 3):  # parts of several cells
                got = host(kernels, everything(kernels, on_device(kernels, a)))
            assert np.array_equal(got["lists"].cells, want["lists"].cells)
            for part in ("lit", "resting"):  # of equals the first
                assert np.array_equal(got[part].argmax, want[part].argmax)
            close(got["lit"].y, want["lit"].y, 1e-5)
            close(got["resting"].y, want["resting"].y, 1e-5)
            for name in ("dx", "sums", "dw", "db", "rest dx", "rest dw", "rest db"):
                close(got[name], want[name], 1e-5, terms=0.1)


MUTATIONS = {
    "taps too near": ("conv2d.cu", "ky * dh - top;", "ky - top;", op_parity("conv2d")),
    "a gradient of taps too near": (
        "conv2d.cu",
        "% kw * dw - left;",
        "% kw - left;",
        op_parity("conv2d"),
    ),
    "rows that no stride reaches": (
        "conv2d.cu",
        "down < 0 || down % sh || i >= oh",
        "down < 0 || i >= oh",
        op_parity("conv2d_transpose"),
    ),
    "weights of the first of M": (
        "depthwise.cu",
        "w[(long long)(ky * kw + kx) * co + o]",
        "w[(long long)(ky * kw + kx) * co + channel]",
        op_parity("depthwise_conv2d"),
    ),
    "a bias without its one": (
        "depthwise.cu",
        "if (tap == taps) v = 1;",
        "if (tap == taps) v = 0;",
        op_parity("depthwise_conv2d"),
    ),
    "a gradient of the first of M": (
        "depthwise.cu",
        "co + channel * each;\n      for",
        "co + channel;\n      for",
        op_parity("depthwise_conv2d"),
    ),
    "a window's last row left out": (
        "average_pool.cu",
        "p < ph * pw",
        "p < ph * pw - 1",
        op_parity("avgpool2d"),
    ),
    "a window too few": (
        "average_pool.cu",
        "i * sh <= row",
        "i * sh < row",
        op_parity("avgpool2d"),
    ),
    "spans in one": (
        "global_pool.cu",
        "for (int s = 1; s < spans; s++)",
        "for (int s = 1; s < 1; s++)",
        op_parity("global_max_pool"),
    ),
    "a span's last position": (
        "sums.cu",
        "p < end; p++",
        "p < end - 1; p++",
        op_parity("global_average_pool"),
    ),
    "squares from 0": (
        "sums.cu",
        "mean ? mean[channel] : 0",
        "0",
        op_parity("channel_moments"),
    ),
    "a neighbour's column": (
        "upsample2d.cu",
        "column / sw",
        "column % w",
        op_parity("upsample2d"),
    ),
    "a sum of one class too few": (
        "softmax.cu",
        "for (int k = 0; k < c; k++) dot",
        "for (int k = 1; k < c; k++) dot",
        op_parity("softmax"),
    ),
    "a slope forgotten": (
        "normalization.cu",
        "* inverse[k] * slope[k]",
        "* inverse[k]",
        op_parity("normalize"),
    ),
    "a variance of one channel less": (
        "normalization.cu",
        "sqrt(square / c + epsilon)",
        "sqrt(square / (c - 1) + epsilon)",
        op_parity("layer_norm"),
    ),
    "a sigmoid of the wrong side": (
        "activation.cu",
        "x >= 0 ? 1.f : small",
        "x >= 0 ? small : 1.f",
        op_parity("activation"),
    ),
    "no barrier behind the windows": (
        "block.cu",
        "n, windows);\n  __syncthreads();",
        "n, windows);",
        block_parity,
    ),
    "no barrier before the parts meet": (
        "block.cu",
        "= where[o];\n  __syncthreads();",
        "= where[o];",
        block_parity,
    ),
    "a pixel too far": ("block.cu", "p % TC * CI + k", "p % TC * CI + k + 1", block_parity),
    "the last of equals": ("block.cu", "sum[p][o] > best[o]", "sum[p][o] >= best[o]", block_parity),
    "the bias of the neighbour": ("block.cu", "b[channel + o]", "b[channel]", block_parity),
    "no barrier behind the origins": ("windows.cuh", "  __syncthreads();\n", "", block_parity),
    "a row too low": ("windows.cuh", "% oh * PH - top", "% oh * PH - top + 1", block_parity),
    "no barrier behind the next windows": (
        "block_dw.cu",
        "    __syncthreads();\n",
        "",
        block_parity,
    ),
    "gradients of the cell before": (
        "block_dw.cu",
        "const float g = gz[i]",
        "const float g = gz[i ? i - 1 : 0]",
        block_parity,
    ),
    "no warp barrier after zeros": (
        "block_dx.cu",
        "__syncwarp();\n    for (int i = 0; i < co;)",
        "for (int i = 0; i < co;)",
        block_parity,
    ),
    "no barrier in the sort": ("block_dx.cu", "  __syncthreads();\n", "", block_parity),
    "a column lost in the gather": (
        "block_dx.cu",
        "j * PW <= column; j++)\n      sum +=",
        "j * PW < column; j++)\n      sum +=",
        block_parity,
    ),
    "no barrier in the turned tile": ("add_parts.cu", "  __syncthreads();\n", "", block_parity),
    "a scan without its barrier": ("lists.cu", "= sum;\n  __syncthreads();", "= sum;", list_parity),
    "a scan that overwrites": (
        "lists.cu",
        "__syncthreads();                                          // of",
        "// of",
        list_parity,
    ),
    "the cells of the first event": (
        "lit_lists.cu",
        "mask[(event * oh + rows",
        "mask[(rows",
        lit_parity,
    ),
    "the inputs of the first event": (
        "lit_lists.cu",
        "find(positions, rows, event * h + row, column)",
        "find(positions, rows, row, column)",
        lit_parity,
    ),
    "a pair in the place of another": (
        "lit_lists.cu",
        "(1u << lane) - 1",
        "(1u << lane) - 2",
        lit_parity,
    ),
    "taps of a group that are not added up": (
        "lit_lists.cu",
        "      sum += own;\n",
        "",
        lit_parity,
    ),
    "no barrier before the taps are added up": (
        "lit_lists.cu",
        "  __syncthreads();\n  if (threadIdx.x == 0) {",
        "  if (threadIdx.x == 0) {",
        lit_parity,
    ),
    "a tap of another row": (
        "lit_lists.cu",
        "% h * kh + tap / kw) * 2",
        "% h * kh + tap / kh) * 2",
        lit_parity,
    ),
    "a neighbour found in a row": (
        "lit.cuh",
        "low < end && at[2 * low + 1] == column ? low : -1",
        "low < end ? low : -1",
        lit_parity,
    ),
    "no barrier behind the rest": (
        "lit_block.cu",
        "  }\n  __syncthreads();\n  const int across",
        "  }\n  const int across",
        lit_parity,
    ),
    "no barrier between taps": (
        "lit_block.cu",
        "    __syncthreads();                                        // the next",
        "    // the next",
        lit_parity,
    ),
    "pairs left over": (
        "lit_block.cu",
        "end - first > down;",
        "end - first > 2 * down;",
        lit_parity,
    ),
    "rest of another class": (
        "lit_block.cu",
        "pw + p % pw];\n    z[k]",
        "pw];\n    z[k]",
        lit_parity,
    ),
    "a channel of another warp": (
        "lit_backward.cu",
        "ci_slices * warps + warp) * 32",
        "ci_slices * warps) * 32",
        lit_parity,
    ),
    "a line left out": (
        "lit_backward.cu",
        "for (int other = 1; other < lines; other++)",
        "for (int other = 2; other < lines; other++)",
        lit_parity,
    ),
    "no barrier before lines meet": (
        "lit_backward.cu",
        "  __syncthreads();\n  if (line) return;",
        "  if (line) return;",
        lit_parity,
    ),
    "lines without cells that take others'": (
        "lit_backward.cu",
        "begin < end && group",
        "group",
        lit_parity,
    ),
    "sums of a class that are overwritten": (
        "lit_backward.cu",
        "to[(long long)known * co] += sum;\n        known",
        "to[(long long)known * co] = sum;\n        known",
        lit_parity,
    ),
    "the weights of the first channels": (
        "lit_backward.cu",
        "co + o + 32 * q + c) * ci",
        "co + 32 * q + c) * ci",
        lit_parity,
    ),
    "a rest that sees the outside": (
        "lit_rest.cu",
        "if (row >= 0 && column >= 0) {",
        "if (row >= 0) {",
        lit_parity,
    ),
    "the last of equal positions at rest": ("lit_rest.cu", "v > best", "v >= best", lit_parity),
    "gradients of rest by rows alone": (
        "lit_rest.cu",
        "== row && seen_columns[pair % columns * kw + tap % kw] == column",
        "== row",
        lit_parity,
    ),
}


@cache
def check_sound(parity):
    """Run a parity without a mutation, once for all mutations that it has to find."""
    for falling in (False, True):
        parity(falling=falling)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_kernel_is_found(mutation):
    """In one order of threads at least; and the parity holds without the mutation."""
    file, old, new, parity = MUTATIONS[mutation]
    assert read(file).count(old) == 1, f"{file} has no longer what this mutation changes"
    check_sound(parity)
    broken = {file: read(file).replace(old, new)}
    assert any(
        fails(lambda f=falling: parity(falling=f, replaced=broken)) for falling in (False, True)
    ), "parity does not notice"


def fails(call):
    """Tell whether ``call()`` raises or crashes, in a process of its own: a broken kernel may write
    anywhere.
    """
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        status = 1
        with suppress(Exception):
            call()
            status = 0
        os._exit(status)
    return os.waitpid(child, 0)[1] != 0

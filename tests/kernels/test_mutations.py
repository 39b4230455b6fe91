"""The parity tests would find a broken kernel: .cu files broken on purpose, one place at a time."""

import faulthandler
import os
import shutil
from contextlib import suppress

import numpy as np
import pytest

from helpers.parity import check_parity
from minicnn.kernels import reference
from minicnn.kernels.cuda import emulator
from minicnn.kernels.cuda.source import read

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
    y, argmax = k.conv2d_block(*d, (5, 4))
    y_ref, argmax_ref = reference.conv2d_block(x, w, b, (5, 4))
    assert np.allclose(k.to_host(y), y_ref, rtol=1e-4, atol=1e-4)
    z = reference.elu(reference.conv2d(x, w, b))
    tied = (
        np.lib.stride_tricks.sliding_window_view(z, (5, 4), (1, 2))[:, ::5, ::4].std((-1, -2)) == 0
    )
    assert tied.any() and (k.to_host(argmax)[tied] == argmax_ref[tied]).all()
    got = k.conv2d_block_backward(y, *d[:2], y, argmax, (5, 4))
    want = reference.conv2d_block_backward(
        *(a.astype(float) for a in (k.to_host(y), x, w, k.to_host(y))), k.to_host(argmax), (5, 4)
    )
    for g, r in zip(got, want):
        assert np.linalg.norm(k.to_host(g) - r) <= 1e-5 * np.linalg.norm(r)


def list_parity(**options):
    x = (np.random.default_rng(0).random((1, 90, 60, 1)) < 0.3).astype(np.float32)
    k = emulator.backend(**options)
    assert np.array_equal(k.to_host(k.lit_pixels(k.asarray(x))), reference.lit_pixels(x))


def op_parity(name):
    """Return the parity of a row of the table of ops."""

    def parity(**options):
        kernels = emulator.backend(**options)
        for seed in range(5):
            check_parity(name, seed, [kernels])

    return parity


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
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_kernel_is_found(mutation):
    """In one order of threads at least; and the parity holds without the mutation."""
    file, old, new, parity = MUTATIONS[mutation]
    assert read(file).count(old) == 1, f"{file} has no longer what this mutation changes"
    for falling in (False, True):
        parity(falling=falling)
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

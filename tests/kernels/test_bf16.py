"""The forward pass of blocks in bf16 is that of float32 on rounded numbers."""

import numpy as np
import pytest

from helpers import small_model
from minicnn.kernels import get_backend
from minicnn.kernels.cpu import bf16
from minicnn.kernels.cpu.block import conv2d_block_bf16
from minicnn.kernels.cpu.emit import HAS_BF16
from minicnn.kernels.shapes import Block

needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor multiplies no bf16 numbers")


def rounded(a):
    """Return float32 a rounded to 8 bits of fraction, ties to even."""
    scale = np.exp2(np.floor(np.log2(np.maximum(np.abs(a), 1e-30))) - 7)
    return (np.rint(a.astype(np.float64) / scale) * scale).astype(np.float32)


def test_pairs_are_rounded():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2, 3, 4, 5)) * 10.0 ** rng.integers(-9, 9, 5)).astype(np.float32)
    x[0, 0, 0, :4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, np.inf, -0.0
    w = rng.standard_normal((1, 2, 5, 7)).astype(np.float32)
    pairs, weights = bf16.paired(x, w, None)
    assert pairs.shape == (2, 3, 4, 3) and weights.shape == (1, 2, 3, 7)
    halves = pairs.view(np.uint16).reshape(2, 3, 4, 6)
    numbers = (halves.astype(np.uint32) << 16).view(np.float32)
    x[0, 0, 0, 2] = 1
    want = rounded(x)
    want[0, 0, 0, 2] = np.inf
    assert (numbers[..., :5] == want).all() and (numbers[..., 5] == 0).all()
    assert tuple(numbers[0, 0, 0, :2]) == (1, 1 + 2.0**-6)  # ties to even
    low, high = (
        (weights.view(np.uint16)[..., i::2].astype(np.uint32) << 16).view(np.float32)
        for i in (0, 1)
    )
    w = rounded(w)
    assert (low == w[:, :, ::2]).all() and (high[:, :, :2] == w[:, :, 1::2]).all()
    x[0, 0, 0, 0] = np.nan
    assert np.isnan(
        (bf16.paired(x, w, None)[0].view(np.uint32)[0, 0, 0, :1] << 16).view(np.float32)
    )


@needs_bf16
@pytest.mark.parametrize("seed", range(12))
def test_block_is_that_of_rounded_numbers(seed):
    rng = np.random.default_rng(seed)
    n, ci, co = (
        int(rng.integers(1, 3)),
        int(rng.integers(2, 20)),
        16 * int(rng.integers(1, 6)) - int(rng.integers(4)),
    )
    kernel, pool = rng.integers(1, 6, 2), rng.integers(1, 4, 2)
    padding = ("same", "valid")[seed % 2]
    size = kernel + pool * rng.integers(1, 5, 2)
    x = rng.standard_normal((n, *size, ci)).astype(np.float32)
    w = rng.standard_normal((*kernel, ci, co)).astype(np.float32)
    b = rng.standard_normal(co).astype(np.float32)
    pool = tuple(map(int, pool))
    block = Block(pool, 1.0, padding)
    _, y, at = conv2d_block_bf16(x, w, b, block)
    arrays = (a.astype(np.float64) for a in (rounded(x), rounded(w), b))
    _, want, want_at = get_backend("reference").conv2d_block(*arrays, block)
    assert np.abs(y - want).max() < 2e-5 * np.abs(want).max()
    assert (at == want_at).mean() > 0.99  # ties aside
    plain = get_backend("cpu").conv2d_block(x, w, b, block).y
    assert 0 < np.abs(y - plain).max() < 3e-2 * np.abs(plain).max()
    assert np.linalg.norm(y - plain) < 5e-3 * np.linalg.norm(plain)


def test_a_processor_without_bf16_is_refused(monkeypatch):
    monkeypatch.setattr(bf16, "HAS_BF16", False)
    with pytest.raises(RuntimeError, match="AVX512-BF16"):
        small_model("cpu", precision="bf16")
    with pytest.raises(ValueError, match=r'"bf16" is for the CPU; this is reference'):
        small_model("reference", precision="bf16")

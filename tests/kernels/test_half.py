"""Numbers in 2 bytes: NumPy's float16, and float32 cut to its upper half."""

import numpy as np
import pytest

from minicnn.kernels.cpu.half import pack, unpack


def numbers(seed, size):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(size) * 10.0 ** rng.integers(-9, 4, size)
    a[: size // 4] = rng.integers(-4096, 4096, size // 4) / 2  # ties of both
    return a.astype(np.float32)


@pytest.mark.parametrize("size", [1, 17, 5000, 40_000])
@pytest.mark.parametrize("scale", [1.0, 2.0**-5, 2.0**12])
def test_half_precision_is_numpys(size, scale):
    a = np.clip(numbers(size, size), -60000 / scale, 60000 / scale)
    q = pack(a, "fp16", scale)
    want = (a * np.float32(scale)).astype(np.float16)
    assert q.dtype == np.uint16 and (q.view(np.float16) == want).all()
    near = want.astype(np.float32) * np.float32(1 / scale)
    assert (unpack(q, np.empty_like(a), "fp16", scale) == near).all()
    total = np.ones_like(a)
    assert (unpack(q, total, "fp16", scale, add=True) == near + 1).all()
    rest = a.copy()
    assert (pack(rest, "fp16", scale, keep=True) == q).all() and (rest == a - near).all()


@pytest.mark.parametrize("size", [1, 17, 40_000])
def test_bf16_is_the_nearest_upper_half(size):
    a = numbers(size, size)
    q = pack(a, "bf16")
    near = unpack(q, np.empty_like(a), "bf16")
    some = a[a != 0]
    for step in (-1, 1):  # no neighbour is closer
        upper = (some.view(np.uint32) >> 16).astype(np.int64) + step
        other = (upper << 16).astype(np.uint32).view(np.float32)
        assert (np.abs(near[a != 0] - some) <= np.abs(other - some)).all()
    assert (near.view(np.uint32) & 0xFFFF == 0).all()
    tie = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8], np.float32)
    assert unpack(pack(tie, "bf16"), np.empty_like(tie), "bf16").tolist() == [1, 1 + 2.0**-6]
    rest = a.reshape(1, -1).copy()
    assert (pack(rest, "bf16", keep=True)[0] == q).all() and (rest[0] == a - near).all()

"""Numbers in 2 bytes: NumPy's float16, and float32 cut to its upper half."""

import numpy as np
import pytest

from minicnn.kernels.cpu.half import add_up, unpack
from minicnn.kernels.cpu.half import pack as pack_into


def numbers(seed, size):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(size) * 10.0 ** rng.integers(-9, 4, size)
    a[: size // 4] = rng.integers(-4096, 4096, size // 4) / 2  # ties of both
    return a.astype(np.float32)


def pack(array, form, scale=1.0, keep=False):
    packed, largest = np.empty(array.shape, np.uint16), np.abs(array).max()
    assert pack_into(array, packed, form, scale, keep=keep) == largest
    return packed


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


@pytest.mark.parametrize("form", ["fp16", "bf16"])
@pytest.mark.parametrize("size", [1, 8191, 8193, 40_000])
def test_numbers_are_added_in_the_pass_that_packs(size, form):
    a, more = numbers(size, size + 3), numbers(size + 1, size)
    total = a.copy()
    total[:size] += more
    added, together = a.copy(), a.copy()
    assert add_up(added, more) == np.abs(total).max() and (added == total).all()
    q = np.empty(a.shape, np.uint16)
    assert pack_into(together, q, form, 0.5, add=more, keep=True) == np.abs(total).max()
    assert (q == pack(total, form, 0.5, keep=True)).all() and (together == total).all()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 8191, 8192, 9999])
def test_what_is_not_finite_shows_in_the_largest(bad, place):
    a = numbers(0, 10_000)
    a[place] = bad
    assert not np.isfinite(add_up(a.copy()))
    assert not np.isfinite(pack_into(a, np.empty(a.shape, np.uint16), "bf16", keep=True))

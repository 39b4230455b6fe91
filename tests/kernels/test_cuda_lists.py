"""Lists of positions in the cuda backend."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.cuda import close, emulated, fast, random, run
from minicnn.kernels import reference

pytestmark = emulated


@fast
@given(
    st.integers(1, 3),
    st.tuples(st.integers(6, 70), st.integers(6, 40)),
    st.sampled_from([0.0, 0.02, 0.5]),
    st.integers(0, 99),
)
def test_lists(channels, size, lit, seed):
    rng = np.random.default_rng(seed)
    x = (random(seed, 1, *size, channels) * (rng.random((1, *size, 1)) < lit)).astype(np.float32)
    pixels = run(lambda k, x: k.lit_pixels(x), x)
    want = reference.lit_pixels(x)
    assert np.array_equal(pixels, want) and pixels.dtype == np.int32
    assert run(lambda k, x: k.lit_pixels(x, 0.0, len(want) - 1) if len(want) else None, x) is None
    classes = rng.integers(0, 3, size[0]), rng.integers(0, 2, size[1])
    taken = run(lambda k, x, a: k.take_pixels(x, a), x, pixels)
    assert np.array_equal(taken, reference.take_pixels(x, pixels))
    put = run(lambda k, x, a, v: k.put_pixels(x, a, v), x.copy(), pixels, taken + 1)
    assert np.array_equal(put, reference.put_pixels(x.copy(), pixels, taken + 1))
    sums = run(lambda k, v, a, *cl: k.class_sums(v, a, cl, (3, 2)), taken, pixels, *classes)
    close(sums, reference.class_sums(taken, pixels, classes, (3, 2)), 1e-12, terms=1e-3)


def test_a_list_of_more_segments_than_one_scan_takes():
    x = np.zeros((1, 700, 450, 1), np.float32)
    x[0, ::70, ::9], x[0, 699, 449] = 1, 1
    assert np.array_equal(run(lambda k, x: k.lit_pixels(x), x), reference.lit_pixels(x))


def test_several_images_count_their_rows_on():
    """Positions of a batch: row r of image e is e * H + r."""
    n, h, w, c = 3, 14, 17, 2
    rng = np.random.default_rng(0)
    x = random(0, n, h, w, c) * (rng.random((n, h, w, 1)) < 0.05).astype(np.float32)
    each = [reference.lit_pixels(x[e : e + 1]) for e in range(n)]
    at = np.concatenate([a + (e * h, 0) for e, a in enumerate(each)]).astype(np.int32)
    assert all(map(len, each))
    assert np.array_equal(run(lambda k, x: k.lit_pixels(x), x), at)
    taken = run(lambda k, x, a: k.take_pixels(x, a), x, at)
    assert np.array_equal(taken, np.concatenate([x[e][tuple(a.T)] for e, a in enumerate(each)]))
    put = run(lambda k, x, a, v: k.put_pixels(x, a, v), np.zeros_like(x), at, taken)
    assert np.array_equal(put, x)
    classes = rng.integers(0, 3, h), rng.integers(0, 2, w)
    sums = run(lambda k, v, a, *cl: k.class_sums(v, a, cl, (3, 2)), taken, at, *classes)
    parts = zip(x, each)
    want = sum(reference.class_sums(v[tuple(a.T)], a, classes, (3, 2)) for v, a in parts)
    close(sums, want, 1e-12, terms=1e-3)

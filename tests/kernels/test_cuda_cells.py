"""Lists of cells and the block at listed cells in the cuda backend."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.cuda import BLOCKS, ON_GPU, block_case, close, emulated, fast, random, run, wide
from minicnn.kernels import reference

pytestmark = emulated


@fast
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 4),
    st.tuples(st.integers(6, 70), st.integers(6, 40)),
    st.sampled_from([0.0, 0.02, 0.5]),
    st.integers(0, 99),
)
def test_lists(channels, kernel, ph, pw, size, lit, seed):
    rng = np.random.default_rng(seed)
    x = (random(seed, 1, *size, channels) * (rng.random((1, *size, 1)) < lit)).astype(np.float32)
    pixels = run(lambda k, x: k.lit_pixels(x), x)
    want = reference.lit_pixels(x)
    assert np.array_equal(pixels, want) and pixels.dtype == np.int32
    assert run(lambda k, x: k.lit_pixels(x, 0.0, len(want) - 1) if len(want) else None, x) is None
    geometry = (kernel, kernel), (ph, pw), "same"
    cells = run(lambda k, a: k.active_cells(a, x.shape, *geometry), pixels)
    assert np.array_equal(cells, reference.active_cells(pixels, x.shape, *geometry))
    values, classes = (
        random(seed, 3, 2, channels),
        (rng.integers(0, 3, size[0]), rng.integers(0, 2, size[1])),
    )
    filled = run(
        lambda k, x, c, v, *cl: k.fill_windows(x, c, *geometry, v, cl),
        x.copy(),
        cells,
        values,
        *classes,
    )
    assert np.array_equal(
        filled, reference.fill_windows(x.copy(), cells, *geometry, values, classes)
    )
    taken = run(lambda k, x, a: k.take_pixels(x, a), x, pixels)
    assert np.array_equal(taken, reference.take_pixels(x, pixels))
    put = run(lambda k, x, a, v: k.put_pixels(x, a, v), x.copy(), pixels, taken + 1)
    assert np.array_equal(put, reference.put_pixels(x.copy(), pixels, taken + 1))
    sums = run(lambda k, v, a, *cl: k.class_sums(v, a, cl, (3, 2)), taken, pixels, *classes)
    close(sums, reference.class_sums(taken, pixels, classes, (3, 2)), 1e-12, terms=1e-3)
    windows = run(lambda k, x, c: k.cell_windows(x, c, *geometry), x, cells)
    assert np.array_equal(windows, reference.cell_windows(x, cells, *geometry))


def test_a_list_of_more_segments_than_one_scan_takes():
    x = np.zeros((1, 700, 450, 1), np.float32)
    x[0, ::70, ::9], x[0, 699, 449] = 1, 1
    assert np.array_equal(run(lambda k, x: k.lit_pixels(x), x), reference.lit_pixels(x))


pytestmark = pytest.mark.skipif(
    not ON_GPU and shutil.which("g++") is None,
    reason="the emulator needs g++, which is not on the PATH",
)


@pytest.mark.parametrize("case", [BLOCKS[0], BLOCKS[1], BLOCKS[4], BLOCKS[6]], ids=str)
@pytest.mark.parametrize("lit", [0.0, 0.01, 0.3])
def test_cells_are_those_of_the_block_and_their_gradients(case, lit):
    (x, w, b), pool, padding = block_case(1, *case[1:])
    rng = np.random.default_rng(5)
    x = x * (rng.random((*x.shape[:3], 1)) < lit).astype(np.float32)
    at = reference.lit_pixels(x)
    cells = reference.active_cells(at, x.shape, w.shape[:2], pool, padding)
    y, argmax = run(lambda k, *a: k.conv2d_block_cells(*a, pool, 1.0, padding), x, cells, w, b)
    whole = run(lambda k, *a: k.conv2d_block(*a, pool, 1.0, padding), x, w, b)
    for part, all_ in zip((y, argmax), whole):
        assert np.array_equal(part, all_[0, cells[:, 0], cells[:, 1]])
    classes = rng.integers(0, 3, x.shape[1]), rng.integers(0, 2, x.shape[2])
    for r, n in zip(classes, (3, 2)):
        r[:n] = range(n)
    dy = random(7, *y.shape)
    got = run(
        lambda k, *a: k.conv2d_block_cells_backward(*a[:7], pool, 1.0, padding, a[7:]),
        dy,
        cells,
        at,
        x,
        w,
        y,
        argmax,
        *classes,
    )
    want = reference.conv2d_block_cells_backward(
        *wide(dy), cells, at, *wide(x, w, y), argmax, pool, 1.0, padding, classes
    )
    terms = np.sqrt(max(len(cells), 1))
    for g, r in zip(got, want):
        close(g, r, 2e-6, terms=terms)
    assert got[1].dtype == np.float64
    one = run(
        lambda k, *a: k.conv2d_block_cells_backward(*a, pool, 1.0, padding),
        dy,
        cells,
        at,
        x,
        w,
        y,
        argmax,
    )
    close(one[1], want[1].sum((0, 1), keepdims=True), 2e-6, terms=terms)
    only = run(
        lambda k, *a: k.conv2d_block_cells_backward(*a, pool, 1.0, padding, need_dw=False),
        dy,
        cells,
        at,
        x,
        w,
        y,
        argmax,
    )
    assert (
        np.array_equal(only[0], one[0])
        and np.array_equal(only[1], one[1])
        and only[2:] == [None, None]
    )
    none = run(
        lambda k, dy, c, *a: k.conv2d_block_cells_backward(dy, c, None, *a, pool, 1.0, padding),
        dy,
        cells,
        x,
        w,
        y,
        argmax,
    )
    assert none[:2] == [None, None] and np.array_equal(none[2], one[2])


def test_several_images_count_their_rows_on():
    """Positions of a batch: row r of image e is e * H + r, as the cells' rows are e * OH + i."""
    n, h, w, ci, co, pool = 3, 14, 17, 2, 6, (4, 5)
    rng = np.random.default_rng(0)
    x, weights, b = (
        random(0, n, h, w, ci) * (rng.random((n, h, w, 1)) < 0.05),
        random(1, 5, 5, ci, co),
        random(2, co),
    )
    at = np.concatenate([reference.lit_pixels(x[e : e + 1]) + (e * h, 0) for e in range(n)]).astype(
        np.int32
    )
    each = [
        reference.active_cells(reference.lit_pixels(x[e : e + 1]), (1, h, w, ci), (5, 5), pool)
        for e in range(n)
    ]
    oh = h // pool[0]
    cells = np.concatenate([c + (e * oh, 0) for e, c in enumerate(each)]).astype(np.int32)
    assert np.array_equal(run(lambda k, x: k.lit_pixels(x), x), at)
    assert np.array_equal(run(lambda k, a: k.active_cells(a, x.shape, (5, 5), pool), at), cells)
    y, argmax = run(lambda k, *a: k.conv2d_block_cells(*a, pool), x, cells, weights, b)
    dy = random(3, *y.shape)
    dx_at, sums, dw, db = run(
        lambda k, *a: k.conv2d_block_cells_backward(*a, pool), dy, cells, at, x, weights, y, argmax
    )
    start, total = 0, [0, 0, 0]
    for e, c in enumerate(each):
        s, p = slice(start, start + len(c)), at[:, 0] // h == e
        start += len(c)
        want = reference.conv2d_block_cells_backward(
            *wide(dy[s]), c, at[p] - (e * h, 0), *wide(x[e : e + 1], weights, y[s]), argmax[s], pool
        )
        assert np.array_equal(
            y[s], run(lambda k, *a: k.conv2d_block_cells(*a, pool), x[e : e + 1], c, weights, b)[0]
        )
        close(dx_at[p], want[0])
        total = [t + a for t, a in zip(total, want[1:])]
    for g, r in zip((sums, dw, db), total):
        close(g, r)

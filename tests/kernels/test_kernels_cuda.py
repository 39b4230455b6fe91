"""What the cuda backend promises beyond parity with the reference (test_ops.py): the fused block
and its lists, tiles, tensor cores, errors; on the emulator in both orders of threads or, with
MINICNN_TEST_DEVICE=cuda (``make gpu-check``), on a GPU.
"""

import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnn.kernels import get_backend, reference
from minicnn.kernels.cuda import block, emulator
from minicnn.kernels.workspace import Workspace

ON_GPU = os.environ.get("MINICNN_TEST_DEVICE") == "cuda"
pytestmark = pytest.mark.skipif(
    not ON_GPU and shutil.which("g++") is None,
    reason="the emulator needs g++, which is not on the PATH",
)
fast = settings(deadline=None, max_examples=20, derandomize=True)

SUM = 3e-6  # relative, in norm: float32 sums of up to some 1000 products, against float64
POINT = 3e-7  # elementwise ops: a few roundings


def backends():
    """Return the backends under test: a GPU, or the emulator with threads in rising order and the
    tile for many cells, and with threads in falling order and the tile for few.
    """
    return (
        [get_backend("cuda")]
        if ON_GPU
        else [emulator.backend(falling=f, multiprocessors=1000 * f) for f in (False, True)]
    )


def random(seed, *shape, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def wide(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def close(got, want, tolerance=SUM, terms=0.0):
    """The difference is small against ``want`` or, where sums cancel, against sqrt(size) times
    their ``terms``.
    """
    got = np.asarray(got)
    assert got.shape == want.shape and not np.isnan(got).any()
    scale = max(np.linalg.norm(want), terms * np.sqrt(want.size), 1e-30)
    assert np.linalg.norm(got - want) <= tolerance * scale, np.linalg.norm(got - want) / scale


def run(call, *arrays):
    """Return the results of ``call(k, *device arrays)`` on the host, the same bits from all
    backends under test.
    """
    results = []
    for k in backends():
        out = call(k, *(k.asarray(a) if isinstance(a, np.ndarray) else a for a in arrays))
        results.append(
            [
                None if a is None else k.to_host(a)
                for a in (out if isinstance(out, tuple) else (out,))
            ]
        )
    for other in results[1:]:
        assert all(
            a is b is None or a.tobytes() == b.tobytes() for a, b in zip(results[0], other)
        ), "the order of threads shows"
    return results[0] if len(results[0]) > 1 else results[0][0]


# --------------------------------------------------------------------------------------- simple ops
@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
def test_activations(alpha):
    x = (
        np.concatenate([np.linspace(-120, 5, 4001), -np.logspace(-37, 0, 99), [0.0]])
        .astype(np.float32)
        .reshape(1, -1)
    )
    y, exact = run(lambda k, x: k.elu(x, alpha), x), reference.elu(x.astype(float), alpha)
    assert np.all(np.abs(y - exact) <= 2.5 * np.spacing(np.abs(exact).astype(np.float32)))
    dy = random(1, *x.shape)
    close(
        run(lambda k, dy, y: k.elu_backward(dy, y, alpha), dy, y),
        reference.elu_backward(*wide(dy, y), alpha),
        POINT,
    )
    y = run(lambda k, x: k.relu(x), x)
    assert np.array_equal(y, reference.relu(x))
    assert np.array_equal(
        run(lambda k, dy, y: k.relu_backward(dy, y), dy, y), reference.relu_backward(dy, y)
    )
    keep = (random(2, *x.shape) > 0).astype(np.uint8)
    close(
        run(lambda k, x, keep: k.dropout(x, keep, 0.3), x, keep),
        reference.dropout(x.astype(float), keep, 0.3),
        POINT,
    )


# -------------------------------------------------------------------------------------- convolution


# (images, H, W, C_in, C_out, kernel, pool, padding): the talk's four blocks, small; odd sizes; what
# a tile does not divide; extremes
BLOCKS = [
    (2, 33, 29, 1, 10, (5, 5), (5, 5), "same"),
    (2, 23, 26, 10, 64, (5, 5), (5, 5), "same"),
    (1, 12, 11, 64, 128, (5, 5), (5, 5), "same"),
    (1, 10, 11, 128, 256, (5, 5), (5, 5), "same"),
    (1, 13, 17, 3, 7, (4, 3), (2, 3), "same"),
    (3, 13, 17, 8, 33, (1, 5), (3, 1), "same"),
    (1, 19, 18, 4, 130, (3, 3), (6, 7), "valid"),
    (1, 9, 40, 2, 3, (3, 3), (1, 32), "same"),
    (1, 33, 34, 1, 1, (3, 3), (16, 16), "same"),
    (1, 7, 9, 5, 300, (2, 2), (1, 1), "valid"),
]


def block_case(n, h, w, ci, co, kernel, pool, padding):
    return (
        (
            random(0, n, h, w, ci),
            random(1, *kernel, ci, co, scale=(kernel[0] * kernel[1] * ci) ** -0.5),
            random(2, co),
        ),
        pool,
        padding,
    )


@pytest.mark.parametrize("case", BLOCKS, ids=str)
def test_block_is_the_three_ops_and_its_gradients(case):
    (x, w, b), pool, padding = block_case(*case)
    alpha = 0.5 if case[4] == 7 else 1.0
    y, argmax = run(lambda k, *a: k.conv2d_block(*a, pool, alpha, padding), x, w, b)
    z, y3, argmax3 = run(
        lambda k, *a: (z := k.conv2d(*a, 1, padding), *k.maxpool2d(k.elu(z, alpha), pool)), x, w, b
    )
    assert np.array_equal(y, y3) and argmax.dtype == np.uint8
    close(z, reference.conv2d(*wide(x, w, b), 1, padding))
    windows = np.lib.stride_tricks.sliding_window_view(z, pool, (1, 2))[
        :, :: pool[0], :: pool[1]
    ].reshape(*y.shape, -1)
    two = np.sort(windows, -1)[..., -2:]
    apart = two[..., -1] - two[..., 0] > 1e-5 if two.shape[-1] > 1 else np.ones(y.shape, bool)
    assert np.array_equal(argmax[apart], argmax3[apart])
    dy = random(3, *y.shape)
    got = run(lambda k, *a: k.conv2d_block_backward(*a, pool, alpha, padding), dy, x, w, y, argmax)
    terms = np.sqrt(dy.size / case[4])
    for g, r, t in zip(
        got,
        reference.conv2d_block_backward(*wide(dy, x, w, y), argmax, pool, alpha, padding),
        (0, terms, terms),
    ):
        close(g, r, 2e-6, terms=t)


@pytest.mark.parametrize(
    "case", [BLOCKS[1], BLOCKS[5], (1, 13, 17, 9, 20, (3, 2), (2, 4), "valid")], ids=str
)
def test_tensor_cores(case):
    """TF32: the block of inputs and weights rounded to 10 bits of mantissa, to float32; so 3e-4 off
    in norm; the same for listed cells.
    """
    if not backends()[0].runtime.has_tf32:
        pytest.skip("this GPU has no TF32")
    (x, w, b), pool, padding = block_case(*case)
    y, argmax = run(lambda k, *a: k.in_tf32().conv2d_block(*a, pool, 1.0, padding), x, w, b)
    exact, rounded = (
        reference.conv2d_block(*wide(*arrays, b), pool, 1.0, padding)
        for arrays in (
            (x, w),
            (
                (a.view(np.uint32) + 0x1000 & 0xFFFFE000).astype(np.uint32).view(np.float32)
                for a in (x, w)
            ),
        )
    )
    close(
        y, rounded[0], 2e-5 if ON_GPU else SUM
    )  # a tensor core cuts sums off where the emulator rounds them
    close(y, exact[0], 3e-4)
    assert (
        1e-5 < np.linalg.norm(y - exact[0]) / np.linalg.norm(exact[0])
        and (argmax == rounded[1]).mean() > 0.999
    )
    rng = np.random.default_rng(0)
    cells = np.argwhere(rng.random(y.shape[1:3]) < 0.4).astype(np.int32)
    some = run(
        lambda k, *a: k.in_tf32().conv2d_block_cells(*a, pool, 1.0, padding), x[:1], cells, w, b
    )
    for part, whole in zip(some, (y, argmax)):
        assert np.array_equal(part, whole[0, cells[:, 0], cells[:, 1]])


def test_gradients_are_added_and_dx_is_optional():
    (x, w, b), pool, _ = block_case(*BLOCKS[4])
    y, argmax = run(lambda k, *a: k.conv2d_block(*a, pool), x, w, b)

    def twice(k, x, w, y, argmax):
        dw, db = k.zeros(w.shape), k.zeros(w.shape[3:])
        for _ in range(2):
            dx, dw2, db2 = k.conv2d_block_backward(
                y, x, w, y, argmax, pool, need_dx=False, dw=dw, db=db
            )
            assert dx is None and dw2 is dw and db2 is db
        return dw, db

    for g, r in zip(
        run(twice, x, w, y, argmax),
        reference.conv2d_block_backward(*wide(y, x, w, y), argmax, pool)[1:],
    ):
        close(g, 2 * r)


@pytest.mark.parametrize("case", [BLOCKS[0], BLOCKS[1], BLOCKS[6]], ids=str)
def test_bits_do_not_depend_on_the_tile(case):
    """Few cells are spread over more threads than many, and a small shared memory takes fewer
    windows at a time.
    """
    (x, w, b), pool, padding = block_case(*case)
    if ON_GPU:
        pytest.skip("a GPU has one shared memory")
    results, tiles = [], set()
    for options in ({"multiprocessors": 0}, {"multiprocessors": 1000}, {"shared_memory": 14 << 10}):
        k = emulator.backend(**options)
        results.append(
            [k.to_host(a) for a in k.conv2d_block(*map(k.asarray, (x, w, b)), pool, 1.0, padding)]
        )
        tiles.add(
            str(block.tile(k, w.shape[:2], pool, *w.shape[2:], results[-1][0].size // w.shape[3]))
        )
    assert (
        all(np.array_equal(a, c) for r in results[1:] for a, c in zip(results[0], r))
        and len(tiles) >= 2
    )


def test_windows_too_large_for_shared_memory():
    (x, w, b), pool, _ = block_case(*BLOCKS[1])
    if ON_GPU:
        pytest.skip("needs a small shared memory")
    small, large = emulator.backend(shared_memory=4 << 10), emulator.backend()
    results = []
    for k in (small, large):
        d = [k.asarray(a) for a in (x, w, b)]
        y, argmax = k.conv2d_block(*d, pool)
        results.append(
            [k.to_host(a) for a in (y, *k.conv2d_block_backward(y, *d[:2], y, argmax, pool))]
        )
    assert np.array_equal(results[0][0], results[1][0])
    for g, r in zip(*results):
        close(g, r)
    with pytest.raises(ValueError, match="9 x 9 x 10 floats, does not fit into the shared memory"):
        small.conv2d_block_cells(
            *(small.asarray(a) for a in (x[:1], np.zeros((1, 2), np.int32), w, b)), pool
        )


def test_first_of_equal_maxima_wins():
    x, w = np.ones((1, 12, 12, 1), np.float32), random(1, 1, 1, 1, 5)
    assert not run(lambda k, *a: k.conv2d_block(*a, 3), x, w, random(2, 5))[1].any()
    assert not run(lambda k, x: k.maxpool2d(x, 3), x)[1].any()


def test_work_changes_nothing_and_weights_expire():
    works = [Workspace() for _ in backends()]
    for seed, size in ((0, 21), (1, 21), (2, 30)):
        x, w, b = (
            random(seed, 1, size, size, 3),
            random(seed + 9, 5, 5, 3, 23),
            random(seed + 5, 23),
        )
        for k, work in zip(backends(), works):
            work.expire()
            results = []
            for keep in (None, work, work):
                d = [k.asarray(a) for a in (x, w, b)]
                y, argmax = k.conv2d_block(*d, 4, work=keep)
                results.append(
                    [
                        k.to_host(a)
                        for a in (
                            y,
                            argmax,
                            *k.conv2d_block_backward(y, *d[:2], y, argmax, 4, work=keep),
                        )
                    ]
                )
            assert all(np.array_equal(a, c) for r in results[1:] for a, c in zip(results[0], r))


# --------------------------------------------------------------------------------- zero suppression
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


# ---------------------------------------------------------------------------------------- arguments
def test_errors_name_the_op_and_what_it_got():
    k = backends()[0]
    x, w, b = (k.asarray(a) for a in (random(0, 1, 8, 8, 2), random(1, 3, 3, 2, 4), random(2, 4)))
    with pytest.raises(TypeError, match=r"conv2d .*x is float64 array on the device"):
        k.conv2d(x.astype("f8"), w, b)
    with pytest.raises(TypeError, match=r"elu .*x is float32 array on the host"):
        k.elu(random(0, 3))
    with pytest.raises(TypeError, match=r"elu .*x is list"):
        k.elu([1.0])
    with pytest.raises(ValueError, match=r"conv2d_block needs b of shape \(4,\), got \(3,\)"):
        k.conv2d_block(x, w, b[:3], 2)
    with pytest.raises(ValueError, match="at most 256 per window, got 17 x 16"):
        k.conv2d_block(k.zeros((1, 20, 20, 2)), w, b, (17, 16))
    with pytest.raises(ValueError, match="alpha >= 0, got -1"):
        k.conv2d_block(x, w, b, 2, -1)
    with pytest.raises(
        ValueError, match=r"conv2d_backward needs dy of shape \(1, 8, 8, 4\), got \(1, 8, 8, 3\)"
    ):
        k.conv2d_backward(k.zeros((1, 8, 8, 3)), x, w)
    with pytest.raises(TypeError, match="adds to a float32 array on the device, but dw is float64"):
        k.conv2d_backward(k.zeros((1, 8, 8, 4)), x, w, dw=k.zeros(w.shape, "f8"))

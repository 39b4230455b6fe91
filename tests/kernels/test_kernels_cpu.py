"""What the cpu backend promises beyond parity with the reference (test_ops.py): bits that follow
neither tiles nor threads, digits of activations, errors, compiled functions on disk.
"""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnn.kernels import cpu, reference
from minicnn.kernels.arguments import AdamStep, Pooled, SGDStep, Wanted
from minicnn.kernels.cpu import block, pack
from minicnn.kernels.jit import Threaded
from minicnn.kernels.shapes import Block, Geometry
from minicnn.kernels.workspace import Workspace

SUM = 3e-6  # relative, in norm: float32 sums of up to some 1000 products, against float64
POINT = 3e-7  # elementwise ops: a few roundings


def random(seed, *shape, scale=1.0):
    """A read-only float32 array: a kernel that writes into its input fails."""
    a = (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
    a.flags.writeable = False
    return a


def wide(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def close(got, want, tolerance=SUM, terms=None):
    """Equal shape and float32; the difference is small against ``want`` or, where sums cancel,
    against their ``terms``.
    """
    assert got.shape == want.shape and got.dtype == np.float32
    scale = max(np.linalg.norm(want), np.linalg.norm(terms) if terms is not None else 0, 1e-30)
    assert np.linalg.norm(got - want) <= tolerance * scale


# --------------------------------------------------------------------------- shapes of convolutions
@st.composite
def pooled_convolutions(draw):
    n, h, w = draw(st.integers(1, 3)), draw(st.integers(1, 23)), draw(st.integers(1, 23))
    kernel = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    channels = st.one_of(st.integers(1, 12), st.sampled_from([16, 17, 33, 64, 70]))
    ci, co = draw(channels), draw(channels)
    padding = "same" if h < kernel[0] or w < kernel[1] else draw(st.sampled_from(["same", "valid"]))
    oh, ow, _ = Geometry(1, padding).output((n, h, w, ci), (*kernel, ci, co))[1:]
    pool = draw(st.integers(1, min(7, oh))), draw(st.integers(1, min(7, ow)))
    seed = draw(st.integers(0, 999))
    arrays = (
        random(seed, n, h, w, ci),
        random(seed + 1, *kernel, ci, co, scale=(kernel[0] * kernel[1] * ci) ** -0.5),
        random(seed + 2, co),
    )
    return (*arrays, pool, padding, seed)


def largest_two(z, pool):
    windows = np.lib.stride_tricks.sliding_window_view(z, pool, (1, 2))[:, :: pool[0], :: pool[1]]
    two = np.sort(windows.reshape(*windows.shape[:4], -1), -1)
    return two[..., -1] - two[..., -2] if two.shape[-1] > 1 else np.full(two.shape[:-1], np.inf)


def in_float64(dy, pooled, w, block):
    """Return the reference's gradients of a block, at the maxima of ``pooled``."""
    x, y, argmax = pooled
    dy, x, y, w = wide(dy, x, y, w)
    return reference.conv2d_block_backward(dy, Pooled(x, y, argmax), w, block)


@given(pooled_convolutions(), st.sampled_from([1.0, 0.5, 0.0]))
def test_block_is_the_three_ops_bit_for_bit(case, alpha):
    x, w, b, pool, padding, seed = case
    z = cpu.conv2d(x, w, b, Geometry(1, padding))
    y3, argmax3 = cpu.maxpool2d(cpu.elu(z, alpha), pool)
    block = Block(pool, alpha, padding)
    _, y, argmax = pooled = cpu.conv2d_block(x, w, b, block)
    assert np.array_equal(y, y3) and argmax.dtype == np.uint8
    apart = (largest_two(z, pool) > 1e-5) & (
        y > 0 if alpha == 0 else largest_two(cpu.elu(z, alpha), pool) > 1e-5
    )
    assert np.array_equal(argmax[apart], argmax3[apart])
    dy = random(seed + 3, *y.shape)
    dx, dw, db = cpu.conv2d_block_backward(dy, pooled, w, block)
    dx_ref, dw_ref, db_ref = in_float64(dy, pooled, w, block)
    terms = np.sqrt(dy.size / w.shape[3])
    close(dx, dx_ref)
    close(dw, dw_ref, terms=terms * np.ones(w.size))
    close(db, db_ref, terms=terms * np.ones(db.size))
    assert cpu.conv2d_block_backward(dy, pooled, w, block, Wanted(dx=False))[0] is None


@pytest.mark.parametrize("size, ci, co", [(95, 1, 10), (47, 10, 64), (31, 64, 48), (26, 3, 20)])
def test_block_gradients_against_float64(size, ci, co):
    """To 2e-6 where the float64 backward uses the saved argmax, which is that of the float64
    maximum up to 1e-5.
    """
    x, w, b = (
        random(0, 2, size, size, ci),
        random(1, 5, 5, ci, co, scale=(25 * ci) ** -0.5),
        random(2, co, scale=0.1),
    )
    block = Block(5)
    _, y, argmax = pooled = cpu.conv2d_block(x, w, b, block)
    z = reference.elu(reference.conv2d(*wide(x, w, b)))
    windows = np.lib.stride_tricks.sliding_window_view(z, (5, 5), (1, 2))[:, ::5, ::5]
    saved = np.take_along_axis(windows.reshape(*y.shape, 25), argmax[..., None], -1)[..., 0]
    assert np.all(windows.max((-1, -2)) - saved <= 1e-5 * np.abs(saved))
    dy = random(3, *y.shape)
    got = cpu.conv2d_block_backward(dy, pooled, w, block)
    for g, r in zip(got, in_float64(dy, pooled._replace(y=saved), w, block)):
        close(g, r, 2e-6)


def test_block_of_wide_and_of_one_row_pools():
    x, w, b = random(0, 1, 18, 34, 2), random(1, 3, 3, 2, 16), random(2, 16)
    for pool in ((16, 16), (1, 32), (18, 1), (1, 1)):
        block = Block(pool)
        _, y, _ = pooled = cpu.conv2d_block(x, w, b, block)
        assert np.array_equal(y, cpu.maxpool2d(cpu.elu(cpu.conv2d(x, w, b)), pool)[0])
        got = cpu.conv2d_block_backward(y, pooled, w, block)
        for g, r in zip(got, in_float64(y, pooled, w, block)):
            close(g, r)


def test_first_of_equal_maxima_wins():
    x, w, b = np.ones((1, 12, 12, 1), np.float32), random(1, 1, 1, 1, 5), random(2, 5)
    block, more = Block(3), (random(3, 1, 1, 1, 16), random(4, 16))
    assert not cpu.conv2d_block(x, w, b, block).argmax.any() and not cpu.maxpool2d(x, 3)[1].any()
    assert not cpu.conv2d_block(x, *more, block).argmax.any()


# -------------------------------------------------------------------------------------- determinism
def test_lanes_of_cells_and_of_channels_agree(monkeypatch):
    x, w, b = random(0, 2, 33, 47, 3), random(1, 5, 5, 3, 10), random(2, 10)
    results = []
    for few in (True, False):
        monkeypatch.setattr(block, "few_channels", lambda co, few=few: few)
        results.append(cpu.conv2d_block(x, w, b, Block(5)))
    assert all(np.array_equal(*each) for each in zip(*results))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
@pytest.mark.parametrize("size, ci, co", [(120, 1, 10), (62, 10, 64), (28, 24, 70)])
def test_bits_do_not_depend_on_the_number_of_threads(size, ci, co):
    x, w, b = random(0, 1, size, size, ci), random(1, 5, 5, ci, co), random(2, co)
    results = []
    for threads in (1, 2):
        cpu.set_threads(threads)
        _, y, argmax = pooled = cpu.conv2d_block(x, w, b, Block(5))
        z = cpu.conv2d(x, w, b)
        flat = y.reshape(1, -1)
        results.append(
            [
                y,
                argmax,
                z,
                *cpu.conv2d_block_backward(y, pooled, w, Block(5)),
                *cpu.conv2d_backward(z, x, w),
                cpu.dense(flat, random(5, flat.size, 7), random(6, 7)),
            ]
        )
    cpu.set_threads(numba.config.NUMBA_NUM_THREADS)
    assert all(a.tobytes() == c.tobytes() for a, c in zip(*results))


def test_small_arrays_start_no_threads(monkeypatch):
    """One chunk of numbers is one task: all threads would have to get a core before it is done."""
    started = []

    def call(self, tasks, *arguments):
        started.append((self.__name__, tasks))
        return self.serial(*arguments)

    monkeypatch.setattr(Threaded, "__call__", call)
    for side in (80, 400):
        x = random(0, 1, side, side, 1)
        for y in (cpu.elu(x), cpu.relu(x), cpu.activation(x, "leaky_relu", 0.1)):
            cpu.elu_backward(x, y)
        if side == 80:
            assert started and all(tasks <= 1 for _, tasks in started)
    assert started[-1][1] > 1


# ---------------------------------------------------------------------------------------- other ops


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
def test_activations(alpha):
    x = (
        np.concatenate([np.linspace(-120, 5, 40001), -np.logspace(-38, 0, 999), [0.0]])
        .astype(np.float32)
        .reshape(1, -1)
    )
    y, exact = cpu.elu(x, alpha), reference.elu(x.astype(float), alpha)
    assert np.all(np.abs(y - exact) <= 2.5 * np.spacing(np.abs(exact).astype(np.float32)))
    dy = random(1, *x.shape)
    close(cpu.elu_backward(dy, y, alpha), reference.elu_backward(*wide(dy, y), alpha), POINT)
    assert np.array_equal(cpu.relu(x), reference.relu(x))
    assert np.array_equal(
        cpu.relu_backward(dy, cpu.relu(x)), reference.relu_backward(dy, cpu.relu(x))
    )
    keep = (random(2, *x.shape) > 0).astype(np.float32)
    close(cpu.dropout(x, keep, 0.3), reference.dropout(x.astype(float), keep, 0.3), POINT)


def test_updates_write_nothing_before_all_is_checked():
    w, dw, v, new = (random(s, 9) for s in range(4))
    before = new.copy()
    with pytest.raises(
        TypeError, match="sgd on the cpu backend writes to contiguous float32 vectors, got float64"
    ):
        cpu.sgd(w, dw, v, SGDStep(0.1), out=(new, np.zeros(9)))
    with pytest.raises(TypeError, match="dw is float64"):
        cpu.sgd(w, dw.astype(float), v, SGDStep(0.1), out=(new, v))
    with pytest.raises(ValueError, match=r"sgd needs velocity of shape \(9,\), got \(8,\)"):
        cpu.sgd(w, dw, v[:8], SGDStep(0.1), out=(new, v))
    assert np.array_equal(new, before)


# ---------------------------------------------------------------------------------------- arguments


def test_a_workspace_changes_nothing_and_weights_expire():
    workspace, block = Workspace(), Block(4)
    for seed, size in ((0, 21), (1, 21), (2, 30)):
        x, w, b = (
            random(seed, 1, size, size, 3),
            random(seed + 9, 5, 5, 3, 24),
            random(seed + 5, 24),
        )
        workspace.expire()
        for keep in (None, workspace, workspace):
            z = cpu.conv2d(x, w, b, workspace=keep)
            pooled = Pooled(*(a.copy() for a in cpu.conv2d_block(x, w, b, block, keep)))
            dx, dw, db = cpu.conv2d_block_backward(pooled.y, pooled, w, block, workspace=keep)
            result = [z, *pooled, dx.copy(), dw, db]
            result += cpu.conv2d_backward(z, x, w, workspace=keep)
            if keep is None:
                first = result
            assert all(np.array_equal(a, c) for a, c in zip(result, first))


def test_errors_name_the_op_and_what_it_got():
    x, w, b = random(0, 1, 8, 8, 2), random(1, 3, 3, 2, 4), random(2, 4)
    with pytest.raises(TypeError, match=r"conv2d .*x is float64"):
        cpu.conv2d(x.astype(float), w, b)
    with pytest.raises(TypeError, match=r"elu .*x is list"):
        cpu.elu([1.0])
    with pytest.raises(ValueError, match=r"conv2d_block needs b of shape \(4,\), got \(3,\)"):
        cpu.conv2d_block(x, w, b[:3], Block(2))
    with pytest.raises(ValueError, match="at most 256 per window, got 17 x 16"):
        Block((17, 16))
    with pytest.raises(ValueError, match="alpha >= 0, got -1"):
        Block(2, -1)
    with pytest.raises(ValueError, match=r"stride must be .* positive integers, got \(1, 0\)"):
        Geometry((1, 0))
    with pytest.raises(ValueError, match=r"conv2d_transpose knows no dilation, got \(2, 2\)"):
        cpu.conv2d_transpose(random(0, 1, 8, 8, 4), w, b[:2], Geometry(dilation=2))
    with pytest.raises(ValueError, match="conv2d_backward has gradients of 2 parameters, got 1"):
        cpu.conv2d_backward(random(0, 1, 8, 8, 4), x, w, wanted=Wanted(into=(w,)))
    with pytest.raises(
        ValueError, match=r"conv2d_backward needs dy of shape \(1, 8, 8, 4\), got \(1, 8, 8, 3\)"
    ):
        cpu.conv2d_backward(random(0, 1, 8, 8, 3), x, w)
    with pytest.raises(TypeError, match="adds to a float32 array, but dw is float64"):
        wanted = Wanted(into=(np.zeros(w.shape), None))
        cpu.conv2d_backward(random(0, 1, 8, 8, 4), x, w, wanted=wanted)
    with pytest.raises(ValueError, match="labels from 0 to 3, got 2 to 4"):
        cpu.softmax_cross_entropy(random(0, 2, 4), np.array([2, 4]))
    with pytest.raises(ValueError, match=f"from 1 to {numba.config.NUMBA_NUM_THREADS} .*got 4096"):
        cpu.set_threads(4096)


def test_put_pixels_outside_the_image_is_an_error():
    x = np.zeros((1, 9, 12, 3), np.float32)
    for outside in ((0, -1), (x.shape[1], 0), (0, x.shape[2])):
        with pytest.raises(IndexError, match="outside"):
            cpu.put_pixels(x.copy(), np.array([outside]), random(0, 1, 3))


@pytest.mark.parametrize("size", [0, 1, 8191, 8193, 50_001])
def test_finite_sees_every_place(size):
    a = np.array(random(0, size))
    a[:1] = np.finfo(np.float32).max
    assert cpu.finite(a) and reference.finite(a)
    for place in {size // 2, size - 1} if size else ():
        for value in (np.nan, np.inf, -np.inf):
            bad = a.copy()
            bad[place] = value
            assert not cpu.finite(bad) and not reference.finite(bad)


def test_updates_in_place():
    w, dw, m, v = (np.abs(random(s, 20001)) for s in range(4))
    for call, state in (
        (lambda w, m, v, **out: cpu.sgd(w, dw, m, SGDStep(0.1, 0.9), **out), (m,)),
        (lambda w, m, v, **out: cpu.adam(w, dw, m, v, AdamStep(3, 0.1), **out), (m, v)),
    ):
        want = call(w, m, v)
        w2, m2, v2 = w.copy(), m.copy(), v.copy()
        got = call(w2, m2, v2, out=(w2, m2, v2)[: 1 + len(state)])
        assert got[0] is w2
        assert all(np.array_equal(g, r) for g, r in zip(got, want))


def test_moments_far_from_zero():
    """A mean of 10,000 deviations costs no digits."""
    x = random(0, 3, 70, 40, 5) + np.float32(10_000)
    mean, variance, _ = cpu.channel_moments(x)
    wide_x = x.astype(float)
    assert np.allclose(mean, wide_x.mean((0, 1, 2)), rtol=1e-14)
    assert np.allclose(variance, wide_x.var((0, 1, 2)), rtol=1e-11)


@pytest.mark.parametrize("function", cpu.activation.__globals__["ACTIVATIONS"])
def test_activations_far_from_zero(function):
    """Nothing overflows, and what is near 0 keeps its digits."""
    x = np.concatenate([np.linspace(-200, 200, 40001), [-1e30, 1e30, 0, -1e-20, 1e-20]])
    x = x.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        y = cpu.activation(x, function, 0.1)
        exact = reference.activation(x.astype(float), function, 0.1)
        slope = cpu.activation_backward(np.ones_like(x), x, y, function, 0.1)
        exact_slope = reference.activation_backward(
            np.ones(x.size), x.astype(float), exact, function, 0.1
        )
    assert np.allclose(y, exact, rtol=2e-6, atol=1e-13)
    assert np.allclose(slope, exact_slope, rtol=3e-6, atol=3e-7)
    with pytest.raises(ValueError, match=r"activation knows leaky_relu, gelu, .*, got 'swash'"):
        cpu.activation(x, "swash")


def test_split_and_pack():
    assert [list(pack.split(n, 6)) for n in (1, 5, 6, 7, 13)] == [[1], [5], [6], [4, 3], [5, 4, 4]]
    w = random(0, 2, 2, 3, 7)
    packed = pack.pack(w, 2, (1, 2))
    assert list(packed.width) == [4, 4] and packed.w.ctypes.data % 64 == 0
    assert np.array_equal(packed.w.reshape(2, 12, 4)[1, :, :3], w.reshape(12, 7)[:, 4:])

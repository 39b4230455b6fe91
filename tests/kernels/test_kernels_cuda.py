"""What the cuda backend promises beyond parity with the reference (test_ops.py): the fused
block, tiles, tensor cores, errors; on the emulator in both orders of threads or, with
MINICNN_TEST_DEVICE=cuda (``make gpu-check``), on a GPU.
"""

import shutil

import numpy as np
import pytest

from helpers.cuda import BLOCKS, ON_GPU, POINT, SUM, backends, block_case, close, random, run, wide
from minicnn.kernels import reference
from minicnn.kernels.cuda import block, emulator
from minicnn.kernels.workspace import Workspace

pytestmark = pytest.mark.skipif(
    not ON_GPU and shutil.which("g++") is None,
    reason="the emulator needs g++, which is not on the PATH",
)


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
    in norm.
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

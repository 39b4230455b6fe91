"""What the cuda backend promises beyond parity with the reference (test_ops.py): the fused
block, tiles, tensor cores, errors; on the emulator in both orders of threads or, with
MINICNN_TEST_DEVICE=cuda (``make gpu-check``), on a GPU.
"""

import shutil

import numpy as np
import pytest

from helpers.cuda import BLOCKS, ON_GPU, POINT, SUM, backends, block_case, close, random, run, wide
from minicnn.kernels import reference
from minicnn.kernels.arguments import Pooled, Wanted
from minicnn.kernels.cuda import block, emulator
from minicnn.kernels.shapes import Block, Geometry
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


def in_float64(dy, x, w, y, argmax, settings):
    """Return the reference's gradients of a block."""
    dy, x, w, y = wide(dy, x, w, y)
    return reference.conv2d_block_backward(dy, Pooled(x, y, argmax), w, settings)


@pytest.mark.parametrize("case", BLOCKS, ids=str)
def test_block_is_the_three_ops_and_its_gradients(case):
    (x, w, b), pool, padding = block_case(*case)
    alpha = 0.5 if case[4] == 7 else 1.0
    settings, geometry = Block(pool, alpha, padding), Geometry(1, padding)
    _, y, argmax = run(lambda k, *a: k.conv2d_block(*a, settings), x, w, b)
    z, y3, argmax3 = run(
        lambda k, *a: (z := k.conv2d(*a, geometry), *k.maxpool2d(k.elu(z, alpha), pool)), x, w, b
    )
    assert np.array_equal(y, y3) and argmax.dtype == np.uint8
    close(z, reference.conv2d(*wide(x, w, b), geometry))
    windows = np.lib.stride_tricks.sliding_window_view(z, pool, (1, 2))[
        :, :: pool[0], :: pool[1]
    ].reshape(*y.shape, -1)
    two = np.sort(windows, -1)[..., -2:]
    apart = two[..., -1] - two[..., 0] > 1e-5 if two.shape[-1] > 1 else np.ones(y.shape, bool)
    assert np.array_equal(argmax[apart], argmax3[apart])
    dy = random(3, *y.shape)
    got = run(
        lambda k, dy, w, *pooled: k.conv2d_block_backward(dy, Pooled(*pooled), w, settings),
        *(dy, w, x, y, argmax),
    )
    terms = np.sqrt(dy.size / case[4])
    for g, r, t in zip(got, in_float64(dy, x, w, y, argmax, settings), (0, terms, terms)):
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
    settings = Block(pool, 1.0, padding)
    _, y, argmax = run(lambda k, *a: k.in_tf32().conv2d_block(*a, settings), x, w, b)
    exact, rounded = (
        reference.conv2d_block(*wide(*arrays, b), settings)[1:]
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
    settings = Block(pool)
    _, y, argmax = run(lambda k, *a: k.conv2d_block(*a, settings), x, w, b)

    def twice(k, w, *pooled):
        into = k.zeros(w.shape), k.zeros(w.shape[3:])
        for _ in range(2):
            dx, *gradients = k.conv2d_block_backward(
                pooled[1], Pooled(*pooled), w, settings, Wanted(False, into)
            )
            assert dx is None and all(a is b for a, b in zip(gradients, into))
        return into

    for g, r in zip(run(twice, w, x, y, argmax), in_float64(y, x, w, y, argmax, settings)[1:]):
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
            [
                k.to_host(a)
                for a in k.conv2d_block(*map(k.asarray, (x, w, b)), Block(pool, 1.0, padding))[1:]
            ]
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
        pooled = k.conv2d_block(*d, Block(pool))
        gradients = k.conv2d_block_backward(pooled.y, pooled, d[1], Block(pool))
        results.append([k.to_host(a) for a in (pooled.y, *gradients)])
    assert np.array_equal(results[0][0], results[1][0])
    for g, r in zip(*results):
        close(g, r)


def test_first_of_equal_maxima_wins():
    x, w = np.ones((1, 12, 12, 1), np.float32), random(1, 1, 1, 1, 5)
    assert not run(lambda k, *a: k.conv2d_block(*a, Block(3)), x, w, random(2, 5))[2].any()
    assert not run(lambda k, x: k.maxpool2d(x, 3), x)[1].any()


def test_a_workspace_changes_nothing_and_weights_expire():
    workspaces = [Workspace() for _ in backends()]
    for seed, size in ((0, 21), (1, 21), (2, 30)):
        x, w, b = (
            random(seed, 1, size, size, 3),
            random(seed + 9, 5, 5, 3, 23),
            random(seed + 5, 23),
        )
        for k, workspace in zip(backends(), workspaces):
            workspace.expire()
            results = []
            for keep in (None, workspace, workspace):
                d = [k.asarray(a) for a in (x, w, b)]
                pooled = k.conv2d_block(*d, Block(4), keep)
                gradients = k.conv2d_block_backward(
                    pooled.y, pooled, d[1], Block(4), workspace=keep
                )
                results.append([k.to_host(a) for a in (*pooled, *gradients)])
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
        k.conv2d_block(x, w, b[:3], Block(2))
    with pytest.raises(
        ValueError, match=r"conv2d_backward needs dy of shape \(1, 8, 8, 4\), got \(1, 8, 8, 3\)"
    ):
        k.conv2d_backward(k.zeros((1, 8, 8, 3)), x, w)
    with pytest.raises(TypeError, match="adds to a float32 array on the device, but dw is float64"):
        wanted = Wanted(into=(k.zeros(w.shape, "f8"), None))
        k.conv2d_backward(k.zeros((1, 8, 8, 4)), x, w, wanted=wanted)

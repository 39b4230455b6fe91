"""The cuda backends under test, random arrays, and how close is close."""

import os
import shutil

import numpy as np
import pytest
from hypothesis import settings

from helpers import random_batch
from minicnn.kernels import get_backend
from minicnn.kernels.cuda import emulator

ON_GPU = os.environ.get("MINICNN_TEST_DEVICE") == "cuda"


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


emulated = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the emulator needs g++, which is not on the PATH"
)


def few_lit(n, seed=0):
    x, y = random_batch(n, seed=seed)
    return np.where(np.abs(x) < 1.5, np.float32(0), x), y

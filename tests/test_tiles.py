"""The vector code of the cpu backend at every width that the host runs: narrower code runs on wider machines."""
import numba
import numpy as np
import pytest
from minicnn.kernels.cpu import tile

WIDTHS = [n for n in (4, 8, 16) if n <= tile.LANES]


def tile_results(lanes, pixels, columns, lanes_are):
    """The 6 x 16 sums of a small convolution (maximum and position over its 6 pixels for "cells") by one size of tile."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 9 * 7)).astype(np.float32), rng.standard_normal((3 * 28, 16)).astype(np.float32)
    kernel = tile.make_tile([(pixels, columns)], lanes, "cells" if lanes_are == "cells" else "channels",
                            "max" if lanes_are == "cells" else "store", lanes_are == "listed")
    run = _runner(kernel)
    if lanes_are == "listed":
        out, places, apart = np.zeros((6, 16), np.float32), x.ctypes.data + 28 * np.arange(6)[::-1], np.full(6, 63)
        for first in range(0, 16, columns * lanes):
            for p in range(0, 6, pixels):
                run(pixels, columns, places[p:].ctypes.data, apart.ctypes.data, 1, 0, w[0, first:].ctypes.data, 28 * 16, 16, 3, 28,
                    out[p, first:].ctypes.data, 0, 16)
        return out[::-1]
    if lanes_are == "channels":
        out = np.zeros((6, 16), np.float32)
        for first in range(0, 16, columns * lanes):
            for p in range(0, 6, pixels):
                run(pixels, columns, x[0, 7 * p:].ctypes.data, 63, 1, 7, w[0, first:].ctypes.data, 28 * 16, 16, 3, 28,
                    out[p, first:].ctypes.data, 0, 16)
        return out
    windows = np.zeros((3, 63, lanes), np.float32)
    windows[...] = x[..., None] * np.arange(1, lanes + 1, dtype=np.float32)         # other numbers in every lane
    best, where = np.full((16, lanes), -np.inf, np.float32), np.zeros((16, lanes), np.int32)
    for first in range(0, 16, columns):
        for p in range(0, 6, pixels):
            run(pixels, columns, windows[0, 7 * p:].ctypes.data, 63, 1, 7, w[0, first:].ctypes.data, 28 * 16, 16, 3, 28,
                best[first:].ctypes.data, where[first:].ctypes.data, p)
    return np.stack([best[:, :4], where[:, :4]])


def _runner(kernel):
    @numba.njit
    def run(*args):
        kernel(*args)
    return run


def test_every_width_and_shape_of_tile_gives_the_same_bits():
    channels = [tile_results(n, p, q, kind) for kind in ("channels", "listed") for n in WIDTHS
                for p, q in ((1, 1), (3, 2), (6, 1), (2, 4)) if q * n <= 16]
    assert all(np.array_equal(channels[0], c) for c in channels[1:])
    cells = [tile_results(n, p, q, "cells") for n in WIDTHS for p, q in ((1, 1), (3, 4), (2, 2))]
    assert all(np.array_equal(cells[0], c) for c in cells[1:])
    assert np.array_equal(cells[0][0, :, 0], channels[0].max(0)) and np.array_equal(cells[0][1, :, 0], channels[0].argmax(0))


@pytest.mark.parametrize("lanes", WIDTHS)
def test_patches_of_every_width(lanes):
    """Small integers, so that float32 sums are exact in any order; what lies beside a patch in ``out`` stays."""
    quads, rng = [1, 2, 5, 13], np.random.default_rng(0)
    run = _runner(tile.make_patches(2, quads, lanes))
    image, first, offset, row = rng.integers(-9, 9, (12, 80)).astype(np.float32), 2, 3, np.array([80, 160, 80, 80, 160])
    starts, g = np.array([[0, 0], [1, 7], [5, 2], [2, 0], [0, 5]]), rng.integers(-9, 9, 5).astype(np.float32)
    address = image.ctypes.data + starts @ np.array([320, 4])
    for rows in (1, 2):
        for q in quads:
            for count in (0, 1, 5):
                out = rng.integers(-9, 9, (4, 70)).astype(np.float32)
                want = out.copy()
                for i in range(count):
                    for r in range(rows):
                        start = starts[i] @ np.array([80, 1]) + (first + r) * row[i] + offset
                        want[1 + r, 3:3 + 4 * q] += g[i] * image.reshape(-1)[start:start + 4 * q]
                run(rows, q, count, g.ctypes.data, address.ctypes.data, row.ctypes.data, first, offset, out[1, 3:].ctypes.data, 70)
                assert np.array_equal(out, want), (rows, q, count)


@pytest.mark.parametrize("lanes", WIDTHS)
def test_transpose_of_every_width(lanes):
    run, x = _runner(tile.make_transpose(lanes)), np.random.default_rng(1).random((60, 40), np.float32)
    row = np.where(np.arange(lanes) % 3, 40, 80)                       # floats from one row of a window to the next
    starts = np.random.default_rng(0).integers(0, 500, lanes)
    address = x.ctypes.data + 4 * starts
    for r, k, count in ((0, 0, lanes), (3, 5, lanes), (2, 1, lanes - 1), (1, 0, 1)):
        out = np.zeros((lanes + 1, lanes), np.float32)
        run(address.ctypes.data, row.ctypes.data, r, k, count, out.ctypes.data)
        windows = np.stack([x.reshape(-1)[s + r * n + k:][:count] for s, n in zip(starts, row)])
        assert np.array_equal(out[:count], windows.T) and not out[count:].any(), (r, k, count)


@pytest.mark.parametrize("lanes", WIDTHS)
def test_deinterleave_of_every_width(lanes, monkeypatch):
    monkeypatch.setattr(tile, "NEIGHBOURS", min(lanes, 8))             # as a host of this width has it
    run, x = _runner(tile.make_deinterleave(tile.STRIDES, lanes)), np.random.default_rng(1).random(300, np.float32)
    for stride in tile.STRIDES:
        for count in (stride, stride + 1, stride + tile.NEIGHBOURS):
            out = np.zeros((count + 1, lanes), np.float32)
            run(stride, x[7:].ctypes.data, count, out.ctypes.data)
            want = x[7 + np.arange(count)[:, None] + stride * np.arange(lanes)]
            assert np.array_equal(out[:count], want) and not out[count].any(), (stride, count)

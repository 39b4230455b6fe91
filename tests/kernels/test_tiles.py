"""The vector code of the cpu backend at every width that the host runs: narrower code runs on wider
machines.
"""

import numba
import numpy as np
import pytest

from minicnn.kernels.cpu import lit_tile, rows, tile
from minicnn.kernels.cpu.emit import LANES

WIDTHS = [n for n in (4, 8, 16) if n <= LANES]


def tile_results(lanes, pixels, columns, kind):
    """The 6 x 16 sums of a small convolution (maximum and position over its 6 pixels for "cells")
    by one size of tile.
    """
    rng = np.random.default_rng(0)
    x, w = (
        rng.standard_normal((3, 9 * 7)).astype(np.float32),
        rng.standard_normal((3 * 28, 16)).astype(np.float32),
    )
    run = _runner(tile.make_tile([(pixels, columns)], lanes, kind))
    if kind == "listed":
        out, places, apart = (
            np.zeros((6, 16), np.float32),
            x.ctypes.data + 28 * np.arange(6)[::-1],
            np.full(6, 63),
        )
        for first in range(0, 16, columns * lanes):
            for p in range(0, 6, pixels):
                run(
                    pixels,
                    columns,
                    places[p:].ctypes.data,
                    apart.ctypes.data,
                    1,
                    0,
                    w[0, first:].ctypes.data,
                    28 * 16,
                    16,
                    3,
                    28,
                    out[p, first:].ctypes.data,
                    0,
                    16,
                )
        return out[::-1]
    if kind == "channels":
        out = np.zeros((6, 16), np.float32)
        for first in range(0, 16, columns * lanes):
            for p in range(0, 6, pixels):
                run(
                    pixels,
                    columns,
                    x[0, 7 * p :].ctypes.data,
                    63,
                    1,
                    7,
                    w[0, first:].ctypes.data,
                    28 * 16,
                    16,
                    3,
                    28,
                    out[p, first:].ctypes.data,
                    0,
                    16,
                )
        return out
    windows = np.zeros((3, 63, lanes), np.float32)
    windows[...] = x[..., None] * np.arange(
        1, lanes + 1, dtype=np.float32
    )  # other numbers in every lane
    best, where = np.full((16, lanes), -np.inf, np.float32), np.zeros((16, lanes), np.int32)
    for first in range(0, 16, columns):
        for p in range(0, 6, pixels):
            run(
                pixels,
                columns,
                windows[0, 7 * p :].ctypes.data,
                63,
                1,
                7,
                w[0, first:].ctypes.data,
                28 * 16,
                16,
                3,
                28,
                best[first:].ctypes.data,
                where[first:].ctypes.data,
                p,
            )
    return np.stack([best[:, :4], where[:, :4]])


def _runner(kernel):
    @numba.njit
    def run(*args):
        kernel(*args)

    return run


def test_every_width_and_shape_of_tile_gives_the_same_bits():
    channels = [
        tile_results(n, p, q, kind)
        for kind in ("channels", "listed")
        for n in WIDTHS
        for p, q in ((1, 1), (3, 2), (6, 1), (2, 4))
        if q * n <= 16
    ]
    assert all(np.array_equal(channels[0], c) for c in channels[1:])
    cells = [tile_results(n, p, q, "cells") for n in WIDTHS for p, q in ((1, 1), (3, 4), (2, 2))]
    assert all(np.array_equal(cells[0], c) for c in cells[1:])
    assert np.array_equal(cells[0][0, :, 0], channels[0].max(0)) and np.array_equal(
        cells[0][1, :, 0], channels[0].argmax(0)
    )


@pytest.mark.parametrize("lanes", WIDTHS)
def test_patches_of_every_width(lanes):
    """Small integers, so that float32 sums are exact in any order; what lies beside a patch in
    ``out`` stays.
    """
    quads, rng = [1, 2, 5, 13], np.random.default_rng(0)
    run = _runner(rows.make_patches(2, quads, lanes))
    image, first, row = (
        rng.integers(-9, 9, (12, 80)).astype(np.float32),
        2,
        np.array([80, 160, 80, 80, 160]),
    )
    starts, g = (
        np.array([[0, 0], [1, 7], [5, 2], [2, 0], [0, 5]]),
        rng.integers(-9, 9, 5).astype(np.float32),
    )
    address = image.ctypes.data + starts @ np.array([320, 4])
    for many in (1, 2):
        for q in quads:
            for count in (0, 1, 5):
                out = rng.integers(-9, 9, (4, 70)).astype(np.float32)
                want = out.copy()
                for i in range(count):
                    for r in range(many):
                        start = starts[i] @ np.array([80, 1]) + (first + r) * row[i]
                        want[1 + r, 3 : 3 + 4 * q] += (
                            g[i] * image.reshape(-1)[start : start + 4 * q]
                        )
                run(
                    many,
                    q,
                    count,
                    g.ctypes.data,
                    address.ctypes.data,
                    row.ctypes.data,
                    first,
                    out[1, 3:].ctypes.data,
                    70,
                )
                assert np.array_equal(out, want), (many, q, count)


@pytest.mark.parametrize("lanes", WIDTHS)
def test_sums_of_rows_of_every_width(lanes):
    """Small integers, as above; rows of each summand have a distance of their own."""
    rng = np.random.default_rng(0)
    run, x = _runner(rows.make_add_rows(3, lanes)), rng.integers(-9, 9, 900).astype(np.float32)
    starts, row, g = (
        np.array([0, 7, 30]),
        np.array([90, 40, 90]),
        rng.integers(-9, 9, 3).astype(np.float32),
    )
    address = x.ctypes.data + 4 * starts
    for count, first, many, offset, vectors in (
        (1, 0, 1, 0, 1),
        (3, 2, 3, 5, 2),
        (2, 1, 0, 0, 2),
        (3, 0, 2, 1, 0),
    ):
        out = rng.integers(-9, 9, (5, 70)).astype(np.float32)
        want = out.copy()
        for r in range(many):
            for i in range(count):
                start = starts[i] + (first + r) * row[i] + offset
                want[1 + r, 3 : 3 + lanes * vectors] += g[i] * x[start : start + lanes * vectors]
        run(
            count,
            g.ctypes.data,
            address.ctypes.data,
            row.ctypes.data,
            first,
            many,
            offset,
            vectors,
            out[1, 3:].ctypes.data,
            70,
        )
        assert np.array_equal(out, want), (count, first, many, offset, vectors)


@pytest.mark.parametrize("lanes", WIDTHS)
def test_the_largest_of_every_width_is_the_first_of_equals(lanes):
    rng, run = np.random.default_rng(0), _runner(rows.make_max_of_rows([1, 2], lanes))
    sums, where = (
        rng.integers(-3, 3, (9, 40)).astype(np.float32),
        np.array([0, 3, 4, 7, 90, 91, 200, 254, 255], np.uint8),
    )
    sums[2, 1] = np.nan  # never the larger one
    for vectors in (1, 2):
        for count in (1, 9):
            best, at = np.zeros(2 * lanes + 1, np.float32), np.full(2 * lanes + 1, -1, np.int32)
            run(
                vectors,
                count,
                sums.ctypes.data,
                40,
                where.ctypes.data,
                best.ctypes.data,
                at.ctypes.data,
            )
            some, n = np.where(np.isnan(sums), -np.inf, sums)[:count], lanes * vectors
            assert np.array_equal(best[:n], some.max(0)[:n]) and np.array_equal(
                at[:n], where[some.argmax(0)[:n]]
            )
            assert not best[n:].any() and (at[n:] == -1).all()


@pytest.mark.parametrize("lanes", WIDTHS)
def test_transpose_of_every_width(lanes):
    run, x = (
        _runner(rows.make_transpose(lanes)),
        np.random.default_rng(1).random((60, 40), np.float32),
    )
    row = np.where(np.arange(lanes) % 3, 40, 80)  # floats from one row of a window to the next
    starts = np.random.default_rng(0).integers(0, 500, lanes)
    address = x.ctypes.data + 4 * starts
    for r, k, count in ((0, 0, lanes), (3, 5, lanes), (2, 1, lanes - 1), (1, 0, 1)):
        out = np.zeros((lanes + 1, lanes), np.float32)
        run(address.ctypes.data, row.ctypes.data, r, k, count, out.ctypes.data)
        windows = np.stack([x.reshape(-1)[s + r * n + k :][:count] for s, n in zip(starts, row)])
        assert np.array_equal(out[:count], windows.T) and not out[count:].any(), (r, k, count)


@pytest.mark.parametrize("lanes", WIDTHS)
def test_deinterleave_of_every_width(lanes, monkeypatch):
    monkeypatch.setattr(rows, "NEIGHBOURS", min(lanes, 8))  # as a host of this width has it
    run, x = (
        _runner(rows.make_deinterleave(rows.STRIDES, lanes)),
        np.random.default_rng(1).random(300, np.float32),
    )
    for stride in rows.STRIDES:
        for count in (stride, stride + 1, stride + rows.NEIGHBOURS):
            out = np.zeros((count + 1, lanes), np.float32)
            run(stride, x[7:].ctypes.data, count, out.ctypes.data)
            want = x[7 + np.arange(count)[:, None] + stride * np.arange(lanes)]
            assert np.array_equal(out[:count], want) and not out[count].any(), (stride, count)


@pytest.mark.parametrize("lanes", WIDTHS)
def test_products_are_added_to_scattered_sums_at_every_width(lanes):
    """Small integers, so that float32 sums are exact; rows beside those of the list stay, and one
    tile goes on from the sums of another.
    """
    rng, steps, tiles = np.random.default_rng(0), 7, 3
    for many, vectors in ((1, 1), (4, 1), (6, 2)):
        run = _runner(lit_tile.make_scatter([(many, vectors)], lanes))
        width = 3 + lanes * vectors
        x, w, z = (
            rng.integers(-9, 9, shape).astype(np.float32)
            for shape in ((9, steps), (steps, lanes * vectors + 2), (12, width))
        )
        sources, targets = (
            np.concatenate([rng.permutation(n)[:many] for _ in range(tiles)]) for n in (9, 12)
        )
        want = z.copy()
        np.add.at(want[:, 3:], targets, x[sources] @ w[:, : lanes * vectors])
        places = [a.ctypes.data + 4 * a.shape[1] * rows for a, rows in ((x, sources), (z, targets))]
        ends = w.ctypes.data, w.shape[1], steps
        run(many, vectors, tiles, places[0].ctypes.data, places[1].ctypes.data, 3, *ends)
        assert np.array_equal(z, want)


@pytest.mark.parametrize("lanes", WIDTHS)
@pytest.mark.parametrize("with_dx", (0, 1))
def test_gradients_of_maxima_at_every_width(lanes, with_dx):
    rng, filters, many = np.random.default_rng(1), 11, 5
    of, lows, counts = (np.array(a, np.int64) for a in ([3, 0, 3], [1, 0, 4], [3, 1, 2]))
    channels = np.array([9, 7, 0, 10, 7, 2], np.uint16)
    for vectors in lit_tile.MAXIMA_VECTORS:
        run = _runner(lit_tile.make_maxima([vectors], lanes))
        w, dw, d, dx = (
            rng.integers(-9, 9, shape).astype(np.float32)
            for shape in [(vectors, filters, lanes)] * 2 + [(many, vectors, lanes)] * 2
        )
        g = rng.integers(-9, 9, len(channels)).astype(np.float32)
        want_dw, want_dx = dw.copy(), dx.copy()
        for a, low, count in zip(of, lows, counts):
            for k in range(low, low + count):
                want_dw[:, channels[k]] += g[k] * d[a]
                want_dx[a] += g[k] * w[:, channels[k]] * with_dx
        addresses = [a.ctypes.data for a in (of, lows, counts, channels, g, w, dw)]
        ends = filters * lanes, d.ctypes.data, dx.ctypes.data, vectors * lanes
        run(vectors, with_dx, len(of), *addresses, *ends)
        assert np.array_equal(dw, want_dw) and np.array_equal(dx, want_dx)

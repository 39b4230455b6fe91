"""Vector code for maps that are lit in few places (lit.py): the tile that adds products to
scattered sums, and the one that adds the gradients of a position's maxima.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import F32, I64, LANES, Emit
from .jit import jit
from .tile import CHANNEL_SHAPES, MAX_PIXELS, VECTORS

I16 = ir.IntType(16)


@intrinsic
def bits_set(context, word):
    """How many bits of a uint64 are 1."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def lowest_bit(context, word):
    """The number of the lowest bit of a uint64 that is 1; the word is not 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


def make_scatter(shapes: Any, lanes: int) -> Any:
    """Return an intrinsic with one body per (rows, vectors) in ``shapes``:

        scatter(rows, vectors, tiles, x, z, offset, w, w_step, steps)

    z[p][offset + k] += sum over step < steps of x[p][step] * w[step * w_step + k], p < rows, k <
    vectors * lanes: the picture in tile.py, with rows of x and z anywhere. x and z are addresses of
    int64 (tiles * rows,), the addresses of the rows of each tile; the rows of z in a tile differ.
    The sum goes on from what z has.
    """

    @intrinsic
    def scatter(context, rows, vectors, tiles, x, z, offset, w, w_step, steps):
        def codegen(context, builder, signature, args):
            e, b = Emit(builder, lanes), builder
            rows, vectors, tiles, x, z, offset, w, w_step, steps = args
            for p_max, q_max in e.choose(rows, vectors, shapes):
                with e.loop(tiles) as tile:
                    ahead = b.mul(tile.index, e.int(2 * p_max))
                    x_here, z_here = e.at(x, ahead), e.at(z, ahead)
                    xs = [e.load(e.at(x_here, p, 2), I64) for p in range(p_max)]
                    zs = [e.at(e.load(e.at(z_here, p, 2), I64), offset) for p in range(p_max)]
                    acc = [
                        [e.variable(e.load(e.at(to, q, lanes))) for q in range(q_max)] for to in zs
                    ]
                    with e.loop(steps) as step:
                        here = e.at(w, b.mul(step.index, w_step))
                        weights = [e.load(e.at(here, q, lanes)) for q in range(q_max)]
                        for p in range(p_max):
                            one = e.splat(e.load(e.at(xs[p], step.index), F32))
                            for q in range(q_max):
                                b.store(e.fma(one, weights[q], b.load(acc[p][q])), acc[p][q])
                    for p in range(p_max):
                        for q in range(q_max):
                            e.store(b.load(acc[p][q]), e.at(zs[p], q, lanes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return scatter


_scatter = make_scatter(CHANNEL_SHAPES, LANES)


@jit(no_cpython_wrapper=True)
def scatter(shape, tiles, rows, offset, weights):
    """Add to the rows of ``tiles`` tiles of ``shape`` (rows, vectors), behind ``offset`` floats.
    rows: the addresses of the lists of x and z. weights: (address, floats per step, steps).
    """
    (x, z), (w, w_step, steps) = rows, weights
    _scatter(shape[0], shape[1], tiles, x, z, offset, w, w_step, steps)


@intrinsic
def _one_product(context, x, w, z, vectors):
    """z[k] += x * w[k] over ``vectors`` vectors at the addresses w and z."""

    def codegen(context, builder, signature, args):
        e, b = Emit(builder, LANES), builder
        x, w, z, vectors = args
        one = e.splat(x)
        with e.loop(vectors) as q:
            k = b.mul(q.index, e.int(LANES))
            to = e.at(z, k)
            e.store(e.fma(one, e.load(e.at(w, k)), e.load(to)), to)
        return context.get_dummy_value()

    return types.void(types.float32, types.int64, types.int64, types.int64), codegen


@jit(no_cpython_wrapper=True)
def one_product(x, w, z, vectors):
    _one_product(x, w, z, vectors)


@jit
def take_weights(w, first, width, out):
    """Copy the channels from ``first`` on of one tap, w (C_in, C_out), into rows of ``width``;
    lanes beyond the last channel are 0.
    """
    real = min(width, w.shape[1] - first)
    for i in range(w.shape[0]):
        line, to = w[i, first:], out[i * width :]
        for k in range(real):
            to[k] = line[k]
        for k in range(real, width):
            to[k] = np.float32(0)


@jit
def add_products(rows, x, z, w, width, steps):
    """z[p] += x[p] w over ``width`` channels, for the first ``rows`` of the addresses x and z."""
    tiles, rest = rows // MAX_PIXELS, rows % MAX_PIXELS
    done, behind = tiles * MAX_PIXELS, 0
    for n in VECTORS[::-1]:
        while (width - behind) // LANES >= n:
            weights = w[behind:].ctypes.data, width, steps
            if tiles:
                rows_at = x.ctypes.data, z.ctypes.data
                scatter((MAX_PIXELS, n), tiles, rows_at, behind, weights)
            if rest:
                rows_at = x[done:].ctypes.data, z[done:].ctypes.data
                scatter((rest, n), 1, rows_at, behind, weights)
            behind += n * LANES


def make_maxima(sizes: Any, lanes: int) -> Any:
    """Return an intrinsic with one body per number of ``vectors``, for inputs that feed, through
    one tap, positions where output channels have their maximum:

        maxima(
            vectors, with_dx, inputs, input_of, lows, counts, channels, g, w, dw, plane, d, dx, row
        )

    For i < inputs and 0 <= k - lows[i] < counts[i], with a = input_of[i] and c = channels[k]:

        dx[a] += g[k] * w[c]      dw[c] += g[k] * d[a]

    over vectors * lanes floats, of which vector q of channel c is at plane * q + lanes * c floats
    in w and dw, and at row * a + lanes * q in d and dx; those of dx stay in registers. input_of,
    lows, counts: addresses of int64, channels of uint16, the others of float32. Unless with_dx is
    1, dx and w are left alone.
    """

    @intrinsic
    def maxima(
        context,
        vectors,
        with_dx,
        inputs,
        input_of,
        lows,
        counts,
        channels,
        g,
        w,
        dw,
        plane,
        d,
        dx,
        row,
    ):
        def codegen(context, builder, signature, args):
            e, b = Emit(builder, lanes), builder
            (
                vectors,
                with_dx,
                inputs,
                input_of,
                lows,
                counts,
                channels,
                g,
                w,
                dw,
                plane,
                d,
                dx,
                row,
            ) = args
            cases = [(n, wanted) for n in sizes for wanted in (0, 1)]
            for n, wanted in e.choose(vectors, with_dx, cases):
                of_w, to = (
                    [e.at(start, b.mul(plane, e.int(q))) for q in range(n)] for start in (w, dw)
                )
                with e.loop(inputs) as i:
                    input_, low, count = (
                        e.load(e.at(each, i.index, 2), I64) for each in (input_of, lows, counts)
                    )
                    here = b.mul(row, input_)
                    ahead = [e.load(e.at(e.at(d, here), q, lanes)) for q in range(n)]
                    dx_at = e.at(dx, here)
                    back = [e.variable(e.load(e.at(dx_at, q, lanes))) for q in range(n * wanted)]
                    first = b.add(channels, b.mul(low, e.int(2)))
                    slopes = e.at(g, low)
                    with e.loop(count) as k:
                        place = b.add(first, b.mul(k.index, e.int(2)))
                        c = b.zext(b.load(b.inttoptr(place, I16.as_pointer()), align=2), I64)
                        slope = e.splat(e.load(e.at(slopes, k.index), F32))
                        line = b.mul(c, e.int(lanes))
                        for q in range(n):
                            if wanted:
                                weight = e.load(e.at(of_w[q], line))
                                b.store(e.fma(slope, weight, b.load(back[q])), back[q])
                            sum_at = e.at(to[q], line)
                            e.store(e.fma(slope, ahead[q], e.load(sum_at)), sum_at)
                    for q, value in enumerate(back):
                        e.store(b.load(value), e.at(dx_at, q, lanes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), codegen

    return maxima


#: Vectors of input channels that a task of the backward pass takes: two sets and what they are
#: multiplied by fit into the registers.
MAXIMA_VECTORS = (1, 2)
_maxima = make_maxima(MAXIMA_VECTORS, LANES)


class Visits(NamedTuple):
    """The inputs of ``maxima``: how many, and the addresses of three lists of int64: which input,
    the number of its first maximum, and how many it has.
    """

    number: int
    inputs: int
    lows: int
    counts: int


class Turned(NamedTuple):
    """The addresses of weights and of their gradients with lanes of input channels, and floats from
    one vector of a channel to the next.
    """

    w: int
    dw: int
    plane: int


class Rows(NamedTuple):
    """The addresses of the inputs' changes and of their gradients, and floats from row to row."""

    d: int
    dx: int
    row: int


@jit(no_cpython_wrapper=True)
def maxima(vectors, with_dx, visits, winners, turned, rows):
    """winners: the addresses of (channels, g)."""
    (channels, g), v, t, r = winners, visits, turned, rows
    _maxima(
        vectors,
        with_dx,
        v.number,
        v.inputs,
        v.lows,
        v.counts,
        channels,
        g,
        t.w,
        t.dw,
        t.plane,
        r.d,
        r.dx,
        r.row,
    )

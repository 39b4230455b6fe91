"""Vector micro-kernels, written as LLVM instructions because no loop that a compiler vectorizes by
itself comes near them.

A convolution is a sum of products x * w. The fastest code keeps many such sums in vector registers
at once, loads each x and w once and uses it for several of them. One tile is a small rectangle of
sums:

                    Q columns, each a vector register of LANES floats: 16 with AVX-512, 8 with AVX2,
                                                          else 4
                      w0      w1      w2      w3          loaded: Q vectors
        pixel 0  x0  [acc]   [acc]   [acc]   [acc]
        pixel 1  x1  [acc]   [acc]   [acc]   [acc]        acc[p][q] = fma(x[p], w[q], acc[p][q])
        pixel 2  x2  [acc]   [acc]   [acc]   [acc]
        pixel 3  x3  [acc]   [acc]   [acc]   [acc]        P x Q independent multiply-adds per step
        pixel 4  x4  [acc]   [acc]   [acc]   [acc]
                 loaded: P numbers, each copied to all lanes ("broadcast")

and it is repeated for every step (ky, kx * c_in) of the sum. P * Q multiply-adds cost P + Q loads:
5 x 4 has 20 for 9. It may not be much larger: accumulators, the vectors of w and one x must fit
into the registers (32 with AVX-512: 20 + 4 + 1). It may not be smaller than about 8: a multiply-add
takes 4 cycles and one (AVX-512: two on some machines) starts in every cycle, so as many independent
sums must be under way.

There are three kinds of tiles. Lanes are output channels (x is broadcast, w are vectors) or, where
there are fewer channels than lanes, different pooling cells (x are vectors, w is broadcast): the
same picture with the roles of x and w exchanged. At their end:

    "channels", pixels at equal distances     out[p][q] = acc[p][q]
    "listed", channels too, pixels anywhere   the same; ``max_of_rows`` then takes the maximum over
                                              the positions of a cell
    "cells"                                   best[q], where[q] = the larger of it and acc[p][q],
                                              and its position (first of equals)

Each sum is one chain of fused multiply-adds that starts at +0 and runs in the order of the steps:
every tile of every width gives the same bits. What moves numbers into lanes, finds maxima and
adds up gradients is in rows.py.
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import F32, HAS_BF16, I32, I64, LANES, Emit
from .jit import jit


def _sums(e, pixels, columns, kind, add, x, x_row, x_step, x_pixel, w, w_row, w_step, rows, steps):
    """The picture above: returns acc[p][q] after rows * steps steps, each acc = add(x, w, acc)."""
    vector_x = kind == "cells"
    x_unit, w_unit = (e.lanes, 1) if vector_x else (1, e.lanes)

    def place(p, row):
        if kind == "listed":
            start, stride = (e.load(e.at(table, p, 2), I64) for table in (x, x_row))
            return e.at(start, b.mul(row, stride))
        return e.at(e.at(x, b.mul(row, x_row), x_unit), b.mul(x_pixel, e.int(p)), x_unit)

    b, x_kind, w_kind = e.b, e.vector if vector_x else F32, F32 if vector_x else e.vector
    acc = [[e.variable(e.constant(0)) for _ in range(columns)] for _ in range(pixels)]
    with e.loop(rows) as row:
        places, w_at = (
            [place(p, row.index) for p in range(pixels)],
            e.at(w, b.mul(row.index, w_row)),
        )
        with e.loop(steps) as step:
            ahead, w_here = b.mul(step.index, x_step), e.at(w_at, b.mul(step.index, w_step))
            weights = [e.load(e.at(w_here, q, w_unit), w_kind) for q in range(columns)]
            ones = [e.load(e.at(here, ahead, x_unit), x_kind) for here in places]
            weights = [e.splat(v) if vector_x else v for v in weights]
            ones = [v if vector_x else e.splat(v) for v in ones]
            for p in range(pixels):
                for q in range(columns):
                    b.store(add(ones[p], weights[q], b.load(acc[p][q])), acc[p][q])
    return [[b.load(address) for address in line] for line in acc]


def _keep_max(e, sums, best, where, position):
    """The end of a tile of cells: best (columns, lanes) float32 and where (columns, lanes) int32
    take the larger; pixel p is position + p.

    Pixels are compared among themselves first: their numbers are constants, which need no
    instruction of their own.
    """
    b = e.b
    first = e.splat(b.trunc(position, I32), e.ints)
    for q in range(len(sums[0])):
        top, top_at = sums[0][q], ir.Constant(e.ints, [0] * e.lanes)
        for p, line in enumerate(sums[1:], 1):
            larger = b.fcmp_ordered(">", line[q], top)
            top, top_at = (
                b.select(larger, line[q], top),
                b.select(larger, ir.Constant(e.ints, [p] * e.lanes), top_at),
            )
        before, there = e.load(e.at(best, q, e.lanes)), e.load(e.at(where, q, e.lanes), e.ints)
        larger = b.fcmp_ordered(">", top, before)
        e.store(b.select(larger, top, before), e.at(best, q, e.lanes))
        e.store(b.select(larger, b.add(first, top_at), there), e.at(where, q, e.lanes))


def _store(e, sums, out, out_pixel):
    """The end of the others: out[p * out_pixel + q * lanes] = sums."""
    for p, line in enumerate(sums):
        for q, value in enumerate(line):
            e.store(value, e.at(e.at(out, e.b.mul(out_pixel, e.int(p))), q, e.lanes))


def make_tile(shapes: Any, lanes: int, kind: str, pairs: bool = False) -> Any:
    """Return an intrinsic with one body per (pixels, columns) in ``shapes``, chosen at run time:

        tile(pixels, columns, x, x_row, x_step, x_pixel, w, w_row, w_step, rows, steps, out, where,
        last)

    sums[p][q] over row < rows, step < steps of x[row * x_row + step * x_step + p * x_pixel] * w[row
    * w_row + step * w_step + q]. All operands are int64; x, w, out, where are byte addresses.

        operand           "channels"            "listed"                         "cells"
        x                 of pixel 0            of int64 (pixels,): addresses    of the first vector
        x_row             floats                of int64 (pixels,): floats       vectors
        x_step, x_pixel   floats                floats, not used                 vectors
        w_row, w_step     floats                floats                           floats
        q counts          vectors               vectors                          floats
        out               sums                  sums                             best
        where             not used              not used                         positions, int32
        last              floats from pixel     floats from pixel                position of pixel 0
                          to pixel in out       to pixel in out

    pairs: x and w have two bf16 numbers in the place of a float32, see bf16.py.

    Keep the result in a module's global: numba's disk cache has no name for an intrinsic in a
    closure (kernels/jit.py).
    """

    @intrinsic
    def tile(
        context,
        pixels,
        columns,
        x,
        x_row,
        x_step,
        x_pixel,
        w,
        w_row,
        w_step,
        rows,
        steps,
        out,
        where,
        last,
    ):
        def codegen(context, builder, signature, args):
            e = Emit(builder, lanes)
            pixels, columns, *operands, out, where, last = args
            add = e.add_pairs if pairs else e.fma
            for p, q in e.choose(pixels, columns, shapes):
                sums = _sums(e, p, q, kind, add, *operands)
                if kind == "cells":
                    _keep_max(e, sums, out, where, last)
                else:
                    _store(e, sums, out, last)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), codegen

    return tile


# P and Q: with 32 registers (AVX-512) up to 6 x 4 sums, with 16 (AVX2, SSE) 6 x 2. Sizes between
# the listed ones are split into these: each body is compiled into every kernel that calls the tile,
# about 0.1 s for each.
MAX_PIXELS = 6
VECTORS = (1, 2, 4) if LANES == 16 else (1, 2)
CHANNELS = (
    (1, 2, 5) if LANES == 16 else (1, 2)
)  # of a cells tile: 5 x 5 sums + 5 vectors of x + 1 weight
MAX_VECTORS = VECTORS[-1]
CHANNEL_SHAPES = [(p, q) for p in range(1, MAX_PIXELS + 1) for q in VECTORS]
CELL_SHAPES = [(p, q) for p in range(1, MAX_PIXELS) for q in CHANNELS]

_store_tile = make_tile(CHANNEL_SHAPES, LANES, "channels")
_listed_tile = make_tile(CHANNEL_SHAPES, LANES, "listed")
_listed_pairs_tile = make_tile(CHANNEL_SHAPES if HAS_BF16 else [], LANES, "listed", pairs=True)
_cells_tile = make_tile(CELL_SHAPES, LANES, "cells")


class Pixels(NamedTuple):
    """Where a tile's x are: the address of the first, and floats (vectors, of cells) from row to
    row, from step to step, and from pixel to pixel.
    """

    x: int
    row: int
    step: int
    pixel: int


class Listed(NamedTuple):
    """Where they are if the pixels are anywhere: the addresses of two lists, int64 (pixels,), that
    of the address of each, and that of its floats from row to row.
    """

    x: int
    row: int


class Filter(NamedTuple):
    """The weights of a tile: their address, floats from row to row and from step to step, and how
    many rows and steps there are.
    """

    w: int
    row: int
    step: int
    rows: int
    steps: int


class Sums(NamedTuple):
    """An address that sums are written or added to, and floats from one row of them to the next."""

    out: int
    row: int


class Best(NamedTuple):
    """The addresses of maxima, float32, and of their positions, int32."""

    value: int
    position: int


@jit(no_cpython_wrapper=True)
def store_tile(shape, pixels, weights, sums):
    """sums[p][q] of a tile of ``shape`` (pixels, vectors)."""
    (p, q), (x, row, step, pixel), (w, w_row, w_step, rows, steps) = shape, pixels, weights
    out, apart = sums
    _store_tile(p, q, x, row, step, pixel, w, w_row, w_step, rows, steps, out, 0, apart)


@jit(no_cpython_wrapper=True)
def listed_tile(shape, listed, weights, sums):
    """The same of Listed pixels."""
    (p, q), (x, row), (w, w_row, w_step, rows, steps) = shape, listed, weights
    out, apart = sums
    _listed_tile(p, q, x, row, 1, 0, w, w_row, w_step, rows, steps, out, 0, apart)


@jit(no_cpython_wrapper=True)
def listed_pairs_tile(shape, listed, weights, sums):
    """The same of pairs of bf16 numbers."""
    (p, q), (x, row), (w, w_row, w_step, rows, steps) = shape, listed, weights
    out, apart = sums
    _listed_pairs_tile(p, q, x, row, 1, 0, w, w_row, w_step, rows, steps, out, 0, apart)


@jit(no_cpython_wrapper=True)
def cells_tile(shape, pixels, weights, best, position):
    """The larger of Best and a tile of ``shape`` (pixels, channels), the first pixel of which is at
    ``position``.
    """
    (p, q), (x, row, step, pixel), (w, w_row, w_step, rows, steps) = shape, pixels, weights
    value, where = best
    _cells_tile(p, q, x, row, step, pixel, w, w_row, w_step, rows, steps, value, where, position)

"""Vector code around the tiles (tile.py): sums of patches and of rows, for gradients, and what
brings numbers into lanes.

patches, add_rows          sums of a gradient times a piece of an image or of weights: short rows in
                           registers, long ones in memory
transpose, deinterleave    windows side by side, one to a lane
prefetch_for_write         memory that will soon be written
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .emit import F32, I8, I32, I64, LANES, Emit
from .jit import jit
from .tile import MAX_VECTORS, VECTORS


def vectors_of(floats: int, lanes: int) -> list[tuple[int, int]]:
    """Return (offset, lanes) of the vectors that cover ``floats``: full ones, then the smallest
    power of 2 that covers the rest.
    """
    full = [(k, lanes) for k in range(0, floats - lanes + 1, lanes)]
    rest = floats - lanes * len(full)
    return full + [(lanes * len(full), next(n for n in (4, 8, 16) if n >= rest))] * (rest > 0)


def make_patches(max_rows: int, quads: list[int], lanes: int) -> Any:
    """Return an intrinsic that sums patches of R <= max_rows rows x 4 Q floats with weights, one
    body per R and Q in ``quads``:

        patches(R, Q, count, g, address, row, first, out, out_row)

    out[r * out_row + k] += sum over i < count of g[i] * (the float at address[i])[(first + r) *
    row[i] + k], k < 4 Q. All but counts and offsets are addresses: g of float32, address and row of
    int64. The sum is accumulated in registers and added to ``out`` once: consecutive patches
    overlap in memory, and adding each at once would wait for the store of the one before. Vectors
    that are wider than what is left of a row read and write up to 15 floats more.
    """
    shapes = [(r, q) for r in range(1, max_rows + 1) for q in quads]

    @intrinsic
    def patches(context, rows, quads, count, g, address, row, first, out, out_row):
        def codegen(context, builder, signature, args):
            rows, quads, count, g, address, row, first, out, out_row = args
            b, whole = builder, Emit(builder, lanes)
            for r_max, q in whole.choose(rows, quads, shapes):
                columns = [(k, Emit(builder, n)) for k, n in vectors_of(4 * q, lanes)]
                acc = [[e.variable(e.constant(0)) for _, e in columns] for _ in range(r_max)]
                with whole.loop(count) as i:
                    weight = whole.load(whole.at(g, i.index), F32)
                    stride = whole.load(whole.at(row, i.index, 2), I64)
                    start = whole.load(whole.at(address, i.index, 2), I64)
                    start = whole.at(start, b.mul(first, stride))
                    for r in range(r_max):
                        line = whole.at(start, b.mul(stride, whole.int(r)))
                        for (k, e), a in zip(columns, acc[r]):
                            b.store(e.fma(e.splat(weight), e.load(e.at(line, k)), b.load(a)), a)
                for r in range(r_max):
                    line = whole.at(out, b.mul(out_row, whole.int(r)))
                    for (k, e), a in zip(columns, acc[r]):
                        e.store(b.fadd(e.load(e.at(line, k)), b.load(a)), e.at(line, k))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return patches


MAX_ROWS = 5
# Whole vectors, or some of them and one that is shorter: 50 floats (5 pixels of 10 channels) take 3
# x 16 + 4 lanes, not 4 x 16.
QUADS = [q for q in (1, 2, 4, 5, 8, 12, 13, 16) if 4 * q <= MAX_VECTORS * LANES]
_patches = make_patches(MAX_ROWS, QUADS, LANES)


class Patches(NamedTuple):
    """Patches to sum up: how many, and the addresses of three lists: of their weights, float32, and
    int64 of the address of each and of its floats from row to row.
    """

    number: int
    g: int
    address: int
    row: int


@jit(no_cpython_wrapper=True)
def patches(rows, quads, summed, first, sums):
    """Add the rows from ``first`` on of Patches to Sums."""
    p = summed
    _patches(rows, quads, p.number, p.g, p.address, p.row, first, sums.out, sums.row)


def make_add_rows(most: int, lanes: int) -> Any:
    """Return an intrinsic that adds a sum of up to ``most`` rows to another one, with one body per
    number of them:

        add_rows(count, g, address, row, first, rows, offset, vectors, out, out_row)

    out[r * out_row + k] += sum over i < count of g[i] * (the float at address[i])[(first + r) *
    row[i] + offset + k] for r < rows and k < lanes * vectors. Always
    whole vectors, so that the last one may reach beyond the row. All but counts and offsets are
    addresses: g of float32, address and row of int64. For long rows: reads are sequential (the
    processor prefetches them), and ``out`` is touched once.
    """

    @intrinsic
    def add_rows(context, count, g, address, row, first, rows, offset, vectors, out, out_row):
        def codegen(context, builder, signature, args):
            count, g, address, row, first, rows, offset, vectors, out, out_row = args
            e = Emit(builder, lanes)
            for n, _ in e.choose(count, e.int(0), [(n, 0) for n in range(1, most + 1)]):
                weights = [e.splat(e.load(e.at(g, i), F32)) for i in range(n)]
                strides = [builder.mul(e.load(e.at(row, i, 2), I64), e.int(4)) for i in range(n)]
                starts = [
                    e.at(
                        builder.add(
                            e.load(e.at(address, i, 2), I64), builder.mul(first, strides[i])
                        ),
                        offset,
                    )
                    for i in range(n)
                ]
                with e.loop(rows) as r:
                    lines = [
                        builder.add(start, builder.mul(r.index, stride))
                        for start, stride in zip(starts, strides)
                    ]
                    to = e.at(out, builder.mul(r.index, out_row))
                    with e.loop(vectors) as k:
                        total = e.load(e.at(to, k.index, lanes))
                        for weight, line in zip(weights, lines):
                            total = e.fma(weight, e.load(e.at(line, k.index, lanes)), total)
                        e.store(total, e.at(to, k.index, lanes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return add_rows


MOST_ROWS = 8
_add_rows = make_add_rows(MOST_ROWS, LANES)


@jit(no_cpython_wrapper=True)
def add_rows(summed, first, rows, offset, vectors, sums):
    """Add ``rows`` rows, from ``first`` on, of up to MOST_ROWS Patches to Sums, of each the vectors
    behind ``offset`` floats.
    """
    p = summed
    _add_rows(p.number, p.g, p.address, p.row, first, rows, offset, vectors, sums.out, sums.row)


def make_transpose(lanes: int) -> Any:
    """Return an intrinsic that exchanges windows and lanes: transpose(address, row, r, k, count,
    out), all integers, writes

        out[j * lanes + lane] = the float at address[lane], [r * row[lane] + k + j]

    for j < count <= lanes.

    It reads ``lanes`` floats at each address. Interleaving register i with register i + lanes / 2
    doubles the run of lanes that sit together: after log2(lanes) rounds the square is transposed.
    """

    @intrinsic
    def transpose(context, address, row, r, k, count, out):
        def codegen(context, builder, signature, args):
            e, b = Emit(builder, lanes), builder
            address, row, r, k, count, out = args
            v = []
            for lane in range(lanes):
                start = e.load(e.at(address, lane, 2), I64)
                v.append(e.load(e.at(e.at(start, b.mul(r, e.load(e.at(row, lane, 2), I64))), k)))
            low = [i // 2 + lanes * (i % 2) for i in range(lanes)]
            for _ in range(lanes.bit_length() - 1):
                pairs = [(v[i], v[i + lanes // 2]) for i in range(lanes // 2)]
                v = [
                    b.shuffle_vector(x, y, ir.Constant(e.ints, [n + half for n in low]))
                    for x, y in pairs
                    for half in (0, lanes // 2)
                ]
            for j in range(lanes):
                with b.if_then(b.icmp_signed("<", e.int(j), count)):
                    e.store(v[j], e.at(out, j, lanes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return transpose


_transpose = make_transpose(LANES)


@jit(no_cpython_wrapper=True)
def transpose(address, row, r, k, count, out):
    _transpose(address, row, r, k, count, out)


def make_deinterleave(strides: tuple[int, ...], lanes: int) -> Any:
    """Return an intrinsic for windows ``stride`` floats apart, one of ``strides``:
    deinterleave(stride, address, count, out) writes

        out[k * lanes + lane] = (the float at address)[lane * stride + k]

    for k < count, stride <= count <= stride + NEIGHBOURS.

    The first ``stride`` columns are picked out of the ``stride`` vectors that hold them; the others
    are seen again one window further on: column k is column k - stride moved by a lane. Reads
    (lanes + 1) * stride floats, rounded up to vectors, at most lanes - 1 more.
    """

    @intrinsic
    def deinterleave(context, stride, address, count, out):
        def codegen(context, builder, signature, args):
            e, b = Emit(builder, lanes), builder
            stride, address, count, out = args
            for s, _ in e.choose(stride, e.int(0), [(s, 0) for s in strides]):
                v = [e.load(e.at(address, i, lanes)) for i in range(s + 1)]
                columns = []
                for k in range(s):
                    column, places = v[0], [lane * s + k for lane in range(lanes)]
                    for i in range(
                        1, s
                    ):  # lanes below have been picked already, those above follow
                        column = b.shuffle_vector(
                            column,
                            v[i],
                            ir.Constant(
                                e.ints,
                                [
                                    lanes + element - i * lanes
                                    if element // lanes == i
                                    else element
                                    if i == 1 and element < lanes
                                    else lane
                                    for lane, element in enumerate(places)
                                ],
                            ),
                        )
                    columns.append(column)
                for k in range(s + NEIGHBOURS):
                    if k >= s:
                        columns.append(
                            b.shuffle_vector(
                                columns[k - s],
                                v[s],
                                ir.Constant(e.ints, [*range(1, lanes), lanes + k - s]),
                            )
                        )
                    with b.if_then(b.icmp_signed("<", e.int(k), count)):
                        e.store(columns[k], e.at(out, k, lanes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return deinterleave


STRIDES, NEIGHBOURS = (2, 3, 4, 5), min(LANES, 8)
_deinterleave = make_deinterleave(STRIDES, LANES)


@jit(no_cpython_wrapper=True)
def deinterleave(stride, address, count, out):
    _deinterleave(stride, address, count, out)


@intrinsic
def _prefetch_for_write(context, address):
    def codegen(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        write, keep, data = (ir.Constant(I32, n) for n in (1, 3, 1))
        builder.call(prefetch, [builder.inttoptr(args[0], pointer), write, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@jit
def prefetch_for_write(address, size):
    """Tell the processor that ``size`` bytes from ``address`` will soon be written: it fetches
    their cache lines in the meantime.
    """
    for k in range(0, size, 64):
        _prefetch_for_write(address + k)


def make_max_of_rows(sizes: Any, lanes: int) -> Any:
    """Return an intrinsic that finds the largest of each column of sums and where it is, with one
    body per number of ``vectors``:

        max_of_rows(vectors, count, sums, row, where, best, best_at)

    best[c] = the largest of sums[i * row + c] over i < count, best_at[c] = where[i] of the first
    that is: for c < lanes * vectors. All but the numbers are addresses: of float32; where of uint8,
    best_at of int32. count is at least 1.
    """

    @intrinsic
    def max_of_rows(context, vectors, count, sums, row, where, best, best_at):
        def codegen(context, builder, signature, args):
            vectors, count, sums, row, where, best, best_at = args
            e, b = Emit(builder, lanes), builder
            for n, _ in e.choose(vectors, e.int(0), [(n, 0) for n in sizes]):
                top = [e.variable(e.constant("-inf")) for _ in range(n)]
                place = [e.variable(ir.Constant(e.ints, [0] * lanes)) for _ in range(n)]
                with e.loop(count) as i:
                    line = e.at(sums, b.mul(i.index, row))
                    here = e.splat(b.zext(e.load(b.add(where, i.index), I8), I32), e.ints)
                    for q in range(n):
                        value, before = e.load(e.at(line, q, lanes)), b.load(top[q])
                        larger = b.fcmp_ordered(">", value, before)
                        b.store(b.select(larger, value, before), top[q])
                        b.store(b.select(larger, here, b.load(place[q])), place[q])
                for q in range(n):
                    e.store(b.load(top[q]), e.at(best, q, lanes))
                    e.store(b.load(place[q]), e.at(best_at, q, lanes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return max_of_rows


_max_of_rows = make_max_of_rows(VECTORS, LANES)


@jit(no_cpython_wrapper=True)
def max_of_rows(vectors, count, sums, where, best):
    """Best of ``count`` rows of Sums; where: the address of their positions."""
    _max_of_rows(vectors, count, sums.out, sums.row, where, best.value, best.position)

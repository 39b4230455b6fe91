"""Vector micro-kernels, written as LLVM instructions because no loop that a compiler vectorizes by itself comes near them.

A convolution is a sum of products x * w. The fastest code keeps many such sums in vector registers at once, loads each x and w
once and uses it for several of them. One tile is a small rectangle of sums:

                    Q columns, each a vector register of LANES floats           LANES = 16 with AVX-512, 8 with AVX2, else 4
                      w0      w1      w2      w3          loaded: Q vectors
        pixel 0  x0  [acc]   [acc]   [acc]   [acc]
        pixel 1  x1  [acc]   [acc]   [acc]   [acc]        acc[p][q] = fma(x[p], w[q], acc[p][q])
        pixel 2  x2  [acc]   [acc]   [acc]   [acc]
        pixel 3  x3  [acc]   [acc]   [acc]   [acc]        P x Q independent multiply-adds per step
        pixel 4  x4  [acc]   [acc]   [acc]   [acc]
                 loaded: P numbers, each copied to all lanes ("broadcast")

and it is repeated for every step (ky, kx * c_in) of the sum. P * Q multiply-adds cost P + Q loads: 5 x 4 has 20 for 9. It may
not be much larger: accumulators, the vectors of w and one x must fit into the registers (32 with AVX-512: 20 + 4 + 1). It may
not be smaller than about 8: a multiply-add takes 4 cycles and one (AVX-512: two on some machines) starts in every cycle, so
as many independent sums must be under way.

Lanes are output channels ("channels" tile: x is broadcast, w are vectors) or, where there are fewer channels than lanes, different
pooling cells ("cells" tile: x are vectors, w is broadcast). The picture is the same with the roles of x and w exchanged.

Either way each sum is one chain of fused multiply-adds that starts at +0 and runs in the order of the steps: every tile of
every width gives the same bits. What happens with the sums at the end is the epilogue:

    "store"   out[p][q] = acc[p][q]
    "max"     best[q], where[q] = the larger of it and acc[p][q], and its position (first of equals)
"""
import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import jit

F32, I8, I32, I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)


def host_lanes():
    """Return how many float32 the vector registers of this machine hold."""
    features = llvm.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx2") and features.get("fma") else 4


LANES = host_lanes()


class Emit:
    """An LLVM builder with the few operations that tiles are made of. Addresses are 64-bit integers, offsets count floats."""

    def __init__(self, builder, lanes):
        self.b, self.lanes = builder, lanes
        self.vector, self.ints = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)
        self.fma_function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.vector, [self.vector] * 3), f"llvm.fma.v{lanes}f32")
        if lanes == 16:
            # Without both, LLVM splits 512-bit vectors into halves, runs out of registers, and is ten times slower.
            for attribute in ('"min-legal-vector-width"="512"', '"prefer-vector-width"="512"'):
                set.add(builder.function.attributes, attribute)       # llvmlite's own add() knows only a few names

    def int(self, n):
        return ir.Constant(I64, n)

    def at(self, address, offset, scale=1):
        """address + 4 * scale * offset, in bytes; offset is a Python int or an LLVM value."""
        offset = self.int(4 * scale * offset) if isinstance(offset, int) else self.b.mul(offset, self.int(4 * scale))
        return self.b.add(address, offset)

    def load(self, address, kind=None):
        kind = kind or self.vector
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=1 if kind == I8 else 4)

    def store(self, value, address):
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=4)

    def splat(self, scalar, kind=None):
        """A vector with ``scalar`` in every lane."""
        kind = kind or self.vector
        first = self.b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
        return self.b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(self.ints, [0] * self.lanes))

    def constant(self, value):
        return ir.Constant(self.vector, [float(value)] * self.lanes)

    def fma(self, x, y, z):
        return self.b.call(self.fma_function, [x, y, z])

    def variable(self, value):
        """A variable that starts as ``value``; LLVM turns it into a register."""
        slot = cgutils.alloca_once(self.b, value.type)
        self.b.store(value, slot)
        return slot

    def loop(self, count):
        return cgutils.for_range(self.b, count, intp=I64)

    def choose(self, first, second, pairs):
        """Iterate over ``pairs``, emitting what the loop's body emits as the code that runs when (first, second) is that pair."""
        end = self.b.append_basic_block("end")
        switch = self.b.switch(self.b.add(self.b.mul(first, self.int(64)), second), end)      # a jump table
        for pair in pairs:
            block = self.b.append_basic_block(f"shape{pair[0]}x{pair[1]}")
            switch.add_case(self.int(64 * pair[0] + pair[1]), block)
            self.b.position_at_end(block)
            yield pair
            self.b.branch(end)
        self.b.position_at_end(end)


def _sums(e, pixels, columns, vector_x, listed, x, x_row, x_step, x_pixel, w, w_row, w_step, rows, steps):
    """The picture above: returns acc[p][q] after rows * steps steps."""
    x_unit, w_unit = (e.lanes, 1) if vector_x else (1, e.lanes)

    def place(p, row):
        if listed:
            start, stride = (e.load(e.at(table, p, 2), I64) for table in (x, x_row))
            return e.at(start, b.mul(row, stride))
        return e.at(e.at(x, b.mul(row, x_row), x_unit), b.mul(x_pixel, e.int(p)), x_unit)

    b, x_kind, w_kind = e.b, e.vector if vector_x else F32, F32 if vector_x else e.vector
    acc = [[e.variable(e.constant(0)) for _ in range(columns)] for _ in range(pixels)]
    with e.loop(rows) as row:
        places, w_at = [place(p, row.index) for p in range(pixels)], e.at(w, b.mul(row.index, w_row))
        with e.loop(steps) as step:
            ahead, w_here = b.mul(step.index, x_step), e.at(w_at, b.mul(step.index, w_step))
            many = [e.load(e.at(w_here, q, w_unit), w_kind) for q in range(columns)]
            ones = [e.load(e.at(here, ahead, x_unit), x_kind) for here in places]
            many = [e.splat(v) if vector_x else v for v in many]
            ones = [v if vector_x else e.splat(v) for v in ones]
            for p in range(pixels):
                for q in range(columns):
                    b.store(e.fma(ones[p], many[q], b.load(acc[p][q])), acc[p][q])
    return [[b.load(a) for a in line] for line in acc]


def _keep_max(e, sums, best, where, position):
    """Epilogue: best (columns, lanes) float32 and where (columns, lanes) int32 take the larger; pixel p is position + p.

    Pixels are compared among themselves first: their numbers are constants, which need no instruction of their own.
    """
    b = e.b
    first = e.splat(b.trunc(position, I32), e.ints)
    for q in range(len(sums[0])):
        top, at = sums[0][q], ir.Constant(e.ints, [0] * e.lanes)
        for p, line in enumerate(sums[1:], 1):
            larger = b.fcmp_ordered(">", line[q], top)
            top, at = b.select(larger, line[q], top), b.select(larger, ir.Constant(e.ints, [p] * e.lanes), at)
        before, there = e.load(e.at(best, q, e.lanes)), e.load(e.at(where, q, e.lanes), e.ints)
        larger = b.fcmp_ordered(">", top, before)
        e.store(b.select(larger, top, before), e.at(best, q, e.lanes))
        e.store(b.select(larger, b.add(first, at), there), e.at(where, q, e.lanes))


def _store(e, sums, out, out_pixel):
    """Epilogue: out[p * out_pixel + q * lanes] = sums."""
    for p, line in enumerate(sums):
        for q, value in enumerate(line):
            e.store(value, e.at(e.at(out, e.b.mul(out_pixel, e.int(p))), q, e.lanes))


def make_tile(shapes, lanes, lanes_are, epilogue, listed=False):
    """Return an intrinsic with one body per (pixels, columns) in ``shapes``, chosen at run time:

        tile(pixels, columns, x, x_row, x_step, x_pixel, w, w_row, w_step, rows, steps, out, where, last)

    sums[p][q] over row < rows, step < steps of x[row * x_row + step * x_step + p * x_pixel] * w[row * w_row + step * w_step +
    q]; x, w, out, where are addresses. The x strides count floats ("channels") or vectors ("cells"); w's count floats; q
    counts vectors or floats. With ``listed`` the pixels lie anywhere: x and x_row are addresses of int64 arrays, the address of
    each pixel and the floats from one of its rows to the next; x_pixel is not used. epilogue "max": out is best, ``last`` the
    position of pixel 0; "store": ``last`` is the distance of two pixels in out. Keep the result in a module's global: numba's
    disk cache never finds functions that reach it through a closure.
    """
    @intrinsic
    def tile(context, pixels, columns, x, x_row, x_step, x_pixel, w, w_row, w_step, rows, steps, out, where, last):
        def codegen(context, builder, signature, args):
            e = Emit(builder, lanes)
            pixels, columns, *operands, out, where, last = args
            for p, q in e.choose(pixels, columns, shapes):
                sums = _sums(e, p, q, lanes_are == "cells", listed, *operands)
                if epilogue == "max":
                    _keep_max(e, sums, out, where, last)
                else:
                    _store(e, sums, out, last)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), codegen

    return tile


# P and Q: with 32 registers (AVX-512) up to 6 x 4 sums, with 16 (AVX2, SSE) 6 x 2. Sizes between the listed ones are split
# into these: each body is compiled into every kernel that calls the tile, about 0.1 s for each.
MAX_PIXELS = 6
VECTORS = (1, 2, 4) if LANES == 16 else (1, 2)
CHANNELS = (1, 2, 5) if LANES == 16 else (1, 2)  # of a cells tile: 5 x 5 sums + 5 vectors of x + 1 weight
MAX_VECTORS = VECTORS[-1]
CHANNEL_SHAPES = [(p, q) for p in range(1, MAX_PIXELS + 1) for q in VECTORS]
CELL_SHAPES = [(p, q) for p in range(1, MAX_PIXELS) for q in CHANNELS]

_store_tile = make_tile(CHANNEL_SHAPES, LANES, "channels", "store")
_listed_tile = make_tile(CHANNEL_SHAPES, LANES, "channels", "store", listed=True)
_cells_tile = make_tile(CELL_SHAPES, LANES, "cells", "max")


@jit(no_cpython_wrapper=True)
def store_tile(pixels, vectors, x, x_row, x_step, x_pixel, w, w_row, w_step, rows, steps, out, out_pixel):
    _store_tile(pixels, vectors, x, x_row, x_step, x_pixel, w, w_row, w_step, rows, steps, out, 0, out_pixel)


@jit(no_cpython_wrapper=True)
def listed_tile(pixels, vectors, places, rows_apart, w, w_row, w_step, rows, steps, out, out_pixel):
    _listed_tile(pixels, vectors, places, rows_apart, 1, 0, w, w_row, w_step, rows, steps, out, 0, out_pixel)


@jit(no_cpython_wrapper=True)
def cells_tile(pixels, channels, x, x_row, x_step, x_pixel, w, w_row, w_step, rows, steps, best, where, position):
    _cells_tile(pixels, channels, x, x_row, x_step, x_pixel, w, w_row, w_step, rows, steps, best, where, position)


def make_largest(sizes, lanes):
    """Return an intrinsic that finds the largest of each column of sums and where it is, with one body per number of ``vectors``:

        largest(vectors, count, sums, row, where, best, at)

    best[c] = the largest of sums[i * row + c] over i < count, at[c] = where[i] of the first that is: for c < lanes * vectors. All but the
    numbers are addresses: of float32; where of uint8, at of int32. count is at least 1.
    """
    @intrinsic
    def largest(context, vectors, count, sums, row, where, best, at):
        def codegen(context, builder, signature, args):
            vectors, count, sums, row, where, best, at = args
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
                    e.store(b.load(place[q]), e.at(at, q, lanes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return largest


_largest = make_largest(VECTORS, LANES)


@jit(no_cpython_wrapper=True)
def largest(vectors, count, sums, row, where, best, at):
    _largest(vectors, count, sums, row, where, best, at)


def vectors_of(floats, lanes):
    """Return (offset, lanes) of the vectors that cover ``floats``: full ones, then the smallest power of 2 that covers the rest."""
    full = [(k, lanes) for k in range(0, floats - lanes + 1, lanes)]
    rest = floats - lanes * len(full)
    return full + [(lanes * len(full), next(n for n in (4, 8, 16) if n >= rest))] * (rest > 0)


def make_patches(max_rows, quads, lanes):
    """Return an intrinsic that sums patches of R <= max_rows rows x 4 Q floats with weights, one body per R and Q in ``quads``:

        patches(R, Q, count, g, address, row, first, offset, out, out_row)

    out[r * out_row + k] += sum over i < count of g[i] * (the float at address[i])[(first + r) * row[i] + offset + k], k < 4 Q.
    All but counts and offsets are addresses: g of float32, address and row of int64. The sum starts at 0 and is added to out
    at its end, so that it need not wait for an earlier patch that is still on its way to overlapping memory. Vectors that are
    wider than what is left of a row read and write up to 15 floats more.
    """
    shapes = [(r, q) for r in range(1, max_rows + 1) for q in quads]

    @intrinsic
    def patches(context, rows, quads, count, g, address, row, first, offset, out, out_row):
        def codegen(context, builder, signature, args):
            rows, quads, count, g, address, row, first, offset, out, out_row = args
            b, whole = builder, Emit(builder, lanes)
            for r_max, q in whole.choose(rows, quads, shapes):
                columns = [(k, Emit(builder, n)) for k, n in vectors_of(4 * q, lanes)]
                acc = [[e.variable(e.constant(0)) for _, e in columns] for _ in range(r_max)]
                with whole.loop(count) as i:
                    weight = whole.load(whole.at(g, i.index), F32)
                    stride = whole.load(whole.at(row, i.index, 2), I64)
                    start = whole.load(whole.at(address, i.index, 2), I64)
                    start = whole.at(whole.at(start, b.mul(first, stride)), offset)
                    for r in range(r_max):
                        line = whole.at(start, b.mul(stride, whole.int(r)))
                        for (k, e), a in zip(columns, acc[r]):
                            b.store(e.fma(e.splat(weight), e.load(e.at(line, k)), b.load(a)), a)
                for r in range(r_max):
                    line = whole.at(out, b.mul(out_row, whole.int(r)))
                    for (k, e), a in zip(columns, acc[r]):
                        e.store(b.fadd(e.load(e.at(line, k)), b.load(a)), e.at(line, k))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return patches


MAX_ROWS = 5
# Whole vectors, or some of them and one that is shorter: 50 floats (5 pixels of 10 channels) take 3 x 16 + 4 lanes, not 4 x 16.
QUADS = [q for q in (1, 2, 4, 5, 8, 12, 13, 16) if 4 * q <= MAX_VECTORS * LANES]
_patches = make_patches(MAX_ROWS, QUADS, LANES)


@jit(no_cpython_wrapper=True)
def patches(rows, quads, count, g, address, row, first, offset, out, out_row):
    _patches(rows, quads, count, g, address, row, first, offset, out, out_row)


def make_add_rows(most, lanes):
    """Return an intrinsic that adds a sum of up to ``most`` rows to another one, with one body per number of them:

        add_rows(count, g, address, row, first, rows, offset, vectors, out, out_row)

    out[r * out_row + k] += sum over i < count of g[i] * (the float at address[i])[(first + r) * row[i] + offset + k] for r < rows and
    k < lanes * vectors: whole vectors, whatever is in use of the last one. All but counts and offsets are addresses: g of float32,
    address and row of int64. For long rows: memory is read in its order, which the processor foresees, and ``out`` once for the sum.
    """
    @intrinsic
    def add_rows(context, count, g, address, row, first, rows, offset, vectors, out, out_row):
        def codegen(context, builder, signature, args):
            count, g, address, row, first, rows, offset, vectors, out, out_row = args
            e = Emit(builder, lanes)
            for n, _ in e.choose(count, e.int(0), [(n, 0) for n in range(1, most + 1)]):
                weights = [e.splat(e.load(e.at(g, i), F32)) for i in range(n)]
                strides = [builder.mul(e.load(e.at(row, i, 2), I64), e.int(4)) for i in range(n)]
                starts = [e.at(builder.add(e.load(e.at(address, i, 2), I64), builder.mul(first, strides[i])), offset) for i in range(n)]
                with e.loop(rows) as r:
                    lines = [builder.add(start, builder.mul(r.index, stride)) for start, stride in zip(starts, strides)]
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
def add_rows(count, g, address, row, first, rows, offset, vectors, out, out_row):
    _add_rows(count, g, address, row, first, rows, offset, vectors, out, out_row)


def make_transpose(lanes):
    """Return an intrinsic that exchanges windows and lanes: transpose(address, row, r, k, count, out), all integers, writes

        out[j * lanes + lane] = the float at address[lane], [r * row[lane] + k + j]        for j < count <= lanes

    It reads ``lanes`` floats at each address. Interleaving register i with register i + lanes / 2 doubles the run of lanes that
    sit together: after log2(lanes) rounds the square is transposed.
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
                v = [b.shuffle_vector(x, y, ir.Constant(e.ints, [n + half for n in low]))
                     for x, y in pairs for half in (0, lanes // 2)]
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


def make_deinterleave(strides, lanes):
    """Return an intrinsic for windows ``stride`` floats apart, one of ``strides``: deinterleave(stride, address, count, out) writes

        out[k * lanes + lane] = (the float at address)[lane * stride + k]        for k < count, stride <= count <= stride + NEIGHBOURS

    The first ``stride`` columns are picked out of the ``stride`` vectors that hold them; the others are seen again one window further on:
    column k is column k - stride moved by a lane. Reads (lanes + 1) * stride floats, rounded up to vectors, at most lanes - 1 more.
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
                    for i in range(1, s):              # lanes below have been picked already, those above follow
                        column = b.shuffle_vector(column, v[i], ir.Constant(e.ints, [
                            lanes + at - i * lanes if at // lanes == i else at if i == 1 and at < lanes else lane
                            for lane, at in enumerate(places)]))
                    columns.append(column)
                for k in range(s + NEIGHBOURS):
                    if k >= s:
                        columns.append(b.shuffle_vector(columns[k - s], v[s], ir.Constant(e.ints, [*range(1, lanes), lanes + k - s])))
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
def _announce(context, address):
    def codegen(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        write, keep, data = (ir.Constant(I32, n) for n in (1, 3, 1))
        builder.call(prefetch, [builder.inttoptr(args[0], pointer), write, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@jit
def announce(address, many):
    """Tell the processor that ``many`` bytes from ``address`` will soon be written: it fetches their cache lines in the meantime."""
    for k in range(0, many, 64):
        _announce(address + k)

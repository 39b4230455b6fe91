"""LLVM instructions for vector code: the width of this machine's vectors, and a builder of the few
operations that the micro-kernels of this backend are made of.
"""

from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils

F32, I8, I32, I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)


class BFloat(ir.Type):
    """LLVM's type of a bf16 number, which llvmlite has not."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, BFloat)

    def __hash__(self):
        return hash(BFloat)


def host_lanes() -> int:
    """Return how many float32 the vector registers of this machine hold."""
    features = llvm.get_host_cpu_features()
    return (
        16 if features.get("avx512f") else 8 if features.get("avx2") and features.get("fma") else 4
    )


LANES = host_lanes()
#: Whether this machine multiplies pairs of bf16 numbers (bf16.py).
HAS_BF16 = LANES == 16 and bool(llvm.get_host_cpu_features().get("avx512bf16"))


class Emit:
    """An LLVM builder with the few operations that tiles are made of. Addresses are 64-bit
    integers, offsets count floats.
    """

    def __init__(self, builder, lanes):
        self.b, self.lanes = builder, lanes
        self.vector, self.ints = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)
        self.fma_function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.vector, [self.vector] * 3), f"llvm.fma.v{lanes}f32"
        )
        if lanes == 16:
            # Without both, LLVM splits 512-bit vectors into halves, runs out of registers, and is
            # ten times slower.
            for attribute in ('"min-legal-vector-width"="512"', '"prefer-vector-width"="512"'):
                set.add(
                    builder.function.attributes, attribute
                )  # llvmlite's own add() knows only a few names

    def int(self, n: Any) -> Any:
        return ir.Constant(I64, n)

    def at(self, address: Any, offset: Any, scale: Any = 1) -> Any:
        """address + 4 * scale * offset, in bytes; offset is a Python int or an LLVM value."""
        offset = (
            self.int(4 * scale * offset)
            if isinstance(offset, int)
            else self.b.mul(offset, self.int(4 * scale))
        )
        return self.b.add(address, offset)

    def load(self, address: Any, kind: Any = None) -> Any:
        kind = kind or self.vector
        return self.b.load(
            self.b.inttoptr(address, kind.as_pointer()), align=1 if kind == I8 else 4
        )

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=4)

    def splat(self, scalar: Any, kind: Any = None) -> Any:
        """A vector with ``scalar`` in every lane."""
        kind = kind or self.vector
        first = self.b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
        return self.b.shuffle_vector(
            first, ir.Constant(kind, ir.Undefined), ir.Constant(self.ints, [0] * self.lanes)
        )

    def constant(self, value: Any) -> Any:
        return ir.Constant(self.vector, [float(value)] * self.lanes)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        return self.b.call(self.fma_function, [x, y, z])

    def add_pairs(self, x: Any, y: Any, z: Any) -> Any:
        """z + x0 y0 + x1 y1 in each lane, for lanes of x and y that are two bf16 numbers."""
        pairs = ir.VectorType(BFloat(), 2 * self.lanes)
        kind = ir.FunctionType(self.vector, [self.vector, pairs, pairs])
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.lanes}"
        add = cgutils.get_or_insert_function(self.b.module, kind, name)
        return self.b.call(add, [z, self.b.bitcast(x, pairs), self.b.bitcast(y, pairs)])

    def variable(self, value: Any) -> Any:
        """A variable that starts as ``value``; LLVM turns it into a register."""
        slot = cgutils.alloca_once(self.b, value.type)
        self.b.store(value, slot)
        return slot

    def loop(self, count: Any) -> Any:
        return cgutils.for_range(self.b, count, intp=I64)

    def choose(self, first: Any, second: Any, pairs: Any) -> Iterator[Any]:
        """Iterate over ``pairs``, emitting what the loop's body emits as the code that runs when
        (first, second) is that pair.
        """
        end = self.b.append_basic_block("end")
        switch = self.b.switch(
            self.b.add(self.b.mul(first, self.int(64)), second), end
        )  # a jump table
        for pair in pairs:
            block = self.b.append_basic_block(f"shape{pair[0]}x{pair[1]}")
            switch.add_case(self.int(64 * pair[0] + pair[1]), block)
            self.b.position_at_end(block)
            yield pair
            self.b.branch(end)
        self.b.position_at_end(end)

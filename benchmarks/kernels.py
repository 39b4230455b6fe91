"""How far each CPU kernel is from the limit of this machine, at the shapes of the talk's network
(one event of 3600 x 3600).

    python benchmarks/kernels.py [--threads 2] [--size 3600] [--repeat 9] [--json FILE]

First every kernel is compared with the reference in float64 on small images. Then two limits are
measured: multiply-adds on registers alone (GFLOP/s) and copying arrays (GB/s, read + written); the
best of several runs before each kernel, and how far they vary tells whether the machine was shared.
A kernel's FLOP are those that the definition needs: 2 per product, outputs that pooling drops not
counted, the backward of the block with its one gradient per window. Data that fit into the last
cache can be faster than the copy, which goes through memory: over 100 %. Images are noise: every
window is active and every channel has its maximum elsewhere, the worst case.
"""

import os
import statistics
import time
from functools import partial
from itertools import pairwise

import numba
import numpy as np
from common import parser, record
from numba import njit, prange, types
from numba.extending import intrinsic
from rich.console import Console
from rich.table import Table

from minicnn.files import cpu_model
from minicnn.jobs.recipe import FULL_SIZE_PARAMETERS
from minicnn.kernels import cpu, reference
from minicnn.kernels.arguments import Pooled, SGDStep, Wanted
from minicnn.kernels.cpu.emit import LANES, Emit
from minicnn.kernels.shapes import Block
from minicnn.kernels.workspace import Workspace

CHANNELS, STEPS = (1, 10, 64, 128, 256), 400_000
BLOCK = Block(5)
CHAINS = (
    16 if LANES == 16 else 12
)  # enough to hide the latency, few enough for the registers (32; AVX2 and SSE have 16)


@intrinsic
def _multiply_adds(context, steps, data):
    """CHAINS independent vector multiply-adds per step, nothing loaded or stored: what the units
    can do at most.
    """

    def codegen(context, builder, signature, args):
        e = Emit(builder, LANES)
        x, y = e.load(args[1]), e.load(e.at(args[1], LANES))
        chains = [e.variable(e.constant(i)) for i in range(CHAINS)]
        with e.loop(args[0]):
            for c in chains:
                builder.store(e.fma(x, y, builder.load(c)), c)
        for i, c in enumerate(
            chains
        ):  # each to its own place: a store that another overwrites is left out, with its chain
            e.store(builder.load(c), e.at(args[1], i, LANES))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@njit(parallel=True)
def _run_multiply_adds(data):
    for t in prange(data.shape[0]):
        _multiply_adds(STEPS, data[t].ctypes.data)


@njit(parallel=True)
def _copy(array, into):
    for i in prange(array.size):
        into[i] = array[i]


class Limits:
    """Measures both limits whenever called."""

    def __init__(self, threads):
        self.data, self.flop, self.bytes = np.zeros((threads, CHAINS * LANES), np.float32), [], []
        self.a, self.b = np.ones(1 << 24, np.float32), np.zeros(1 << 24, np.float32)
        _run_multiply_adds(self.data)
        _copy(self.a, self.b)

    def measure(self):
        for _ in range(3):
            start = time.perf_counter()
            _run_multiply_adds(self.data)
            middle = time.perf_counter()
            _copy(self.a, self.b)
            end = time.perf_counter()
            self.flop.append(2 * CHAINS * LANES * STEPS * len(self.data) / (middle - start))
            self.bytes.append(2 * self.a.nbytes / (end - middle))


def noise(*shape, scale=1.0, seed=0):
    array = cpu.empty(shape)  # from the start of a cache line, as the engine's own arrays
    array[...] = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    array *= scale
    return array


def weights(ci, co):
    return noise(5, 5, ci, co, scale=(25 * ci) ** -0.5), noise(co, scale=0.1, seed=1)


def check():
    """Every kernel against the reference in float64, to 5e-6 in norm."""

    def near(got, want, name):
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert error < 5e-6, f"{name} is wrong: relative error {error:.1e}"

    for ci, co in pairwise(CHANNELS):
        x, (w, b) = noise(1, 28, 28, ci), weights(ci, co)
        x64, w64, b64 = (array.astype(float) for array in (x, w, b))
        z = cpu.conv2d(x, w, b)
        near(z, reference.conv2d(x64, w64, b64), "conv2d")
        for got, want in zip(
            cpu.conv2d_backward(z, x, w), reference.conv2d_backward(z.astype(float), x64, w64)
        ):
            near(got, want, "conv2d_backward")
        pooled = cpu.conv2d_block(x, w, b, BLOCK)
        y = pooled.y
        assert np.array_equal(y, cpu.maxpool2d(cpu.elu(z), 5)[0]), (
            "conv2d_block is not the three ops"
        )
        near(y, reference.conv2d_block(x64, w64, b64, BLOCK).y, "conv2d_block")
        got = cpu.conv2d_block_backward(y, pooled, w, BLOCK)
        y64 = y.astype(float)
        pooled64 = Pooled(x64, y64, pooled.argmax)
        for g, want in zip(got, reference.conv2d_block_backward(y64, pooled64, w64, BLOCK)):
            near(g, want, "conv2d_block_backward")
    x, (w, b) = noise(1, 6400), (noise(6400, 32, seed=2), noise(32))
    near(cpu.dense(x, w, b), reference.dense(x.astype(float), w, b), "dense")


def kernels(size):
    """Yield (name, shape, function, FLOP, bytes): one of the two is None, the other is what bounds
    the kernel.
    """
    sizes = [size]
    while len(sizes) < 5:
        sizes.append(sizes[-1] // 5)
    state = []
    x = noise(1, size, size, 1)
    for k, (ci, co) in enumerate(pairwise(CHANNELS)):
        (w, b), workspace = weights(ci, co), Workspace()
        cells = sizes[k + 1] ** 2
        pooled = cpu.conv2d_block(x, w, b, BLOCK, workspace)
        y = pooled.y
        shape = f"{sizes[k]}² x {ci} → {sizes[k + 1]}² x {co}"
        yield (
            f"block {k + 1} forward",
            shape,
            partial(cpu.conv2d_block, x, w, b, BLOCK, workspace),
            2 * 625 * cells * ci * co,
            None,
        )
        dy, back = noise(*y.shape, seed=3), cpu.conv2d_block_backward
        yield (
            f"block {k + 1} backward",
            shape,
            partial(back, dy, pooled, w, BLOCK, Wanted(dx=k > 0), workspace),
            (4 if k else 2) * 25 * cells * ci * co,
            None,
        )
        state.append((w, b, workspace, x))
        x = y
    for k in (2, 3):
        w, b, _, xk = state[k]
        flop, shape, own = (
            50 * xk.size * w.shape[3],
            f"{sizes[k]}² x {CHANNELS[k]} → {CHANNELS[k + 1]}",
            Workspace(),
        )
        z = cpu.conv2d(xk, w, b, workspace=own)
        yield f"conv2d {k + 1}", shape, partial(cpu.conv2d, xk, w, b, workspace=own), flop, None
        yield (
            f"conv2d {k + 1} backward",
            shape,
            partial(cpu.conv2d_backward, z, xk, w, workspace=own),
            2 * flop,
            None,
        )
    z = noise(1, sizes[1], sizes[1], 16)
    shape, pooled = f"{sizes[1]}² x 16", cpu.maxpool2d(z, 5)
    yield "elu", shape, partial(cpu.elu, z), None, 2 * z.nbytes
    yield "elu backward", shape, partial(cpu.elu_backward, z, z), None, 3 * z.nbytes
    yield "maxpool2d", shape, partial(cpu.maxpool2d, z, 5), None, z.nbytes + pooled[0].nbytes
    yield (
        "maxpool2d backward",
        shape,
        partial(cpu.maxpool2d_backward, *pooled, z.shape, 5),
        None,
        z.nbytes + pooled[0].nbytes,
    )
    flat = x.reshape(1, -1)
    w, b = noise(flat.size, 32, seed=2), noise(32)
    yield "dense", f"{flat.size} → 32", partial(cpu.dense, flat, w, b), None, w.nbytes
    dw = np.zeros_like(w)
    yield (
        "dense backward",
        f"{flat.size} → 32",
        partial(cpu.dense_backward, b[None], flat, w, Wanted(into=(dw, None))),
        None,
        3 * w.nbytes,
    )
    v = [np.zeros(FULL_SIZE_PARAMETERS, np.float32) for _ in range(3)]
    yield (
        "sgd",
        f"{FULL_SIZE_PARAMETERS:,}",
        partial(cpu.sgd, *v, SGDStep(0.01, 0.9), out=(v[0], v[2])),
        None,
        5 * v[0].nbytes,
    )
    yield (
        "training step",
        f"{size}² x 1",
        training_step([s[:3] for s in state], state[0][3], w, b),
        (
            sum(2 * 675 * m**2 * ci * co for m, ci, co in zip(sizes[1:], CHANNELS, CHANNELS[1:]))
            + sum(50 * m**2 * ci * co for m, ci, co in zip(sizes[2:], CHANNELS[1:], CHANNELS[2:]))
        ),
        None,
    )


def training_step(blocks, image, w1, b1):
    """Forward, backward and update of one event, weights packed anew: what one step with batch 1
    costs.
    """
    w2, b2, label = noise(32, 5, scale=0.2), np.zeros(5, np.float32), np.array([2])
    flat, gradient, velocity = (np.zeros(FULL_SIZE_PARAMETERS, np.float32) for _ in range(3))

    def step():
        x, kept = image, []
        for w, b, workspace in blocks:
            pooled = cpu.conv2d_block(x, w, b, BLOCK, workspace)
            kept.append((pooled, w, workspace))
            x = pooled.y
        hidden = cpu.elu(cpu.dense(x.reshape(1, -1), w1, b1))
        d = cpu.softmax_cross_entropy_backward(
            cpu.softmax_cross_entropy(cpu.dense(hidden, w2, b2), label)[1], label
        )
        d = cpu.elu_backward(cpu.dense_backward(d, hidden, w2)[0], hidden)
        d = cpu.dense_backward(d, x.reshape(1, -1), w1)[0].reshape(x.shape)
        for k, (pooled, w, workspace) in reversed(list(enumerate(kept))):
            d = cpu.conv2d_block_backward(d, pooled, w, BLOCK, Wanted(dx=k > 0), workspace)[0]
            workspace.expire()
        cpu.sgd(flat, gradient, velocity, SGDStep(0.01, 0.9), out=(flat, velocity))

    return step


def setting(threads):
    return (
        f"{cpu_model()}, {os.cpu_count()} cores, {threads} threads, {LANES} float32 lanes, "
        f"numba {numba.__version__}, numpy {np.__version__}"
    )


def main():
    p = parser(__doc__, threads=False)
    p.add_argument("--threads", type=int, default=min(2, numba.config.NUMBA_NUM_THREADS))
    p.add_argument("--repeat", type=int, default=9)
    args = p.parse_args()
    if args.size < 625:
        p.error(f"four poolings of 5 need at least 625 pixels, got --size {args.size}")
    cpu.set_threads(args.threads)
    start = time.perf_counter()
    check()
    ready = time.perf_counter() - start
    limits, rows = Limits(args.threads), []
    for name, shape, run, flop, nbytes in kernels(args.size):
        run()
        limits.measure()
        times = []
        for _ in range(args.repeat):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        rows.append(
            {
                "kernel": name,
                "shape": shape,
                "seconds": statistics.median(times),
                "min": min(times),
                "max": max(times),
                "flop": flop,
                "bytes": nbytes,
            }
        )
    limits.measure()
    peak, bandwidth = max(limits.flop), max(limits.bytes)
    usual = statistics.median(limits.flop) / peak
    table = Table(
        title=f"{setting(args.threads)}\nlimits: {peak / 1e9:.0f} GFLOP/s multiply-adds in "
        "registers, "
        f"{bandwidth / 1e9:.1f} GB/s copy; checks and compilation {ready:.1f} s (not timed below)"
    )
    for column in ("kernel", "shape", "median ms", "min - max ms", "rate", "of limit"):
        table.add_column(column, justify="left" if column in ("kernel", "shape") else "right")
    for r in rows:
        r["rate"] = (r["flop"] or r["bytes"]) / r["seconds"]
        r["of_limit"] = r["rate"] / (peak if r["flop"] else bandwidth)
        table.add_row(
            r["kernel"],
            r["shape"],
            f"{r['seconds'] * 1e3:.2f}",
            f"{r['min'] * 1e3:.2f} - {r['max'] * 1e3:.2f}",
            f"{r['rate'] / 1e9:.1f} {'GFLOP/s' if r['flop'] else 'GB/s'}",
            f"{100 * r['of_limit']:.0f} %",
        )
    Console(width=130).print(table)
    deep = [
        r for r in rows if r["kernel"] in ("block 2 forward", "block 3 forward", "block 4 forward")
    ]
    share = sum(r["flop"] for r in deep) / sum(r["seconds"] for r in deep) / peak
    print(f"blocks 2-4 forward together: {100 * share:.0f} % of the limit")
    if usual < 0.93:
        print(
            f"The machine was shared: its median speed on registers was {100 * usual:.0f} % of "
            "its best; times are too long."
        )
    record(
        args.json,
        {
            "setting": setting(args.threads),
            "threads": args.threads,
            "peak_flops": peak,
            "usual_share_of_peak": usual,
            "copy_bytes_per_s": bandwidth,
            "compile_and_check_s": ready,
            "kernels": rows,
        },
    )


if __name__ == "__main__":
    main()

"""The CUDA kernels and the training step on a GPU, against the ceilings that the same run measures,
and against PyTorch.

    python benchmarks/gpu.py [--size 3600] [--batch-size 1 8 32] [--json FILE]

It needs a GPU; PyTorch takes part if it is installed.

First the loss and gradients are compared with the CPU engine. Times are medians of device events.
``make gpu-check`` runs the parity tests on the device and then this, into benchmarks/results/.
``--device emulated --size 100`` runs it all without a GPU; such times mean nothing, but ``--device
emulated --check`` compares the whole network at full size with the CPU engine, in two minutes.
"""

import math
import os
import statistics
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import MOMENTUM, RATE, compared_scale, parser, record
from gpu_torch import steps_of_torch

import minicnn as mc
from minicnn.engine.plan import resolve_device
from minicnn.files import cpu_model
from minicnn.kernels.arguments import SGDStep, Wanted


class Clock:
    """Seconds of calls, by device events on a GPU."""

    def __init__(self, kernels, repeats):
        self.k, self.repeats = kernels, repeats

    def __call__(self, call):
        """Return the median seconds of ``call()`` after a first one that compiles."""
        call()
        seconds = []
        for _ in range(self.repeats):
            self.k.synchronize()
            if self.k.name == "cuda":
                import cupy

                begin, end = cupy.cuda.Event(), cupy.cuda.Event()
                begin.record()
                call()
                end.record()
                end.synchronize()
                seconds.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
            else:
                begin = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - begin)
        return statistics.median(seconds)


def ceilings(clock):
    """Return {"copy_GBs": ..., "fp32_TFLOPs": ...} of a large copy and a large matrix product, or
    {} without a GPU.
    """
    if clock.k.name != "cuda":
        return {}
    import cupy

    a, b = (cupy.zeros(1 << 28, np.float32) for _ in range(2))
    copy = clock(lambda: cupy.copyto(b, a))
    m, n = (cupy.ones((8192, 8192), np.float32) for _ in range(2))
    product = clock(lambda: m @ n)  # CuPy computes it in fp32 unless CUPY_TF32 is set
    return {"copy_GBs": 2 * a.nbytes / copy / 1e9, "fp32_TFLOPs": 2 * 8192**3 / product / 1e12}


def rows_of_kernels(clock, size, batch):
    """Yield {"kernel", "seconds", "flop", "bytes"} for forward, weight and input gradient of every
    block.
    """
    k, rng = clock.k, np.random.default_rng(0)
    model = mc.models.microboone(size, device="reference", zero_suppression="never")
    for i, (block, shape) in enumerate(model.plan().fused_blocks()):
        w, b = (k.asarray(model.weights[f"{block.name}/{key}"]) for key in "wb")
        kh, kw, ci, co = w.shape
        x = k.asarray(rng.standard_normal((batch, *shape), np.float32))
        pooled = k.conv2d_block(x, w, b, block.block)
        y = pooled.y
        cells, positions, taps = (
            math.prod(y.shape[:3]),
            math.prod(block.pool),
            2 * kh * kw * ci * co,
        )
        forward, backward = (
            partial(k.conv2d_block, x, w, b, block.block),
            partial(k.conv2d_block_backward, y, pooled, w, block.block),
        )
        yield {
            "kernel": f"block {i + 1} forward",
            "seconds": clock(forward),
            "flop": cells * positions * taps,
            "bytes": x.nbytes + 1.25 * y.nbytes,
        }
        yield {
            "kernel": f"block {i + 1} dw",
            "seconds": clock(partial(backward, wanted=Wanted(dx=False))),
            "flop": cells * taps,
            "bytes": x.nbytes + 2.25 * y.nbytes,
        }
        if i:
            yield {
                "kernel": f"block {i + 1} dw + dx",
                "seconds": clock(backward),
                "flop": 2 * cells * taps,
                "bytes": 2 * x.nbytes + 2.25 * y.nbytes,
            }
    n = model.parameters.size
    vectors = [k.zeros((n,)) for _ in range(3)]
    update = partial(k.sgd, *vectors, SGDStep(RATE, MOMENTUM), out=(vectors[0], vectors[2]))
    yield {"kernel": "sgd", "flop": 6 * n, "bytes": 20 * n, "seconds": clock(update)}


def peak_memory(kernels, reset=False):
    """Return the bytes that CuPy's pool holds, which never shrinks by itself; ``reset`` gives back
    what is unused.
    """
    if kernels.name != "cuda":
        return 0
    import cupy

    pool = cupy.get_default_memory_pool()
    if reset:
        pool.free_all_blocks()
    return pool.total_bytes()


class Case(NamedTuple):
    """Which training step is timed."""

    device: str
    size: int
    batch: int
    mode: str  # of zero suppression
    precision: str = "float32"


def step_of_minicnn(kernels, case, events, repeats):
    """Return the row of one training step: transfer, compression, update and all."""
    device, size, batch, mode, precision = case
    peak_memory(kernels, reset=True)
    model = mc.models.microboone(
        size,
        device=device,
        input_scale=compared_scale(size),
        zero_suppression=mode,
        precision=precision,
        optimizer=mc.SGD(RATE, MOMENTUM),
    )
    images, labels = [e.image for e in events[:batch]], np.array([e.label for e in events[:batch]])
    seconds = Clock(model.kernels, repeats)(lambda: model.train_on_batch(images, labels))
    kind = ("dense" if mode == "never" else "zero-suppressed") + (
        ", TF32" if precision == "tf32" else ""
    )
    return {
        "engine": f"minicnn {kind}",
        "batch": batch,
        "seconds": seconds / batch,
        "memory": peak_memory(kernels),
    }


def from_the_store(kernels, device, size, batch, simulator, seconds):
    """Train from a compressed store for at least so many seconds; returns (events per second,
    percent of the time in which a kernel ran, by nvidia-smi, or None where it says nothing).
    """
    store = mc.data.EventStore().load(simulator, range(2 * batch))
    model = mc.models.microboone(
        size, device=device, input_scale=compared_scale(size), optimizer=mc.SGD(RATE, MOMENTUM)
    )
    model.fit(store, batch_size=batch)
    watch = None
    if kernels.name == "cuda":
        with suppress(OSError):
            watch = subprocess.Popen(
                [
                    "nvidia-smi",
                    "--query-gpu=utilization.gpu",
                    "--format=csv,noheader,nounits",
                    "-lms",
                    "200",
                    "-i",
                    kernels.runtime.device.pci_bus_id,
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
    epochs, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        model.fit(store, batch_size=batch)
        epochs += 1
    rate, busy = epochs * len(store) / (time.perf_counter() - begin), []
    if watch:
        watch.terminate()
        busy = [int(line) for line in watch.communicate()[0].split() if line.isdigit()]
    return rate, statistics.mean(busy) if busy else None


def check(device, size, events):
    """Compare loss and gradients with the CPU engine for one event, dense and zero-suppressed;
    SystemExit where they differ.
    """
    images, labels = [events[0].image], np.array([events[0].label])
    for mode in ("never", "auto"):
        cpu, gpu = (
            mc.models.microboone(
                size, device=d, input_scale=compared_scale(size), zero_suppression=mode
            )
            for d in ("cpu", device)
        )
        (loss, want), (loss2, got) = (m.loss_and_gradients(images, labels) for m in (cpu, gpu))
        worst = max(
            float(np.linalg.norm(got[n] - want[n]) / max(np.linalg.norm(want[n]), 1e-30))
            for n in want
        )
        print(
            f"loss {loss2:.6f}, CPU {loss:.6f}; largest relative difference of a gradient "
            f"{worst:.1e}  ({mode})"
        )
        if not (
            abs(loss - loss2) <= 1e-4 * abs(loss) and worst < 1e-2
        ):  # near ties of the pool may fall either way
            raise SystemExit("the GPU's step is not the CPU's: run make gpu-check")


def main(argv=None):
    p = parser(__doc__, threads=False, json=False)
    p.add_argument("--device", default="cuda")
    p.add_argument("--batch-size", type=int, nargs="+", default=[1, 8, 32])
    p.add_argument("--repeats", type=int, default=11)
    p.add_argument("--seconds", type=float, default=10, help="how long to train from the store")
    p.add_argument(
        "--check", action="store_true", help="stop after the comparison with the CPU engine"
    )
    p.add_argument(
        "--cpu",
        action="store_true",
        help="also time the CPU engine, zero-suppressed, at the largest batch",
    )
    p.add_argument(
        "--json", help="write the figures to this file, or into this folder under the GPU's name"
    )
    args = p.parse_args(argv)
    k, name = resolve_device(args.device)
    clock = Clock(k, args.repeats)
    print(
        f"{name}; {cpu_model()}, {os.cpu_count()} cores; {args.size} x {args.size} pixels, "
        f"medians of {args.repeats}"
    )
    simulator = mc.data.Simulator(seed=0, shape=(args.size, args.size, 1), sample="isotropic")
    events = [simulator.read(i) for i in range(max(args.batch_size))]
    check(args.device, args.size, events)
    if args.check:
        return

    top = ceilings(clock)
    print(
        "".join(f"{key.replace('_', ', ')}: {value:.0f}   " for key, value in top.items())
        or "no ceilings: not a GPU"
    )
    print(
        f"\n{'kernel, batch ' + str(min(8, max(args.batch_size))):<28}{'us':>10}{'TFLOP/s':>10}"
        f"{'of peak':>9}{'GB/s':>9}{'of copy':>9}"
    )
    kernels = list(rows_of_kernels(clock, args.size, min(8, max(args.batch_size))))
    for r in kernels:
        flops, bytes_ = r["flop"] / r["seconds"] / 1e12, r["bytes"] / r["seconds"] / 1e9
        parts = (
            [f"{100 * flops / top['fp32_TFLOPs']:.0f} %", f"{100 * bytes_ / top['copy_GBs']:.0f} %"]
            if top
            else ["-", "-"]
        )
        print(
            f"{r['kernel']:<28}{1e6 * r['seconds']:>10.1f}{flops:>10.2f}{parts[0]:>9}"
            f"{bytes_:>9.0f}{parts[1]:>9}"
        )

    print(f"\n{'training step':<44}{'batch':>6}{'ms per event':>14}{'MB on the GPU':>15}")
    steps = []
    for batch in args.batch_size:
        rows = [
            step_of_minicnn(
                k, Case(args.device, args.size, batch, mode, precision), events, args.repeats
            )
            for mode in ("never", "auto")
            for precision in ("float32", *(["tf32"] if k.runtime.has_tf32 else []))
        ]
        if args.cpu and batch == max(args.batch_size):
            cpu = mc.kernels.get_backend("cpu")
            rows.append(
                step_of_minicnn(cpu, Case("cpu", args.size, batch, "auto"), events, 3)
                | {"engine": "minicnn zero-suppressed, CPU"}
            )
        for r in (
            *rows,
            *(steps_of_torch(args.size, batch, events, args.repeats) if k.name == "cuda" else ()),
        ):
            print(
                f"{r['engine']:<44}{r['batch']:>6}{1e3 * r['seconds']:>14.3f}"
                f"{r['memory'] / 1e6:>15.0f}",
                flush=True,
            )
            steps.append(r)
    rate, busy = from_the_store(
        k, args.device, args.size, max(args.batch_size), simulator, args.seconds
    )
    print(
        f"\ntraining from the compressed store: {rate:.0f} events/s; GPU busy: "
        + (f"{busy:.0f} % of the time" if busy is not None else "nvidia-smi says nothing")
    )
    if args.json:
        path = Path(args.json)
        if path.is_dir():
            path /= (
                "".join(
                    c if c.isalnum() else "-"
                    for c in name.split("(")[-1].split(",")[0].split(")")[0]
                )
                .strip("-")
                .lower()
                + ".json"
            )
        record(
            path,
            {
                "device": name,
                "size": args.size,
                "ceilings": top,
                "kernels": kernels,
                "steps": steps,
                "store": {"events_per_second": rate, "busy_percent": busy},
            },
        )
        print(f"figures in {path}")


if __name__ == "__main__":
    main()

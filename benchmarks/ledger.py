"""What looking costs: the training step with the ledger off and on, in turns, and the price of a
span.

    python benchmarks/ledger.py [--size 3600] [--batch-size 8] [--steps 20] [--json FILE]

First checks that losses are the same with and without, and that the parts add up to the step by a
clock of their own.
"""

import os
import statistics
import time

import numpy as np
from common import parser, record

import minicnn as mc
from minicnn import trace
from minicnn.files import cpu_model
from minicnn.train.fit import train_step


def cost_of_a_span(ledger=None, repeats=20_000):
    """Return seconds of one empty span, with the ledger on, or off (None)."""

    def many():
        start = time.perf_counter()
        for _ in range(repeats):
            with trace.span("forward", "layer"):
                pass
        return (time.perf_counter() - start) / repeats

    if ledger is None:
        return many()
    with ledger:
        return many()


def spans_per_step(model, batch):
    """Return how many spans a step opens."""
    with trace.Ledger(detail=True) as ledger:
        train_step(model, [batch], model.optimizer, ledger=ledger)
        return len(ledger.epoch.pieces)


def measure(model, batches, steps):
    """Return (seconds of each step with the ledger off, on), in turns over the same batches; their
    parts must add up.

    A step in which the system took the core away between two clocks is not the ledger's fault: the
    median must be named to 99 %.
    """
    seconds, named = {False: [], True: []}, []
    for step in range(steps):
        for detail in (False, True) if step % 2 else (True, False):
            ledger = trace.Ledger(detail)
            start = time.perf_counter()
            with ledger:
                batch = batches[step % len(batches)]
                train_step(model, [batch], model.optimizer, ledger=ledger)
                ledger.step()
            seconds[detail].append(time.perf_counter() - start)
            named.append(sum(ledger.epoch.seconds.values()) / seconds[detail][-1])
    middle, most = 100 * statistics.median(named), 100 * max(named)
    if not 99 <= middle <= most <= 100:
        raise SystemExit(
            f"the ledger's parts are {middle:.2f} % of the steps (median; at most {most:.2f} %)"
        )
    return seconds[False], seconds[True]


def main():
    p = parser(__doc__)
    p.add_argument("--batch-size", type=int, default=8)
    p.add_argument("--steps", type=int, default=20)
    args = p.parse_args()
    models = [
        mc.models.microboone(args.size, device="cpu", optimizer=mc.SGD(0.0)) for _ in range(2)
    ]
    models[0].kernels.set_threads(args.threads)
    simulator = mc.data.Simulator(seed=0, shape=(args.size, args.size, 1), sample="isotropic")
    events = [simulator.read(i) for i in range(4 * args.batch_size)]
    batches = [
        ([e.image for e in part], np.array([e.label for e in part]))
        for part in (events[i::4] for i in range(4))
    ]
    tails = []
    for model, detail in zip(models, (False, True)):
        with trace.Ledger(detail) as ledger:
            tails.append(train_step(model, batches[:1], model.optimizer, ledger=ledger))
    if tails[0] != tails[1]:
        raise SystemExit(f"the ledger changes the numbers: {tails}")
    off, on = measure(models[0], batches, args.steps)
    spans, step = spans_per_step(models[0], batches[0]), statistics.median(off)
    price_off, price_on = cost_of_a_span(), cost_of_a_span(trace.Ledger(True))
    difference = statistics.median(b - a for a, b in zip(off, on))
    print(
        f"{args.size} x {args.size}, batch {args.batch_size}, {args.threads} threads, "
        f"{cpu_model()}, {os.cpu_count()} cores; "
        f"median of {args.steps} steps each, in turns"
    )
    print(
        f"step with the ledger off {1e3 * step:.2f} ms, on {1e3 * statistics.median(on):.2f} ms; "
        f"paired difference {1e3 * difference:+.3f} ms = {100 * difference / step:+.2f} %"
    )
    print(
        f"{spans} spans a step; an empty one costs {1e9 * price_off:.0f} ns off = "
        f"{100 * spans * price_off / step:.3f} % of the step, "
        f"{1e9 * price_on:.0f} ns on = {100 * spans * price_on / step:.3f} %"
    )
    record(
        args.json,
        {
            "size": args.size,
            "batch": args.batch_size,
            "threads": args.threads,
            "off": off,
            "on": on,
            "spans": spans,
            "span_off": price_off,
            "span_on": price_on,
        },
    )


if __name__ == "__main__":
    main()

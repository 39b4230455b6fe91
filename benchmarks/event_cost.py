"""How well the cost of an event is known before it is drawn: step times of one rank against it.

    python benchmarks/event_cost.py [--events FILE] [--number 2048] [--batch-size 32] [--passes 5]
    [--json FILE]

Ranks get steps of equal cost (docs/parallel.md), so what costs leave unexplained is what ranks wait
for in the end. Batches are made of similar events, from the cheapest to the most expensive, of
random ones, and of equal cost; each is timed in several passes, in turns, and the shortest time
counts, because whatever else the machine does only adds. Time is that of the processor where one
thread computes, else that of the clock. Printed is how much of the variance of
step times a straight line explains (R^2), and how far steps are from it: through their lit pixels,
through the costs that events are dealt by (minicnn/data/balance.py), and through the lit cells of
all scales, each with a factor of its own, which is the most that these can tell.
"""

import os
import tempfile
import time

import numpy as np
from common import parser, record

import minicnn as mc
from minicnn.data.balance import equal_batches
from minicnn.jobs.recipe import Recipe
from minicnn.train.step import train_step


def times(model, store, steps, passes, clock):
    """Return float64 (passes, steps): the seconds of each step."""
    batches = [store.batch(step) for step in steps]
    train_step(model, batches[:1], model.optimizer)  # compiles
    found = np.zeros((passes, len(steps)))
    for row in found:
        for k, batch in enumerate(batches):
            start = clock()
            train_step(model, [batch], model.optimizer)
            row[k] = clock() - start
    return found


def fit(seconds, *features):
    """Return (R^2, standard deviation of what is left, in parts of the mean) of a linear fit."""
    design = np.stack([np.ones(len(seconds)), *features], 1)
    left = seconds - design @ np.linalg.lstsq(design, seconds, rcond=None)[0]
    deviation = np.sqrt(left @ left / max(len(seconds) - design.shape[1], 1))
    return 1 - left.var() / seconds.var(), deviation / seconds.mean()


def main():
    p = parser(__doc__)
    p.set_defaults(threads=1)
    p.add_argument("--events", help="event file (default: simulated events)")
    p.add_argument("--sample", default="isotropic", help="of simulated events")
    p.add_argument("--number", type=int, default=2048, help="events")
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--passes", type=int, default=5)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.events or os.path.join(folder, "events.h5")
        if not args.events:
            simulator = mc.data.Simulator(0, (args.size, args.size, 1), sample=args.sample)
            mc.data.generate(path, args.number, simulator)
        with mc.data.open_events(path, size=args.size) as source:
            store = mc.data.EventStore().load(source, range(args.number))
    costs, cells = store.costs, store.cells.astype(np.float64)
    generator, size = np.random.default_rng(0), args.batch_size
    whole = len(store) // size * size
    kinds = {
        "similar cost": np.argsort(costs)[:whole].reshape(-1, size),
        "random events": generator.permutation(len(store))[:whole].reshape(-1, size),
        "equal cost": equal_batches(costs, size, generator)[:whole].reshape(-1, size),
    }
    kinds = {kind: steps[:: max(1, 2 * len(steps) // 64)] for kind, steps in kinds.items()}
    model = Recipe(size=args.size).build_model(mc.SGD(1e-5, 0.9), device="cpu")
    model.kernels.set_threads(args.threads)
    steps = np.concatenate(list(kinds.values()))
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    measured = times(model, store, steps, args.passes, clock)
    seconds, kind_of = measured.min(0), np.repeat(list(kinds), [len(s) for s in kinds.values()])
    of_steps = [cells[steps, 0].sum(1)], [costs[steps].sum(1)], list(cells[steps].sum(1).T)
    print(
        f"{len(store)} events, {len(steps)} steps of {size} at {args.size} x {args.size}, "
        f"{args.threads} thread(s), best of {args.passes} passes; a single pass takes "
        f"{100 * np.median(measured / seconds - 1):.1f} % more (median)"
    )
    heads = ("lit pixels", "cost", "all scales")
    print(
        f"{'batches of':<16}{'steps':>6}{'mean ms':>9}{'scatter':>9}"
        + "".join(f"{'R^2 ' + head:>16}{'left':>8}" for head in heads)
    )
    rows = []
    for kind in (*kinds, "all"):
        chosen = kind_of == kind if kind != "all" else np.ones(len(steps), bool)
        mean, spread = seconds[chosen].mean(), seconds[chosen].std() / seconds[chosen].mean()
        fits = [fit(seconds[chosen], *(f[chosen] for f in features)) for features in of_steps]
        rows.append({"kind": kind, "mean": mean, "scatter": spread} | dict(zip(heads, fits)))
        print(
            f"{kind:<16}{chosen.sum():>6}{1e3 * mean:>9.2f}{100 * spread:>7.2f} %"
            + "".join(f"{r2:>16.3f}{100 * left:>6.2f} %" for r2, left in fits)
        )
    record(args.json, {"events": len(store), "batch": size, "size": args.size, "rows": rows})


if __name__ == "__main__":
    main()

"""What ranks wait for by their events alone, counted instead of timed: nothing else that a machine
does is in these figures.

    python benchmarks/uneven_steps.py [--events FILE] [--number 2000] [--ranks 2 64 4096]
    [--batch-size 32] [--steps 10] [--weights MS MS MS MS] [--json FILE]

A step's work is the sum over its events of the lit cells of each scale, 1, 5, 25 and 125 pixels,
times what a block of the talk's network takes for them: --weights, ms of blocks 1 to 4 in a step of
mean events (docs/ledger.md has such a table), and --fixed for the rest of the step. Waiting is what
the mean rank has less than the one with the most, as a part of its step, averaged over the steps.
Events come in random order; in shares and steps of equal lit pixels; and as training deals them, in
shares of equal lit pixels, which files tell, and steps of equal cost (minicnn/data/balance.py).
More events than the file has are drawn from it again.
"""

import os
import tempfile

import numpy as np
from common import parser, record

import minicnn as mc
from minicnn.data.balance import equal_batches, equal_shares, lit_cells, relative_costs


def waiting(work, cells, deal, args, ranks):
    """Return the mean over steps of 1 - mean / most work of the ranks. work (n,), cells (n, 4)."""
    generator = np.random.default_rng(ranks)
    if deal == "random":
        owner = generator.permutation(len(work)) % ranks
    else:
        owner = equal_shares(cells[:, 0], ranks, generator)
    order = np.argsort(owner, kind="stable").reshape(ranks, -1)
    of_ranks = []
    for own in order:
        costs = cells[own, 0] if deal == "lit pixels" else relative_costs(cells[own])
        if deal == "random":
            dealt = generator.permutation(len(own))
        else:
            dealt = equal_batches(costs, args.batch_size, generator)
        of_ranks.append(work[own[dealt]].reshape(args.steps, args.batch_size).sum(1))
    steps = np.array(of_ranks) + args.fixed
    return float(np.mean(1 - steps.mean(0) / steps.max(0)))


def main():
    p = parser(__doc__, threads=False)
    p.add_argument("--events", help="event file (default: simulated events)")
    p.add_argument("--sample", default="isotropic", help="of simulated events")
    p.add_argument("--number", type=int, default=2000, help="events that are read")
    p.add_argument("--ranks", type=int, nargs="+", default=[2, 64, 4096])
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--steps", type=int, default=10, help="of an epoch, per rank")
    p.add_argument("--weights", type=float, nargs=4, default=[21.3, 23.3, 33.5, 37.2])
    p.add_argument("--fixed", type=float, default=10.0, help="ms of a step beside the blocks")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.events or os.path.join(folder, "events.h5")
        if not args.events:
            shape = (args.size, args.size, 1)
            mc.data.generate(path, args.number, mc.data.Simulator(0, shape, sample=args.sample))
        with mc.data.open_events(path, size=args.size) as source:
            known = np.array([lit_cells(source.read(i).image) for i in range(args.number)], float)
    weights = np.array(args.weights) / np.maximum(known.mean(0), 1e-9) / args.batch_size
    print(f"{args.number} events, batch {args.batch_size}, {args.steps} steps per rank; waiting:")
    deals = ("random", "lit pixels", "cost")
    print(f"{'ranks':>7}" + "".join(f"{deal:>12}" for deal in deals))
    rows = []
    for ranks in args.ranks:
        events = ranks * args.batch_size * args.steps
        cells = known[np.random.default_rng(0).integers(0, len(known), events)]
        row = {deal: waiting(cells @ weights, cells, deal, args, ranks) for deal in deals}
        rows.append({"ranks": ranks} | row)
        print(f"{ranks:>7}" + "".join(f"{100 * row[deal]:>10.2f} %" for deal in deals), flush=True)
    record(args.json, {"batch": args.batch_size, "steps": args.steps, "rows": rows})


if __name__ == "__main__":
    main()

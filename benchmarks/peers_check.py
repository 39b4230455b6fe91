"""The check that comes before peers.py times anything: loss, gradients and the change of all
weights agree between the engines.
"""

import numpy as np
from peers_engines import Worker

#: Largest difference between engines, relative in norm; float32 rounding decides near ties in
#: max-pooling, which moves single gradients.
TOLERANCE = {"loss": 1e-5, "gradients": 1e-3, "two steps": 1e-3}


def check(engines, args, weights, images, labels):
    """Compare all engines with the first one; returns those that work, and {engine: {what:
    (difference, where)}}.
    """
    results, able = {}, []
    for name in engines:
        worker = Worker(name, args.size, weights, args.threads)
        results[name] = worker.ask("check", images, labels)
        worker.stop()
        if worker.problem:
            print(f"{name}: left out, {worker.problem}")
        else:
            able.append(name)
    first, differences = able[0], {}
    print(
        f"\ncheck on {len(images)} events against {first}: loss {results[first][0]:.6f}; "
        "differences relative in norm, the worst layer"
    )
    print(f"{'engine':<26}" + "".join(f"{what:>30}" for what in TOLERANCE))
    for name in able[1:]:
        loss, *arrays = results[name]
        row = differences[name] = {"loss": (abs(loss / results[first][0] - 1), "")}
        for what, got, want in zip(("gradients", "two steps"), arrays, results[first][1:]):
            if got.keys() != want.keys():
                raise SystemExit(f"{name} has the weights {sorted(got)}, {first} {sorted(want)}")
            row[what] = max(
                (float(np.linalg.norm(got[key] - want[key]) / np.linalg.norm(want[key])), key)
                for key in want
            )
        print(f"{name:<26}" + "".join(f"{f'{d:.1e} {where}':>30}" for d, where in row.values()))
    print(f"{'tolerance':<26}" + "".join(f"{t:>30.0e}" for t in TOLERANCE.values()))
    wrong = [
        f"{name}: {what} {row[what][0]:.1e}"
        for name, row in differences.items()
        for what in TOLERANCE
        if not row[what][0] <= TOLERANCE[what]
    ]
    if wrong:
        raise SystemExit("the engines do not agree, so nothing is timed: " + "; ".join(wrong))
    return able, differences

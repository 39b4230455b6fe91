"""The check that comes before peers.py times anything: loss, gradients and the change of all
weights agree between the engines.
"""

import numpy as np
from peers_engines import BF16, ENGINES
from peers_workers import Worker

#: Largest difference between engines, relative in norm; float32 rounding decides near ties in
#: max-pooling, which moves single gradients.
TOLERANCE = {"loss": 1e-5, "gradients": 1e-3, "two steps": 1e-3}


def check(engines, args, weights, images, labels):
    """Compare all engines with the first one that computes the network in float32; returns those
    that work, and {engine: {what: (difference, where)}}.

    Differences of bf16 are printed and need not be small. Engines that compute another function are
    not compared, only their loss is printed.
    """
    results, able = {}, []
    for name in engines:
        worker = Worker.of(name, args, weights)
        results[name] = worker.ask("check", images, labels)
        worker.stop()
        if worker.problem:
            print(f"{name}: left out, {worker.problem}")
        else:
            able.append(name)
    differences = {}
    alike = [name for name in able if ENGINES[name].mark in ("", BF16)]
    first = next((name for name in alike if not ENGINES[name].mark), None)
    if first:
        print(
            f"\ncheck on {len(images)} events against {first}: loss {results[first][0]:.6f}; "
            "differences relative in norm, the worst layer"
        )
        print(f"{'engine':<26}" + "".join(f"{what:>30}" for what in TOLERANCE))
        for name in (name for name in alike if name != first):
            row = differences[name] = difference(name, results[name], first, results[first])
            print(
                f"{name:<26}"
                + "".join(f"{f'{d:.1e} {where}':>30}" for d, where in row.values())
                + f"  {ENGINES[name].mark}".rstrip()
            )
        print(f"{'tolerance':<26}" + "".join(f"{t:>30.0e}" for t in TOLERANCE.values()))
    for name in able:
        if name not in alike:
            print(f"{name}: loss {results[name][0]:.6f}, not compared: {ENGINES[name].mark}")
    wrong = [
        f"{name}: {what} {row[what][0]:.1e}"
        for name, row in differences.items()
        for what in TOLERANCE
        if not ENGINES[name].mark and not row[what][0] <= TOLERANCE[what]
    ]
    if wrong:
        raise SystemExit("the engines do not agree, so nothing is timed: " + "; ".join(wrong))
    return able, differences


def difference(name, result, first, expected):
    """Return {what: (largest difference relative in norm, the weight that has it)} of two answers
    (loss, gradients, changes of the weights).
    """
    row = {"loss": (abs(result[0] / expected[0] - 1), "")}
    for what, got, want in zip(("gradients", "two steps"), result[1:], expected[1:]):
        if got.keys() != want.keys():
            raise SystemExit(f"{name} has the weights {sorted(got)}, {first} {sorted(want)}")
        row[what] = max(
            (float(np.linalg.norm(got[key] - want[key]) / np.linalg.norm(want[key])), key)
            for key in want
        )
    return row

"""What a step costs against the fraction of the image that is lit, zero-suppressed and dense, and
where the two cross.

    python benchmarks/active.py [--size 3600] [--threads 2] [--repeats 3] [--levels 6] [--json FILE]
    [--plot PNG]

The talk's network on events from empty over simulated tracks, single isolated pixels and clusters
(discs) at random places, to noise in every pixel: forward alone, and the training step at batch 1
with weight packing and update, with zero_suppression="always", "never" and "auto". The time of
each block is taken by itself, so that it has its own curve over the fraction of its inputs that
are lit: where the curves cross 1 are the crossovers of minicnn/engine/lit/convolution.py. At the
end comes the PIXEL_CROSSOVER for minicnn/engine/ingest.py: the fraction of lit pixels, above which
an event enters as an array, with which the steps on the measured events would cost least, relative
to the cheaper of the two for each of them.

Both networks are compared on every event first: the same scores, up to rounding.
"""

import math
import os
import statistics
import time
from itertools import pairwise

import numpy as np
from common import compared_scale, parser, record

import minicnn as mc
from minicnn.data import SparseImage
from minicnn.engine.fused import FusedBlock
from minicnn.engine.ingest import PIXEL_CROSSOVER
from minicnn.engine.lit import LitMap
from minicnn.files import cpu_model
from minicnn.inspect.report.figures import save_figure

MODES = ("always", "never", "auto")
DENSE_FROM = 0.2  # more lit pixels than that come as a dense image, which is smaller


class Stopwatch:
    """Times the fused blocks of a model: ``seconds[i]`` of block i, forward and backward, and
    ``lit[i]``, the fraction of its cells that were lit in the last event.
    """

    def __init__(self, model):
        blocks = [s for s in model.plan().stages if isinstance(s.layer, FusedBlock)]
        self.lit = [1.0] * len(blocks)
        self.clear()
        for i, stage in enumerate(blocks):
            stage.forward = self._timed(i, stage.forward)
            stage.backward = self._timed(i, stage.backward)

    def clear(self):
        self.seconds = [0.0] * len(self.lit)

    def _timed(self, block, function):
        def timed(*arguments):
            start = time.perf_counter()
            result = function(*arguments)
            self.seconds[block] += time.perf_counter() - start
            if isinstance(result[0], LitMap):
                self.lit[block] = result[0].lit_fraction
            return result

        return timed


# ------------------------------------------------------------------------------------------- events
def isolated(rng, size, fraction):
    """Pixels at random places; ``fraction`` of the image is lit."""
    return spread(
        rng.choice(
            size * size, min(size * size, max(1, round(fraction * size * size))), replace=False
        ),
        size,
        rng,
    )


def clusters(rng, size, fraction, radius=20):
    """Filled discs at random places until ``fraction`` of the image is lit."""
    wanted = max(1, round(fraction * size * size))
    r = max(1, radius * size // 3600)
    disc = np.hypot(*np.mgrid[-r : r + 1, -r : r + 1]) <= r + 0.5
    padded = np.zeros((size + 2 * r, size + 2 * r), bool)
    while True:
        missing = wanted - np.count_nonzero(padded[r:-r, r:-r])
        if missing <= 0:
            break
        for i, j in rng.integers(0, size, (max(1, int(0.7 * missing / disc.sum())), 2)):
            padded[i : i + 2 * r + 1, j : j + 2 * r + 1] |= disc
    return spread(np.flatnonzero(padded[r:-r, r:-r]), size, rng)


def spread(places, size, rng):
    """Return an image with charge at the given places (row * size + column)."""
    places = np.sort(places)
    values = rng.uniform(10, 100, len(places)).astype(np.float32)
    if len(places) > DENSE_FROM * size * size:
        image = np.zeros((size * size, 1), np.float32)
        image[places, 0] = values
        return image.reshape(size, size, 1)
    return SparseImage(np.stack([places // size, places % size], 1), values, (size, size, 1))


def overlaid(images):
    """Return several sparse images on top of each other."""
    positions, values = (
        np.concatenate([getattr(image, key) for image in images]) for key in ("coords", "values")
    )
    return SparseImage.from_pixels(positions[:, 0], positions[:, 1], values, images[0].shape)


def events(size, levels, seed=0):
    """Yield (kind, image) from empty to noise-filled."""
    rng = np.random.default_rng(seed)
    simulator = mc.data.Simulator(seed=seed, shape=(size, size, 1), sample="isotropic")
    yield "empty", SparseImage(np.zeros((0, 2)), np.zeros((0, 1)), (size, size, 1))
    for particles in (1, 4, 16, 64)[:levels]:
        yield (
            f"{particles} particle{'s' * (particles > 1)}",
            overlaid([simulator.read(i).image for i in range(particles)]),
        )
    for fraction in lit_fractions(levels):
        yield "isolated", isolated(rng, size, fraction)
    for fraction in [0.7 * (k / levels) ** 2 for k in range(1, levels + 1)]:
        yield "clusters", clusters(rng, size, fraction)
    yield "noise-filled", 10 * rng.standard_normal((size, size, 1), np.float32)


def lit_fractions(levels):
    """Return fractions of lit pixels that light about 0.3 to 0.97 of the cells of each block, in
    order.
    """
    cells = [1 - 0.7 * (0.03 / 0.7) ** (k / max(levels - 1, 1)) for k in range(levels)]
    seen = (9, 49, 249)  # side of what a cell of blocks 1, 2, 3 sees, for 5 x 5 kernels and pools
    return sorted(-math.log(1 - f) / side**2 for side in seen for f in cells)


# ---------------------------------------------------------------------------------------- measuring
def networks(size, threads):
    """Return {mode: model}, all with the same weights."""
    models, watches = {}, {}
    for mode in MODES:
        model = models[mode] = mc.models.microboone(
            size,
            device="cpu",
            zero_suppression=mode,
            input_scale=compared_scale(size),
            optimizer=mc.SGD(0.0, momentum=0.9),
        )
        model.kernels.set_threads(threads)
        rng = np.random.default_rng(1)
        model.set_weights(
            {
                name: w if name.endswith("/w") else rng.normal(0, 0.05, w.shape)
                for name, w in model.get_weights().items()
            }
        )
        watches[mode] = Stopwatch(model)
    return models, watches


def measure(models, watches, image, repeats):
    """Return {mode: {"forward", "step": median seconds, "blocks": least seconds}} and the number of
    fraction of lit cells of each block.
    """
    out = {mode: {"forward": [], "step": [], "blocks": []} for mode in models}
    scores = {mode: model.predict([image]) for mode, model in models.items()}
    for mode in models:
        if not np.allclose(scores[mode], scores["never"], rtol=1e-4, atol=1e-6):
            raise SystemExit(
                f"{mode} gives other scores than the dense network: {scores[mode]} and "
                f"{scores['never']}"
            )
    for repeat in range(-1, repeats):  # the modes take turns: what else runs here meets all of them
        for mode, model in models.items():
            watch = watches[mode]
            start = time.perf_counter()
            model.predict([image])
            forward = time.perf_counter() - start
            watch.clear()
            start = time.perf_counter()
            model.train_on_batch([image], np.array([2]))
            step = time.perf_counter() - start
            if repeat >= 0:
                for key, value in (
                    ("forward", forward),
                    ("step", step),
                    ("blocks", list(watch.seconds)),
                ):
                    out[mode][key].append(value)
    for row in out.values():
        row["forward"], row["step"] = (
            statistics.median(row["forward"]),
            statistics.median(row["step"]),
        )
        # Other work on the machine only adds: the least is nearest to the kernel's own time, and
        # from it follows what to commit.
        row["blocks"] = [min(times) for times in zip(*row["blocks"])]
    return out, list(watches["always"].lit)


def best_crossover(rows):
    """Return (crossover, its mean cost relative to the cheapest choice of each event, {crossover:
    that}).
    """
    candidates = [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0]
    costs = {
        c: [row["never" if row["lit"] > c else "always"]["step"] for row in rows]
        for c in candidates
    }
    least = [min(column) for column in zip(*costs.values())]
    relative = {c: float(np.mean([a / b for a, b in zip(costs[c], least)])) for c in candidates}
    best = min(relative.values())
    # Of those that cost the same within the measurement the middle one.
    good = [c for c in candidates if relative[c] <= best + 0.002]
    return good[len(good) // 2], relative[good[len(good) // 2]], relative


def inputs_of(row, block):
    """Return the fraction of a block's inputs that are lit: pixels, or cells of the block
    before.
    """
    return row["cells"][block - 1] if block else row["lit"]


def crossings(rows, block):
    """Return the fraction of lit inputs from which on the block costs more zero-suppressed than
    dense, None if none.
    """
    points = sorted(
        (inputs_of(row, block), row["always"]["blocks"][block] / row["never"]["blocks"][block])
        for row in rows
    )
    for (f0, r0), (f1, r1) in pairwise(points):
        if r0 < 1 <= r1 and all(r >= 0.97 for f, r in points if f >= f1):
            return f0 + (f1 - f0) * (1 - r0) / (r1 - r0)
    return None


def draw(rows, path):
    """Draw the step against lit pixels, and each block's ratio against its lit cells."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    kinds = list(dict.fromkeys(row["kind"].split()[-1].rstrip("s") for row in rows))
    markers = dict(zip(kinds, "osD^vP"))
    for mode, color in zip(MODES, ("tab:green", "tab:gray", "tab:blue")):
        for kind in kinds:
            some = [row for row in rows if row["kind"].split()[-1].rstrip("s") == kind]
            left.plot(
                [max(row["lit"], 1e-7) for row in some],
                [1e3 * row[mode]["step"] for row in some],
                markers[kind],
                color=color,
                label=mode if kind == kinds[0] else None,
                markersize=5,
                alpha=0.8,
            )
    left.set(
        xscale="log",
        yscale="log",
        xlabel="fraction of lit pixels",
        ylabel="training step, ms per event",
    )
    left.axvline(PIXEL_CROSSOVER, color="black", linewidth=0.8, linestyle=":")
    left.legend()
    for block in range(len(rows[0]["cells"])):
        points = sorted(
            (inputs_of(row, block), row["always"]["blocks"][block] / row["never"]["blocks"][block])
            for row in rows
        )
        right.plot(*zip(*points), "o-", markersize=4, label=f"block {block + 1}")
    right.axhline(1, color="black", linewidth=0.8)
    right.set(
        xlabel="fraction of the block's inputs lit",
        ylabel="time zero-suppressed / dense",
        ylim=(0, 2),
    )
    right.legend()
    save_figure(figure, path)


def main(argv=None):
    p = parser(__doc__, plot=True)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument(
        "--levels",
        type=int,
        default=6,
        help="events of each kind (isolated: for each of three blocks)",
    )
    args = p.parse_args(argv)
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    (models, watches), rows = networks(args.size, args.threads), []
    shapes = [
        node.shape
        for node in models["never"].graph.nodes
        if isinstance(node.layer, mc.MaxPooling2D)
    ]
    print(
        f"{args.size} x {args.size}, {args.threads} threads of {os.cpu_count()} cores, "
        f"{cpu_model()}, medians of {args.repeats} (blocks: the least), load average before: "
        f"{', '.join(f'{x:.2f}' for x in load)}"
    )
    print(
        f"{'':<15}{'pixels':>9}  "
        f"{'cells lit, % of block':<{6 * len(shapes)}}{'forward, ms':^24}{'step, ms':^24}"
        f"{'step of blocks, always / never':>32}"
    )
    print(
        f"{'event':<15}{'lit, %':>9}  "
        + "".join(f"{i + 1:<6}" for i in range(len(shapes)))
        + "".join(f"{mode:>8}" for mode in MODES * 2)
        + "".join(f"{i + 1:>8}" for i in range(len(shapes)))
    )
    for kind, image in events(args.size, args.levels):
        lit = (
            np.count_nonzero(image) if isinstance(image, np.ndarray) else image.nnz
        ) / args.size**2
        times, cells = measure(models, watches, image, args.repeats)
        row = {
            "kind": kind,
            "lit": lit,
            "cells": cells,
            **times,
        }
        rows.append(row)
        ratios = [a / b for a, b in zip(times["always"]["blocks"], times["never"]["blocks"])]
        print(
            f"{kind:<15}{100 * lit:>9.4g}  "
            + "".join(f"{100 * c:<6.3g}" for c in row["cells"])
            + "".join(
                f"{1e3 * times[mode][key]:>8.1f}" for key in ("forward", "step") for mode in MODES
            )
            + "".join(f"{r:>8.2f}" for r in ratios[: len(shapes)]),
            flush=True,
        )
    print(
        "\nlit inputs from which on a block is cheaper dense: "
        + ", ".join(
            f"block {i + 1} "
            + (
                f"{100 * fraction:.3g} %"
                if (fraction := crossings(rows, i)) is not None
                else "never"
            )
            for i in range(len(shapes))
        )
    )
    crossover, relative, all_ = best_crossover(rows)
    print(
        "cost relative to the best choice for each event, mean: "
        + ", ".join(f"{c:g}: {r:.3f}" for c, r in all_.items())
    )
    print(
        f"PIXEL_CROSSOVER = {crossover:g}    (now {PIXEL_CROSSOVER:g}; costs "
        f"{100 * (relative - 1):.1f} % more than the best choice)"
    )
    record(
        args.json,
        {
            "size": args.size,
            "threads": args.threads,
            "cores": os.cpu_count(),
            "load": load,
            "crossover": crossover,
            "relative": all_,
            "rows": rows,
        },
    )
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()

"""What scaling.py tells: tables, the picture, and the page of both."""

import math

from minicnn.data.event import CLASSES
from minicnn.inspect.performance import Setting
from minicnn.inspect.report.figures import save_figure


def predicted(model, results, ranks):
    """Return the model's Step for a measured rank count on this machine."""
    return model.step(
        ranks, results["batch"], Setting(model.calibration.inner, 1 << 30, cores=results["cores"])
    )


def tables(results, model):
    """Return all figures as text."""
    cores, lines = results["cores"], []

    def note(ranks):
        return "" if int(ranks) <= cores else "   more ranks than cores"

    if "throughput" in results:
        lines += [
            "Data throughput",
            f"{'ranks':>7}{'loaded, events/s':>18}{'images, MB/s':>15}{'fetched, events/s':>19}"
            f"{'kB per event':>14}",
        ]
        for r, one in results["throughput"].items():
            lines.append(
                f"{r:>7}{one['load']:>18.0f}{one['load_MBps']:>15.0f}{one['fetch']:>19.0f}"
                f"{one['bytes_per_event'] / 1e3:>14.1f}"
                f"{note(r)}"
            )
    if "speedup" in results:
        first = next(iter(results["speedup"].values()))["rate"]
        lines += [
            "",
            f"Training, {results['batch']} events per rank and step, one thread per rank",
            f"{'ranks':>7}{'events/s':>10}{'speed-up':>10}{'model':>8}{'waiting':>10}"
            f"{'exposed communication':>23}",
        ]
        for r, one in results["speedup"].items():
            step = predicted(model, results, int(r))
            lines.append(
                f"{r:>7}{one['rate']:>10.1f}{one['rate'] / first:>10.2f}"
                f"{step.rate / predicted(model, results, 1).rate:>8.2f}"
                f"{100 * one['wait'] / one['step']:>8.1f} "
                f"%{100 * one['communication'] / one['step']:>21.2f} %{note(r)}"
            )
    if "gpus" in results:
        first = next(iter(results["gpus"].values()))["rate"]
        lines += [
            "",
            f"Training on GPUs, one rank each, {results['batch']} events per rank and step",
            f"{'GPUs':>7}{'events/s':>10}{'speed-up':>10}{'waiting':>10}"
            f"{'exposed communication':>23}",
        ]
        lines += [
            f"{r:>7}{one['rate']:>10.1f}{one['rate'] / first:>10.2f}"
            f"{100 * one['wait'] / one['step']:>8.1f} %"
            f"{100 * one['communication'] / one['step']:>21.2f} %"
            for r, one in results["gpus"].items()
        ]
    if "loss" in results:
        epochs = max(len(one.get("loss", ())) for one in results["loss"].values())
        lines += [
            "",
            "Validation loss against epochs (training loss of the last), by effective batch size",
            f"{'batch':>7}{'updates':>9}"
            + "".join(f"{e:>8}" for e in range(1, epochs + 1))
            + f"{'training':>11}{'accuracy':>10}",
        ]
        for one in results["loss"].values():
            lines.append(
                f"{one['batch']:>7}"
                + (
                    f"  {one['failed']}"
                    if "failed" in one
                    else f"{one['updates']:>9}"
                    + "".join(f"{v:>8.4f}" for v in one["val_loss"])
                    + f"{one['loss'][-1]:>11.4f}{one['val_accuracy'][-1]:>10.3f}"
                )
            )
    return "\n".join(lines)


def draw(path, results, model):
    """Draw the figures; those beyond the cores are hollow."""
    from matplotlib.figure import Figure

    panels = 4 if "gpus" in results else 3
    figure = Figure(figsize=(14 * panels / 3, 4.4), dpi=110, layout="constrained")
    a, b, *middle, c = figure.subplots(1, panels)
    cores = results["cores"]

    def points(axes, part, key, label, colour, most=cores):
        counts = sorted(map(int, results[part]))
        values = [results[part][str(r)][key] for r in counts]
        axes.plot(counts, values, "-", color=colour, alpha=0.4)
        for r, v in zip(counts, values):
            axes.plot(
                r,
                v,
                "o",
                color=colour,
                fillstyle="full" if r <= most else "none",
                label=label if r == counts[0] else None,
            )

    if "throughput" in results:
        points(a, "throughput", "load", "read and compress into memory", "C0")
        points(a, "throughput", "fetch", "fetch and decompress", "C1")
        first = results["throughput"][min(results["throughput"], key=int)]
        counts = sorted(map(int, results["throughput"]))
        for key, colour in (("load", "C0"), ("fetch", "C1")):
            a.plot(
                counts,
                [first[key] * min(r, cores) for r in counts],
                "--",
                color=colour,
                linewidth=1,
            )
        a.plot([], [], "k--", linewidth=1, label="cores x one rank")
        a.set(title="data throughput", ylabel="events/s", yscale="log")
    if "speedup" in results:
        counts = sorted(map(int, results["speedup"]))
        points(b, "speedup", "rate", "measured", "C0")
        # The model's events are of another sample: what it says of one rank is taken out.
        scale = results["speedup"][str(counts[0])]["rate"]
        scale /= predicted(model, results, counts[0]).rate
        b.plot(
            counts,
            [scale * predicted(model, results, r).rate for r in counts],
            "k--",
            linewidth=1,
            label="performance model, from one rank on",
        )
        b.set(
            title=f"training, {results['batch']} events per rank and step",
            ylabel="events/s",
            ylim=(0, None),
        )
    for axes in middle:
        points(axes, "gpus", "rate", "measured", "C2", math.inf)
        first = results["gpus"][min(results["gpus"], key=int)]["rate"] / int(
            min(results["gpus"], key=int)
        )
        axes.plot(
            list(map(int, results["gpus"])),
            [first * int(r) for r in results["gpus"]],
            "k--",
            linewidth=1,
            label="GPUs x one",
        )
        axes.set(
            title=f"training on GPUs, {results['batch']} events per rank and step",
            ylabel="events/s",
            ylim=(0, None),
            xlabel="GPUs",
        )
    for axes in (a, b):
        axes.set_xscale("log", base=2)
        axes.set_xlabel(f"ranks (hollow: more than the {cores} cores)")
    for one in results.get("loss", {}).values():
        if "failed" not in one:
            c.plot(
                range(1, 1 + len(one["val_loss"])),
                one["val_loss"],
                "o-",
                markersize=3,
                label=f"batch {one['batch']}",
            )
    c.set(
        title="validation loss, by effective batch size",
        xlabel="epoch",
        ylabel="cross-entropy per event",
    )
    for axes in (a, b, *middle, c):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    save_figure(figure, path)


PAGE = """# Scaling, measured

    python benchmarks/scaling.py

makes the talk's figures from real runs on this machine: 2 cores, one thread per rank, ranks not
bound. Figures are kept in `benchmarks/results/scaling-2-cores.json`; what is there is not measured
again.

![throughput, speed-up, loss](scaling.png)

```
{text}
```

More ranks than cores share them, and waiting ranks keep a core busy, which the model leaves out: it
predicts more than was measured there. For larger machines see [model.md](model.md). The loss curves
train the talk's network as the main job does on 3,000 simulated events of the sample {sample} at
full resolution and validate on 600; the learning rate grows as the root of the batch (Malladi et
al. 2022), so all curves see the same events and differ in the number of updates.
{verdict}
One process computes them, because N ranks of b events compute what one rank of N x b does (a test).
The talk's speed-up against GPUs joins the figures where the command finds GPUs; this page's machine
has none.

## On nodes

More nodes than a machine has cores can be tried where events are *paced*: each takes a set time
asleep instead of computing, so that the exchange alone is real ([cluster.md](cluster.md); as root):

    python benchmarks/cluster/modes.py --nodes 2 4 8 16 --rates 100mbit --batches 4 --rounds 2 \\
        --steps 4 --paced 30 --congestion reno --plot docs/nodes.png \\
        --json benchmarks/results/cluster-paced.json

![efficiency of every mode on 2 to 16 nodes](nodes.png)

Where it ends, and why: the 4.98 MB of the gradients leave every node twice in each step (on two
nodes once), however many nodes there are: in 80 ms at 1 Gbit/s, in 0.8 s at 100 Mbit/s. Scaling
ends where a rank computes its batch in less. Larger batches move the end out in proportion, half
precision by a factor of two, and `overlap` and `delayed` by what they hide, at most the backward
pass or the whole step. [parallel.md](parallel.md#on-a-network) has the figures, also of real steps,
and up to 4,096 ranks beside a simulator; what 8 and 16 nodes take beyond the model is in
[cluster.md](cluster.md#what-the-model-misses-there).
"""


def page(text, results):
    """Return the page of these results."""
    return PAGE.format(
        text=text, sample=results.get("sample", "isotropic"), verdict=verdict(results)
    )


def verdict(results):
    """Return in a sentence which loss curves have learned nothing: they end at that of chance."""
    chance = math.log(len(CLASSES))
    dead = [
        str(one["batch"])
        for one in results.get("loss", {}).values()
        if "failed" in one or one["val_loss"][-1] > 0.98 * chance
    ]
    if not dead:
        return "None of them stays at the loss of chance."
    said = f"Those of {' and '.join(dead)} events end at the loss of chance, {chance:.2f}."
    if any("keep_rest" in one for one in results["loss"].values()):
        return said
    return (
        f"{said} They were trained before weights moved in coordinates of rest,\nwith which steps "
        "of 64 and 512 events learn ([results](results/README.md))."
    )

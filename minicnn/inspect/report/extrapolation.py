"""The performance model's answer for people: tables, where scaling ends and why, and the page."""

import textwrap

import numpy as np

from ...text import counted, seconds_text
from ..allreduce_costs import Link
from ..costs import YEAR
from ..extrapolation import Extrapolation
from ..performance import ScalingModel, Step, efficiency, epoch_seconds

WIDTH = 138  # of the paragraphs


def extrapolation_text(answer: Extrapolation) -> str:
    """Return calibration, comparison with what was measured, tables and conclusions as text."""
    question = answer.question
    return "\n\n".join(
        [
            _calibration(answer),
            _beside_measured(answer),
            _reductions(answer),
            _scaling_table(
                f"Weak scaling, {question.batch} events per rank and step, {answer.per_node} ranks "
                f"per node, fabric {1e6 * answer.fabric.alpha:.3g} us and "
                f"{1e-9 / answer.fabric.beta:.3g} GB/s",
                answer.weak,
                question.training_events,
            ),
            _scaling_table(
                f"Strong scaling, {question.global_batch} events per update",
                answer.strong,
                question.training_events,
            ),
            _algorithms(answer),
            *_to_loss(answer),
            _training_costs(answer),
            _limits(answer),
        ]
    )


def _calibration(answer: Extrapolation) -> str:
    """Return what was measured on this machine."""
    c = answer.calibration
    events = 1e3 * np.asarray(c.events)
    low, middle, high = np.percentile(events, (5, 50, 95))
    slower = ", ".join(
        f"{ranks} ranks at once {100 * (slowdown - 1):+.1f} %"
        for ranks, slowdown in sorted(c.slowdown.items())
        if ranks > 1
    )
    return "\n".join(
        [
            f"Calibration: {c.machine}, {c.cores} cores, {counted(c.threads, 'thread')} per rank, "
            f"{c.size} x {c.size}, batch {c.batch}",
            f"  an event         {events.mean():9.3f} ms, from {low:.2f} (5 %) over {middle:.2f} "
            f"(50 %) to {high:.2f} (95 %); {len(events)} measured",
            f"  an update        {1e3 * c.fixed:9.3f} ms: packing, resting tables, checks, update; "
            f"the backward pass that can hide an exchange {1e3 * c.backward:.2f} ms",
            f"  lit cells tell   {_told(answer)}",
            f"  loading          {1e3 * c.load:9.3f} ms an event: "
            f"{1 / max(c.load, 1e-9):.0f} events/s",
            f"  memory           {1e-9 * c.memory_bandwidth:9.2f} GB/s copied; adding gradients "
            f"{1e-9 / c.gamma:.2f} GB/s; computing slows down by {slower or 'not measured'}",
            f"  within a node    {_link_text(c.inner)}",
            f"  between nodes    {_link_text(c.fabric)}",
        ]
    )


def _told(answer: Extrapolation) -> str:
    """Return how well lit cells predict what a batch costs."""
    c = answer.calibration
    if c.unexplained is None:
        return "what a batch costs but for: not measured"
    part = 100 * _uneven(answer, c.batch)
    return f"what a batch of {c.batch} costs but for {part:.2f} % (one deviation)"


def _uneven(answer: Extrapolation, batch: float) -> float:
    return ScalingModel(answer.calibration).uneven(round(batch))


def _link_text(link: Link | None) -> str:
    if link is None:
        return f"{'not measured':>12}"
    return f"{1e6 * link.alpha:9.2f} us a message, {1e-9 / link.beta:.3g} GB/s each way"


def _beside_measured(answer: Extrapolation) -> str:
    """Return the table of predicted beside measured steps, for the rank counts that ran here."""
    c = answer.calibration
    columns = {"computing": 22, "waiting": 20, "communication": 20, "step": 22}
    lines = [
        "Predicted beside measured, ms per step (measured: training with the ledger)",
        f"{'ranks':>7}"
        + "".join(f"{name:>{width}}" for name, width in columns.items())
        + f"{'error':>9}",
    ]
    for ranks, (measured, predicted) in answer.measured.items():
        pairs = (
            (predicted.compute, measured["compute"]),
            (predicted.wait, measured["wait"]),
            (predicted.exposed, measured["communication"]),
            (predicted.total, measured["step"]),
        )
        cells = "".join(
            f"{1e3 * ours:>{width - 10}.2f} |{1e3 * theirs:>8.2f}"
            for (ours, theirs), width in zip(pairs, columns.values())
        )
        error = 100 * (predicted.total / measured["step"] - 1)
        crowded = max(c.nodes.get(ranks, [ranks])) * c.threads > c.cores
        note = "   more threads than cores" if crowded else ""
        lines.append(f"{ranks:>7}{cells}{error:>+8.1f} %{note}")
    return "\n".join(lines)


def _reductions(answer: Extrapolation) -> str:
    """Return the Allreduces that were measured, beside what latency and bandwidth predict."""
    if not answer.reductions:
        return "Allreduce: not measured on one rank"
    c = answer.calibration
    nodes = max((len(sizes) for sizes in c.nodes.values()), default=1)
    lines = [
        f"Allreduce, predicted by {c.algorithm} | measured, ms; links from exchanges of two ranks, "
        f"{nodes} node{'s' * (nodes > 1)}"
    ]
    for ranks, points in sorted(answer.reductions.items()):
        cells = [
            f"{_message_size(n)} {1e3 * predicted:.3f} | {1e3 * measured:.3f}"
            for n, measured, predicted in points
        ]
        lines.append(f"  {ranks} ranks:  " + "   ".join(cells))
    return "\n".join(lines)


def _message_size(n: int) -> str:
    """Return bytes in powers of two, as messages are chosen: "4 kB" for 4096."""
    if n < 1024:
        return f"{n} B"
    return f"{n / 1024:.0f} kB" if n < 1 << 20 else f"{n / (1 << 20):.1f} MB"


def _scaling_table(title: str, steps: dict[bool, list[Step]], events: int) -> str:
    """Return a line per rank count; the last two columns are those of an overlapped exchange."""
    lines = [
        title,
        f"{'ranks':>7}{'batch':>7}{'computing':>11}{'waiting':>9}{'exchange':>10}{'step ms':>10}"
        f"{'efficiency':>12}{'events/s':>11}{f'epoch of {events:,}':>18}"
        f"{'overlapped: step':>19}{'efficiency':>12}",
    ]
    plain, overlapped = steps[False], steps[True]
    for a, b, efficiency_a, efficiency_b in zip(
        plain, overlapped, efficiency(plain), efficiency(overlapped)
    ):
        lines.append(
            f"{a.ranks:>7}{a.batch:>7}{1e3 * a.compute:>11.2f}{1e3 * a.wait:>9.2f}"
            f"{1e3 * a.exposed:>10.3f}{1e3 * a.total:>10.2f}{100 * efficiency_a:>10.1f} %"
            f"{a.rate:>11.0f}{seconds_text(epoch_seconds(a, events)):>18}"
            f"{1e3 * b.total:>19.2f}{100 * efficiency_b:>10.1f} %"
        )
    return "\n".join(lines)


def _algorithms(answer: Extrapolation) -> str:
    """Return what each Allreduce algorithm costs, the fastest marked."""
    lines = [
        f"Allreduce of {answer.calibration.bytes / 1e6:.2f} MB over the fabric, ms, by algorithm "
        "(the fastest is taken above)",
        f"{'ranks':>7}" + "".join(f"{name:>21}" for name in answer.costs),
    ]
    for i, ranks in enumerate(answer.counts[1:], 1):
        least = min(seconds[i] for seconds in answer.costs.values())
        cells = (
            f"{1e3 * seconds[i]:>19.3f}{' *' if seconds[i] == least else '  '}"
            for seconds in answer.costs.values()
        )
        lines.append(f"{ranks:>7}" + "".join(cells))
    return "\n".join(lines)


def _training_costs(answer: Extrapolation) -> str:
    """Return a line per rank count: what a whole training costs."""
    question, campaign = answer.question, answer.question.campaign
    lines = [
        f"A training of {campaign.epochs} epochs of {question.training_events:,} events, "
        f"{question.batch} per rank and step; saved every {seconds_text(campaign.save_every)} in "
        f"{seconds_text(campaign.save)}, a node fails every {campaign.node_mtbf / YEAR:.3g} years",
        f"{'ranks':>7}{'nodes':>7}{'MB a node':>11}{'reading':>11}{'training':>11}"
        f"{'node hours':>12}{'failures':>10}{'lost work':>11}{'best to save every':>20}",
    ]
    for cost in answer.training:
        memory = "-" if cost.memory is None else f"{cost.memory / 1e6:.0f}"
        reading = "-" if cost.reading is None else seconds_text(cost.reading)
        lines.append(
            f"{cost.step.ranks:>7}{cost.nodes:>7}{memory:>11}{reading:>11}"
            f"{seconds_text(cost.training):>11}{cost.node_hours:>12.3g}{cost.failures:>10.1g}"
            f"{100 * cost.lost:>9.2f} %{seconds_text(cost.best_save_every):>20}"
        )
    return "\n".join(lines)


def _to_loss(answer: Extrapolation) -> list[str]:
    """Return the table of times to a given loss, if there is a study to tell."""
    study = answer.question.study
    if answer.to_loss is None or study is None:
        return []
    loss, found = answer.to_loss
    known = {ranks for row in found.values() for ranks in row["seconds"]}
    counts = [n for n in answer.counts if n in known and n.bit_length() % 2]  # 1, 4, 16, ...
    lines = [
        f"Time to a validation loss of {loss:.4f} with {study.train:,} events per epoch, by events "
        "per step and number of ranks",
        f"{'per step':>9}{'epochs':>8}{'updates':>9}" + "".join(f"{n:>11}" for n in counts),
    ]
    for events, row in found.items():
        if row["epochs"] is None:
            lines.append(f"{events:>9}   not reached in {len(study.losses[events])} epochs")
            continue
        times = (seconds_text(row["seconds"][n]) if n in row["seconds"] else "-" for n in counts)
        updates = row["epochs"] * study.train / events
        lines.append(
            f"{events:>9}{row['epochs']:>8.1f}{updates:>9.0f}"
            + "".join(f"{text:>11}" for text in times)
        )
    return ["\n".join(lines)]


def _limits(answer: Extrapolation) -> str:
    """Say in words where scaling ends, and why."""
    paragraphs = [_limit_of_weak_scaling(answer), _limit_of_strong_scaling(answer)]
    filled = [textwrap.fill(text, WIDTH, subsequent_indent="  ") for text in paragraphs]
    return "\n".join(["Where it ends", *filled])


def _limit_of_weak_scaling(answer: Extrapolation) -> str:
    last, overlapped = answer.weak[False][-1], answer.weak[True][-1]
    text = (
        f"  Weak scaling does not end by {last.ranks:,} ranks, it fades: "
        f"{100 * efficiency(answer.weak[False])[-1]:.0f} % of the throughput per rank is left. "
        f"Of a step {100 * last.wait / last.total:.1f} % waits for the brightest events, "
        f"{100 * last.exposed / last.total:.1f} % is communication "
        f"({100 * overlapped.exposed / overlapped.total:.1f} % overlapped). An update then takes "
        f"{last.ranks * last.batch:,.0f} events: the learning rate has to follow, if it can."
    )
    come = answer.as_they_come
    if answer.balanced:
        text += (
            f" Events are dealt evenly: what is left to wait for is what lit cells do not tell, "
            f"{100 * _uneven(answer, last.batch):.2f} % of a rank's step (one deviation); as they "
            f"come it would be {100 * come.wait / come.total:.1f} % of the step."
        )
    elif last.wait > last.exposed:
        text += " Larger batches, or events dealt evenly (--balance), would shorten the wait."
    return text


def _limit_of_strong_scaling(answer: Extrapolation) -> str:
    c, steps, global_batch = answer.calibration, answer.strong[False], answer.question.global_batch
    last = steps[-1]
    below_half = [step for step, e in zip(steps, efficiency(steps)) if e < 0.5]
    if below_half:
        first = below_half[0]
        end = f"passes below one half at {first.ranks:,} ranks ({first.batch} events each)"
    else:
        end = f"is still {100 * efficiency(steps)[-1]:.0f} % at {last.ranks:,} ranks"
    reasons = {
        "what every update costs whatever the batch (packing, resting tables, checks)": c.fixed
        * c.slowdown.get(max(c.slowdown, default=1), 1.0),
        "waiting for the brightest event": last.wait,
        "communication": last.exposed,
    }
    shares = ", ".join(
        f"{100 * seconds / last.total:.0f} % {what}"
        for what, seconds in sorted(reasons.items(), key=lambda item: -item[1])
    )
    return (
        f"  Strong scaling with {global_batch} events per update {end}. At {last.ranks:,} ranks, "
        f"{last.batch:g} event{'s' * (last.batch != 1)} each, a step of {1e3 * last.total:.1f} ms "
        f"is {shares}. It ends for good at {global_batch} ranks: a rank needs an event."
    )


def extrapolation_page(text: str, command: str, note: str = "") -> str:
    """Return docs/model.md: what the model is, and the text that ``command`` printed.

    note: follows the sentence that says what the command does.
    """
    return PAGE.format(text=text, command=command, note=note)


PAGE = """# The performance model

    {command}

predicts from measurements on a machine, prints predictions beside what training there took,
extrapolates, and writes this page and its picture{note}.

![what the model says](model.png)

A step of N ranks takes what the slowest of them computes, and the communication that nothing hides:

    step(N) = E[max over N ranks of slowdown * (fixed + t_1 + ... + t_b)] + exposed communication

Where events are dealt evenly, as training does (docs/parallel.md), the ranks' sums differ by what
lit cells do not tell of an event's time, a normal distribution whose width is measured; events as
they come (--as-they-come) differ by all of it. The times t of events are drawn from those measured
(events differ in how much is lit), the expected maximum of N sums is that of their empirical
distribution. An Allreduce costs what its messages cost, alpha + n beta each, and gamma n for sums:
ring, recursive doubling, Rabenseifner's, and hierarchical (within the node first), after Thakur,
Rabenseifner and Gropp (2005); the ranks of one node share its link. Overlapped, communication hides
behind the backward pass of the *last* piece of a batch, because gradients are complete only then;
its latency is never hidden. With every core at work, the thread that fetches and decompresses takes
its time from the computation.

A training takes its epochs; what failures and saving add is Young's and Daly's (1974, 2006): with a
failure every M seconds, saved every tau seconds in delta and started again in R, the time grows by
M exp(R / M) (exp((tau + delta) / M) - 1) / tau. The time to a loss takes the epochs that steps of
this size needed from a study of trainings (`benchmarks/study.py steps`).

What the model leaves out: contention within the fabric, system noise beyond what the measured times
hold, validation, and that nodes differ. The first is checked by letting the same steps run in a
simulated network ([parallel.md](parallel.md#thousands-of-ranks-simulated)). Extrapolations from one
small node are for judging orders of magnitude and causes, not for promises.

## What it printed

```
{text}
```

`--latency`, `--bandwidth` (of the fabric), `--per-node`, `--batch-size`, `--global-batch` and
`--to` change the question; `--calibration FILE` asks it of an earlier measurement. On a cluster,
`mpiexec -n 64 python -m minicnn model --save cluster.json` measures with these ranks: which of them
share a node, and what messages take within a node and between two; the fabric is then the measured
one.
"""

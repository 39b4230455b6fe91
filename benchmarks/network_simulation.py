"""The steps of many ranks in a simulator of networks, beside the performance model: an independent
check of what it says of thousands of ranks.

    apt-get install libsimgrid-dev                     # SimGrid: smpirun, and its replay
    python benchmarks/network_simulation.py [--calibration FILE] [--to 4096] [--steps 5]
        [--networks fat-tree dragonfly] [--json FILE] [--plot PNG]

Each rank computes for a time of its own and sums the gradients with the others, --steps times. The
times are drawn from the distribution that the calibration gives, as the model's are. But the model
then waits for the slowest rank and adds up what Rabenseifner's messages cost, each with a link to
itself; here all messages of all ranks go through one simulated network at once, switch by switch,
share its links, and begin when their ranks are there. Latency and bandwidth are the same; so is
what ranks of a node have between them.

    fat-tree    64 nodes to a switch, as many switches above, nothing is thinned out
    dragonfly   8 groups of 8 chassis of 8 routers of 4 nodes: two groups have 4 links between them,
                28 for the 256 nodes of a group
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import record

from minicnn.inspect.allreduce_costs import Link
from minicnn.inspect.extrapolation import BANDWIDTH, LATENCY
from minicnn.inspect.performance import Calibration, ScalingModel, Setting
from minicnn.inspect.report.figures import save_figure

#: {network: (topology of SimGrid, its parameters, most nodes)}; nodes are filled in their order.
NETWORKS = {
    "fat-tree": ("FAT_TREE", "2;64,64;1,64;1,1", 4096),
    "dragonfly": ("DRAGONFLY", "8,4;8,2;8,2;4", 2048),
}
HOPS = 4  # links between two nodes of a fat tree: what a message's latency is shared among
FLOPS = 1e9  # of a simulated core in a second: a measure of time alone
#: Messages take alpha + n beta; the simulator would else put in what TCP on some cluster did.
PLAIN = {
    "network/model": "CM02",
    "network/bandwidth-factor": "1.0",
    "network/latency-factor": "1.0",
    "network/TCP-gamma": "0",
    "smpi/allreduce": "rab_rdb",  # Rabenseifner's
    "smpi/display-timing": "yes",
    "contexts/stack-size": "64",
}
PLATFORM = """<?xml version='1.0'?>
<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<platform version="4.1">
  <cluster id="cluster" prefix="node" suffix="" radical="0-{last}" speed="{flops}f" core="{cores}"
    bw="{bandwidth}Bps" lat="{latency}s" sharing_policy="SPLITDUPLEX"
    loopback_bw="{inner_bandwidth}Bps" loopback_lat="{inner_latency}s"
    topology="{topology}" topo_parameters="{parameters}"/>
</platform>
"""


def platform(network, fabric, inner, per_node):
    """Return the description of a network for SimGrid."""
    topology, parameters, nodes = NETWORKS[network]
    return PLATFORM.format(
        last=nodes - 1,
        flops=FLOPS,
        cores=per_node,
        bandwidth=1 / fabric.beta,
        latency=fabric.alpha / HOPS,
        inner_bandwidth=1 / inner.beta,
        inner_latency=inner.alpha,
        topology=topology,
        parameters=parameters,
    )


def computing(model, ranks, batch, setting, steps, seed=0):
    """Return (ranks, steps) seconds of computing, drawn as the model draws them."""
    times = model.compute(batch, min(ranks, setting.per_node), setting.cores)
    rng = np.random.default_rng([seed, ranks])
    if setting.balanced:
        drawn = rng.standard_normal((ranks, steps))
        return np.maximum(times.mean() * (1 + model.uneven(batch) * drawn), 0.0)
    return rng.choice(times, (ranks, steps))


def trace(seconds, nbytes, adding):
    """Yield the lines of what each rank does. adding: seconds that it adds numbers in a step."""
    for rank, own in enumerate(seconds):
        yield f"{rank} init"
        for each in own:
            yield f"{rank} compute {each * FLOPS:.0f}"
            yield f"{rank} allreduce {nbytes} {adding * FLOPS:.0f}"
        yield f"{rank} finalize"


def simulated(network, seconds, nbytes, setting, inner):
    """Return the seconds that all steps take in the simulator."""
    ranks = len(seconds)
    adding = (ranks - 1) / ranks * nbytes * inner.gamma
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fabric = setting.fabric
        (place / "platform.xml").write_text(platform(network, fabric, inner, setting.per_node))
        (place / "steps").write_text("\n".join(trace(seconds, nbytes, adding)) + "\n")
        (place / "traces").write_text(f"{place / 'steps'}\n")
        hosts = (f"node{rank // setting.per_node}\n" for rank in range(ranks))
        (place / "hosts").write_text("".join(hosts))
        command = ["smpirun", "-np", ranks, "-platform", place / "platform.xml"]
        command += ["-hostfile", place / "hosts", "-replay", place / "traces"]
        command += [f"--cfg={name}:{value}" for name, value in PLAIN.items()]
        command += ["--log=smpi_replay.thresh:warning"]
        try:
            done = subprocess.run(map(str, command), capture_output=True, text=True, cwd=place)
        except FileNotFoundError:
            raise SystemExit(
                "network_simulation: there is no smpirun: apt-get install libsimgrid-dev"
            ) from None
    said = done.stdout + done.stderr
    if done.returncode or "Simulated time: " not in said:
        raise SystemExit(f"smpirun ended with status {done.returncode}:\n{said[-2000:]}")
    return float(said.split("Simulated time: ")[1].split()[0])


def rows_of(args, calibration):
    """Yield {ranks, what the model says, what each network takes}; seconds of a step."""
    model = ScalingModel(calibration)
    fabric = Link(1e-6 * args.latency, 1e-9 / args.bandwidth, calibration.gamma)
    per_node = args.per_node or max(calibration.cores // calibration.threads, 1)
    balanced = calibration.unexplained is not None and not args.as_they_come
    setting = Setting(fabric, per_node, "rabenseifner", balanced=balanced)
    inner, nbytes = calibration.inner, calibration.bytes
    most = per_node * min(NETWORKS[network][2] for network in args.networks)
    ranks = 1
    while ranks <= min(args.to, most):
        step = model.step(ranks, args.batch_size, setting)
        seconds = computing(model, ranks, args.batch_size, setting, args.steps)
        alone = np.zeros((ranks, 1))
        row = {"ranks": ranks, "model": step.total, "model_exchange": step.communication}
        for network in args.networks:
            taken = simulated(network, seconds, nbytes, setting, inner) / args.steps
            row[network] = taken
            row[f"{network}_exchange"] = simulated(network, alone, nbytes, setting, inner)
        yield row
        ranks *= 2


def heading(networks):
    """Return the two lines over the table."""
    names = "".join(f"{name:>24}" for name in ("model", *networks))
    return f"{'':>6}{names}\n{'ranks':>6}" + "".join(
        f"{'step':>12}{'exchange':>12}" for _ in ("model", *networks)
    )


def line(row, networks):
    """Return a row of the table, in ms, with the networks' steps in relation to the model's."""
    text = f"{row['ranks']:>6}{1e3 * row['model']:>12.2f}{1e3 * row['model_exchange']:>12.3f}"
    for network in networks:
        apart = 100 * (row[network] / row["model"] - 1)
        text += f"{1e3 * row[network]:>12.2f}{1e3 * row[f'{network}_exchange']:>12.3f}"
        text += f" ({apart:+.1f} %)"
    return text


def draw(rows, networks, path):
    """Draw the efficiency and the exchange against the number of ranks; one rank is the model's in
    all, because single draws of its time would move whole curves.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    ranks = [row["ranks"] for row in rows]
    styles = {"model": "k-"} | {name: f"C{i}o" for i, name in enumerate(networks)}
    for name, style in styles.items():
        hollow = {} if name == "model" else {"mfc": "none"}
        part = [100 * rows[0]["model"] / row[name] for row in rows]
        left.plot(ranks, part, style, label=name, **hollow)
        exchange = [1e3 * row[f"{name}_exchange"] for row in rows]
        right.plot(ranks[1:], exchange[1:], style, label=name, **hollow)
    left.set_ylabel("weak scaling: efficiency, %")
    left.set_ylim(0, 105)
    right.set_ylabel("Allreduce of the gradients, ms")
    right.set_ylim(0)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("ranks")
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def main():
    made = argparse.ArgumentParser(
        description=" ".join(__doc__.split("\n\n")[0].split()),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
    default = Path("benchmarks/results/model-2-cores.json")
    add("--calibration", type=Path, default=default, help="of python -m minicnn model --save")
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--to", type=int, default=4096, help="ranks")
    add("--steps", type=int, default=5, help="of each simulation")
    add("--batch-size", type=int, default=32, help="events per step and rank")
    add("--per-node", type=int, help="ranks of a node (default: its cores / threads)")
    add("--latency", type=float, default=LATENCY, help="of a message, microseconds")
    add("--bandwidth", type=float, default=BANDWIDTH, help="of each link and direction, GB/s")
    add("--as-they-come", action="store_true", help="events that are not dealt evenly")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file")
    add("--plot", metavar="PNG", help="draw the figures into this file")
    args = made.parse_args()
    try:
        calibration = Calibration.load_file(args.calibration)
    except (OSError, ValueError) as problem:
        sys.exit(f"network_simulation: {problem}")
    print("ms; in brackets how much longer a step is than the model says")
    print(heading(args.networks))
    rows = []
    for row in rows_of(args, calibration):
        rows.append(row)
        print(line(row, args.networks), flush=True)
    record(args.json, {"latency": args.latency, "bandwidth": args.bandwidth, "rows": rows})
    if args.plot:
        draw(rows, args.networks, args.plot)
        print(f"wrote {args.plot}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A cluster on one machine: nodes of network namespaces, joined by cables of a given rate.

    cluster.py up 4                      node1 to node4, and "head", where mpiexec is started
    cluster.py on 2 COMMAND...           run a command on node2 (or on head)
    cluster.py mpi 1 COMMAND...          run it on MPI ranks, 1 on each node
    cluster.py rate 100mbit [2 3]        another rate for all cables, or those of nodes 2 and 3
    cluster.py link 2 down               pull node2's cable; "up" plugs it in again
    cluster.py show                      nodes, addresses, bytes that went through their cables
    cluster.py down                      take everything away, whatever is running

Each node has its own network, host name, processes, /dev/shm and /var/tmp; files are shared, as on
a cluster with a common file system. It needs root, iproute2 and util-linux, and leaves nothing on
the machine. Rates are kept by tc; with --delay, --jitter or --loss, or without tc's tbf, by a
switch in user space. CLUSTER=NAME names another cluster beside this one.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nodes as namespaces
from nodes import HEAD, inside, keepers, run_on

HERE = Path(__file__).resolve().parent
NAME = os.environ.get("CLUSTER", "minicnn")
MOST = 64
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
#: Seconds of its rate that a cable takes at once: what the kernel's timers need, and no more, or
#: small messages would take no time.
BURST, LEAST_BURST, QUEUE = 1e-4, 16_000, "50ms"
#: Each network has its own, the machine's if it is not told another.
CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"


def address(node):
    """Return the address of a node."""
    return f"10.77.0.{254 if node == HEAD else node.removeprefix('node')}"


def bits(rate):
    """Return bits per second of a rate as tc writes it: 100mbit, 2.5gbit."""
    found = re.fullmatch(r"([0-9.]+)(kbit|mbit|gbit)", rate)
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"a rate is like 100mbit or 2.5gbit, got {rate!r}")
    return float(found[1]) * UNITS[found[2]]


def there():
    """Return {node: keeper} of the cluster that is up; SystemExit where there is none."""
    found = keepers(NAME)
    if not found:
        raise SystemExit(f"cluster: there is none: {Path(sys.argv[0]).name} up 4")
    return found


def node_named(text, among):
    """Return the node that "2", "node2" or "head" means."""
    node = f"node{text}" if text.isdigit() else text
    if node not in among:
        raise SystemExit(f"cluster: there is no {node}: {', '.join(among)}")
    return node


# ------------------------------------------------------------------------------------------ the net
def limit(process, devices, rate):
    """Let tc keep a rate of what a network sends through devices; None: no limit."""
    lines = [f"qdisc delete dev {device} root" for device in devices]
    if rate is not None:
        burst = max(LEAST_BURST, int(BURST * rate / 8))
        tbf = f"tbf rate {rate:.0f} burst {burst} latency {QUEUE}"
        lines = [f"qdisc replace dev {device} root {tbf}" for device in devices]
    inside(process, "tc -force -batch -", "\n".join(lines))


def tc_limits():
    """Tell whether this kernel's tc keeps rates (tbf)."""
    command = "unshare --net tc qdisc add dev lo root tbf rate 1gbit burst 64kb latency 1ms"
    return not subprocess.run(command.split(), stderr=subprocess.DEVNULL).returncode


def port(node):
    """Return the head's end of a node's cable."""
    return f"port{node.removeprefix('node')}"


def bridge(processes, rate):
    """Join the nodes by a bridge on the head, a pair of devices for each cable."""
    head, names = processes[HEAD], [name for name in processes if name != HEAD]
    lines = [
        "link set lo up",
        "link add eth0 type bridge forward_delay 0",
        f"address add {address(HEAD)}/24 dev eth0",
        "link set eth0 up",
    ]
    for name in names:
        lines.append(f"link add {port(name)} type veth peer name eth0 netns {processes[name]}")
        lines.append(f"link set {port(name)} master eth0 up")
    inside(head, "ip -batch -", "\n".join(lines))
    for name in names:
        lines = [f"address add {address(name)}/24 dev eth0", "link set eth0 up", "link set lo up"]
        inside(processes[name], "ip -batch -", "\n".join(lines))
    if rate is not None:
        set_rate(processes, names, rate)


def set_rate(processes, names, rate):
    """Limit both ends of the cables of these nodes."""
    for name in names:
        limit(processes[name], ["eth0"], rate)
    limit(processes[HEAD], [port(name) for name in names], rate)


def user_space_switch(processes, args):
    """Join the nodes by switch.py, which runs in the head's network."""
    values = [bits(args.rate) if args.rate else 4e11, args.delay / 1e6, args.jitter / 1e6]
    command = [
        *("nsenter", f"--net=/proc/{processes[HEAD]}/ns/net", sys.executable, HERE / "switch.py"),
        ",".join(map(address, processes)),
        *(*values, args.loss / 100, *processes.values()),
    ]
    switch = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    if switch.stdout.readline().strip() != "ready":
        raise SystemExit("cluster: the switch in user space does not start")


def tell_switch(head, words):
    """Give an order to the switch in user space; return False where a bridge is in its place."""
    if "bridge" in inside(head, "ip -details link show eth0"):
        return False
    inside(head, f"{sys.executable} {HERE}/switch.py tell {words}")
    return True


# ---------------------------------------------------------------------------------------- commands
def up(args):
    """Make the nodes and their cables."""
    namespaces.refuse_where_impossible()
    if not 1 <= args.nodes <= MOST:
        raise SystemExit(f"cluster: from 1 to {MOST} nodes, got {args.nodes}")
    if keepers(NAME):
        raise SystemExit(f"cluster: there is one already: {Path(sys.argv[0]).name} down")
    names = [HEAD, *(f"node{k}" for k in range(1, args.nodes + 1))]
    hosts = "".join(f"{address(node)} {node}\n" for node in names)
    try:
        processes = namespaces.start(NAME, names, f"127.0.0.1 localhost\n{hosts}")
        if args.pin:
            cores = sorted(os.sched_getaffinity(0))
            for k, name in enumerate(names[1:]):
                os.sched_setaffinity(processes[name], {cores[k % len(cores)]})
        if args.delay or args.jitter or args.loss or (args.rate and not tc_limits()):
            user_space_switch(processes, args)
        else:
            bridge(processes, args.rate and bits(args.rate))
        for process in processes.values() if args.congestion else ():
            inside(process, f"tee {CONGESTION}", args.congestion)
    except BaseException:
        namespaces.stop(NAME)
        raise
    return 0


def on(args):
    """Run a command on a node."""
    among = there()
    node = node_named(args.node, among)
    if args.by_network and not _answers(among[HEAD], address(node)):
        print(f"cluster: {node} does not answer", file=sys.stderr)
        return 255  # as ssh
    variables = {"CLUSTER": NAME}
    if node == HEAD:  # what MPICH's mpiexec asks for, whoever starts it
        names = [name for name in among if name != HEAD]
        variables |= {
            "HYDRA_LAUNCHER": "rsh",
            "HYDRA_LAUNCHER_EXEC": str(HERE / "rsh"),
            "HYDRA_IFACE": "eth0",
            "HYDRA_HOST_FILE": _host_file(among[HEAD], names),
        }
    return run_on(among[node], args.command, variables)


def _host_file(head, names):
    """Write the nodes into a file of the head's own and return its path there."""
    path = "/var/tmp/nodes"
    Path(f"/proc/{head}/root{path}").write_text("".join(f"{name}\n" for name in names))
    return path


def _answers(head, where):
    """Tell whether a node's address can be reached from the head: nothing listens, it refuses."""
    code = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], 9), 3)\n"
        "except ConnectionRefusedError: pass\n"
    )
    command = ["nsenter", f"--net=/proc/{head}/ns/net", sys.executable, "-c", code, where]
    return not subprocess.run(command, stderr=subprocess.DEVNULL).returncode


def mpi(args):
    """Run a command on MPI ranks of all nodes, by MPICH's mpiexec on the head."""
    names = [name for name in there() if name != HEAD]
    hosts = ",".join(f"{name}:{args.per_node}" for name in names)
    ranks = str(args.per_node * len(names))
    args.node, args.by_network = HEAD, False
    args.command = [_mpiexec(), "-hosts", hosts, "-n", ranks, *args.command]
    return on(args)


def _mpiexec():
    """Return the mpiexec beside this Python, of the repository's environment, or in PATH."""
    folders = [Path(sys.executable).parent, HERE.parents[1] / ".venv" / "bin"]
    for folder in folders:
        if (folder / "mpiexec").exists():
            return str(folder / "mpiexec")
    found = shutil.which("mpiexec")
    if not found:
        raise SystemExit('cluster: there is no mpiexec: pip install "minicnn[mpi]"')
    return found


def rate(args):
    """Give cables another rate, also while something runs."""
    among, value = there(), None if args.rate == "none" else bits(args.rate)
    chosen = [node_named(text, among) for text in args.of] or [n for n in among if n != HEAD]
    for node in chosen:
        if not tell_switch(among[HEAD], f"rate {value or 4e11} {node.removeprefix('node')}"):
            set_rate(among, chosen, value)
            break
    return 0


def link(args):
    """Pull a node's cable or plug it in."""
    among = there()
    node = node_named(args.node, among)
    if not tell_switch(among[HEAD], f"{args.state} {node.removeprefix('node')}"):
        inside(among[HEAD], f"ip link set {port(node)} {args.state}")
    return 0


def show(args):
    """Print the nodes, their addresses and what went through their cables."""
    for node, process in there().items():
        # /proc/self/net has the statistics of this process's network, whatever is mounted on /sys.
        for line in inside(process, "cat /proc/self/net/dev").splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == "eth0":
                columns = numbers.split()
                print(f"{node:<8}{address(node):<14}received {columns[0]} sent {columns[8]} bytes")
    return 0


def down(args):
    """Take everything away."""
    namespaces.stop(NAME)
    return 0


def parser():
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    def add(function, *names):
        one = commands.add_parser(function.__name__, help=function.__doc__)
        one.set_defaults(run=function)
        for name in names:
            one.add_argument(name)
        return one

    one = add(up)
    one.add_argument("nodes", type=int)
    one.add_argument("--rate", help="of each cable and direction: 100mbit, 2.5gbit (no limit)")
    for name, unit in (("delay", "microseconds, one way"), ("jitter", "microseconds, at most")):
        one.add_argument(f"--{name}", type=float, default=0.0, help=unit)
    one.add_argument("--loss", type=float, default=0.0, help="per cent of the packets")
    one.add_argument(
        "--congestion", help="TCP's congestion control, reno or what the machine allows"
    )
    one.add_argument("--pin", action="store_true", help="a core for each node, in turn")
    one = add(on, "node")
    one.add_argument("--by-network", action="store_true", help="only if it answers, as ssh")
    one.add_argument("command", nargs=argparse.REMAINDER)
    one = add(mpi)
    one.add_argument("per_node", type=int)
    one.add_argument("command", nargs=argparse.REMAINDER)
    add(rate, "rate").add_argument("of", nargs="*", metavar="NODE")
    add(link, "node").add_argument("state", choices=("up", "down"))
    add(show)
    add(down)
    return made


def main():
    args = parser().parse_args()
    if getattr(args, "command", None) == []:
        raise SystemExit("cluster: no command is given")
    try:
        return args.run(args)
    except argparse.ArgumentTypeError as problem:
        raise SystemExit(f"cluster: {problem}") from None


if __name__ == "__main__":
    sys.exit(main())

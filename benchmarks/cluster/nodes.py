"""Nodes out of Linux namespaces: each has a network, host name, processes, shared memory and
temporary files of its own, and the files of this machine.

A node is a process that sleeps in these namespaces, its *keeper*. There is nothing else: no file,
no name. It is found by its command line, others enter its namespaces, and when it is killed all
that ran on the node is gone, and its network with it. The node "head" has the processes and the
memory of the machine itself, so that what is started there can start processes on the others: it is
where mpiexec runs, and the switch.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

HEAD = "head"
#: Python 3.11 has no names for these calls; numbers of <sched.h>, <sys/mount.h>, <sys/prctl.h>.
LIBC = ctypes.CDLL(None, use_errno=True)
SPACES = {"ipc": 0x08000000, "uts": 0x04000000, "net": 0x40000000, "pid": 0x20000000}
MOUNTS = 0x00020000
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
DIE_WITH_PARENT = 1
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def refuse_where_impossible():
    """End with the reason where this machine makes no nodes."""
    reason = impossible()
    if reason:
        raise SystemExit(f"cluster: {reason}")


def impossible():
    """Return why this machine makes no nodes, None where it does."""
    if not sys.platform.startswith("linux"):
        return f"nodes are namespaces of Linux, this is {sys.platform}"
    if os.geteuid():
        return (
            "needs root: namespaces, a bridge and a queue are made (sudo, or docker --privileged)"
        )
    for program, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nsenter", "util-linux")):
        if not any(Path(folder, program).exists() for folder in os.get_exec_path()):
            return f"there is no program {program} (Debian: apt-get install {package})"
    kinds = "--net --uts --ipc --pid --mount"
    tried = subprocess.run(
        ["unshare", *kinds.split(), "--fork", "ip", "link", "add", "x", "type", "bridge"],
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        said = tried.stderr.strip() or f"status {tried.returncode}"
        return f"the system makes no namespaces with a bridge (unshare {kinds}): {said}"
    return None


# ------------------------------------------------------------------------------------------ keepers
def start(cluster, names, hosts):
    """Make nodes that know ``hosts``, the text of their /etc/hosts; return {node: its keeper's
    process}.
    """
    command, pipe = (
        [sys.executable, str(Path(__file__).resolve()), "keep", cluster],
        subprocess.PIPE,
    )
    started = {
        name: subprocess.Popen(
            [*command, name], stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )
        for name in names
    }
    for name, process in started.items():
        said, _ = process.communicate(hosts)
        if process.returncode or said.strip() != "ready":
            raise SystemExit(f"cluster: {name} does not come up (status {process.returncode})")
    return keepers(cluster)


def keepers(cluster):
    """Return {node: process of its keeper}, in the order of their numbers, the head first."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_text().split("\0")[:-1]
            if words[-3:-1] == ["keep", cluster]:
                found[words[-1]] = int(path.name)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def stop(cluster):
    """Kill the keepers, everything on their nodes, and what runs in their networks."""
    while nodes := keepers(cluster):
        networks = set()
        for pid in nodes.values():
            with suppress(OSError):
                networks.add(os.readlink(f"/proc/{pid}/ns/net"))
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.readlink(path / "ns/net") in networks - {os.readlink("/proc/self/ns/net")}:
                    os.kill(int(path.name), signal.SIGKILL)
        time.sleep(0.02)


def keep(node):
    """Become a node's keeper: enter new namespaces, furnish them, and sleep."""
    hosts = sys.stdin.read()
    spaces = {"uts", "net"} if node == HEAD else set(SPACES)
    _checked(LIBC.unshare(MOUNTS | sum(SPACES[kind] for kind in spaces)), "unshare")
    reader, writer = os.pipe()
    if os.fork():  # the child is the first process of its own table
        os.close(writer)
        sys.exit(os.read(reader, 1) != b"+")
    _furnish(node, hosts)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as "init" it inherits orphans: none to wait for
    print("ready", flush=True)
    os.write(writer, b"+")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(writer)
    while True:
        signal.pause()


def _furnish(node, hosts):
    """Give the node its name, network devices, memory, temporary folder and names of others."""
    socket.sethostname(node)
    _mount("none", "/", flags=PRIVATE | RECURSIVE)
    if node != HEAD:
        _mount("proc", "/proc", "proc")
        _mount("tmpfs", "/dev/shm", "tmpfs")
    _mount("tmpfs", "/var/tmp", "tmpfs")
    # Only the network devices of /sys are new: its control groups are those of the machine.
    os.mkdir("/var/tmp/sys")
    _mount("sysfs", "/var/tmp/sys", "sysfs")
    for folder in ("class/net", "devices/virtual/net"):
        _mount(f"/var/tmp/sys/{folder}", f"/sys/{folder}", flags=BIND)
    _checked(LIBC.umount2(b"/var/tmp/sys", 0), "umount /var/tmp/sys")
    os.rmdir("/var/tmp/sys")
    with tempfile.NamedTemporaryFile("w", dir="/var/tmp") as file:  # it lives on under its new name
        file.write(hosts)
        file.flush()
        os.chmod(file.name, 0o644)
        _mount(file.name, "/etc/hosts", flags=BIND)


def _mount(source, target, kind="none", flags=0):
    words = source.encode(), target.encode(), kind.encode(), flags, None
    _checked(LIBC.mount(*words), f"mount {source} {target}")


# --------------------------------------------------------------------------------------- on a node
def inside(pid, command, text=None):
    """Run a command, a text of words, in the network of a keeper, with the files of this machine;
    return what it prints. text: what it reads.
    """
    words = ["nsenter", f"--net=/proc/{pid}/ns/net", *command.split()]
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"cluster: {command}: {done.stderr.strip()}")
    return done.stdout


def run_on(pid, command, environment):
    """Run a command on the node of this keeper, on its cores; return the exit status. Signals are
    passed on, and it ends when this process does.
    """
    folder, cores = os.getcwd(), os.sched_getaffinity(pid)
    spaces = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in (*SPACES, "mnt")}
    for kind, space in spaces.items():
        _checked(LIBC.setns(space, SPACES.get(kind, MOUNTS)), f"setns {kind}")
        os.close(space)
    child = os.fork()
    if not child:
        LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL)
        os.chdir(folder)
        os.sched_setaffinity(0, cores)
        try:
            os.execvpe(command[0], command, {**os.environ, "TMPDIR": "/var/tmp", **environment})
        except OSError as problem:
            print(f"cluster: {command[0]}: {problem.strerror}", file=sys.stderr)
            os._exit(127)
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(child, number))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 128 - status if status < 0 else status


def _checked(status, what):
    if status:
        raise SystemExit(f"cluster: {what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    keep(sys.argv[-1])

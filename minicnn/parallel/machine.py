"""What a rank knows about its node, its memory and its MPI."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from .cgroups import cpu_quota, memory_limit
from .comm import as_comm
from .device import cuda_aware
from .launch import announced_size
from .segments import stale_segments
from .shared import node_of

#: Words in the version text of an MPI, and whose it is.
VENDORS = {
    "mpich": "MPICH",
    "hydra": "MPICH",
    "open mpi": "Open MPI",
    "openmpi": "Open MPI",
    "open-mpi": "Open MPI",
    "openrte": "Open MPI",
    "intel": "Intel MPI",
    "slurm": "Slurm",
}


def node_facts() -> dict[str, Any]:
    """Return what the system says of this rank's node: cores allowed and present, CPU quota, memory
    in bytes, shared memory, NUMA nodes, NVIDIA devices.

    physical: the sets of logical cores that share a core, of the allowed ones. quota: cores' worth
    of time that a container may use, None without a limit. memory, free_memory: what is less of the
    machine's and of the container's. stale_segments: (name, bytes) of what killed jobs have left
    in /dev/shm.
    """
    import psutil

    memory, limit = psutil.virtual_memory(), memory_limit()
    allowed = _allowed_cores()
    siblings = {
        _text(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        for cpu in allowed
    }
    shared = shutil.disk_usage("/dev/shm") if Path("/dev/shm").is_dir() else None
    return {
        "host": socket.gethostname(),
        "allowed": allowed,
        "present": psutil.cpu_count() or 1,
        "physical": sorted(siblings),
        "quota": cpu_quota(),
        "memory": memory.total if limit is None else min(memory.total, limit[0]),
        "free_memory": free_memory(),
        "shared_memory": (shared.total, shared.free) if shared else None,
        "stale_segments": [(path.name, path.stat().st_size) for path in stale_segments()],
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1,
        "nvidia": sorted(device.name for device in Path("/dev").glob("nvidia[0-9]*")),
    }


def free_memory() -> int:
    """Return the bytes of memory that are free: what is less of the machine's and the
    container's.
    """
    import psutil

    available, limit = psutil.virtual_memory().available, memory_limit()
    return available if limit is None else min(available, limit[1])


def _allowed_cores() -> list[int]:
    """Return the logical cores that this process may run on: all where the system has no such
    thing as an affinity (macOS).
    """
    import psutil

    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        return sorted(process.cpu_affinity())
    return list(range(psutil.cpu_count() or 1))


def memory_bytes() -> int:
    """Return the memory that this process has resident now."""
    import psutil

    return psutil.Process().memory_info().rss


def peak_memory_bytes() -> int:
    """Return the most memory that this process has had resident so far."""
    for line in _text("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):  # since exec; ru_maxrss also counts the parent before it
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


def mpi_facts(comm: Any) -> dict[str, Any]:
    """Return library, vendor, CUDA-awareness (None: the library does not say) and the mpiexec that
    the shell would find.
    """
    size, launcher = announced_size()
    facts: dict[str, Any] = {
        "announced": size,
        "launcher": launcher,
        "size": as_comm(comm).size,
        "rank": as_comm(comm).rank,
    }
    try:
        import mpi4py
        from mpi4py import MPI
    except (ImportError, RuntimeError) as problem:
        return facts | {"library": None, "problem": str(problem).split("\n")[0]}
    library = " ".join(
        MPI.Get_library_version().strip("\0 \n").split("\n")[0].replace("Version:", " ").split()
    )
    facts |= {
        "library": library,
        "vendor": vendor(library),
        "mpi4py": mpi4py.__version__,
        "cuda_aware": cuda_aware(),
    }
    if facts["rank"] == 0:
        path = shutil.which("mpiexec") or find_mpiexec()
        facts["mpiexec"] = (path, vendor(_output(path, "--version"))) if path else None
    return facts


def find_mpiexec() -> str | None:
    """Return the path of the mpiexec that belongs to this Python: the one beside it, else the first
    in PATH, else None.
    """
    beside = str(Path(sys.executable).parent)
    return shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")


def vendor(text: str) -> str | None:
    """Return the family of MPI that a version text names, or None."""
    return next((name for word, name in VENDORS.items() if word in text.lower()), None)


def allreduce_seconds(comm: Any, values: int, repeats: int = 5) -> float:
    """Return the median seconds of an Allreduce of so many float32, after checking its sum; raises
    RuntimeError where it is wrong.
    """
    from mpi4py import MPI

    seconds = []
    for _ in range(repeats + 1):
        buffer = np.full(values, comm.rank + 1, np.float32)
        comm.Barrier()
        start = time.perf_counter()
        comm.Allreduce(MPI.IN_PLACE, buffer, MPI.SUM)
        seconds.append(time.perf_counter() - start)
        if not (buffer == comm.size * (comm.size + 1) / 2).all():
            raise RuntimeError(
                f"Allreduce of {values} float32 on {comm.size} ranks gave a wrong sum"
            )
    return float(np.median(seconds[1:]))


def ranks_of_nodes(comm: Any) -> list[list[int]]:
    """Return the ranks of each node, which is where they share memory; the node of rank 0 first."""
    if not comm:
        return [[0]]
    node = node_of(comm)
    first = min(node.allgather(comm.rank))
    node.Free()
    nodes: dict[int, list[int]] = {}
    for rank, leader in enumerate(comm.allgather(first)):
        nodes.setdefault(leader, []).append(rank)
    return list(nodes.values())


def exchange_seconds(comm: Any, first: int, second: int, nbytes: int, repeats: int = 9) -> float:
    """Return the median seconds in which ranks a and b send each other so many bytes, at the same
    time, as they do in an Allreduce; the same on all ranks, the others of which wait.
    """
    seconds, median = [], None
    if comm.rank in (first, second):
        other = second if comm.rank == first else first
        out, into = np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
        empty = np.zeros(1, np.uint8)
        for _ in range(repeats + 1):
            comm.Sendrecv(empty, other, recvbuf=empty.copy(), source=other)  # begin together
            start = time.perf_counter()
            comm.Sendrecv(out, other, recvbuf=into, source=other)
            seconds.append(time.perf_counter() - start)
        # One of the two begins later, by as much as a message takes, and finds what it waits for;
        # the other waits twice as long: the mean of both is what it takes.
        own = np.array(seconds)
        others = np.empty_like(own)
        comm.Sendrecv(own, other, recvbuf=others, source=other)
        median = float(np.median((own + others)[1:] / 2))
    return float(comm.bcast(median, first))


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout + done.stderr


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""

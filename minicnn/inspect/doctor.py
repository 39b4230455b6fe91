"""Is this set-up right? Facts of every rank, and the checks that read them: each gives findings
with a remedy.

``facts`` looks at one rank's machine and changes nothing; ``examine`` is a function of the facts of
all ranks alone, so that every diagnosis can be tried without the illness.
"""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..parallel.machine import mpi_facts, node_facts

OK, WARNING, ERROR = "ok", "warning", "error"
#: Bytes that a rank takes beside its events at 3600 x 3600: interpreter, compiled kernels, buffers
#: (benchmarks/peers.py prints it).
RANK_BYTES = 300e6


@dataclass(frozen=True)
class Finding:
    """One line of the report: ``remedy`` says what to do, where there is something to do."""

    level: str
    topic: str
    text: str
    remedy: str = ""


def facts(comm=None, threads=None, device="auto"):
    """Return the facts of this rank, JSON-ready: its node, MPI, kernels, GPU. threads: per rank
    (default: what training would use).
    """
    found = node_facts() | mpi_facts(comm)
    found |= {
        "python": platform.python_version(),
        "variables": {
            key: value
            for key, value in os.environ.items()
            if key
            in (
                "NUMBA_NUM_THREADS",
                "OMP_NUM_THREADS",
                "NUMBA_THREADING_LAYER",
                "MPIR_CVAR_POLLS_BEFORE_YIELD",
                "CUDA_VISIBLE_DEVICES",
            )
        },
    }
    try:
        from ..kernels.cpu.machine import describe

        found["kernels"] = describe()
    except Exception as problem:  # whatever numba or LLVM say, the report names it
        found["kernels"] = {"problem": f"{type(problem).__name__}: {problem}"}
    found["threads"] = threads or _default_threads(comm, found)
    found["device"] = device
    try:
        from ..engine.plan import resolve_device

        resolve_device(device if device.startswith("cuda") else "cuda")
        found["gpu"] = None
    except (RuntimeError, ValueError) as problem:
        found["gpu"] = str(problem)
    return found


def _default_threads(comm, found):
    from ..parallel import threads_per_rank

    return min(threads_per_rank(comm), found["kernels"].get("threads", 1 << 30))


def examine(ranks):
    """Return the Findings for the facts of all ranks: a list, rank 0 first."""
    checks = (
        _mpi,
        _launcher,
        _cores,
        _binding,
        _quota,
        _numba,
        _vectors,
        _gpu,
        _cuda_aware,
        _shared_memory,
    )
    return [finding for check in checks for finding in check(ranks)]


def _nodes(ranks):
    """Return {host: [facts of its ranks]}."""
    nodes = {}
    for one in ranks:
        nodes.setdefault(one["host"], []).append(one)
    return nodes


def _allowed(mine):
    """Return how many cores of a node its ranks may use together."""
    return len(set().union(*(r["allowed"] for r in mine)))


def _mpi(ranks):
    one = ranks[0]
    if one["library"] is None:
        level = ERROR if one["announced"] > 1 else WARNING
        return [
            Finding(
                level,
                "MPI",
                f"mpi4py cannot be imported ({one['problem']}): only one process can train",
                'pip install "minicnn[mpi]", or "minicnn[mpi-system]" with a cluster\'s own MPI',
            )
        ]
    different = sorted({r["library"] or "none" for r in ranks})
    if len(different) > 1:
        return [
            Finding(
                ERROR,
                "MPI",
                "ranks use different MPI libraries: " + "; ".join(different),
                "use one environment on all nodes",
            )
        ]
    return [Finding(OK, "MPI", f"{one['library']}, mpi4py {one['mpi4py']}")]


def _launcher(ranks):
    one = ranks[0]
    if one["announced"] > 1 and one["size"] == 1:
        return [
            Finding(
                ERROR,
                "launcher",
                f"{one['launcher']} started {one['announced']} processes, but MPI sees only one: every rank "
                "would train alone and write the same files",
                f"use the mpiexec that belongs to mpi4py ({(one.get('mpiexec') or ['none is in PATH'])[0]}), or build mpi4py "
                'against this MPI: pip install --no-binary=mpi4py "minicnn[mpi-system]"; with Slurm see srun --mpi=list',
            )
        ]
    findings = []
    if one["size"] > 1:
        findings.append(
            Finding(
                OK,
                "launcher",
                f"{one['size']} ranks started by {one['launcher'] or 'an unknown launcher'}",
            )
        )
    path, family = one.get("mpiexec") or (None, None)
    if one["library"] and path and family and one["vendor"] and family != one["vendor"]:
        findings.append(
            Finding(
                WARNING,
                "launcher",
                f"the mpiexec in PATH ({path}) belongs to {family}, mpi4py to {one['vendor']}",
                "call the mpiexec of mpi4py's environment by its path, or put its folder first in PATH",
            )
        )
    elif one["size"] == 1:
        findings.append(Finding(OK, "launcher", f"one process; mpiexec is {path or 'not in PATH'}"))
    return findings


def _cores(ranks):
    findings = []
    for host, mine in _nodes(ranks).items():
        cores = _allowed(mine)
        threads, per_rank = sum(r["threads"] for r in mine), sorted({r["threads"] for r in mine})
        what = f"{host}: {len(mine)} rank{'s' * (len(mine) > 1)} x {'/'.join(map(str, per_rank))} thread{'s' * (per_rank[-1] > 1)}"
        if threads > cores:
            most = max(1, cores // len(mine))
            fix = (
                f"--threads {most}"
                if len(mine) <= cores
                else f"at most {cores} ranks per node with --threads 1"
            )
            findings.append(
                Finding(
                    ERROR,
                    "cores",
                    f"{what} on {cores} core{'s' * (cores > 1)}: {threads / cores:.3g} threads share each, "
                    "and a rank that waits in MPI keeps its core busy",
                    fix,
                )
            )
        elif threads < cores:
            variable = ranks[0]["variables"].get("NUMBA_NUM_THREADS")
            findings.append(
                Finding(
                    WARNING,
                    "cores",
                    f"{what} on {cores} cores: {cores - threads} of them have nothing to do",
                    f"NUMBA_NUM_THREADS is {variable}: unset it"
                    if variable and int(variable) < cores // len(mine)
                    else "more ranks, or more --threads",
                )
            )
        else:
            findings.append(Finding(OK, "cores", f"{what} on {cores} core{'s' * (cores > 1)}"))
        physical = len(set().union(*(r["physical"] for r in mine)))
        if threads > physical and threads <= cores:
            findings.append(
                Finding(
                    WARNING,
                    "cores",
                    f"{host}: {threads} threads on {physical} physical cores: two on one core share its "
                    "multiply-add units",
                    "as many threads as physical cores; srun --hint=nomultithread",
                )
            )
    return findings


def _binding(ranks):
    findings = []
    for host, mine in _nodes(ranks).items():
        sets = [frozenset(r["allowed"]) for r in mine]
        tight = [r for r in mine if r["threads"] > len(r["allowed"])]
        if tight and len(mine) > 1:
            one = tight[0]
            findings.append(
                Finding(
                    ERROR,
                    "binding",
                    f"{host}: rank {one['rank']} is bound to core{'s' * (len(one['allowed']) > 1)} "
                    f"{_cores_text(one['allowed'])}, but has {one['threads']} threads",
                    _bind(one["threads"]),
                )
            )
        elif (
            len(mine) > 1
            and len(set(sets)) == 1
            and len(sets[0]) < min(len(mine), mine[0]["present"])
        ):
            findings.append(
                Finding(
                    ERROR,
                    "binding",
                    f"{host}: all {len(mine)} ranks are bound to the same core{'s' * (len(sets[0]) > 1)} "
                    f"{_cores_text(sets[0])} of {mine[0]['present']}",
                    _bind(mine[0]["threads"]),
                )
            )
        elif (
            len(mine) > 1
            and len(set(sets)) > 1
            and sum(map(len, sets)) > len(frozenset().union(*sets))
        ):
            findings.append(
                Finding(
                    WARNING,
                    "binding",
                    f"{host}: ranks are bound to sets of cores that overlap: "
                    + "; ".join(f"rank {r['rank']} {_cores_text(r['allowed'])}" for r in mine[:8]),
                    _bind(mine[0]["threads"]),
                )
            )
        elif len(mine) > 1 and len(set(sets)) == 1 and mine[0]["numa_nodes"] > 1:
            findings.append(
                Finding(
                    WARNING,
                    "binding",
                    f"{host}: ranks are not bound; on {mine[0]['numa_nodes']} NUMA nodes the system "
                    "may move one away from its memory",
                    _bind(mine[0]["threads"]),
                )
            )
        else:
            bound = len(set(sets)) > 1
            findings.append(
                Finding(
                    OK,
                    "binding",
                    f"{host}: "
                    + (
                        "each rank has cores of its own"
                        if bound
                        else f"not bound, {mine[0]['numa_nodes']} NUMA node{'s' * (mine[0]['numa_nodes'] > 1)}"
                    ),
                )
            )
    return findings


def _bind(threads):
    return (
        f"MPICH: mpiexec -bind-to core:{threads}; Open MPI: mpirun --map-by slot:PE={threads} --bind-to core; "
        f"Slurm: srun --cpus-per-task={threads} --cpu-bind=cores"
    )


def _cores_text(cores):
    """Return "0-3, 8" for [0, 1, 2, 3, 8]."""
    pieces = []
    for core in sorted(cores):
        if pieces and core == pieces[-1][1] + 1:
            pieces[-1][1] = core
        else:
            pieces.append([core, core])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in pieces)


def _quota(ranks):
    return [
        Finding(
            WARNING,
            "quota",
            f"{host}: this container may use {mine[0]['quota']:.3g} cores' worth of time, but sees "
            f"{_allowed(mine)} cores",
            f"ask for more, or --threads {max(1, int(mine[0]['quota'] / len(mine)))}",
        )
        for host, mine in _nodes(ranks).items()
        if mine[0]["quota"] and mine[0]["quota"] + 0.01 < _allowed(mine)
    ]


def _numba(ranks):
    kernels = ranks[0]["kernels"]
    bad = next((r for r in ranks if "problem" in r["kernels"]), None)
    if bad:
        return [
            Finding(
                ERROR,
                "numba",
                f"rank {bad['rank']}: the cpu kernels cannot be loaded: {bad['kernels']['problem']}",
                "pip install --upgrade numba; set NUMBA_CACHE_DIR to a writable folder",
            )
        ]
    if kernels["layer"] is None:
        return [
            Finding(
                ERROR,
                "numba",
                f"the threading layer {kernels['asked']!r} cannot be loaded",
                "unset NUMBA_THREADING_LAYER, or pip install tbb",
            )
        ]
    few = [r for r in ranks if r["threads"] > r["kernels"]["threads"]]
    if few:
        return [
            Finding(
                ERROR,
                "numba",
                f"rank {few[0]['rank']}: {few[0]['threads']} threads asked for, numba starts at most "
                f"{few[0]['kernels']['threads']}",
                "raise or unset NUMBA_NUM_THREADS",
            )
        ]
    cache = kernels["cache"].replace(str(Path.home()), "~", 1)
    return [
        Finding(
            OK,
            "numba",
            f"numba {kernels['numba']}, threading layer {kernels['layer']}, compiled kernels in {cache}",
        )
    ]


def _vectors(ranks):
    lanes = {r["kernels"]["lanes"] for r in ranks if "lanes" in r["kernels"]}
    if not lanes:
        return []
    cpus = sorted({r["kernels"]["cpu"] for r in ranks if "cpu" in r["kernels"]})
    if len(lanes) > 1:
        return [
            Finding(
                WARNING,
                "vectors",
                f"nodes differ: {', '.join(map(str, sorted(lanes)))} float32 lanes ({', '.join(cpus)}); the "
                "slowest rank sets the pace of all",
                "nodes of one kind: srun --constraint=...",
            )
        ]
    width = lanes.pop()
    if width < 8:
        return [
            Finding(
                WARNING,
                "vectors",
                f"{width} float32 lanes ({cpus[0]}): dense blocks run at a half or a quarter of the speed "
                "of AVX2 or AVX-512",
                "a newer processor, or a virtual machine that passes the processor's features on",
            )
        ]
    return [Finding(OK, "vectors", f"{width} float32 lanes ({cpus[0]})")]


def _gpu(ranks):
    one = ranks[0]
    if one["device"].startswith("cuda"):
        bad = next((r for r in ranks if r["gpu"]), None)
        if bad:
            seen = ", ".join(bad["nvidia"]) or "no NVIDIA device"
            return [
                Finding(
                    ERROR,
                    "GPU",
                    f"{bad['host']}, rank {bad['rank']}: {bad['gpu'].split('. ')[0]} (the system shows {seen})",
                    'a node with a GPU and its driver (Slurm: --gpus-per-node), pip install "minicnn[cuda12]", or --device cpu',
                )
            ]
        return [Finding(OK, "GPU", f"{one['device']} is usable on all ranks")]
    idle = next((r for r in ranks if r["nvidia"] and r["gpu"]), None)
    if idle:
        return [
            Finding(
                WARNING,
                "GPU",
                f"{idle['host']} has {', '.join(idle['nvidia'])}, but it is not used: {idle['gpu'].split('. ')[0]}",
                'pip install "minicnn[cuda12]" or "minicnn[cuda13]", whichever the driver knows',
            )
        ]
    why = (
        one["gpu"].split(": ", 1)[-1].split(". ")[0]
        if one["gpu"]
        else "one is there; --device cuda uses it"
    )
    return [Finding(OK, "GPU", f"none is used: {why}")]


def _cuda_aware(ranks):
    if any(r["gpu"] for r in ranks) or ranks[0]["size"] == 1:
        return []
    aware = ranks[0].get("cuda_aware")
    if aware:
        return [Finding(OK, "CUDA-aware MPI", "the library reduces GPU buffers itself")]
    return [
        Finding(
            WARNING,
            "CUDA-aware MPI",
            "the library "
            + ("does not say whether it can" if aware is None else "cannot")
            + " reduce GPU buffers: gradients go through host memory",
            "an MPI built with CUDA (the pip wheels are not): "
            'a cluster\'s own with "minicnn[mpi-system]"',
        )
    ]


def _shared_memory(ranks):
    findings = []
    for host, mine in _nodes(ranks).items():
        if mine[0]["shared_memory"] is None:
            continue
        total, free = mine[0]["shared_memory"]
        need = 64e6 + 16e6 * len(mine)
        if len(mine) > 1 and free < need:
            text = f"{host}: {_bytes(free)} free of {_bytes(total)} in /dev/shm; MPI and a store that ranks share want {_bytes(need)}"
            findings.append(
                Finding(
                    WARNING,
                    "shared memory",
                    text,
                    "docker run --shm-size=8g (or --ipc=host); clear /dev/shm",
                )
            )
        else:
            findings.append(
                Finding(OK, "shared memory", f"{host}: {_bytes(free)} free in /dev/shm")
            )
    return findings


def data_facts(path, options=None, sample=16):
    """Return what the events of a file take: {"path", "events", "shape", "classes", "disk", "bytes"
    (compressed, per event), "rate" (events/s of loading), "unlabelled"} from a sample of them;
    raises EventError like the reader."""
    import numpy as np

    from ..cli.common import open_reader
    from ..data import EventStore

    path = Path(path)
    with open_reader(path, options or {}) as events:
        if not len(events):
            raise ValueError(f"{path}: holds no events")
        labelled = np.flatnonzero(events.labels >= 0)
        chosen = (
            labelled[np.linspace(0, len(labelled) - 1, min(sample, len(labelled))).astype(int)]
            if len(labelled)
            else []
        )
        store = EventStore()
        store.load(events, chosen)
        n = max(len(store), 1)
        return {
            "path": str(path),
            "events": len(events),
            "shape": tuple(events.image_shape),
            "bytes": store.nbytes / n,
            "dense": store.dense_bytes / n,
            "rate": n / max(store.seconds, 1e-9),
            "unlabelled": len(events) - len(labelled),
            "disk": path.stat().st_size
            if path.is_file()
            else sum(f.stat().st_size for f in path.rglob("*") if f.is_file()),
            "free_disk": shutil.disk_usage(path.parent if path.is_file() else path).free,
        }


def examine_data(ranks, data):
    """Return the Findings for training on a data set (see ``data_facts``) with these ranks: enough
    events, memory and disk.
    """
    findings = []
    each = -(-data["events"] // len(ranks))
    what = f"{data['events']:,} events of {' x '.join(map(str, data['shape']))}, {_bytes(data['disk'])} on disk"
    if data["events"] < len(ranks):
        findings.append(
            Finding(
                ERROR,
                "events",
                f"{data['path']}: {what}, fewer than the {len(ranks)} ranks",
                "fewer ranks, more events",
            )
        )
    elif data["unlabelled"]:
        findings.append(
            Finding(
                WARNING,
                "events",
                f"{data['path']}: {what}; {data['unlabelled']:,} have no label and cannot be trained on",
                "python -m minicnn convert --select labelled",
            )
        )
    else:
        findings.append(
            Finding(
                OK,
                "events",
                f"{data['path']}: {what}; {each:,} per rank, loaded in about "
                f"{each / data['rate']:.3g} s ({data['rate']:.0f} events/s)",
            )
        )
    for host, mine in _nodes(ranks).items():
        events = each * len(mine) * data["bytes"]
        need, free = events + RANK_BYTES * len(mine), mine[0]["free_memory"]
        text = (
            f"{host}: {_bytes(events)} for its share of the events ({_bytes(data['bytes'])} each, compressed) and {_bytes(RANK_BYTES)} "
            f"per rank = {_bytes(need)}, of {_bytes(free)} free"
        )
        dense = each * len(mine) * data["dense"]
        if need > free:
            findings.append(
                Finding(
                    ERROR,
                    "memory",
                    text,
                    "more nodes, fewer ranks per node, --store sparse --codec zstd:9",
                )
            )
        else:
            findings.append(
                Finding(
                    OK if need < 0.8 * free else WARNING,
                    "memory",
                    text + (f" (uncompressed: {_bytes(dense)})"),
                    "" if need < 0.8 * free else "more nodes, or a higher --codec level",
                )
            )
    few = data["free_disk"] < 1e9
    findings.append(
        Finding(
            WARNING if few else OK,
            "disk",
            f"{_bytes(data['free_disk'])} free beside {data['path']}",
            "make room: runs, checkpoints and converted files go to a disk too" if few else "",
        )
    )
    return findings


def _bytes(count):
    from ..cli.common import bytes_text

    return bytes_text(int(count))

"""Checks of the cores: as many threads as there are, each rank on its own, no smaller quota."""

from collections.abc import Iterable

from .findings import ERROR, OK, WARNING, Finding, Ranks, allowed_cores, by_node


def threads(ranks: Ranks) -> list[Finding]:
    """Are there as many threads on a node as cores?"""
    findings = []
    for host, local_ranks in by_node(ranks).items():
        cores = allowed_cores(local_ranks)
        started = sum(r["threads"] for r in local_ranks)
        per_rank = sorted({r["threads"] for r in local_ranks})
        what = (
            f"{host}: {len(local_ranks)} rank{'s' * (len(local_ranks) > 1)} x "
            f"{'/'.join(map(str, per_rank))} thread{'s' * (per_rank[-1] > 1)}"
        )
        if started > cores:
            fitting = max(1, cores // len(local_ranks))
            fix = (
                f"--threads {fitting}"
                if len(local_ranks) <= cores
                else f"at most {cores} ranks per node with --threads 1"
            )
            findings.append(
                Finding(
                    ERROR,
                    "cores",
                    f"{what} on {cores} core{'s' * (cores > 1)}: {started / cores:.3g} threads "
                    "share each, and a rank that waits in MPI keeps its core busy",
                    fix,
                )
            )
        elif started < cores:
            variable = ranks[0]["variables"].get("NUMBA_NUM_THREADS")
            findings.append(
                Finding(
                    WARNING,
                    "cores",
                    f"{what} on {cores} cores: {cores - started} of them have nothing to do",
                    f"NUMBA_NUM_THREADS is {variable}: unset it"
                    if variable and int(variable) < cores // len(local_ranks)
                    else "more ranks, or more --threads",
                )
            )
        else:
            findings.append(Finding(OK, "cores", f"{what} on {cores} core{'s' * (cores > 1)}"))
        physical = len(set().union(*(r["physical"] for r in local_ranks)))
        if physical < started <= cores:
            findings.append(
                Finding(
                    WARNING,
                    "cores",
                    f"{host}: {started} threads on {physical} physical cores: two on one core "
                    "share its multiply-add units",
                    "as many threads as physical cores; srun --hint=nomultithread",
                )
            )
    return findings


def binding(ranks: Ranks) -> list[Finding]:
    """Has each rank cores of its own, enough for its threads?"""
    findings = []
    for host, local_ranks in by_node(ranks).items():
        sets = [frozenset(r["allowed"]) for r in local_ranks]
        tight = [r for r in local_ranks if r["threads"] > len(r["allowed"])]
        if tight and len(local_ranks) > 1:
            first = tight[0]
            findings.append(
                Finding(
                    ERROR,
                    "binding",
                    f"{host}: rank {first['rank']} is bound to "
                    f"core{'s' * (len(first['allowed']) > 1)} "
                    f"{_cores_text(first['allowed'])}, but has {first['threads']} threads",
                    _bind(first["threads"]),
                )
            )
        elif (
            len(local_ranks) > 1
            and len(set(sets)) == 1
            and len(sets[0]) < min(len(local_ranks), local_ranks[0]["present"])
        ):
            findings.append(
                Finding(
                    ERROR,
                    "binding",
                    f"{host}: all {len(local_ranks)} ranks are bound to the same "
                    f"core{'s' * (len(sets[0]) > 1)} "
                    f"{_cores_text(sets[0])} of {local_ranks[0]['present']}",
                    _bind(local_ranks[0]["threads"]),
                )
            )
        elif (
            len(local_ranks) > 1
            and len(set(sets)) > 1
            and sum(map(len, sets)) > len(frozenset().union(*sets))
        ):
            findings.append(
                Finding(
                    WARNING,
                    "binding",
                    f"{host}: ranks are bound to sets of cores that overlap: "
                    + "; ".join(
                        f"rank {r['rank']} {_cores_text(r['allowed'])}" for r in local_ranks[:8]
                    ),
                    _bind(local_ranks[0]["threads"]),
                )
            )
        elif len(local_ranks) > 1 and len(set(sets)) == 1 and local_ranks[0]["numa_nodes"] > 1:
            findings.append(
                Finding(
                    WARNING,
                    "binding",
                    f"{host}: ranks are not bound; on {local_ranks[0]['numa_nodes']} NUMA nodes "
                    "the system may move one away from its memory",
                    _bind(local_ranks[0]["threads"]),
                )
            )
        else:
            bound = len(set(sets)) > 1 or len(sets[0]) < local_ranks[0]["present"]
            findings.append(
                Finding(
                    OK,
                    "binding",
                    f"{host}: "
                    + (
                        "each rank has cores of its own"
                        if bound
                        else f"not bound, {local_ranks[0]['numa_nodes']} NUMA "
                        f"node{'s' * (local_ranks[0]['numa_nodes'] > 1)}"
                    ),
                )
            )
    return findings


def _bind(threads: int) -> str:
    return (
        f"MPICH: mpiexec -bind-to core:{threads}; Open MPI: mpirun --map-by slot:PE={threads} "
        f"--bind-to core; Slurm: srun --cpus-per-task={threads} --cpu-bind=cores"
    )


def _cores_text(cores: Iterable[int]) -> str:
    """Return "0-3, 8" for [0, 1, 2, 3, 8]."""
    pieces: list[list[int]] = []
    for core in sorted(cores):
        if pieces and core == pieces[-1][1] + 1:
            pieces[-1][1] = core
        else:
            pieces.append([core, core])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in pieces)


def quota(ranks: Ranks) -> list[Finding]:
    """May a container use the cores that it sees?"""
    return [
        Finding(
            WARNING,
            "quota",
            f"{host}: this container may use {local_ranks[0]['quota']:.3g} cores' worth of time, "
            f"but sees {allowed_cores(local_ranks)} cores",
            f"ask for more, or --threads {max(1, int(local_ranks[0]['quota'] / len(local_ranks)))}",
        )
        for host, local_ranks in by_node(ranks).items()
        if local_ranks[0]["quota"] and local_ranks[0]["quota"] + 0.01 < allowed_cores(local_ranks)
    ]

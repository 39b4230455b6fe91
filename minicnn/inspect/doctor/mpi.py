"""Checks of MPI: the library, the launcher, shared memory, GPU buffers."""

from ...text import bytes_text
from .findings import ERROR, OK, WARNING, Finding, Ranks, by_node


def library(ranks: Ranks) -> list[Finding]:
    """Is there an MPI, the same on all ranks?"""
    first = ranks[0]
    if first["library"] is None:
        level = ERROR if first["announced"] > 1 else WARNING
        return [
            Finding(
                level,
                "MPI",
                f"mpi4py cannot be imported ({first['problem']}): only one process can train",
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
    return [Finding(OK, "MPI", f"{first['library']}, mpi4py {first['mpi4py']}")]


def launcher(ranks: Ranks) -> list[Finding]:
    """Did the launcher that belongs to this MPI start the ranks?"""
    first = ranks[0]
    if first["announced"] > 1 and first["size"] == 1:
        return [
            Finding(
                ERROR,
                "launcher",
                f"{first['launcher']} started {first['announced']} processes, but MPI sees only "
                "one: every rank would train alone and write the same files",
                "use the mpiexec that belongs to mpi4py "
                f"({(first.get('mpiexec') or ['none is in PATH'])[0]}), or build mpi4py "
                'against this MPI: pip install --no-binary=mpi4py "minicnn[mpi-system]"; with '
                "Slurm see srun --mpi=list",
            )
        ]
    findings = []
    if first["size"] > 1:
        findings.append(
            Finding(
                OK,
                "launcher",
                f"{first['size']} ranks started by {first['launcher'] or 'an unknown launcher'}",
            )
        )
    path, family = first.get("mpiexec") or (None, None)
    if first["library"] and path and family and first["vendor"] and family != first["vendor"]:
        findings.append(
            Finding(
                WARNING,
                "launcher",
                f"the mpiexec in PATH ({path}) belongs to {family}, mpi4py to {first['vendor']}",
                "call the mpiexec of mpi4py's environment by its path, or put its folder first "
                "in PATH",
            )
        )
    elif first["size"] == 1:
        findings.append(Finding(OK, "launcher", f"one process; mpiexec is {path or 'not in PATH'}"))
    return findings


def cuda_aware(ranks: Ranks) -> list[Finding]:
    """Where there are GPUs: does MPI reduce their buffers without a detour?"""
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


def shared_memory(ranks: Ranks) -> list[Finding]:
    """Is /dev/shm large enough for what the ranks of a node share?"""
    findings = []
    for host, local_ranks in by_node(ranks).items():
        if local_ranks[0]["shared_memory"] is None:
            continue
        total, free = local_ranks[0]["shared_memory"]
        stale = local_ranks[0].get("stale_segments", [])
        if stale:
            size = bytes_text(sum(bytes for _, bytes in stale))
            findings.append(
                Finding(
                    WARNING,
                    "shared memory",
                    f"{host}: {len(stale)} segments of {size} that killed jobs have left in "
                    f"/dev/shm, as {stale[0][0]}",
                    "nothing: the next job that starts there removes them",
                )
            )
        need = 64e6 + 16e6 * len(local_ranks)
        if len(local_ranks) > 1 and free < need:
            text = (
                f"{host}: {bytes_text(free)} free of {bytes_text(total)} in /dev/shm; MPI and "
                f"a store that ranks share want {bytes_text(need)}"
            )
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
                Finding(OK, "shared memory", f"{host}: {bytes_text(free)} free in /dev/shm")
            )
    return findings

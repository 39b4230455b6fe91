"""Checks of what computes: numba and its cache, vector units, the GPU."""

import os

from .findings import ERROR, OK, WARNING, Finding, Ranks


def numba(ranks: Ranks) -> list[Finding]:
    """Do the compiled kernels load, with the threads that are asked for?"""
    kernels = ranks[0]["kernels"]
    bad = next((r for r in ranks if "problem" in r["kernels"]), None)
    if bad:
        return [
            Finding(
                ERROR,
                "numba",
                f"rank {bad['rank']}: the cpu kernels cannot be loaded: "
                f"{bad['kernels']['problem']}",
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
                f"rank {few[0]['rank']}: {few[0]['threads']} threads asked for, numba starts at "
                f"most {few[0]['kernels']['threads']}",
                "raise or unset NUMBA_NUM_THREADS",
            )
        ]
    cache, home = kernels["cache"], os.path.expanduser("~")  # "~" where nobody knows
    if cache.startswith(home + os.sep):
        cache = "~" + cache[len(home) :]
    return [
        Finding(
            OK,
            "numba",
            f"numba {kernels['numba']}, threading layer {kernels['layer']}, compiled kernels in "
            f"{cache}",
        )
    ]


def vectors(ranks: Ranks) -> list[Finding]:
    """Are the vector units wide, and the same on all nodes?"""
    lanes = {r["kernels"]["lanes"] for r in ranks if "lanes" in r["kernels"]}
    if not lanes:
        return []
    cpus = sorted({r["kernels"]["cpu"] for r in ranks if "cpu" in r["kernels"]})
    if len(lanes) > 1:
        return [
            Finding(
                WARNING,
                "vectors",
                f"nodes differ: {', '.join(map(str, sorted(lanes)))} float32 lanes "
                f"({', '.join(cpus)}); the "
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
                f"{width} float32 lanes ({cpus[0]}): dense blocks run at a half or a quarter of "
                "the speed of AVX2 or AVX-512",
                "a newer processor, or a virtual machine that passes the processor's features on",
            )
        ]
    return [Finding(OK, "vectors", f"{width} float32 lanes ({cpus[0]})")]


def gpu(ranks: Ranks) -> list[Finding]:
    """Is a GPU that is asked for usable, and none idle that could be used?"""
    first = ranks[0]
    if first["device"].startswith("cuda"):
        bad = next((r for r in ranks if r["gpu"]), None)
        if bad:
            seen = ", ".join(bad["nvidia"]) or "no NVIDIA device"
            return [
                Finding(
                    ERROR,
                    "GPU",
                    f"{bad['host']}, rank {bad['rank']}: {bad['gpu'].split('. ')[0]} (the system "
                    f"shows {seen})",
                    "a node with a GPU and its driver (Slurm: --gpus-per-node), pip install "
                    '"minicnn[cuda12]", or --device cpu',
                )
            ]
        return [Finding(OK, "GPU", f"{first['device']} is usable on all ranks")]
    idle = next((r for r in ranks if r["nvidia"] and r["gpu"]), None)
    if idle:
        return [
            Finding(
                WARNING,
                "GPU",
                f"{idle['host']} has {', '.join(idle['nvidia'])}, but it is not used: "
                f"{idle['gpu'].split('. ')[0]}",
                'pip install "minicnn[cuda12]" or "minicnn[cuda13]", whichever the driver knows',
            )
        ]
    why = (
        first["gpu"].split(": ", 1)[-1].split(". ")[0]
        if first["gpu"]
        else "one is there; --device cuda uses it"
    )
    return [Finding(OK, "GPU", f"none is used: {why}")]

"""The facts of one rank: its node, MPI, kernels, GPU. Nothing is changed by looking."""

import os
import platform
from typing import Any

from ...parallel.machine import mpi_facts, node_facts

VARIABLES = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "NUMBA_THREADING_LAYER",
    "MPIR_CVAR_POLLS_BEFORE_YIELD",
    "CUDA_VISIBLE_DEVICES",
)


def facts(comm: Any = None, threads: int | None = None, device: str = "auto") -> dict[str, Any]:
    """Return the facts of this rank, JSON-ready. threads: per rank (default: what training would
    use).
    """
    found = node_facts() | mpi_facts(comm)
    found["python"] = platform.python_version()
    found["variables"] = {key: os.environ[key] for key in VARIABLES if key in os.environ}
    try:
        from ...kernels.cpu.machine import describe

        found["kernels"] = describe()
    except Exception as problem:  # whatever numba or LLVM say, the report names it
        found["kernels"] = {"problem": f"{type(problem).__name__}: {problem}"}
    found["threads"] = threads or _default_threads(comm, found)
    found["device"] = device
    try:
        from ...engine.plan import resolve_device

        resolve_device(device if device.startswith("cuda") else "cuda")
        found["gpu"] = None
    except (RuntimeError, ValueError) as problem:
        found["gpu"] = str(problem)
    return found


def _default_threads(comm: Any, found: dict[str, Any]) -> int:
    from ...parallel import threads_per_rank

    return min(threads_per_rank(comm), found["kernels"].get("threads", 1 << 30))

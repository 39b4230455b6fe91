"""Is this set-up right? Facts of every rank, and the checks that read them: each gives findings
with a remedy.

``facts`` looks at one rank's machine and changes nothing; ``examine`` is a function of the facts of
all ranks alone, so that every diagnosis can be tried without the illness.
"""

from . import cores, engines, mpi
from .events import data_facts, examine_data
from .facts import facts
from .findings import ERROR, OK, WARNING, Finding, Ranks

__all__ = [
    "ERROR",
    "OK",
    "WARNING",
    "Finding",
    "data_facts",
    "examine",
    "examine_data",
    "facts",
]
#: Every check is a function of the facts of all ranks; the report has them in this order.
CHECKS = (
    mpi.library,
    mpi.launcher,
    cores.threads,
    cores.binding,
    cores.quota,
    engines.numba,
    engines.vectors,
    engines.gpu,
    mpi.cuda_aware,
    mpi.shared_memory,
)


def examine(ranks: Ranks) -> list[Finding]:
    """Return the Findings for the facts of all ranks, rank 0 first."""
    return [finding for check in CHECKS for finding in check(ranks)]

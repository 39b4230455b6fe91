"""One clock for all ranks: how far each is from rank 0's, and when the last of them arrived."""

from collections.abc import Callable
from typing import Any

import numpy as np


def clock_offset(comm: Any, clock: Callable[[], float], rounds: int = 24) -> tuple[float, float]:
    """Return (offset, uncertainty) in seconds: ``clock() + offset`` is rank 0's clock, within the
    uncertainty.

    Each rank in turn sends rank 0 a message and gets its time back; of ``rounds`` exchanges the
    fastest counts: rank 0 read its clock between the two reads here, in the middle up to half of
    the round trip (Cristian 1989). All ranks call it together.
    """
    if not comm or comm.size == 1:
        return 0.0, 0.0
    time = np.zeros(1)
    if comm.rank == 0:
        for rank in range(1, comm.size):
            comm.Send(time, rank)  # its turn
            for _ in range(rounds):
                comm.Recv(time, rank)
                time[0] = clock()
                comm.Send(time, rank)
        return 0.0, 0.0
    comm.Recv(time, 0)
    best = (np.inf, 0.0)
    for _ in range(rounds):
        before = clock()
        comm.Send(time, 0)
        comm.Recv(time, 0)
        after = clock()
        best = min(best, (after - before, time[0] - (before + after) / 2))
    return float(best[1]), float(best[0] / 2)


def latest(comm: Any, times: Any) -> np.ndarray:
    """Return for each of ``times`` the latest over all ranks; every rank gives as many, else
    ValueError on all of them.
    """
    from .collective import agree

    times = np.array(times, np.float64)
    if not comm or comm.size == 1:
        return times
    counts = agree(comm, value=len(times))
    agree(
        comm,
        f"ranks took part in different numbers of collectives: {counts}"
        if len(set(counts)) > 1
        else None,
    )
    from mpi4py import MPI

    comm.Allreduce(MPI.IN_PLACE, times, MPI.MAX)
    return times

"""One process as a communicator of one rank, so that code for many ranks needs no second way."""

from __future__ import annotations

from typing import Any


class Alone:
    """The communicator of a process without others: rank 0 of 1, with the calls of mpi4py that
    minicnn makes. It is false, so that ``if comm:`` asks whether there are other ranks.
    """

    rank, size = 0, 1

    def __bool__(self) -> bool:
        return False

    def allgather(self, value: Any) -> list[Any]:
        """Return the ``value`` of every rank: this one's alone."""
        return [value]

    def gather(self, value: Any, root: int = 0) -> list[Any]:
        """Return the ``value`` of every rank, on the rank ``root``: this one's alone."""
        return [value]

    def bcast(self, value: Any = None, root: int = 0) -> Any:
        """Return the ``value`` of the rank ``root``: this one's."""
        return value

    def allreduce(self, value: Any, op: Any = None) -> Any:
        """Return the sum of ``value``, or whatever ``op`` is, over one rank."""
        return value

    def Barrier(self) -> None:
        """Wait for nobody."""

    def __repr__(self) -> str:
        return "Alone()"


ALONE = Alone()


def as_comm(comm: Any) -> Any:
    """Return ``comm``, or ALONE for None: what users may leave out."""
    return ALONE if comm is None else comm

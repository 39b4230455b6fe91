"""Small agreements between ranks. ``comm`` may be None everywhere: one process without MPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..watch import waiting
from .comm import as_comm

Result = TypeVar("Result")
Problem = TypeVar("Problem", bound=BaseException)


def together(problem: Problem) -> Problem:
    """Mark ``problem``, an exception that every rank raises at the same place: nobody waits, so the
    job ends in order and says it once.
    """
    problem.together = True  # type: ignore[attr-defined]
    return problem


def agree(
    comm: Any, problem: str | None = None, value: Any = None, error: type[Exception] = ValueError
) -> list[Any]:
    """Return the list of the ``value`` of every rank of ``comm``; if any rank states a ``problem``
    (a string), all ranks raise ``error`` with all of them.

    So that bad input on one rank is an orderly error on all of them, not a hang of those that wait.
    """
    with waiting("an agreement of all ranks"):
        answers = as_comm(comm).allgather((problem, value))
    problems = list(dict.fromkeys(p for p, _ in answers if p))
    if problems:
        raise together(error("; ".join(problems)))
    return [v for _, v in answers]


def ordered(comm: Any, call: Callable[[], Result]) -> Result:
    """Return ``call()`` made on rank 0 of ``comm`` and broadcast to all; an exception there is
    raised on all ranks.
    """
    comm = as_comm(comm)
    result: Any = None
    failure: BaseException | None = None
    if comm.rank == 0:
        try:
            result = call()
        except (Exception, SystemExit) as problem:
            failure = problem
    with waiting("what rank 0 decides"):
        result, failure = comm.bcast((result, failure))
    if failure is not None:
        raise together(failure)
    return result


def everywhere(comm: Any, call: Callable[[], Result]) -> Result:
    """Return ``call()``, made on every rank of ``comm``; bad input or a missing resource on any
    rank is raised on all of them.
    """
    result: Any = None
    problem = None
    try:
        result = call()
    except (ValueError, OSError, RuntimeError, ImportError) as failure:
        problem = str(failure)
    agree(comm, problem)
    return result


class Notices:
    """Numbers that any rank may post at the end of a step, and the largest of which all ranks see
    at the end of the next one: nobody waits for them. Alone they are seen at once.
    """

    def __init__(self, comm: Any) -> None:
        self.comm, self.request = as_comm(comm), None
        self.posted = self.seen = np.zeros(0, np.int32)

    def exchange(self, *numbers: int) -> list[int]:
        """Post this rank's numbers, >= 0; return the largest of those of the call before, zeros in
        the first. All ranks call it together, always with as many.
        """
        if self.comm.size == 1:
            return list(numbers)
        from mpi4py import MPI

        arrived = self.collect() or [0] * len(numbers)
        self.posted = np.array(numbers, np.int32)
        self.seen = np.zeros_like(self.posted)
        self.request = self.comm.Iallreduce(self.posted, self.seen, MPI.MAX)
        return arrived

    def collect(self) -> list[int]:
        """Return what is still under way, on all ranks together."""
        if self.request is not None:
            with waiting("the notices of a step"):
                self.request.Wait()
            self.request = None
        return self.seen.tolist()

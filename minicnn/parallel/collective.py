"""Small agreements between ranks. ``comm`` may be None everywhere: one process without MPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .comm import as_comm

Result = TypeVar("Result")
Problem = TypeVar("Problem", bound=BaseException)


def together(problem: Problem) -> Problem:
    """Mark an exception that every rank raises at the same place: nobody waits, so the job ends in
    order and says it once.
    """
    problem.together = True  # type: ignore[attr-defined]
    return problem


def agree(
    comm: Any, problem: str | None = None, value: Any = None, error: type[Exception] = ValueError
) -> list[Any]:
    """Return the list of every rank's ``value``; if any rank states a ``problem`` (a string), all
    ranks raise ``error`` with all of them.

    So that bad input on one rank is an orderly error on all of them, not a hang of those that wait.
    """
    answers = as_comm(comm).allgather((problem, value))
    problems = list(dict.fromkeys(p for p, _ in answers if p))
    if problems:
        raise together(error("; ".join(problems)))
    return [v for _, v in answers]


def ordered(comm: Any, call: Callable[[], Result]) -> Result:
    """Return ``call()`` made on rank 0 and broadcast to all; an exception there is raised on all
    ranks.
    """
    comm = as_comm(comm)
    result: Any = None
    failure: BaseException | None = None
    if comm.rank == 0:
        try:
            result = call()
        except (Exception, SystemExit) as problem:
            failure = problem
    result, failure = comm.bcast((result, failure))
    if failure is not None:
        raise together(failure)
    return result


def everywhere(comm: Any, call: Callable[[], Result]) -> Result:
    """Return ``call()``, made on every rank; bad input or a missing resource on any rank is raised
    on all of them.
    """
    result: Any = None
    problem = None
    try:
        result = call()
    except (ValueError, OSError, RuntimeError) as failure:
        problem = str(failure)
    agree(comm, problem)
    return result

"""Small agreements between ranks. ``comm`` may be None everywhere: one process without MPI."""


def together(problem):
    """Mark an exception that every rank raises at the same place: nobody waits, so the job ends in
    order and says it once.
    """
    problem.together = True
    return problem


def agree(comm, problem=None, value=None, error=ValueError):
    """Return the list of every rank's ``value``; if any rank states a ``problem`` (a string), all
    ranks raise ``error`` with all of them.

    So that bad input on one rank is an orderly error on all of them, not a hang of those that wait.
    """
    answers = comm.allgather((problem, value)) if comm else [(problem, value)]
    problems = list(dict.fromkeys(p for p, _ in answers if p))
    if problems:
        raise together(error("; ".join(problems)))
    return [v for _, v in answers]


def ordered(comm, call):
    """Return ``call()`` made on rank 0 and broadcast to all; an exception there is raised on all
    ranks.
    """
    result, failure = None, None
    if not comm or comm.rank == 0:
        try:
            result = call()
        except (Exception, SystemExit) as problem:
            failure = problem
    if comm:
        result, failure = comm.bcast((result, failure))
    if failure is not None:
        raise together(failure)
    return result


def everywhere(comm, call):
    """Return ``call()``, made on every rank; bad input or a missing resource on any rank is raised
    on all of them.
    """
    result, problem = None, None
    try:
        result = call()
    except (ValueError, OSError, RuntimeError) as failure:
        problem = str(failure)
    agree(comm, problem)
    return result

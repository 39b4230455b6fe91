"""A process that was forked from one whose kernels ran in threads has none of these threads, and
GNU's OpenMP ends it when it asks for them: with multiprocessing, which forks on Linux by default
before Python 3.14, the parent would wait for its children for ever.
"""

import os
import sys

_lost = False


def _look() -> None:
    global _lost
    threads = sys.modules.get("numba.np.ufunc.parallel")
    if threads is None or not getattr(threads, "_is_initialized", False):
        return
    _lost = threads.threading_layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_look)


def check_fork() -> None:
    """Raise RuntimeError in a process that has lost its threads."""
    if _lost:
        raise RuntimeError(
            "this process was forked from one that had used the model, whose threads it does not "
            'have: start workers with multiprocessing.get_context("spawn"), or set '
            "NUMBA_THREADING_LAYER=workqueue in the environment"
        )

"""The threads of numba's parallel regions: those of TBB where it is installed, else of OpenMP.

A region ends when all of its parts are done. On a machine whose cores others want as well, what
counts is who has to wait for whom:

    OpenMP   every thread has a part of its own: all of them have to get a core, one after the
             other if need be, before the region can end
    TBB      a thread that comes takes the next part: one that gets no core holds up nobody, for
             the others have done its part when it comes
"""

import ctypes
import os
import re
from contextlib import suppress
from importlib import import_module, metadata

#: Turns of libgomp's waiting loop before a thread sleeps.
SPINS = 30_000
_TBB = re.compile(r"(lib)?tbb(12\.dll|\.so\.12|\.12\.dylib)")


def prepare_threads() -> None:
    """Prepare what numba loads before its first parallel region."""
    _load_tbb()
    _spin_briefly()


def _load_tbb():
    """Load TBB's library of the wheel ``tbb``, if installed, for numba to find it: pip puts it into
    a folder in which nobody looks.
    """
    with suppress(metadata.PackageNotFoundError, OSError):
        for file in metadata.distribution("tbb").files or ():
            if _TBB.fullmatch(file.name):
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)


def _spin_briefly():
    """Have OpenMP's threads spin for some ten microseconds between parallel regions, then sleep.

    libgomp's default is to spin for milliseconds. Where ranks, or other programs, share the cores,
    spinning threads take them from those that work: benchmarks/step.py on 2 cores with a load of 3
    to 5 took 242 and 461 ms per event (batch 8) with the default, 58 and 91 ms with threads that
    never spin. But threads that never spin have to be woken for every
    region: on quiet cores that costs a fifth of such a step. A short spin bridges the gaps within
    a step and costs others little. libgomp reads the variable when it is loaded, which numba does
    before its first parallel region; so it is loaded here, and the variable is taken back, for
    other libraries and for processes that this one starts. What the user has set is kept.
    """
    if any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
        return
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    try:
        import_module("numba.np.ufunc.omppool")
    except ImportError:  # no OpenMP: another threading layer
        pass
    finally:
        del os.environ["GOMP_SPINCOUNT"]

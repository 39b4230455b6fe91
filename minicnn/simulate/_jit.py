"""The decorator of every compiled function of the simulator."""

import hashlib
from pathlib import Path

import numba

# numba keeps compiled code beside the source and recompiles a function when *its* file changes, but
# not when a function that it calls, in another file, does. One stamp for the whole package makes a
# stale call impossible.
_STAMP = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


def jit(function):
    """Compile with numba: no Python objects, no global interpreter lock, cached on disk until any
    file here changes.
    """
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder to cache in: neither this one nor the user's can be written
        return numba.njit(nogil=True)(function)
    index = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(index, "_source_stamp"):
        index._source_stamp = _STAMP
    return compiled

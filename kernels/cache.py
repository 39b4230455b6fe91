"""Where compiled kernels are kept between runs, and the locks by which processes that start together
compile each of them once. For numba's machine code (jit.py) and the emulator's (cuda/emulator.py).

    MINICNN_CACHE      the folder of all of it; by default minicnn in the user's cache folder
    NUMBA_CACHE_DIR    numba's own variable: the folder of numba's part, if set
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

#: Seconds for which another process may be compiling one function; a large one takes some.
PATIENCE = 100


def bases() -> Iterator[Path]:
    """Yield the folders to try, best first: MINICNN_CACHE, the user's cache folder, the temporary
    folder (one for each user), and at last a new temporary folder that nobody else finds.
    """
    if chosen := os.environ.get("MINICNN_CACHE"):
        yield Path(chosen)
    # Without HOME, and for a user without an entry in the list of users (a container started with
    # some number as its user), there is no home: an exception or a path that starts with "~".
    with contextlib.suppress(KeyError, RuntimeError, OSError):
        user = Path(user_cache_dir("minicnn", appauthor=False))
        if user.is_absolute():
            yield user
    owner = os.getuid() if hasattr(os, "getuid") else "cache"
    yield Path(tempfile.gettempdir()) / f"minicnn-{owner}"
    yield Path(tempfile.mkdtemp(prefix="minicnn-"))


def writable(folder: Path) -> bool:
    """Make ``folder`` and return whether it can be used: compiled code is run as it is found, so a
    folder that belongs to somebody else will not do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mine = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
    except OSError:
        return False
    return mine and os.access(folder, os.W_OK)


@cache
def cache_folder(part: str, first: Path | None = None) -> Path:
    """Return the writable folder <base>/``part``, where base is ``first`` or one of ``bases()``."""
    for base in (*([first] if first else []), *bases()):
        if writable(base / part):
            return base / part
    raise OSError("found no folder for compiled kernels: set MINICNN_CACHE to a writable one")


@cache
def can_lock(folder: Path) -> bool:
    """Return whether files in ``folder`` can be locked. Some network and container file systems
    refuse, which a lock that nobody else can have shows at once; else each look-up would wait for
    PATIENCE seconds.
    """
    name = folder / f"probe-{uuid.uuid4().hex[:16]}.lock"
    try:
        with FileLock(name, timeout=0):
            return True
    except (Timeout, OSError, NotImplementedError):
        return False
    finally:
        with contextlib.suppress(OSError):
            name.unlink(missing_ok=True)


def locked(path: Path | str) -> FileLock | None:
    """Return the held lock on the file ``path``, to be released; None where files cannot be locked,
    or where another process has had the lock for PATIENCE seconds (it may be stopped, or on a node
    that is down): then both compile the same. The system releases the lock of a process that dies.
    """
    path = Path(path)
    if not path.parent.is_dir() or not can_lock(path.parent):
        return None
    try:
        lock = FileLock(path, timeout=PATIENCE, thread_local=False)
        lock.acquire(poll_interval=0.02)
    except (Timeout, OSError, NotImplementedError):
        return None
    return lock

"""Where compiled kernels are kept between runs, and the locks by which processes that start
together compile each of them once. For numba's machine code (jit.py) and the emulator's
(cuda/emulator.py).

    MINICNN_CACHE      the folder of all of it; by default minicnn in the user's cache folder
    NUMBA_CACHE_DIR    numba's own variable: the folder of numba's part, if set
"""

import atexit
import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

#: Seconds for which another process may be compiling one function; a large one takes some.
PATIENCE = 100


def bases() -> Iterator[Path]:
    """Yield the folders to try, best first: MINICNN_CACHE, the user's cache folder, the temporary
    folder (one for each user), and at last a new temporary folder that nobody else finds, which is
    removed when this process ends.
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
    private = tempfile.mkdtemp(prefix="minicnn-")
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    yield Path(private)


def is_private(folder: Path) -> bool:
    """Return whether nobody but this user and root can put anything in the place of what is in
    ``folder``: neither in it, nor by renaming it or a folder that it is in.
    """
    if not hasattr(os, "getuid"):
        return True
    user = os.getuid()
    for place in (folder, *folder.parents):
        status = place.stat()
        if status.st_uid not in (user, 0) or (place == folder and status.st_uid != user):
            return False
        # In a folder with the sticky bit, as /tmp, others cannot rename what is not theirs; but
        # they can add to it.
        sticky = status.st_mode & stat.S_ISVTX and place != folder
        own_group = status.st_gid == user  # of the same number as the user: the user's alone
        others = stat.S_IWOTH | (0 if own_group else stat.S_IWGRP)
        if status.st_mode & others and not sticky:
            return False
    return True


def usable(folder: Path) -> bool:
    """Make ``folder``, for this user alone, and return whether it can be used: compiled code is run
    as it is found, so a folder that somebody else owns or may write to will not do.
    """
    try:
        folder = Path(os.path.realpath(folder))
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another rank was faster
                place.mkdir(mode=0o700)
        if not is_private(folder):
            say_once(
                f"{folder} is not used for compiled code, because other users own it or may write "
                "to it, or to a folder that it is in"
            )
            return False
    except OSError:
        return False
    return os.access(folder, os.W_OK)


@cache
def cache_folder(part: str, first: Path | None = None) -> Path:
    """Return the writable folder <base>/``part``, where base is ``first`` or one of ``bases()``."""
    for base in (*([first] if first else []), *bases()):
        if usable(base / part):
            return Path(os.path.abspath(base / part))
    raise OSError("found no folder for compiled kernels: set MINICNN_CACHE to a writable one")


@cache
def say_once(text: str) -> None:
    """Warn of a cache that cannot be used, which costs time and nothing else."""
    warnings.warn(f"minicnn: {text}", RuntimeWarning, stacklevel=2)


def sealed(data: bytes) -> bytes:
    """Return ``data`` with a digest before it."""
    return hashlib.blake2b(data, digest_size=32).digest() + data


def unsealed(data: bytes, path: Path | str) -> bytes | None:
    """Return what ``sealed`` was given; None, which is said once, where the file at ``path`` is
    damaged or was written by another version.
    """
    if hashlib.blake2b(data[32:], digest_size=32).digest() == data[:32]:
        return data[32:]
    say_once(f"compiled code in {Path(path).parent} is damaged and is made again")
    return None


@cache
def can_lock(folder: Path) -> bool:
    """Return whether files in ``folder`` can be locked. Some network and container file systems
    refuse, which a lock that nobody else can have shows at once; else each look-up would wait for
    PATIENCE seconds. A lock file in the place of a lock, which a killed process leaves behind, is
    no lock here: filelock warns of it.
    """
    name = folder / f"probe-{uuid.uuid4().hex[:16]}.lock"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            with FileLock(name, timeout=0):
                return True
    except (Timeout, OSError, NotImplementedError, UserWarning):
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

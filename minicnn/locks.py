"""Locks between jobs: what one is writing, no other may write."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from .files import StrPath

#: What file systems without locks answer; 524 is Linux' own ENOTSUPP, which errno does not name.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524)


class LockedError(RuntimeError):
    """Another job has it; the message says which."""


def file_locked(path: StrPath) -> AbstractContextManager[None]:
    """``with file_locked(path): ...``: the lock of whoever makes the file at ``path``, which need
    not exist; errors as those of ``locked``.
    """
    real = Path(os.path.realpath(path))
    name = os.fsdecode(os.fsencode(real.name)[:180])  # names have an end, of 255 bytes
    return locked(real.with_name(f".{name}.lock"), os.fspath(path))


@contextmanager
def locked(path: StrPath, what: str) -> Iterator[None]:
    """``with locked(OUT / ".lock", "the results in OUT"): ...``: no other process on any node gets
    the same lock before the block ends, or this process, however it ends.

    Raises LockedError naming host and process of the one that has it. Where the file system knows
    no locks, a line on stderr says so, and the block runs. OSError names ``what``.
    """
    path = Path(path)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    while True:
        try:
            file = os.open(path, flags, 0o666)
        except OSError as problem:
            raise type(problem)(problem.errno, problem.strerror, what) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 200).decode(errors="replace").strip() or "an unknown process"
            os.close(file)
            raise LockedError(
                f"{what}: in use by {owner}; wait for it, or give this job another place"
            ) from None
        except OSError as problem:
            if problem.errno not in _NO_LOCKS:
                os.close(file)
                raise
            print(f"{path}: this file system has no locks", file=sys.stderr, flush=True)
        try:
            same = os.path.samestat(os.fstat(file), os.stat(path))
        except FileNotFoundError:
            same = False
        if same:
            break
        os.close(file)  # the one before us has just taken it away
    try:
        os.ftruncate(file, 0)
        with suppress(OSError):  # of a full disk: the second one is told of an unknown process
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while we still have it
        os.close(file)

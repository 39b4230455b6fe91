"""Shared memory that killed jobs have left behind: MPI takes its name away when a job ends well, so
that each kill leaves a file in /dev/shm, until it is full and every new job dies in MPI_Init.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
#: Names of MPICH's segments (the store that ranks share is one of them) and of Open MPI's.
NAMES = ("mpich_shm_*", "vader_segment.*", "sm_segment.*")
#: Seconds after which a segment that nobody has mapped is nobody's: a job that starts maps its own
#: at once.
AGE = 60.0


def stale_segments(folder: Path | None = None) -> list[Path]:
    """Return this user's segments of MPI in ``folder`` (/dev/shm) that no process has mapped.

    A process of a container of its own cannot be seen. To take the name of its segment away does
    it no harm: it has mapped it, and opens it only when it starts.
    """
    folder = FOLDER if folder is None else folder
    old = []
    for path in (path for name in NAMES for path in folder.glob(name)):
        with suppress(OSError):
            status = path.lstat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > AGE:
                old.append(path)
    if not old:
        return []
    mapped = _mapped(str(folder))
    return sorted(path for path in old if str(path) not in mapped)


def remove_stale_segments() -> None:
    """Remove what ``stale_segments`` finds."""
    for path in stale_segments():
        with suppress(OSError):
            path.unlink()


def _mapped(folder: str) -> set[str]:
    """Return the files of ``folder`` that a process has mapped or open, of those that can be
    seen.
    """
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for line in (process / "maps").read_text(errors="replace").splitlines():
                if folder in line:
                    found.add(line[line.index(folder) :])
            for number in (process / "fd").iterdir():
                with suppress(OSError):
                    found.add(os.readlink(number))
    return found

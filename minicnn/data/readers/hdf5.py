"""HDF5 files that may lie: every reader opens them, and gets their datasets, through this file.

An HDF5 file can name other files as the place of its data, by external links, external storage and
virtual datasets; a file of events that does so would put any file of its reader into the images, or
stop at a pipe for ever. Such files are refused. And a dataset can claim more rows than are stored:
missing chunks read as zeros, which is what a full disk leaves behind, and the claim alone can ask
for terabytes. Such datasets are refused before memory is taken.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..event import EventError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: Most links in a file that are followed to see where its data are.
MOST_LINKS = 20_000
#: Largest chunk in bytes: one is in memory at a time, whatever is asked for.
LARGEST_CHUNK = 1 << 29
#: By how much filters can at most have shrunk data, by HDF5's number of the filter: deflate, szip,
#: lzf. Shuffle and fletcher32 do not; of others a generous figure.
SHRINKS = {1: 1032, 4: 1032, 32000: 300, 2: 1, 3: 1}
SHRINKS_AT_MOST = 40_000
#: What the system calls a lock that another process has, and locks that a file system lacks.
IS_LOCKED, HAS_NO_LOCKS = {11, 35}, {37, 38, 45, 95, 524}


def is_hdf5(path: str | Path) -> bool:
    """Tell whether ``path`` is a file that begins as HDF5 does (it may still be truncated)."""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        return file.read(8) == SIGNATURE


def open_hdf5(path: str | Path) -> Any:
    """Open an HDF5 file for reading; EventError where it is missing, truncated or damaged, open
    elsewhere, or takes data from other files.
    """
    import h5py

    if Path(path).exists() and not Path(path).is_file():
        raise EventError(f"{path}: this is no regular file")
    try:
        file = h5py.File(path, "r")
    except Exception as error:
        raise EventError(f"{path}: {_unopened(error)}") from error
    try:
        _refuse_other_files(file)
    except EventError as problem:
        file.close()
        raise EventError(f"{path}: {problem}") from problem
    except Exception as error:
        file.close()
        raise EventError(
            f"{path}: this HDF5 file is damaged, its groups cannot be read ({error}); copy or make "
            "it again"
        ) from error
    return file


def _unopened(error: Exception) -> str:
    """Return what is said of a file that h5py cannot open: what to do depends on why."""
    number = _errno(error)
    if number in IS_LOCKED or "already open for" in str(error):
        return (
            f"another process has this HDF5 file open for writing, or was killed then ({error}); "
            "close it there, or wait until it is complete"
        )
    if number in HAS_NO_LOCKS:
        return (
            f"the file system does not lock files ({error}); set HDF5_USE_FILE_LOCKING=FALSE in "
            "the environment"
        )
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return f"may not be read ({error}); ask its owner"
    return (
        f"this HDF5 file cannot be opened, it is truncated or damaged ({error}); copy or make it "
        "again"
    )


def _errno(error: BaseException) -> int | None:
    """Return the system's number of an OSError; HDF5's are in their text alone."""
    named = re.search(r"errno = (\d+)", str(error))
    return int(named.group(1)) if named else getattr(error, "errno", None)


def _refuse_other_files(file: Any) -> None:
    """Walk over all links of a file; EventError where one leads out of it."""
    from h5py import h5d, h5g, h5l, h5o

    seen, ahead, links = {h5o.get_info(file.id).addr}, [(file.id, "")], 0
    while ahead:
        group, path = ahead.pop()
        links += group.get_num_objs()
        if links > MOST_LINKS:
            raise EventError(f"has more than {MOST_LINKS:,} groups and datasets: no file of events")
        for name in group:
            where = f"{path}/{name.decode(errors='replace')}"
            kind = group.links.get_info(name).type
            if kind == h5l.TYPE_SOFT:  # within this file, where its target is looked at as well
                continue
            if kind != h5l.TYPE_HARD:
                raise EventError(f"{where} is a link to another file, which is not followed")
            item = h5o.open(group, name)
            if h5o.get_info(item).addr in seen:
                continue
            seen.add(h5o.get_info(item).addr)
            if isinstance(item, h5g.GroupID):
                ahead.append((item, where))
            elif isinstance(item, h5d.DatasetID):
                settings = item.get_create_plist()
                if settings.get_layout() == h5d.VIRTUAL or settings.get_external_count():
                    raise EventError(f"{where} takes its data from other files: they are not read")


def dataset(parent: Any, name: str, is_filled: bool = True) -> Any:
    """Return the dataset ``name`` of an open HDF5 file or group.

    is_filled: whether all chunks must have been stored; False where those that were not stand for
    the dataset's fill value. ValueError where it is no dataset, where rows that it claims are not
    stored, or where it was written with a filter that is not here.
    """
    import h5py

    if name not in parent:
        raise ValueError(f"the dataset {name!r} is missing")
    found = parent[name]
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise ValueError(f"{name!r} should be a dataset, and is a {type(found).__name__} or empty")
    settings = found.id.get_create_plist()
    filters = [settings.get_filter(k)[0] for k in range(settings.get_nfilters())]
    for number in filters:
        _need_filter(number, name)
    claimed, stored = math.prod(found.shape) * found.dtype.itemsize, found.id.get_storage_size()
    if found.chunks is None:
        if claimed > min(stored, found.file.id.get_filesize()):
            raise ValueError(f"{name!r} claims {claimed:,} bytes, but {stored:,} are stored")
        return found
    if math.prod(found.chunks) * found.dtype.itemsize > LARGEST_CHUNK:
        raise ValueError(f"{name!r} has chunks of more than {LARGEST_CHUNK >> 20} MB")
    if not is_filled:
        return found
    needed = math.prod(-(-n // size) for n, size in zip(found.shape, found.chunks))
    there = found.id.get_num_chunks() if claimed else 0
    if claimed and there < needed:
        raise ValueError(
            f"of {name!r} {there:,} of {needed:,} chunks were stored: the disk was full, or the "
            "writing ended early; make the file again"
        )
    # What is stored of vlen elements is a pointer each; numpy's itemsize is that or less.
    most = max([SHRINKS.get(number, SHRINKS_AT_MOST) for number in filters], default=1)
    if claimed > most * stored:
        raise ValueError(f"{name!r} claims {claimed:,} bytes, which {stored:,} stored cannot hold")
    return found


def _need_filter(number: int, name: str) -> None:
    """Raise ValueError where HDF5 has no such filter, nor hdf5plugin if that is installed."""
    from h5py import h5z

    if h5z.filter_avail(number):
        return
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  its import makes its filters known to HDF5

        if h5z.filter_avail(number):
            return
    raise ValueError(
        f"{name!r} was written with the HDF5 filter {number}, which is not here: pip install "
        "hdf5plugin"
    )

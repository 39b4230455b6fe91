"""Files that are whole or absent, JSON, and the description of the machine that goes into results.

Everything that minicnn writes for keeps goes through ``atomic_file``: a job that is killed at any
moment leaves the old file or the new one, never a half.
"""

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

StrPath = str | os.PathLike[str]

#: Libraries whose versions a result depends on.
LIBRARIES = ("numpy", "numba", "llvmlite", "h5py", "blosc", "mpi4py")


@contextmanager
def atomic_file(path: StrPath, mode: str = "w") -> Iterator[IO[Any]]:
    """``with atomic_file(path) as file: file.write(...)``: ``path`` is replaced at the end of the
    block, all at once.

    mode: "w" (UTF-8, line ends as written) or "wb". The contents go to a hidden file beside
    ``path``, which is flushed to the disk and then renamed. An exception in the block removes the
    hidden file, and ``path`` stays as it was; a kill leaves the hidden file behind
    (``remove_partial_files``). A symbolic link keeps pointing where it points. What is no regular
    file, such as /dev/stdout, is written to directly. Raises OSError naming ``path`` where its
    folder does not exist or cannot be written to.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f'{os.fspath(path)}: mode must be "w" or "wb", got {mode!r}')
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": ""}
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        with open(target, mode, **text) as file:
            yield file
        return
    if target.is_dir():
        raise IsADirectoryError(21, "a folder is in the place of the file to write", str(path))
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        file = open(partial, mode, **text)
    except OSError as problem:  # named after the file that was asked for, not after the hidden one
        raise type(problem)(problem.errno, problem.strerror, str(path)) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def atomic_write(path: StrPath, data: bytes | str) -> None:
    """Write ``data`` to ``path``, all at once (``atomic_file``)."""
    with atomic_file(path, "w" if isinstance(data, str) else "wb") as file:
        file.write(data)


def remove_partial_files(folder: StrPath) -> None:
    """Remove the hidden files that killed jobs have left in ``folder``; not while another job
    writes there.
    """
    for partial in Path(folder).glob(".*.partial"):
        partial.unlink(missing_ok=True)


def write_json(path: StrPath, value: Any, default: Callable[[Any], Any] = float) -> None:
    """Write ``value`` as indented JSON with a final newline.

    default: turns what JSON does not know into what it knows; NumPy's numbers become floats.
    """
    atomic_write(path, json.dumps(value, indent=1, default=default) + "\n")


def read_json(path: StrPath) -> Any:
    """Return what a JSON file holds; ValueError naming the file where it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as problem:  # also text that is not UTF-8
        raise ValueError(f"{os.fspath(path)}: not a JSON file ({problem})") from problem


def describe_machine() -> dict[str, Any]:
    """Return what a result has to be read with, JSON-ready: {"cpu", "cores", "node", "system",
    "date", "commit", "versions"}.

    cores: of the machine, not those that this process may use. date: now, ISO 8601 with the offset
    to UTC. commit: of the git checkout that minicnn runs from, "-dirty" where files differ from it,
    None where it was installed. versions: {library: version}, of those that are installed.
    """
    from . import __version__

    versions = {"minicnn": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "node": platform.machine(),
        "system": platform.platform(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": versions,
    }


def cpu_model() -> str:
    """Return the processor's name as its maker writes it, the architecture where it is not told."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed: a repository further up is somebody else's
        return None
    return _output("git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*") or None


def _output(*command: str) -> str:
    """Return what a command prints, "" where it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

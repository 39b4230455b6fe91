"""Files that are whole or absent, JSON, and the description of the machine that goes into results.

Everything that minicnn writes for keeps goes through ``atomic_file``: a job that is killed at any
moment leaves the old file or the new one, never a half, and so does a full disk.
"""

import json
import os
import platform
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

StrPath = str | os.PathLike[str]

#: Libraries whose versions a result depends on.
LIBRARIES = ("numpy", "numba", "llvmlite", "h5py", "blosc", "mpi4py")


def named(problem: BaseException, path: StrPath) -> BaseException:
    """Return an error of the system that names ``path``, the file that was asked for, and no hidden
    one; any other exception as it is.
    """
    if not isinstance(problem, OSError) or not problem.errno:
        return problem
    if problem.filename and not str(problem.filename).endswith(".partial"):
        return problem
    return type(problem)(problem.errno, problem.strerror, os.fspath(path))


class Partial:
    """The hidden file beside ``path`` in which it is made: ``commit`` gives it its name,
    ``discard`` removes it.

    file: open for reading and writing bytes, without a buffer of its own. The name is new and
    nobody's: a link that somebody has put there is not followed. Raises OSError naming ``path``
    where its folder does not exist or cannot be written to.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(os.path.realpath(path))
        if self.path.is_dir():
            raise IsADirectoryError(21, "a folder is in the place of the file to write", str(path))
        name = os.fsdecode(os.fsencode(self.path.name)[:180])  # names have an end, of 255 bytes
        unique = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.hidden = self.path.with_name(f".{name}.{unique}.partial")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        try:
            number = os.open(self.hidden, flags | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as problem:
            raise named(problem, path) from None
        self.file = open(number, "w+b", buffering=0)

    def commit(self) -> None:
        """Have the disk keep the file, and put it in the place of ``path``, all at once; an error,
        also one that comes as late as on closing, removes the hidden file.
        """
        try:
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.hidden, self.path)
        except BaseException as problem:
            self.discard()
            raise named(problem, self.path) from problem.__cause__
        with suppress(OSError):  # some file systems have no folders to flush
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Remove the hidden file; ``path`` stays as it was."""
        with suppress(OSError):
            self.file.close()
        self.hidden.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: StrPath, mode: str = "w") -> Iterator[IO[Any]]:
    """``with atomic_file(path) as file: file.write(...)``: ``path`` is replaced at the end of the
    block, all at once.

    mode: "w" (UTF-8, line ends as written) or "wb". The contents go to a hidden file beside
    ``path`` (``Partial``). An exception in the block, or a disk that is full at its end, removes
    the hidden file, and ``path`` stays as it was; a kill leaves the hidden file behind
    (``remove_partial_files``). A symbolic link keeps pointing where it points. What is no regular
    file, such as /dev/stdout, is written to directly. Raises OSError naming ``path`` where it
    cannot be written.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f'{os.fspath(path)}: mode must be "w" or "wb", got {mode!r}')
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": ""}
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        with open(target, mode, **text) as file:
            yield file
        return
    partial = Partial(path)
    try:
        with open(partial.file.fileno(), mode, closefd=False, **text) as file:
            yield file
    except BaseException as problem:
        partial.discard()
        raise named(problem, path) from problem.__cause__
    partial.commit()


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

"""numba's decorators as used here and in the simulator, and the disk cache behind them.

numba stores compiled functions on disk, but three things that we rely on would go wrong with its
defaults:

- A cached function is looked up by the date of its own file only. What it calls may be in another
  file (the tiles of kernels/cpu/tile.py are in every convolution), and after a change there the old
  machine code would be used. Hence the folder of a function's code is named after a digest of its
  file and of all files that this one imports, directly or not: an edit recompiles what depends on
  the edited file, and nothing else.
- Two processes that start together (ranks of one job) read, change and write the same index; the
  later one may drop or mix up the entries of the other. Hence a file lock around saving. Reading
  needs none: files are replaced in one step.
- A function made by a factory (a loop around an activation) has the inner function in its closure,
  and numba identifies that by a number which is new in every process, so that nothing is ever found
  again. Hence compiled functions in closures are identified by their names.

And all ranks of a node would compile all functions, each with the time and memory of that. Hence a
lock per function: who finds it free compiles, the others load what it saved. Locks are always taken
in call order (caller before callee), so there is no deadlock; the system releases the lock of a
process that dies.
"""

import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.caching import FunctionCache, IndexDataCacheFile

from .cache import cache_folder, locked, say_once, sealed, unsealed
from .compile_less import compile_less

_settings: Any = numba.config
#: The folder of numba's part of the cache.
CACHE = cache_folder("numba", Path(_settings.CACHE_DIR) if _settings.CACHE_DIR else None)


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


#: Turns of libgomp's waiting loop before a thread sleeps.
SPINS = 30_000
_spin_briefly()
_IMPORT = re.compile(r"^\s*from\s+(\.+)([\w.]*)\s+import\s+(\([^)]*\)|[^\n]*)", re.M)


@functools.cache
def imported(path: Path) -> tuple[Path, ...]:
    """Return the files that the file ``path`` imports with relative imports."""
    found = []
    for dots, module, names in _IMPORT.findall(path.read_text()):
        base = path.parents[len(dots) - 1].joinpath(*filter(None, module.split(".")))
        if base.with_suffix(".py").is_file():
            found.append(base.with_suffix(".py"))
            continue
        # Of a package: a name is a module of it, or something that its __init__ says.
        words = re.findall(r"\w+", re.sub(r"#.*", "", names))
        modules = [base / f"{word}.py" for word in words]
        found += [m if m.is_file() else base / "__init__.py" for m in modules]
    return tuple(dict.fromkeys(f for f in found if f.is_file()))


@functools.cache
def digest(path: Path) -> str:
    """Return 16 hexadecimal digits of the file ``path``, of all that it imports with relative
    imports, directly or not, and of the versions of numba and LLVM.
    """
    files, todo = set(), [path]
    while todo:
        file = todo.pop()
        if file not in files:
            files.add(file)
            todo += imported(file)
    total = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for file in sorted(files):
        total.update(f"{file.parent.name}/{file.name}\0".encode() + file.read_bytes())
    return total.hexdigest()[:16]


def function_folder(function: Callable) -> Path:
    """Return the folder in which the machine code of ``function`` is kept."""
    path = Path(inspect.getfile(function))
    return CACHE / f"{path.parent.name}-{path.stem}-{digest(path)}"


def _closure(function: Callable) -> tuple:
    """Return what identifies the contents of a function's closure in every process: the names of
    compiled functions with their own closures, and numbers.
    """
    names: list[tuple] = []
    for cell in function.__closure__ or ():
        value = cell.cell_contents
        if callable(getattr(value, "py_func", None)):
            inner = value.py_func
            names.append((inner.__module__, inner.__qualname__, _closure(inner)))
        elif isinstance(value, bool | int | float | str | np.number):
            names.append((type(value).__name__, repr(value)))
        else:
            raise TypeError(
                f"{function.__qualname__} has {value!r} in its closure, which cannot be told from "
                "others when its machine code is looked up: make it a global of the module"
            )
    return tuple(names)


class _SealedFiles(IndexDataCacheFile):
    """numba's files with a digest in each: they are pickles, and what is damaged must not be read
    as one.
    """

    def _load_index(self):
        try:
            data = unsealed(Path(self._index_path).read_bytes(), self._index_path)
        except OSError:
            return {}
        version, stamp, overloads = (None,) * 3 if data is None else pickle.loads(data)
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads):
        data = self._dump((self._version, self._source_stamp, overloads))
        with self._open_for_write(self._index_path) as file:
            file.write(sealed(data))

    def _load_data(self, name):
        path = self._data_path(name)
        with open(path, "rb") as file:
            data = unsealed(file.read(), path)
        return None if data is None else pickle.loads(data)

    def _save_data(self, name, data):
        with self._open_for_write(self._data_path(name)) as file:
            file.write(sealed(self._dump(data)))


class _LockedCache(FunctionCache):
    """numba's disk cache for several processes that start together: one of them compiles a
    function, the others wait and load it. It is only a cache: what cannot be loaded is compiled
    again, what cannot be saved is not.
    """

    compiling = None  # the lock, from a look-up in vain to the saving

    def __init__(self, function, parallel=False):
        self.parallel = parallel
        before, _settings.CACHE_DIR = _settings.CACHE_DIR, str(function_folder(function))
        try:
            super().__init__(function)
        finally:
            _settings.CACHE_DIR = before
        # The folder's name says all that the file's date would: a checkout of the same text, which
        # has another date, need not be compiled again.
        self._cache_file = _SealedFiles(self._cache_path, self._impl.filename_base, "digest")

    def _index_key(self, sig, codegen):
        # Of a ``threaded`` function there are two versions under one name.
        return sig, codegen.magic_tuple(), _closure(self._py_func), self.parallel

    def _found(self, sig, context):
        """The compiled function, or None where there is none that can be loaded."""
        closure = _closure(self._py_func)  # may be an error of the function's author
        assert closure is not None
        try:
            return super().load_overload(sig, context)
        except Exception as problem:  # of numba, LLVM, pickle, the file system
            say_once(f"compiled code in {self.cache_path} is made again ({problem!r:.200})")
            return None

    def load_overload(self, sig, context):
        found = self._found(sig, context)
        if found is None and self.compiling is None:
            with contextlib.suppress(OSError):
                self._impl.locator.ensure_cache_path()
            self.compiling = locked(f"{self.cache_path}/{self._impl.filename_base}.lock")
            found = self._found(sig, context)  # what the process before us has made
            if found is not None:
                self._done()
        return found

    def save_overload(self, sig, data):
        saving = locked(CACHE / "lock")
        try:
            super().save_overload(sig, data)
        except OSError as problem:
            say_once(f"compiled code is not kept ({problem}): the next run compiles it again")
        finally:
            if saving:
                saving.release()
            self._done()

    def _done(self):
        if self.compiling:
            self.compiling.release()
        self.compiling = None


def jit(function: Callable | None = None, error_model: Any = "numpy", **options: Any) -> Any:
    """numba.njit that releases the GIL and keeps the machine code in our own cache folder; numba's
    settings stay the user's.
    """
    if function is None:
        return functools.partial(jit, error_model=error_model, **options)
    options = {"nogil": True, "no_cfunc_wrapper": True, "error_model": error_model, **options}
    dispatcher = compile_less(numba.njit(**options)(function))
    try:
        dispatcher._cache = _LockedCache(function, bool(options.get("parallel")))
    except (OSError, RuntimeError) as problem:  # numba finds no place for it
        say_once(f"compiled code is not kept ({problem}): the next run compiles it again")
    return dispatcher


parallel = functools.partial(jit, parallel=True)


class Threaded:
    """A loop that is compiled twice, with threads and without, and run with threads where there is
    work for more than one of them:

        @threaded
        def _relu(x, y): ... for task in prange(...)

        _relu(tasks, x, y)        # ``tasks``: iterations of prange that are worth a thread

    To enter a parallel region takes 10 microseconds, and milliseconds where other processes want
    the cores: all threads have to get one before the region can end. Both versions are made from
    the same lines, without reordering of sums, and give the same bits.
    """

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self.serial, self.parallel = jit(function), parallel(function)

    def __call__(self, tasks: int, *arguments: Any) -> Any:
        """Run the loop, without threads where ``tasks`` is at most 1."""
        return (self.parallel if tasks > 1 else self.serial)(*arguments)

    @property
    def py_func(self) -> Callable:
        """The function that both are made of, as a compiled function has it."""
        return self.serial.py_func

    @property
    def stats(self) -> SimpleNamespace:
        """How often each was loaded from the cache and compiled, {(version, signature): times}."""
        both = {"serial": self.serial.stats, "threaded": self.parallel.stats}
        return SimpleNamespace(
            **{
                kind: {
                    (version, signature): times
                    for version, stats in both.items()
                    for signature, times in getattr(stats, kind).items()
                }
                for kind in ("cache_hits", "cache_misses")
            }
        )


def threaded(function: Callable) -> Threaded:
    """Compile a loop with threads and without: see Threaded."""
    return Threaded(function)

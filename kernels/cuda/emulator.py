"""The cuda backend without a GPU: the same launchers and the same .cu files, compiled by g++ with
emulator.h and run on one CPU core.

For tests: it is slow, and finds what a GPU would leave undefined (emulator.h). Its arrays are NumPy
memory that behaves like a GPU's.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import uuid
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..cache import cache_folder, locked, say_once, sealed, unsealed
from ..types import Array, Shape
from .backend import Backend
from .source import FOLDER, kernels, read, scalar, source, three


class DeviceArray(np.ndarray):
    """NumPy memory that mixes with numbers and with its own kind only, as a GPU's arrays do;
    ``to_host`` gives a plain array.

    So that code which forgets a transfer fails here too. Scalars and 0-dimensional arrays pass.
    """

    def __array_finalize__(self, parent):
        pass

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        for argument in (*inputs, *(out or ())):
            _refuse(argument, ufunc.__name__)
        if out is not None:
            getattr(ufunc, method)(*map(plain, inputs), out=tuple(map(plain, out)), **options)
            return out[0] if len(out) == 1 else out  # the same object, as CuPy has it
        return device(getattr(ufunc, method)(*map(plain, inputs), **options))

    def __array_function__(self, function, types, args, options):
        for argument in args:
            for one in argument if isinstance(argument, list | tuple) else (argument,):
                _refuse(one, function.__name__)
        return device(
            function(
                *(
                    type(argument)(map(plain, argument))
                    if isinstance(argument, list | tuple)
                    else plain(argument)
                    for argument in args
                ),
                **options,
            )
        )

    def __setitem__(self, key, value):
        for part in (value, *(key if isinstance(key, tuple) else (key,))):
            _refuse(part, "assignment")
        super().__setitem__(key, value)

    def __getitem__(self, key):
        for part in key if isinstance(key, tuple) else (key,):
            _refuse(part, "an index")
        return super().__getitem__(key)


def _refuse(array, what):
    if type(array) is np.ndarray and array.ndim:
        raise TypeError(
            f"{what} mixes a device array with a host array of shape {array.shape}: use asarray or "
            "to_host of the backend"
        )


def plain(array: Any) -> Any:
    """Return a device array's memory as a plain NumPy array; anything else as it is."""
    return array.view(np.ndarray) if isinstance(array, DeviceArray) else array


def device(array: Any) -> Any:
    """Return a NumPy array's memory as a device array; a tuple of them likewise; anything else as
    it is.
    """
    if isinstance(array, tuple):
        return tuple(map(device, array))
    return array.view(DeviceArray) if isinstance(array, np.ndarray) else array


class Emulator:
    """Arrays and launches without a GPU. ``falling``: threads run from the last to the first
    between barriers.

    ``replaced`` ({file: text}) stands in for source files, ``memory`` limits the bytes of one
    array, ``flags`` go to g++, and ``shared_memory`` and ``multiprocessors`` are what the launchers
    believe to find: none of them changes a result.
    """

    name, has_tf32 = "emulated", True
    OutOfMemory = MemoryError

    def __init__(
        self,
        falling=False,
        replaced=None,
        memory=None,
        shared_memory=100 << 10,
        multiprocessors=4,
        flags=(),
    ):
        self.falling, self.replaced, self.memory = falling, replaced or {}, memory
        self.shared_memory, self.multiprocessors = shared_memory, multiprocessors
        self.flags = (*flags, *os.environ.get("MINICNN_EMULATOR_FLAGS", "").split())
        self.launches = 0

    def describe(self) -> str:
        """Return a name for the plan."""
        return "emulated (CUDA kernels on one CPU core, for tests)"

    # --------------------------------------------------------------------------------------- arrays
    def empty(self, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        array = np.empty(shape, dtype)
        if self.memory is not None and array.nbytes > self.memory:
            raise MemoryError(f"{array.nbytes} bytes asked for, {self.memory} there are")
        array.view(np.ndarray).reshape(-1).view(np.uint8)[...] = (
            0xFF  # NaN: what is read before it is written shows
        )
        return device(array)

    def asarray(self, array: Any, dtype: DTypeLike | None = None) -> Array:
        if isinstance(array, DeviceArray):
            return array if dtype is None or array.dtype == dtype else array.astype(dtype)
        array = np.array(array, dtype)  # a copy: the memory of the GPU is another
        if self.memory is not None and array.nbytes > self.memory:
            raise MemoryError(f"{array.nbytes} bytes asked for, {self.memory} there are")
        return device(array)

    def to_host(self, array: Array) -> np.ndarray:
        return np.array(plain(array))

    def pinned(self, array: Array) -> np.ndarray:
        return np.array(plain(array))

    def is_array(self, array: Any) -> bool:
        return isinstance(array, DeviceArray)

    def address(self, array: Array) -> int:
        return array.__array_interface__["data"][0]

    def synchronize(self) -> None:
        pass

    def memory_free(self) -> int:
        return self.memory if self.memory is not None else 1 << 40

    # ------------------------------------------------------------------------------------- launches
    def launch(
        self,
        file: str,
        kernel: str,
        threads: tuple[Any, Any],
        args: tuple,
        defines: dict[str, Any],
        shared: int,
    ) -> None:
        """Run one kernel; raises RuntimeError with what the emulator found wrong."""
        library = compiled(source(file, self.replaced), tuple(sorted(defines.items())), self.flags)
        values = []
        for value in map(scalar, args):
            if isinstance(value, np.ndarray):
                if not isinstance(value, DeviceArray) or not value.flags.c_contiguous:
                    raise TypeError(
                        f"{kernel} takes contiguous device arrays, got {type(value).__name__} with "
                        f"strides {value.strides}"
                    )
                value = np.uint64(self.address(value))
            elif value is None:
                value = np.uint64(0)
            values.append(value)
        memory = [v.tobytes() for v in values]
        pointers = (ctypes.c_void_p * (len(values) + 1))(
            *(ctypes.cast(ctypes.c_char_p(m), ctypes.c_void_p) for m in memory)
        )
        sizes = (ctypes.c_size_t * (len(values) + 1))(*map(len, memory))
        sizes3 = [(ctypes.c_uint * 3)(*three(n)) for n in threads]
        problem = getattr(library, "launch_" + kernel)(
            *sizes3,
            ctypes.c_size_t(shared),
            int(self.falling),
            pointers,
            sizes,
            ctypes.c_size_t(len(values)),
        )
        self.launches += 1
        if problem:
            raise RuntimeError(f"{file}: {kernel}: {problem.decode()}")


@cache
def _machine():
    """What compiled code depends on: it is made for this CPU."""
    flags = (
        Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0]
        if Path("/proc/cpuinfo").exists()
        else ""
    )
    return platform.machine() + flags


@cache
def compiled(
    text: str, defines: tuple[tuple[str, Any], ...], flags: tuple[str, ...] = ()
) -> ctypes.CDLL:
    """Return the library of the kernels in ``text`` with ``defines``, from the cache if it was
    compiled before, by whichever rank.
    """
    names = kernels(text)
    entries = "".join(
        f'extern "C" const char* launch_{n}(const unsigned* g, const unsigned* b, size_t s, int f, '
        "void** a, "
        f"const size_t* z, size_t n) {{ return emu::launch({n}, g, b, s, f, a, z, n); }}\n"
        for n in names
    )
    text = read("emulator.h") + '#line 1 "kernel"\n' + text + entries
    options = [
        "-std=c++17",
        "-O1",
        "-march=native",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-shared",
        "-fPIC",
        "-w",
        *(f"-D{key}={value}" for key, value in defines),
        *flags,
    ]
    digest = hashlib.sha256("\0".join([text, *options, _machine()]).encode()).hexdigest()[:32]
    path = cache_folder("emulator") / f"{digest}.so"
    library = _loaded(path)
    if library is None:
        lock = locked(path.with_suffix(".lock"))  # ranks that start together compile once
        try:
            library = _loaded(path) or _compile(text, options, path)
        finally:
            if lock:
                lock.release()
    for n in names:
        getattr(library, f"launch_{n}").restype = ctypes.c_char_p
    return library


def _loaded(path):
    """The library at ``path``; None where there is none, or where it differs from the digest beside
    it.
    """
    try:
        digest, library = path.with_suffix(".sum").read_bytes(), path.read_bytes()
        if unsealed(digest + library, path) is None:
            return None
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _compile(text, options, path):
    """Compile, keep the library at ``path`` where that can be written, and return it loaded."""
    with tempfile.TemporaryDirectory() as folder:
        code, out = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        code.write_text(text)
        done = subprocess.run(
            ["g++", *options, str(code), "-o", str(out)], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(
                f"g++ cannot compile a kernel for the emulator:\n{done.stderr[:4000]}"
            )
        library = out.read_bytes()
        try:
            # The digest is the last: a library without it is made again.
            for name, data in ((path, library), (path.with_suffix(".sum"), sealed(library)[:32])):
                partial = path.parent / f"{name.name}.{uuid.uuid4().hex[:16]}"
                try:
                    partial.write_bytes(data)
                    os.replace(partial, name)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as problem:
            say_once(f"compiled code is not kept ({problem}): the next run compiles it again")
        return ctypes.CDLL(str(out))


def backend(**options: Any) -> Backend:
    """Return the backend; raises RuntimeError where there is no g++. Options: see Emulator."""
    if shutil.which("g++") is None:
        raise RuntimeError(
            'device "emulated" compiles its kernels with g++, which is not on the PATH'
        )
    return Backend(Emulator(**options))


__all__ = ["FOLDER", "DeviceArray", "Emulator", "backend", "compiled"]

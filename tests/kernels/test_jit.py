"""Compiled functions on disk: what is compiled again after an edit, processes that start together,
folders where there is no home.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import prange
from numba.core.caching import NullCache

import minicnn.kernels
from minicnn.kernels import cache, compile_less, jit

KERNELS = Path(minicnn.kernels.__file__).parent


@pytest.fixture
def copy(tmp_path):
    """A copy of the sources, to be edited."""
    folder = tmp_path / "kernels"
    shutil.copytree(KERNELS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def digests(folder):
    jit.imported.cache_clear(), jit.digest.cache_clear()
    return {p.stem: jit.digest(p) for p in (folder / "cpu").glob("*.py")}


def edited(folder, name):
    """Return the files of kernels/cpu whose functions an edit of the file ``name`` recompiles."""
    before = digests(folder)
    with open(folder / name, "a") as file:
        file.write("# a word more\n")
    after = digests(folder)
    return {stem for stem in before if before[stem] != after[stem]}


def test_an_edit_recompiles_what_depends_on_the_file_and_nothing_else(copy):
    assert not edited(copy, "cpu/loss.py") & {"conv2d", "activations", "dense"}
    assert edited(copy, "cpu/pool2d.py") == {"pool2d", "upsample2d"}
    changed = edited(copy, "cpu/tile.py")
    assert {"tile", "conv2d", "block", "block_backward"} <= changed
    assert not changed & {"pool2d", "dense", "normalization"}
    assert edited(copy, "cpu/activations.py") == {"activations"}
    assert "conv2d" in edited(copy, "shapes.py")  # a level up
    assert not edited(copy, "ops.py") & {"conv2d", "pool2d"}
    assert len(edited(copy, "jit.py")) > 10


def test_relative_imports_are_followed_also_within_parentheses(tmp_path):
    package = tmp_path / "one" / "two"
    package.mkdir(parents=True)
    for name in ("a", "b", "c", "__init__"):
        (package / f"{name}.py").write_text("")
    (package.parent / "d.py").write_text("")
    (package / "main.py").write_text(
        "import os\nfrom . import (\n    a,  # first\n    b as other,\n)\n"
        "def f():\n    from .c import x\nfrom ..d import y\nfrom . import VERSION\n"
    )
    found = {p.relative_to(tmp_path / "one").as_posix() for p in jit.imported(package / "main.py")}
    assert found == {"two/a.py", "two/b.py", "two/c.py", "d.py", "two/__init__.py"}


CODE = """
import numpy as np
from minicnn.kernels import cpu
from minicnn.kernels.cpu import activations
from minicnn.kernels.jit import CACHE
loops = activations._relu, *activations.ACTIVATIONS["tanh"]
print(CACHE, cpu.relu(np.ones(3, 'f')), cpu.relu(np.ones((2, 2), 'f')).sum())
cpu.activation_backward(*[np.ones(9, "f")] * 3, "tanh")
print(sum(len(loop.stats.cache_misses) for loop in loops))
"""


def start(code, **environment):
    env = {**{k: v for k, v in os.environ.items() if k != "MINICNN_CACHE"}, **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={k: v for k, v in env.items() if v is not None},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("variable", ["NUMBA_CACHE_DIR", "MINICNN_CACHE"])
def test_cold_cache_of_two_processes(tmp_path, variable):
    """Each function is compiled by one of them; a third one compiles nothing, not even the loops
    that have a compiled function in their closure.
    """
    runs = [start(CODE, **{variable: str(tmp_path)}) for _ in range(2)]
    out = [r.communicate(timeout=600)[0].split() for r in runs]
    for words in out:
        assert words[0].startswith(str(tmp_path)) and words[1:5] == ["[1.", "1.", "1.]", "4.0"]
    assert int(out[0][-1]) + int(out[1][-1]) == 2  # relu, tanh's derivative
    assert list(tmp_path.rglob("*.nbi"))
    again = start(CODE, **{variable: str(tmp_path)}).communicate(timeout=600)[0].split()
    assert again[-1] == "0"


VERSIONS = """
import sys
import numpy as np
from minicnn.kernels.cpu import activations
loop = activations._relu
for version in sys.argv[1:]:
    getattr(loop, version)(np.ones(9, "f"), np.ones(9, "f"))
print(sum(loop.stats.cache_misses.values()), sum(loop.stats.cache_hits.values()))
"""


def test_the_version_with_threads_is_not_taken_for_the_one_without(tmp_path):
    """Both come from one function: a process that finds the serial one on disk compiles the
    other.
    """

    def run(*versions):
        env = {**os.environ, "MINICNN_CACHE": str(tmp_path)}
        env.pop("NUMBA_CACHE_DIR", None)
        command = [sys.executable, "-c", VERSIONS, *versions]
        out = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return [int(word) for word in out.stdout.split()]

    assert run("serial") == [1, 0]
    assert run("parallel") == [1, 0]
    assert run("serial", "parallel") == [0, 2]


def test_a_function_that_another_process_never_finishes_is_compiled_here(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "PATIENCE", 0.1)
    with cache.locked(tmp_path / "lock"):
        assert cache.locked(tmp_path / "lock") is None
    with cache.locked(tmp_path / "lock") as again:
        assert again and cache.locked(tmp_path / "no such folder" / "lock") is None


def test_where_files_cannot_be_locked_nobody_waits(monkeypatch, tmp_path):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    cache.can_lock.cache_clear()
    assert cache.locked(tmp_path / "lock") is None


def folder(**changes):
    code = "from minicnn.kernels.cache import cache_folder; print(cache_folder('numba'))"
    return Path(start(code, **changes).communicate(timeout=60)[0].strip())


def test_the_folder(tmp_path):
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": None}
    assert folder(MINICNN_CACHE=str(tmp_path / "own")) == tmp_path / "own/numba"
    assert folder(XDG_CACHE_HOME=str(tmp_path / "xdg")) == tmp_path / "xdg/minicnn/numba"
    assert tmp_path in folder(**home).parents
    assert folder(**{**home, "HOME": None}).is_absolute()
    # What cannot be written to is passed over.
    (tmp_path / "file").write_text("")
    assert folder(MINICNN_CACHE=str(tmp_path / "file"), **home).is_dir()


def test_a_user_without_a_home_or_an_entry_in_the_list_of_users(monkeypatch, tmp_path):
    pwd = pytest.importorskip("pwd")

    def unknown(_):
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "MINICNN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    first = next(cache.bases())
    assert first.parent == tmp_path and first.name.startswith("minicnn-")


STEP = """
import sys, warnings
import numpy as np
warnings.simplefilter("always")
if sys.argv[1] == "no locks":
    import fcntl
    def flock(*_):
        raise OSError(38, "Function not implemented")
    fcntl.flock = flock
from minicnn.kernels import cpu
from minicnn.kernels.cpu import activations
from minicnn.kernels.jit import CACHE
if sys.argv[1] == "removed":
    import shutil
    shutil.rmtree(CACHE)
if sys.argv[1] == "full":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
print(cpu.relu(np.array([-1, 2], "f")), sum(activations._relu.stats.cache_misses.values()))
"""


def step(folder, fault="none"):
    """(what a run with a cache in ``folder`` prints, what it says on stderr)."""
    env = {**os.environ, "MINICNN_CACHE": str(folder)}
    env.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", STEP, fault], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def damages(sound):
    """Yield what may become of a file's bytes."""
    flipped = bytearray(sound)
    flipped[len(sound) // 2] ^= 4
    yield from (b"", sound[: len(sound) // 2], sound[:-1], bytes(200), bytes(flipped))


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.filterwarnings("ignore:minicnn. compiled code")
def test_damaged_files_are_not_found(tmp_path, kind):
    """numba would read them as pickles."""
    files = jit._SealedFiles(str(tmp_path), "f", "digest")
    files.save("key", {"code": b"x" * 500})
    (file,) = tmp_path.glob(f"*.{kind}")
    sound = file.read_bytes()
    for damaged in damages(sound):
        file.write_bytes(damaged)
        assert files.load("key") is None
        file.write_bytes(sound)
        assert files.load("key") == {"code": b"x" * 500}
    assert jit._SealedFiles(str(tmp_path), "f", "other digest").load("key") is None


def test_damaged_code_is_compiled_again(tmp_path):
    assert step(tmp_path) == ("[0. 2.] 1", "")
    for file in tmp_path.rglob("*_relu*.nb?"):
        file.write_bytes(list(damages(file.read_bytes()))[-1])
    printed, said = step(tmp_path)
    assert printed == "[0. 2.] 1" and said.count("RuntimeWarning") == 1
    assert "is damaged and is made again" in said
    assert step(tmp_path) == ("[0. 2.] 0", "")


@pytest.mark.parametrize("fault", ["full", "removed", "no locks"])
def test_what_cannot_be_kept_is_compiled(tmp_path, fault):
    printed, said = step(tmp_path, fault)
    assert printed == "[0. 2.] 1"
    assert said.count("Warning") == (fault == "full"), said


def test_code_that_others_may_write_is_not_loaded(tmp_path):
    """Neither the folder, nor one that it is in; and a folder of its own is nobody else's."""
    os.chmod(tmp_path, 0o700)
    old = os.umask(0)
    try:
        assert cache.usable(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    for place in (tmp_path / "a", tmp_path / "a" / "b"):
        assert place.stat().st_mode & 0o777 == 0o700
        os.chmod(place, 0o777)
        cache.say_once.cache_clear()
        with pytest.warns(RuntimeWarning, match="is not used for compiled code"):
            assert not cache.usable(tmp_path / "a" / "b")
        os.chmod(place, 0o700)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert cache.usable(tmp_path / "link" / "b")
    os.chmod(tmp_path, 0o1777)  # as /tmp: others cannot rename what is there
    assert cache.usable(tmp_path / "a" / "b")
    if not os.getuid():
        os.chown(tmp_path / "a", 54321, -1)
        cache.say_once.cache_clear()
        with pytest.warns(RuntimeWarning, match="other users own it"):
            assert not cache.usable(tmp_path / "a" / "b")


def test_libraries_of_the_emulator_too(tmp_path, monkeypatch):
    shutil.which("g++") or pytest.skip("no g++")
    from minicnn.kernels.cuda import emulator

    monkeypatch.setattr(emulator, "cache_folder", lambda part: tmp_path)
    count = []
    compile_ = emulator._compile
    monkeypatch.setattr(emulator, "_compile", lambda *a: count.append(1) or compile_(*a))
    text = 'extern "C" __global__ void nothing(float* x) { x[0] = 1; }'

    def load():
        emulator.compiled.cache_clear()
        assert emulator.compiled(text, ()).launch_nothing
        return len(count)

    assert load() == 1 and load() == 1
    (library,) = tmp_path.glob("*.so")
    damaged = library.read_bytes()[:-1] + b"x"
    library.unlink()  # this process has it in its memory
    library.write_bytes(damaged)
    cache.say_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="is damaged and is made again"):
        assert load() == 2
    assert load() == 2
    library.with_suffix(".sum").unlink()
    assert load() == 3
    monkeypatch.setattr(emulator, "cache_folder", lambda part: tmp_path / "gone")
    with pytest.warns(RuntimeWarning, match="is not kept"):
        assert load() == 4


@pytest.mark.parametrize("chosen", [None, "1234"])
def test_threads_spin_briefly_between_parallel_regions(chosen):
    """What libgomp says when it is loaded; the variable is not left behind."""
    pytest.importorskip("numba.np.ufunc.omppool")
    code = "import os; from minicnn.kernels import jit; import numba.np.ufunc.omppool"
    code += "; print(os.environ.get('GOMP_SPINCOUNT'))"
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    env |= {"OMP_DISPLAY_ENV": "verbose"} | ({"GOMP_SPINCOUNT": chosen} if chosen else {})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this OpenMP does not say what it uses")
    assert f"GOMP_SPINCOUNT = '{chosen or jit.SPINS}'" in done.stderr
    assert done.stdout.strip() == str(chosen)


def test_what_a_closure_cannot_be_told_by_is_an_error():
    def factory(value):
        @jit.jit
        def function(x):
            return x + value[0]

        return function

    with pytest.raises(TypeError, match=r"has \(1, 2\) in its closure, .* a global of the module"):
        factory((1, 2))(1)
    inner = jit.jit(lambda x: x)
    assert jit._closure((lambda a: lambda: a)(inner))[0][1].endswith("<lambda>")
    assert jit._closure((lambda a: lambda: a)(2.5)) == (("float", "2.5"),)


@pytest.fixture
def not_kept(monkeypatch):
    """Compile anew in every run of the tests: what is loaded was not compiled as they ask."""
    monkeypatch.setattr(jit, "_LockedCache", lambda *_: NullCache())


def test_a_constant_makes_no_version_of_its_own(not_kept):
    """Numba's own dispatcher compiles one for every constant."""
    inner = jit.jit(lambda x, n: x * n)

    @jit.jit
    def outer(x):
        return inner(x, 3) + inner(x, 4) + inner(n=5, x=x) + inner(x, int(x))

    assert outer(2.0) == 2.0 * (3 + 4 + 5 + 2)
    assert [str(kind) for kind in inner.signatures] == ["(float64, int64)"]


def test_pieces_of_a_parallel_loop_are_not_compiled_by_themselves(monkeypatch, not_kept):
    """Both wrappers of it, by the names that numba gives them."""
    made, library = [], compile_less.OnlyLinked
    keep = lambda *a, **b: made.append(a[1]) or library(*a, **b)  # noqa: E731
    monkeypatch.setattr(compile_less, "OnlyLinked", keep)

    @jit.parallel
    def double(x):
        for i in prange(x.size):
            x[i] *= 2

    codegen = double.targetctx.codegen()
    create = codegen.create_library
    x = np.arange(5.0)
    double(x)
    assert x.tolist() == [0, 2, 4, 6, 8]
    assert len(made) == 2 and made[1] == "parallelgufuncwrapper", made
    assert codegen.create_library == create

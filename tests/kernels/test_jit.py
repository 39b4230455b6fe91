"""Compiled functions on disk: what is compiled again after an edit, processes that start together,
folders where there is no home.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minicnn.kernels
from minicnn.kernels import cache, jit

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
    """Both come from one function: a process that finds the serial one on disk compiles the other."""

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

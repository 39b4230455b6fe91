"""The map holds: imports run one way, importing is light, the installed wheel is complete."""

import ast
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from helpers import ROOT

HEAVY = {
    "numba": ("kernels/cpu", "kernels/jit.py", "kernels/compile_less.py", "minicnn/simulate"),
    "cupy": ("kernels/cuda",),
    "mpi4py": ("minicnn/parallel",),
    "pickle": ("kernels/jit.py",),  # numba's files of compiled code, in a folder of nobody else
}


def imported(path):
    """Yield (module, level, at top) of every import statement in a file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, 0, id(node) in top) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, id(node) in top


def sources(folder):
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("module", HEAVY)
def test_heavy_imports_stay_in_their_rooms(module):
    for path in [*sources("minicnn"), *sources("kernels")]:
        name = path.relative_to(ROOT).as_posix()
        if any(m.split(".")[0] == module for m, level, _ in imported(path) if level == 0):
            assert name.startswith(HEAVY[module]), f"{name} imports {module}"


def test_kernels_import_nothing_from_minicnn():
    for path in sources("kernels"):
        depth = len(path.relative_to(ROOT / "kernels").parts)
        for module, level, _ in imported(path):
            assert not module.startswith("minicnn") and level <= depth, (
                f"{path.relative_to(ROOT)}: {'.' * level}{module}"
            )


def test_layers_know_nothing_of_training_data_or_ranks():
    for path in sources("minicnn/nn/layers"):
        beyond = {m.split(".")[0] for m, level, _ in imported(path) if level > 1}
        assert beyond <= {"kernels", "initializers", "graph"}, path


def test_importing_minicnn_is_light():
    code = (
        "import sys, minicnn; "
        "print([m for m in ('numba', 'cupy', 'mpi4py', 'h5py', 'matplotlib', 'blosc', 'rich') if m "
        "in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


#: Who may open a file for writing beside minicnn/files.py, and what it is.
WRITERS = {
    "minicnn/files.py": "the atomic writer",
    "minicnn/watch.py": "notes of the watchdog in a folder of the job's own",
    "minicnn/__main__.py": "/dev/null",
    "minicnn/data/readers/serve.py": "a pipe",
    "minicnn/exchange/keras_files.py": "a temporary folder",
    "minicnn/train/loggers.py": "JSON lines, appended one by one",
}


def test_files_are_written_by_the_atomic_writer():
    """A job that is killed leaves files whole or not at all."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sources("minicnn")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and writes(node)
    }
    assert found == set(WRITERS)


def writes(call):
    """Tell whether a call opens a file for writing, or writes one by its path."""
    name = ast.unparse(call.func).split(".")[-1]
    modes = [ast.literal_eval(a) for a in call.args[1:2] if isinstance(a, ast.Constant)]
    opened = name in ("open", "fdopen") and any(set(str(m)) & set("wxa+") for m in modes)
    return opened or name in ("write_text", "write_bytes", "tofile")


def test_public_names_exist_and_are_documented():
    import minicnn as mc

    for name in mc.__all__:
        assert getattr(mc, name).__doc__, name


def test_backends_have_the_signatures_of_the_reference():
    import inspect

    from minicnn.kernels import get_backend
    from minicnn.kernels.cuda.backend import Backend
    from minicnn.kernels.cuda.emulator import Emulator

    reference, cpu, cuda = get_backend("reference"), get_backend("cpu"), Backend(Emulator())
    for name, f in inspect.getmembers(reference, inspect.isfunction):
        if f.__module__ == reference.__name__ and not name.startswith("_"):
            assert inspect.signature(getattr(cpu, name)) == inspect.signature(f), name
            assert (
                inspect.signature(getattr(cuda, name)) == inspect.signature(f)
                and getattr(cuda, name).__doc__
            ), name
    with pytest.raises(ValueError, match="unknown backend 'tpu'"):
        get_backend("tpu")


def test_the_wheel_works_outside_the_repository(tmp_path):
    source = tmp_path / "source"  # a copy: building leaves folders behind
    for name in ("minicnn", "kernels"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    wheel = next(tmp_path.glob("minicnn-*.whl"))
    venv.create(
        tmp_path / "env", symlinks=True, with_pip=False
    )  # the libraries come from this environment, minicnn does not
    site = next((tmp_path / "env").rglob("site-packages"))
    libraries = Path(__import__("numpy").__file__).parents[1]
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, site], check=True)
    code = (
        "import sys; sys.path.append(sys.argv[1]); import minicnn as mc, numpy as np; "
        "m = mc.models.microboone(size=50, device='reference'); "
        "mc.kernels.get_backend('cpu').elu(np.ones(3, 'f4')); "
        "print(mc.__file__, mc.kernels.__file__, m.train_on_batch(np.ones((1, 50, 50, 1), 'f4'), "
        "np.array([1])))"
    )
    done = subprocess.run(
        [tmp_path / "env/bin/python", "-c", code, libraries],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    package, kernels, loss = done.stdout.split()
    assert (
        package.startswith(str(tmp_path)) and kernels.startswith(str(tmp_path)) and float(loss) > 0
    )


def unannotated(path):
    """Yield the public functions of a file that have an argument or result without a type."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ClassDef | ast.Module):
            continue
        if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
            continue
        for function in node.body:
            if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
                continue
            decorators = {ast.unparse(d).split("(")[0] for d in function.decorator_list}
            if decorators & COMPILED:
                continue
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            untyped = [a.arg for a in arguments if a.annotation is None]
            if set(untyped) - {"self", "cls"} or function.returns is None:
                yield f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"


COMPILED = {"jit", "parallel", "threaded", "intrinsic", "numba.njit", "vectorize"}


def test_public_functions_are_annotated():
    missing = [
        name for room in ("minicnn", "kernels") for p in sources(room) for name in unannotated(p)
    ]
    assert not missing, f"{len(missing)} without types:\n" + "\n".join(missing)


def test_files_have_at_most_400_lines():
    long = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for room in ("minicnn", "kernels", "examples", "benchmarks", "tests")
        for path in [*sources(room), *(ROOT / room).rglob("*.cu")]
    }
    assert not {name: lines for name, lines in long.items() if lines > 400}


MOST_PARAMETERS = 6
#: What may have more. The constructors are options objects themselves: their arguments, given by
#: name, are what can be chosen of a file format or of the simulation.
MANY_PARAMETERS = {
    "minicnn/data/readers/flow.py Flow.__init__",
    "minicnn/data/readers/kevlar.py Kevlar.__init__",
    "minicnn/data/readers/larcv2_root.py Larcv2Root.__init__",
    "minicnn/data/readers/larcv3.py Larcv3.__init__",
    "minicnn/data/readers/larnd_sim.py LarndSim.__init__",
    "minicnn/data/readers/open_samples.py OpenSamples.__init__",
    "minicnn/data/readers/pilarnet.py Pilarnet.__init__",
    "minicnn/data/readers/waveforms.py Waveforms.__init__",
    "minicnn/data/readers/wirecell.py WireCell.__init__",
    "minicnn/simulate/simulator.py Simulator.__init__",
}


def many_parameters(path):
    """Yield the public functions of a file, and methods of its public classes, that take more than
    MOST_PARAMETERS. Not counted: the object itself, which is ``kernels`` for the ops of the cuda
    backend.
    """
    file = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ClassDef | ast.Module) or getattr(node, "name", "")[:1] == "_":
            continue
        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for function in node.body:
            if not isinstance(function, ast.FunctionDef):
                continue
            if function.name.startswith("_") and function.name != "__init__":
                continue
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            names = [a.arg for a in arguments]
            if names[:1] in (["self"], ["cls"], ["kernels"]):
                names = names[1:]
            if len(names) > MOST_PARAMETERS:
                yield f"{file} {owner}{function.name}"


def test_public_functions_have_at_most_six_parameters():
    """What belongs together is one NamedTuple: kernels/arguments.py, kernels/shapes.py."""
    found = {
        name
        for room in ("kernels", "minicnn", "examples", "benchmarks")
        for path in sources(room)
        for name in many_parameters(path)
    }
    assert found == MANY_PARAMETERS

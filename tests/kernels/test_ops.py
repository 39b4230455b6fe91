"""Every op of the table kernels/ops.py, in every backend: the same names and signatures, results
and gradients of the reference in float64 over random arguments, and what all backends promise.

The reference is checked by numerical derivatives. The cuda backend runs on the emulator in both
orders of threads or, with MINICNN_TEST_DEVICE=cuda (``make gpu-check``), on a GPU.
"""

import inspect
from importlib import import_module

import numba
import numpy as np
import pytest

from helpers.parity import (
    KINDS,
    arguments,
    backends,
    backward,
    check_parity,
    close,
    forward,
    host,
    narrow,
    on_device,
    run,
    same_bits,
    upstream,
    walk,
    wide,
)
from minicnn.kernels import cpu, reference, types
from minicnn.kernels.arguments import Wanted
from minicnn.kernels.cuda import emulator
from minicnn.kernels.cuda.backend import Backend
from minicnn.kernels.jit import Threaded
from minicnn.kernels.lit import Lit
from minicnn.kernels.ops import ARRAYS, OPS
from minicnn.kernels.workspace import Workspace

DIFFERENTIABLE = [name for name, op in OPS.items() if op.gradients]
SEEDS = range(8)
MEMBERS = {"name", "microbatch", "on_device", "precisions"}  # of a backend, beside its functions
HELPERS = {"inside", "taps", "zero_padded"}  # public functions of rooms of the reference, no ops


# --------------------------------------------------------------------------- the table is complete
def functions(module):
    return {
        name: f
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and not name.startswith("_")
    }


def test_every_public_function_of_the_reference_is_in_the_table_and_in_each_backend():
    backward = {op.backward(name) for name, op in OPS.items()} - {None}
    listed = {*OPS, *backward, *ARRAYS}
    public = functions(reference)
    # A function that somebody wrote into a room of the reference, and into no row.
    rooms = [room(op.room) for op in OPS.values()]
    written = {
        name
        for file in rooms
        for name, f in vars(file).items()
        if inspect.isfunction(f) and f.__code__.co_filename == file.__file__
        if not name.startswith("_")
    }
    assert written - HELPERS <= listed
    assert set(public) == listed == set(cpu.__all__) - MEMBERS
    device = Backend(emulator.Emulator())
    assert all(isinstance(backend, types.Backend) for backend in (reference, cpu, device))
    for name, f in public.items():
        for other in (getattr(cpu, name), getattr(device, name)):
            assert inspect.signature(other) == inspect.signature(f), name
            assert other.__doc__, name
    assert (reference.name, reference.microbatch) == ("reference", None)
    assert (cpu.name, cpu.microbatch) == ("cpu", 1)


def room(name):
    """Return the module; not its package's attribute, which may be the op of the same name."""
    return import_module(f"minicnn.kernels.reference.{name}")


def test_backends_know_the_same_activations():
    tables = [
        import_module(f"minicnn.kernels.{backend}.activations").ACTIVATIONS
        for backend in ("reference", "cpu", "cuda")
    ]
    assert list(tables[0]) == list(tables[1]) == list(tables[2])


# ----------------------------------------------------------------------------- the reference itself
@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("seed", range(16))
def test_gradients_of_the_reference_are_derivatives(name, seed):
    """In float64, along random directions, with a random upstream gradient."""
    op, step = OPS[name], 1e-6
    a = wide(arguments(name, seed))
    derive = op.derive or (lambda a: a)
    a = derive(a)
    outputs = forward(reference, name, a)
    values = wide(upstream(name, a, outputs, seed))
    gradients = backward(reference, name, values)
    first = op.outputs[0]
    rng = np.random.default_rng(seed)
    for argument, gradient in gradients.items():
        assert gradient.shape == a[argument].shape and gradient.dtype == np.float64
        for _ in range(2):
            direction = rng.standard_normal(a[argument].shape)
            up, down = (
                forward(reference, name, derive({**a, argument: a[argument] + h * direction}))
                for h in (step, -step)
            )
            numeric = np.sum(values["dy"] * (up[first] - down[first])) / (2 * step)
            size = np.linalg.norm(gradient) + 1e-3
            assert abs(numeric - np.sum(gradient * direction)) <= 1e-6 * size, argument


# ------------------------------------------------------------------------------------------- parity
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPS)
def test_parity(name, kind):
    for seed in SEEDS if kind == "cpu" else SEEDS[:5]:
        check_parity(name, seed, backends(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_clear(kind):
    for kernels in backends(kind):
        for shape, dtype in (((3, 5), np.float32), ((50_000,), np.float32), ((7,), np.float64)):
            a = kernels.asarray(np.ones(shape, dtype))
            kernels.clear(a)
            assert not kernels.to_host(a).any(), (kernels.name, shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", room("activations").ACTIVATIONS)
def test_parity_of_every_activation(function, kind):
    for seed in SEEDS[:2]:
        check_parity("activation", seed, backends(kind), function=function)


# ------------------------------------------------------------------------------------- not a number
#: How many positions a window has, of ops that say which of them is the largest.
POSITIONS = {
    "maxpool2d": lambda a: a["size"],
    "global_max_pool": lambda a: a["x"].shape[1:3],
    "conv2d_block": lambda a: a["block"].pool,
    "lit_rest": lambda a: a["geometry"].pool,
    "lit_block": lambda a: a["geometry"].pool,
}


def with_nan(a, share, rng):
    def changed(value):
        if value.dtype == np.float32:
            value = np.where(rng.random(value.shape) < share, np.float32(np.nan), value)
        return value

    # keep is a mask: it never was a number
    return {n: v if n == "keep" else walk(v, changed) for n, v in a.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPS)
def test_nan_leads_nobody_astray(name, kind):
    """A step looks for NaN behind its backward pass. Until then kernels follow what they have made
    of it without a look: the position of a maximum, where no number is larger than another.
    """
    op = OPS[name]
    assert ("argmax" in op.outputs) == (name in POSITIONS)
    for seed in SEEDS[:3]:
        for share in (0.2, 1.0):
            a = with_nan(arguments(name, seed), share, np.random.default_rng(seed))
            for kernels in backends(kind):
                found = forward(kernels, name, on_device(kernels, a))
                outputs = host(kernels, found)
                if name in POSITIONS:
                    assert outputs["argmax"].max(initial=0) < np.prod(POSITIONS[name](a))
                    assert outputs["argmax"].min(initial=0) == 0
                if not (op.gradients or op.other_gradients):
                    continue
                values = on_device(kernels, upstream(name, a, outputs, seed))
                if op.gradients:
                    backward(kernels, name, values)
                elif name == "lit_block":
                    kernels.lit_block_backward(values["dy"], Lit(**found), values["block"])


# ----------------------------------------------------------------------------------------- promises
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [n for n in DIFFERENTIABLE if len(OPS[n].gradients) > 1])
def test_gradients_are_added_to_given_arrays_and_dx_is_optional(name, kind):
    op, a = OPS[name], arguments(name, 1)
    values = upstream(name, a, narrow(forward(reference, name, wide(a))), 1)
    first, *others = op.gradients

    def twice(kernels, v):
        given = tuple(kernels.zeros(a[n].shape) + 1 for n in others)
        once = backward(kernels, name, v)
        added = backward(kernels, name, v, wanted=Wanted(dx=False, into=given))
        assert added[first] is None
        assert all(added[n] is target for n, target in zip(others, given))
        return {f"{n} once": once[n] for n in others} | {n: added[n] for n in others}

    got = run(backends(kind), twice, values)
    for n in others:
        close(got[n], got[f"{n} once"] + np.float32(1), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", [n for n in OPS if "workspace" in inspect.signature(getattr(reference, n)).parameters]
)
def test_a_workspace_changes_no_bit(name, kind):
    """Also where its buffers hold what a call with other arguments, or the backward pass, left."""
    for kernels in backends(kind):
        workspace = Workspace()
        for seed in (0, 0, 1, 0):
            a = on_device(kernels, arguments(name, seed))
            plain = host(kernels, forward(kernels, name, a))
            workspace.expire()
            for _ in range(2):
                kept = forward(kernels, name, {**a, "workspace": workspace})
                same_bits(plain, host(kernels, kept))
                if OPS[name].gradients:
                    values = upstream(name, arguments(name, seed), plain, seed)
                    values = on_device(kernels, values)
                    same_bits(
                        host(kernels, backward(kernels, name, values)),
                        host(kernels, backward(kernels, name, {**values, "workspace": workspace})),
                    )


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
@pytest.mark.parametrize("name", OPS)
def test_bits_do_not_depend_on_the_number_of_threads(name):
    for seed in SEEDS[:3]:
        a, results = arguments(name, seed), []
        for threads in (1, 2):
            cpu.set_threads(threads)
            outputs = forward(cpu, name, a)
            gradients = {}
            if OPS[name].gradients:
                gradients = backward(cpu, name, upstream(name, a, outputs, seed))
            results.append({**outputs, **{f"d{n}": g for n, g in gradients.items()}})
        cpu.set_threads(numba.config.NUMBA_NUM_THREADS)
        same_bits(*results)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [n for n in DIFFERENTIABLE if not OPS[n].of_sum])
def test_wrong_types_and_shapes_are_errors_that_name_the_op(name, kind):
    kernels, a = backends(kind)[0], arguments(name, 0)
    with pytest.raises(TypeError, match=rf"{name} .*{OPS[name].gradients[0]} is (a )?float64"):
        forward(kernels, name, on_device(kernels, wide(a)))
    outputs = forward(reference, name, a)
    values = on_device(kernels, upstream(name, a, outputs, 0))
    values["dy"] = kernels.zeros((*values["dy"].shape, 2))
    with pytest.raises(ValueError, match=rf"{name}_backward|upsampling needs images"):
        backward(kernels, name, values)


@pytest.mark.parametrize("name", OPS)
def test_loops_without_threads_give_the_same_bits(name, monkeypatch):
    """Small ops run a version of their loops that is compiled without threads."""
    a, results = arguments(name, 2), []
    for version in ("serial", "parallel"):
        monkeypatch.setattr(
            Threaded, "__call__", lambda self, _, *rest, v=version: getattr(self, v)(*rest)
        )
        outputs = forward(cpu, name, a)
        gradients = {}
        if OPS[name].gradients:
            gradients = backward(cpu, name, upstream(name, a, outputs, 2))
        results.append({**outputs, **{f"d{n}": g for n, g in gradients.items()}})
    same_bits(*results)

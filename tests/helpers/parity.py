"""Calls by name of the rows of the table of ops, and their comparison with the reference."""

import inspect
import os
import shutil
from functools import cache
from typing import get_args, get_type_hints

import numpy as np
import pytest

from minicnn.kernels import cpu, get_backend, reference
from minicnn.kernels.cuda import emulator
from minicnn.kernels.ops import OPS

ON_GPU = os.environ.get("MINICNN_TEST_DEVICE") == "cuda"
IN_PLACE = {
    "put_pixels": "x",
    "lit_channelwise": "y",
}  # what they write to is an argument


def arguments(name, seed):
    """Return the arguments of a row's case; arrays are read-only, so that a kernel that writes into
    its input fails.
    """
    a = OPS[name].case(np.random.default_rng([seed, *name.encode()]))
    walk(a, lambda value: value.setflags(write=False))
    return a


def select(function, values):
    """Return those of the values that are the function's parameters."""
    return {n: values[n] for n in inspect.signature(function).parameters if n in values}


def walk(value, change):
    """Return ``value`` with ``change`` applied to its arrays, those in tuples and NamedTuples too,
    but for fields that are annotated as arrays of the host; the same object where nothing changes.
    """
    if isinstance(value, dict):
        return {name: walk(v, change) for name, v in value.items()}
    if not isinstance(value, tuple):
        is_array = hasattr(value, "dtype") and not isinstance(value, np.generic)
        return change(value) if is_array else value
    named = hasattr(value, "_fields")
    kept = on_host(type(value)) if named else ()
    fields = value._fields if named else range(len(value))
    new = [v if name in kept else walk(v, change) for name, v in zip(fields, value)]
    if all(n is v for n, v in zip(new, value)):
        return value
    return type(value)(*new) if named else tuple(new)


@cache
def on_host(kind):
    """Return the fields of a NamedTuple that are on the host in every backend."""
    hints = get_type_hints(kind)
    return {n for n in kind._fields if np.ndarray in (hints[n], *get_args(hints[n]))}


def in_dtype(old, new):
    return lambda v: v.astype(new) if isinstance(v, np.ndarray) and v.dtype == old else v


def wide(a):
    """Return the values with float32 arrays as float64."""
    return walk(a, in_dtype(np.float32, np.float64))


def narrow(a):
    return walk(a, in_dtype(np.float64, np.float32))


def forward(kernels, name, a):
    """Return {output: array} of the op."""
    function = getattr(kernels, name)
    if name in IN_PLACE:
        a = {**a, IN_PLACE[name]: a[IN_PLACE[name]].copy()}
    if OPS[name].prepare:
        a = OPS[name].prepare(kernels, a)
    out = function(**select(function, a))
    if hasattr(out, "_asdict"):
        whole = {OPS[name].result: out} if OPS[name].result else {}
        return out._asdict() | whole
    return dict(zip(OPS[name].outputs, out if isinstance(out, tuple) else (out,), strict=True))


def backward(kernels, name, values, **more):
    """Return {argument: gradient}; ``values`` holds dy, the arguments and the outputs, ``more``
    what is wanted.
    """
    function = getattr(kernels, OPS[name].backward(name))
    out = function(**select(function, values), **more)
    return dict(zip(OPS[name].gradients, out if isinstance(out, tuple) else (out,), strict=True))


def upstream(name, a, outputs, seed):
    """Return a random gradient of the first output, and what else the backward function takes."""
    dy = np.random.default_rng(seed).standard_normal(outputs[OPS[name].outputs[0]].shape)
    if OPS[name].of_sum:
        dy = np.ones_like(dy)
    shape = a["x"].shape if "x" in a else None
    return {**a, **outputs, "dy": dy.astype(np.float32), "x_shape": shape}


def close(got, want, tolerance, terms=0.0):
    """The difference is small against ``want`` or, where sums cancel, against sqrt(size) times
    their ``terms``.
    """
    if want is None or got is None:
        assert got is want
        return
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    if tolerance == 0 or want.dtype.kind != "f":
        assert np.array_equal(got, want)
        return
    scale = max(np.linalg.norm(want), terms * np.sqrt(want.size), 1e-30)
    assert np.linalg.norm(got - want) <= tolerance * scale, np.linalg.norm(got - want) / scale


@cache
def backends(kind):
    """Return the backends under test: the cpu; or a GPU, or the emulator with threads in rising
    order and the tile for many cells, and with threads in falling order and the tile for few.
    """
    if kind == "cpu":
        return (cpu,)
    if ON_GPU:
        return (get_backend("cuda"),)
    return tuple(emulator.backend(falling=f, multiprocessors=1000 * f) for f in (False, True))


KINDS = [
    pytest.param("cpu", marks=pytest.mark.skipif(ON_GPU, reason="the GPU is under test")),
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not ON_GPU and shutil.which("g++") is None,
            reason="the emulator needs g++, which is not on the PATH",
        ),
    ),
]


def on_device(kernels, a):
    """Return the values with arrays on the device, those in tuples too."""
    return walk(a, lambda v: kernels.asarray(v) if isinstance(v, np.ndarray) else v)


def host(kernels, results):
    return walk(results, kernels.to_host)


def leaves(value, name=""):
    """Yield (where, array or None or number) of all that a result holds."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, tuple):
        parts = zip(getattr(value, "_fields", range(len(value))), value)
    else:
        yield name, value
        return
    for n, v in parts:
        yield from leaves(v, f"{name}.{n}")


def same_bits(first, *others):
    for other in others:
        for (n, v), (_, w) in zip(leaves(first), leaves(other), strict=True):
            assert v is w is None or np.asarray(v).tobytes() == np.asarray(w).tobytes(), n


def run(backends, call, a):
    """Return {name: result} of ``call(kernels, values)`` on the host, the same bits from all
    ``backends``.
    """
    results = [host(k, call(k, on_device(k, a))) for k in backends]
    same_bits(*results)
    return results[0]


def check_parity(name, seed, backends, **changes):
    """Compare results and gradients of the backends with the reference's in float64, for the random
    arguments of the row ``name`` with ``changes``.
    """
    op, a = OPS[name], {**arguments(name, seed), **changes}
    want = forward(reference, name, wide(a))
    plain = forward(reference, name, a)  # in float32: for the types of results

    def outputs(kernels, values):
        """What backends have in common: lists of their own may follow the number of threads."""
        found = forward(kernels, name, values)
        return {n: found[n] for n in op.outputs}

    got = run(backends, outputs, a)
    for n in op.outputs:
        if n not in op.loose:
            close(got[n], want[n], op.tolerance)
        assert np.asarray(got[n]).dtype == np.asarray(plain[n]).dtype, n
    if not op.gradients:
        return
    # All get the same outputs, rounded to float32; moments stay as they are.
    values = upstream(name, a, narrow(want), seed)
    gradients = backward(reference, name, wide(values))
    got = run(backends, lambda k, v: backward(k, name, v), values)
    tolerance = op.gradient_tolerance or op.tolerance
    dy = values["dy"]
    for i, (n, gradient) in enumerate(gradients.items()):
        # Those of weights are sums over positions, which may cancel.
        close(got[n], gradient, tolerance, terms=np.sqrt(dy.size / dy.shape[-1]) if i else 0)
        assert got[n].dtype == np.float32, n

"""What is done with all weights at once: the update, and a look for NaN. One pass over the flat
vectors, bound by memory.
"""

import math

import numpy as np
from numba import prange

from ..arguments import AdamStep, SGDStep
from ..types import Array
from .checks import check_float32, check_shape
from .elementary import bits
from .jit import VECTOR_CHUNK, tasks, threaded, vector_chunk

WITHOUT_SIGN, INFINITY = np.int32(0x7FFFFFFF), np.int32(0x7F800000)  # bits of a float32


@threaded
def _sgd(w, dw, velocity, rate, momentum, nesterov, decay, scale):
    for task in prange((w.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
        here, g, v = vector_chunk(w, task), vector_chunk(dw, task), vector_chunk(velocity, task)
        for i in range(here.size):
            slope = scale * g[i] + decay * here[i]
            v[i] = momentum * v[i] + slope
            here[i] -= rate * (slope + momentum * v[i] if nesterov else v[i])


def sgd(
    w: Array,
    dw: Array,
    velocity: Array,
    step: SGDStep,
    out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:
    """One step of SGD on flat float32 vectors: g = scale * dw + weight_decay * w; v = momentum * v
    + g; w -= learning_rate * (v, or g + momentum * v with ``nesterov``).

    Returns (w, velocity), written into ``out`` when given (they may be the inputs). Sutskever et
    al. 2013 (momentum form without learning rate inside v, as PyTorch).
    """
    out, dw = _in_place("sgd", dw, {"w": w, "velocity": velocity}, out)
    f, (w, velocity) = np.float32, (a.reshape(-1) for a in out)
    _sgd(
        tasks(w.size),
        w,
        dw,
        velocity,
        f(step.learning_rate),
        f(step.momentum),
        bool(step.nesterov),
        f(step.weight_decay),
        f(step.scale),
    )
    return out


@threaded
def _find_not_finite(a, found):
    for task in prange(found.size):
        part, most = vector_chunk(a, task), np.int32(0)
        for i in range(
            part.size
        ):  # of numbers without sign the bits are in the order of their size
            most = max(most, bits(part[i]) & WITHOUT_SIGN)
        found[task] = most >= INFINITY


def finite(a: Array) -> bool:
    """Return whether no element of ``a`` is NaN or infinite."""
    a = check_float32("finite", a=a).reshape(-1)
    found = np.empty(tasks(a.size), np.bool_)
    _find_not_finite(found.size, a, found)
    return not found.any()


def _in_place(op, dw, inputs, out):
    """Return (out, dw flat), all checked: ``out``, or new vectors, holds the values of the
    ``inputs`` and is to be updated in place.

    A loop that reads one vector and writes another, which may be the same, would run on single
    numbers where they are: compilers check.
    """
    shape = dw.shape
    out = tuple(np.empty(shape, np.float32) for _ in inputs) if out is None else out
    for name, a in {**inputs, **{f"out[{i}]": a for i, a in enumerate(out)}}.items():
        check_shape(op, name, a, shape)
    dw, *given = check_float32(op, dw=dw, **inputs)
    for to in out:
        if to.dtype != np.float32 or not to.flags.c_contiguous:
            raise TypeError(
                f"{op} on the cpu backend writes to contiguous float32 vectors, got {to.dtype}"
            )
    for to, a in zip(out, given):  # nothing is written before all is checked
        if to.ctypes.data != a.ctypes.data:
            to[...] = a
    return out, dw.reshape(-1)


@threaded
def _adam(w, dw, mean, square, rate, beta1, rest1, beta2, rest2, epsilon, decay, scale, unbias):
    # rest = 1 - beta, rounded once: 1 - float32(0.999) is off by 1e-5
    for task in prange((w.size + VECTOR_CHUNK - 1) // VECTOR_CHUNK):
        here, slope, m, v = (
            vector_chunk(w, task),
            vector_chunk(dw, task),
            vector_chunk(mean, task),
            vector_chunk(square, task),
        )
        for i in range(here.size):
            g = scale * slope[i]
            m[i] = beta1 * m[i] + rest1 * g
            v[i] = beta2 * v[i] + rest2 * g * g
            here[i] -= rate * (m[i] / (np.sqrt(v[i]) * unbias + epsilon) + decay * here[i])


def adam(
    w: Array,
    dw: Array,
    mean: Array,
    square: Array,
    step: AdamStep,
    out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:
    """One step of Adam, its number t, on flat float32 vectors: g = scale * dw; m = beta1 m + (1 -
    beta1) g; v = beta2 v + (1 - beta2) g^2; w -= learning_rate * (m' / (sqrt(v') + epsilon) +
    weight_decay * w), m' = m / (1 - beta1^t), v' alike.

    Returns (w, mean, square), written into ``out`` when given (they may be the inputs). Kingma, Ba
    2015, arXiv:1412.6980; weight decay apart from the gradient (Loshchilov, Hutter 2019).
    """
    out, dw = _in_place("adam", dw, {"w": w, "mean": mean, "square": square}, out)
    t, rate, beta1, beta2, epsilon, weight_decay, scale = step
    # m' / (sqrt(v') + e) * rate = m / (sqrt(v) * unbias + e * c1) * rate with c1 = 1 - beta1^t:
    # one division per weight.
    c1, c2 = 1 - beta1**t, 1 - beta2**t
    f, (w, mean, square) = np.float32, (a.reshape(-1) for a in out)
    _adam(
        tasks(w.size),
        w,
        dw,
        mean,
        square,
        f(rate),
        f(beta1),
        f(1 - beta1),
        f(beta2),
        f(1 - beta2),
        f(epsilon * c1),
        f(weight_decay),
        f(scale),
        f(c1 / math.sqrt(c2)),
    )
    return out

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
    float32, (w, velocity) = np.float32, (array.reshape(-1) for array in out)
    _sgd(
        tasks(w.size),
        w,
        dw,
        velocity,
        float32(step.learning_rate),
        float32(step.momentum),
        bool(step.nesterov),
        float32(step.weight_decay),
        float32(step.scale),
    )
    return out


@threaded
def _find_not_finite(array, found):
    for task in prange(found.size):
        part, most = vector_chunk(array, task), np.int32(0)
        for i in range(
            part.size
        ):  # of numbers without sign the bits are in the order of their size
            most = max(most, bits(part[i]) & WITHOUT_SIGN)
        found[task] = most >= INFINITY


def finite(array: Array) -> bool:
    """Return whether no element of ``array`` is NaN or infinite."""
    array = check_float32("finite", array=array).reshape(-1)
    found = np.empty(tasks(array.size), np.bool_)
    _find_not_finite(found.size, array, found)
    return not found.any()


def _in_place(op, dw, inputs, out):
    """Return (out, dw flat), all checked: ``out``, or new vectors, holds the values of the
    ``inputs`` and is to be updated in place.

    A loop that reads one vector and writes another, which may be the same, would run on single
    numbers where they are: compilers check.
    """
    shape = dw.shape
    out = tuple(np.empty(shape, np.float32) for _ in inputs) if out is None else out
    for name, array in {**inputs, **{f"out[{i}]": array for i, array in enumerate(out)}}.items():
        check_shape(op, name, array, shape)
    dw, *given = check_float32(op, dw=dw, **inputs)
    for to in out:
        if to.dtype != np.float32 or not to.flags.c_contiguous:
            raise TypeError(
                f"{op} on the cpu backend writes to contiguous float32 vectors, got {to.dtype}"
            )
    for to, array in zip(out, given):  # nothing is written before all is checked
        if to.ctypes.data != array.ctypes.data:
            to[...] = array
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
    float32, (w, mean, square) = np.float32, (array.reshape(-1) for array in out)
    _adam(
        tasks(w.size),
        w,
        dw,
        mean,
        square,
        float32(rate),
        float32(beta1),
        float32(1 - beta1),
        float32(beta2),
        float32(1 - beta2),
        float32(epsilon * c1),
        float32(weight_decay),
        float32(scale),
        float32(c1 / math.sqrt(c2)),
    )
    return out

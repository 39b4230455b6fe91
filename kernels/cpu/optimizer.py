"""What is done with all weights at once: the update, and a look for NaN. One pass over the flat vectors, bound by memory."""
import math

import numpy as np
from numba import prange

from .checks import floats, shaped
from .jit import parallel

BLOCK = 8192
LARGEST = np.finfo(np.float32).max


@parallel
def _sgd(w, dw, velocity, rate, momentum, nesterov, decay, scale, new, new_velocity):
    for task in prange((w.size + BLOCK - 1) // BLOCK):
        for i in range(task * BLOCK, min(w.size, (task + 1) * BLOCK)):
            g = scale * dw[i] + decay[i if decay.size > 1 else 0] * w[i]
            v = momentum * velocity[i] + g
            new[i] = w[i] - rate * (g + momentum * v if nesterov else v)
            new_velocity[i] = v


def sgd(w, dw, velocity, learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0, scale=1.0, out=None):
    """One step of SGD on flat float32 vectors: g = scale * dw + weight_decay * w; v = momentum * v + g;
    w -= learning_rate * (v, or g + momentum * v with ``nesterov``).

    ``weight_decay`` is a scalar or a vector like w. Returns (w, velocity), written into ``out`` when given (they may be the
    inputs). Sutskever et al. 2013 (momentum form without learning rate inside v, as PyTorch).
    """
    out = _outputs("sgd", w, {"dw": dw, "velocity": velocity}, out, 2)
    decay = np.asarray(weight_decay, np.float32).reshape(-1)
    if decay.size != 1:
        shaped("sgd", "weight_decay", decay, w.shape)
    f = np.float32
    _sgd(*(a.reshape(-1) for a in floats("sgd", w=w, dw=dw, velocity=velocity)), f(learning_rate), f(momentum), bool(nesterov),
         decay, f(scale), *(a.reshape(-1) for a in out))
    return out


@parallel
def _find_not_finite(a, found):
    for task in prange(found.size):
        bad = False
        for i in range(task * BLOCK, min(a.size, (task + 1) * BLOCK)):
            bad |= not abs(a[i]) <= LARGEST            # a NaN is not <= either
        found[task] = bad


def finite(a):
    """Return whether no element of ``a`` is NaN or infinite."""
    a = floats("finite", a=a).reshape(-1)
    found = np.empty(-(-a.size // BLOCK), np.bool_)
    _find_not_finite(a, found)
    return not found.any()


def _outputs(op, w, others, out, count):
    """Return the vectors to write to, checked: ``out``, or new ones like w."""
    out = tuple(np.empty_like(w) for _ in range(count)) if out is None else out
    for name, a in {**others, **{f"out[{i}]": a for i, a in enumerate(out)}}.items():
        shaped(op, name, a, w.shape)
    for a in out:
        if a.dtype != np.float32 or not a.flags.c_contiguous:
            raise TypeError(f"{op} on the cpu backend writes to contiguous float32 vectors, got {a.dtype}")
    return out


@parallel
def _adam(w, dw, mean, square, rate, beta1, rest1, beta2, rest2, epsilon, decay, scale, unbias, new, new_mean, new_square):
    # rest = 1 - beta, rounded once: 1 - float32(0.999) is off by 1e-5
    for task in prange((w.size + BLOCK - 1) // BLOCK):
        for i in range(task * BLOCK, min(w.size, (task + 1) * BLOCK)):
            g = scale * dw[i]
            m = beta1 * mean[i] + rest1 * g
            v = beta2 * square[i] + rest2 * g * g
            new[i] = w[i] - rate * (m / (np.sqrt(v) * unbias + epsilon) + decay * w[i])
            new_mean[i], new_square[i] = m, v


def adam(w, dw, mean, square, step, learning_rate, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, scale=1.0, out=None):
    """Step number ``step`` (1, 2, ...) of Adam on flat float32 vectors: g = scale * dw; m = beta1 m + (1 - beta1) g;
    v = beta2 v + (1 - beta2) g^2; w -= lr * (m' / (sqrt(v') + epsilon) + weight_decay * w), m' = m / (1 - beta1^step), v' alike.

    Returns (w, mean, square), written into ``out`` when given (they may be the inputs). Kingma, Ba 2015, arXiv:1412.6980; weight
    decay apart from the gradient (Loshchilov, Hutter 2019).
    """
    out = _outputs("adam", w, {"dw": dw, "mean": mean, "square": square}, out, 3)
    # m' / (sqrt(v') + e) * rate = m / (sqrt(v) * unbias + e * c1) * rate with c1 = 1 - beta1^step: one division per weight.
    c1, c2 = 1 - beta1**step, 1 - beta2**step
    f = np.float32
    _adam(*(a.reshape(-1) for a in floats("adam", w=w, dw=dw, mean=mean, square=square)), f(learning_rate), f(beta1), f(1 - beta1),
          f(beta2), f(1 - beta2), f(epsilon * c1), f(weight_decay), f(scale), f(c1 / math.sqrt(c2)), *(a.reshape(-1) for a in out))
    return out

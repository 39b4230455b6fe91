"""The update of all weights: one pass over the flat vectors, bound by memory."""
import numpy as np
from numba import prange

from .checks import floats, shaped
from .jit import parallel

BLOCK = 8192


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
    new, new_velocity = (np.empty_like(w), np.empty_like(w)) if out is None else out
    for name, a in (("dw", dw), ("velocity", velocity), ("out[0]", new), ("out[1]", new_velocity)):
        shaped("sgd", name, a, w.shape)
    for a in (new, new_velocity):
        if a.dtype != np.float32 or not a.flags.c_contiguous:
            raise TypeError(f"sgd on the cpu backend writes to contiguous float32 vectors, got {a.dtype}")
    decay = np.asarray(weight_decay, np.float32).reshape(-1)
    if decay.size != 1:
        shaped("sgd", "weight_decay", decay, w.shape)
    f = np.float32
    _sgd(*(a.reshape(-1) for a in floats("sgd", w=w, dw=dw, velocity=velocity)), f(learning_rate), f(momentum), bool(nesterov),
         decay, f(scale), new.reshape(-1), new_velocity.reshape(-1))
    return new, new_velocity

"""What is done with all weights at once: the update, and a look for NaN."""

import numpy as np

from ..arguments import AdamStep, SGDStep
from ..types import Array


def finite(array: Array) -> bool:
    """Return whether no element of ``array`` is NaN or infinite."""
    return bool(np.isfinite(array).all())


def sgd(
    w: Array,
    dw: Array,
    velocity: Array,
    step: SGDStep,
    out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:
    """One step of SGD on flat vectors: g = scale * dw + weight_decay * w; v = momentum * v + g; w
    -= lr * (v, or g + momentum * v).

    Returns (w, velocity), written into ``out`` when given (they may be the inputs). Sutskever et
    al. 2013 (momentum form without learning rate inside v, as PyTorch).
    """
    rate, momentum, nesterov, weight_decay, scale = step
    g = scale * dw + weight_decay * w
    v = momentum * velocity + g
    new = w - rate * (g + momentum * v if nesterov else v)
    if out is None:
        return new.astype(w.dtype), v.astype(w.dtype)
    out[0][...], out[1][...] = new, v
    return out


def adam(
    w: Array,
    dw: Array,
    mean: Array,
    square: Array,
    step: AdamStep,
    out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:
    """One step of Adam, its number t, on flat vectors: g = scale * dw; m = beta1 m + (1 - beta1) g;
    v = beta2 v + (1 - beta2) g^2; w -= lr * (m' / (sqrt(v') + epsilon) + weight_decay * w) with
    m' = m / (1 - beta1^t), v' = v / (1 - beta2^t).

    Returns (w, mean, square), written into ``out`` when given (they may be the inputs). Kingma, Ba
    2015, arXiv:1412.6980; weight decay apart from the gradient (Loshchilov, Hutter 2019).
    """
    t, rate, beta1, beta2, epsilon, weight_decay, scale = step
    g = scale * dw
    m = beta1 * mean + (1 - beta1) * g
    v = beta2 * square + (1 - beta2) * g * g
    new = w - rate * (
        m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon) + weight_decay * w
    )
    if out is None:
        return new.astype(w.dtype), m.astype(w.dtype), v.astype(w.dtype)
    out[0][...], out[1][...], out[2][...] = new, m, v
    return out

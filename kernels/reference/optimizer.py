"""What is done with all weights at once: the update, and a look for NaN."""

import numpy as np

from ..types import Array


def finite(a: Array) -> bool:
    """Return whether no element of ``a`` is NaN or infinite."""
    return bool(np.isfinite(a).all())


def sgd(
    w: Array,
    dw: Array,
    velocity: Array,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    scale: float = 1.0,
    out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:
    """One step of SGD on flat vectors: g = scale * dw + weight_decay * w; v = momentum * v + g; w
    -= lr * (v, or g + momentum * v).

    Returns (w, velocity), written into ``out`` when given (they may be the inputs). Sutskever et
    al. 2013 (momentum form without learning rate inside v, as PyTorch).
    """
    g = scale * dw + weight_decay * w
    v = momentum * velocity + g
    new = w - learning_rate * (g + momentum * v if nesterov else v)
    if out is None:
        return new.astype(w.dtype), v.astype(w.dtype)
    out[0][...], out[1][...] = new, v
    return out


def adam(
    w: Array,
    dw: Array,
    mean: Array,
    square: Array,
    step: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-08,
    weight_decay: float = 0.0,
    scale: float = 1.0,
    out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:
    """Step number ``step`` (1, 2, ...) of Adam on flat vectors: g = scale * dw; m = beta1 m + (1 -
    beta1) g; v = beta2 v + (1 - beta2) g^2; w -= lr * (m' / (sqrt(v') + epsilon) + weight_decay *
    w) with m' = m / (1 - beta1^step), v' = v / (1 - beta2^step).

    Returns (w, mean, square), written into ``out`` when given (they may be the inputs). Kingma, Ba
    2015, arXiv:1412.6980; weight decay apart from the gradient (Loshchilov, Hutter 2019).
    """
    g = scale * dw
    m = beta1 * mean + (1 - beta1) * g
    v = beta2 * square + (1 - beta2) * g * g
    new = w - learning_rate * (
        m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + epsilon) + weight_decay * w
    )
    if out is None:
        return new.astype(w.dtype), m.astype(w.dtype), v.astype(w.dtype)
    out[0][...], out[1][...], out[2][...] = new, m, v
    return out

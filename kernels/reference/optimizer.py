"""What is done with all weights at once: the update, and a look for NaN."""

import numpy as np


def finite(a):
    """Return whether no element of ``a`` is NaN or infinite."""
    return bool(np.isfinite(a).all())


def sgd(
    w,
    dw,
    velocity,
    learning_rate,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    scale=1.0,
    out=None,
):
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
    w,
    dw,
    mean,
    square,
    step,
    learning_rate,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    weight_decay=0.0,
    scale=1.0,
    out=None,
):
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

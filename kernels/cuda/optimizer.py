"""The update of all weights: one pass over the flat vectors."""

import math

import numpy as np

from .checks import floats, shaped


def _outputs(k, op, w, others, out, count):
    """Return the vectors to write to, checked: ``out``, or new ones like w."""
    out = tuple(k.empty(w.shape) for _ in range(count)) if out is None else out
    for name, a in {**others, **{f"out[{i}]": a for i, a in enumerate(out)}}.items():
        floats(k, op, **{name: a})
        shaped(op, name, a, w.shape)
    if not all(a.flags.c_contiguous for a in out):
        raise ValueError(f"{op} writes to contiguous vectors")
    return out


def finite(k, a):
    """Return whether no element of ``a`` is NaN or infinite."""
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(k.to_host((a * 0).sum())))


def sgd(
    k,
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
    """One step of SGD on flat float32 vectors: g = scale * dw + weight_decay * w; v = momentum * v
    + g; w -= learning_rate * (v, or g + momentum * v with ``nesterov``).

    Returns (w, velocity), written into ``out`` when given (they may be the inputs). Sutskever et
    al. 2013 (momentum form without learning rate inside v, as PyTorch).
    """
    out = _outputs(k, "sgd", w, {"dw": dw, "velocity": velocity}, out, 2)
    k.each(
        "optimizer.cu",
        "sgd",
        w.size,
        *floats(k, "sgd", w=w, dw=dw, velocity=velocity),
        float(learning_rate),
        float(momentum),
        bool(nesterov),
        float(weight_decay),
        float(scale),
        *out,
    )
    return out


def adam(
    k,
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
    """Step number ``step`` (1, 2, ...) of Adam on flat float32 vectors: g = scale * dw; m = beta1 m
    + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w -= lr * (m' / (sqrt(v') + epsilon) +
    weight_decay * w), m' = m / (1 - beta1^step), v' alike.

    Returns (w, mean, square), written into ``out`` when given (they may be the inputs). Kingma, Ba
    2015, arXiv:1412.6980; weight decay apart from the gradient (Loshchilov, Hutter 2019).
    """
    out = _outputs(k, "adam", w, {"dw": dw, "mean": mean, "square": square}, out, 3)
    c1, c2 = 1 - beta1**step, 1 - beta2**step
    rates = (
        learning_rate,
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        epsilon * c1,
        weight_decay,
        scale,
        c1 / math.sqrt(c2),
    )
    k.each(
        "optimizer.cu",
        "adam",
        w.size,
        *floats(k, "adam", w=w, dw=dw, mean=mean, square=square),
        *map(float, rates),
        *out,
    )
    return out

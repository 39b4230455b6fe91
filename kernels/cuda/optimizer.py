"""The update of all weights: one pass over the flat vectors."""

import math

import numpy as np

from ..arguments import AdamStep, SGDStep
from ..types import Array, Kernels
from .checks import check_float32, check_shape


def _outputs(kernels, op, w, others, out, count):
    """Return the vectors to write to, checked: ``out``, or new ones like w."""
    out = tuple(kernels.empty(w.shape) for _ in range(count)) if out is None else out
    for name, array in {**others, **{f"out[{i}]": array for i, array in enumerate(out)}}.items():
        check_float32(kernels, op, **{name: array})
        check_shape(op, name, array, w.shape)
    if not all(array.flags.c_contiguous for array in out):
        raise ValueError(f"{op} writes to contiguous vectors")
    return out


def finite(kernels: Kernels, array: Array) -> bool:
    """Return whether no element of ``array`` is NaN or infinite."""
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(kernels.to_host((array * 0).sum())))


def sgd(
    kernels: Kernels,
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
    out = _outputs(kernels, "sgd", w, {"dw": dw, "velocity": velocity}, out, 2)
    kernels.each(
        "optimizer.cu",
        "sgd",
        w.size,
        *check_float32(kernels, "sgd", w=w, dw=dw, velocity=velocity),
        float(step.learning_rate),
        float(step.momentum),
        bool(step.nesterov),
        float(step.weight_decay),
        float(step.scale),
        *out,
    )
    return out


def adam(
    kernels: Kernels,
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
    out = _outputs(kernels, "adam", w, {"dw": dw, "mean": mean, "square": square}, out, 3)
    t, rate, beta1, beta2, epsilon, weight_decay, scale = step
    c1, c2 = 1 - beta1**t, 1 - beta2**t
    rates = (
        rate,
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        epsilon * c1,
        weight_decay,
        scale,
        c1 / math.sqrt(c2),
    )
    kernels.each(
        "optimizer.cu",
        "adam",
        w.size,
        *check_float32(kernels, "adam", w=w, dw=dw, mean=mean, square=square),
        *map(float, rates),
        *out,
    )
    return out

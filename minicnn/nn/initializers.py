"""Initial values of parameters, by name: what ``Parameter(shape, "glorot_uniform")`` starts with.

    INITIALIZERS["my_name"] = lambda rng, shape: ...        # adds one of your own

An initializer is a function of a NumPy generator ``rng`` and a ``shape``. Shapes are as in Keras,
(*window, inputs, outputs): fan_in = inputs * window positions, fan_out = outputs * window
positions.
"""

import math
from collections.abc import Callable

import numpy as np

from ..kernels.types import Shape

Initializer = Callable[[np.random.Generator, Shape], np.ndarray]


def fans(shape: Shape) -> tuple[int, int]:
    """Return (fan_in, fan_out) of weights of this shape; a vector counts as (1, size)."""
    *window, inputs, outputs = shape if len(shape) > 1 else (1, *shape)
    positions = math.prod(window)
    return inputs * positions, outputs * positions


def zeros(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """0, for all of ``shape``; ``rng`` is not used."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """1, for all of ``shape``; ``rng`` is not used."""
    return np.ones(shape)


def glorot_uniform(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Numbers (*shape), drawn by ``rng``, of U(-a, a) with a = sqrt(6 / (fan_in + fan_out))
    (Glorot, Bengio 2010).
    """
    limit = math.sqrt(6 / sum(fans(shape)))
    return rng.uniform(-limit, limit, shape)


def he_normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Numbers (*shape), drawn by ``rng``, of N(0, 2 / fan_in), for ReLU networks  (He et al.
    2015).
    """
    return rng.normal(0, math.sqrt(2 / fans(shape)[0]), shape)


def he_uniform(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Numbers (*shape), drawn by ``rng``, of U(-a, a) with a = sqrt(6 / fan_in)  (He et al.
    2015).
    """
    limit = math.sqrt(6 / fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


def lecun_normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Numbers (*shape), drawn by ``rng``, of N(0, 1 / fan_in)  (LeCun et al. 1998)."""
    return rng.normal(0, math.sqrt(1 / fans(shape)[0]), shape)


INITIALIZERS: dict[str, Initializer] = {
    f.__name__: f for f in (zeros, ones, glorot_uniform, he_normal, he_uniform, lecun_normal)
}


def get(initializer: "str | Initializer") -> Initializer:
    """Return the function that ``initializer`` names, or the function that it is; ValueError for
    another name.
    """
    if callable(initializer):
        return initializer
    if initializer not in INITIALIZERS:
        raise ValueError(
            f"unknown initializer {initializer!r}: choose one of {', '.join(INITIALIZERS)}, "
            "or add it to minicnn.nn.initializers.INITIALIZERS"
        )
    return INITIALIZERS[initializer]

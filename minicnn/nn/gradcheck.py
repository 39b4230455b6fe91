"""Numerical gradients: is the backward pass the derivative of the forward pass?

    report = check_gradients([mc.Conv2D(3, 5, padding="same"), mc.ELU(), mc.MaxPooling2D(5)], (13,
    11, 2)) print(report)

All in float64 on the reference backend, with a *random* upstream gradient, so that a mistake that a
sum of ones would hide is seen.
"""

from dataclasses import dataclass

import numpy as np

from ..engine.plan import FusedBlock
from ..kernels import get_backend


@dataclass
class Report:
    """``errors``: {"x", "<layer>/w", ...: largest |analytic - numeric| over the largest |numeric|};
    ``ok`` if all <= tolerance.
    """

    errors: dict
    tolerance: float

    @property
    def ok(self):
        """Tell whether every gradient agrees."""
        return all(e <= self.tolerance for e in self.errors.values())

    def __str__(self):
        return "\n".join(
            f"{name:<24}{e:10.2e}  {'ok' if e <= self.tolerance else 'WRONG'} (tolerance {self.tolerance:.0e})"
            for name, e in self.errors.items()
        )


def numerical_gradient(f, a, step=1e-5):
    """Return d f() / d a by central differences, (f(a + h) - f(a - h)) / 2h for every element;
    ``a`` is changed and restored.
    """
    grad = np.zeros_like(a)
    for i in np.ndindex(a.shape):
        old = a[i]
        a[i] = old + step
        up = f()
        a[i] = old - step
        grad[i] = (up - f()) / (2 * step)
        a[i] = old
    return grad


def check_gradients(layers, input_shape, batch=2, seed=0, tolerance=1e-7, fuse=False, smooth=True):
    """Compare analytic and numeric gradients of a layer, or of a list of layers, for x (batch,
    *input_shape); returns the Report.

    The input is drawn so that no two values are closer than the step of the differences, away from
    ties and kinks (``smooth`` False takes plain normal noise). ``fuse`` runs the list as one
    FusedBlock. Dropout uses the same mask for every evaluation.
    """
    layers = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    k, rng = get_backend("reference"), np.random.default_rng(seed)
    size = batch * int(np.prod(input_shape))
    x = (
        rng.permutation(np.linspace(-2, 2, size))
        if smooth and size > 1
        else rng.standard_normal(size)
    )
    x = x.reshape(batch, *input_shape) + 1e-3
    shape, stages = tuple(input_shape), []
    for i, layer in enumerate(layers):
        layer.name = layer.name or f"{layer.prefix}_{i + 1}"
        p = {key: 0.5 * rng.standard_normal(s) for key, s in layer.parameter_shapes(shape).items()}
        shape = layer.output_shape(shape)
        stages.append((layer, p))
    if fuse:
        stages = [(FusedBlock(*layers), stages[0][1])]

    def forward():
        y, saved = x, []
        for stage, p in stages:
            y, kept = stage.forward(k, y, p, rng=np.random.default_rng(seed))
            saved.append(kept)
        return y, saved

    y, saved = forward()
    upstream = rng.standard_normal(y.shape)
    dy, errors, analytic = upstream, {}, {}
    for (stage, p), kept in zip(reversed(stages), reversed(saved)):
        g = {key: np.zeros_like(w) for key, w in p.items()}
        dy = stage.backward(k, dy, kept, p, g)
        analytic |= {f"{stage.name}/{key}": (p[key], g[key]) for key in p}
    for name, (a, grad) in {"x": (x, dy), **analytic}.items():
        numeric = numerical_gradient(lambda: float((forward()[0] * upstream).sum()), a)
        errors[name] = float(np.abs(grad - numeric).max() / max(np.abs(numeric).max(), 1e-12))
    return Report(errors, tolerance)

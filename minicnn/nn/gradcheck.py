"""Numerical gradients: is the backward pass the derivative of the forward pass?

    report = check_gradients([mc.Conv2D(3, 5), mc.ELU(), mc.MaxPooling2D(5)], (13, 11, 2))
    print(report)

In float64 on the reference backend, with a *random* upstream gradient, so that a mistake that a sum
of ones would hide is seen; starting from random numbers in the gradient arrays, so that a layer
that sets them instead of adding to them is seen; with the batch in one piece and event by event;
once more with the layers saved and made again, so that a setting that is not saved is seen; and
with an eye on workspaces, of which each op with weights needs its own.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels import get_backend
from ..kernels.types import Shape
from ..kernels.workspace import Workspace
from . import initializers
from .graph import layer_from_config
from .layers import Context, Dropout, Layer


@dataclass
class Report:
    """``errors``: {"x", "<layer>/w", ...: largest |analytic - numeric| over the largest |numeric|},
    and "... in pieces", "... of the saved layer" where those differ; infinite for "<op> on another
    op's workspace"; ``ok`` if all <= tolerance.
    """

    errors: dict[str, float]
    tolerance: float

    @property
    def ok(self) -> bool:
        """Tell whether every gradient agrees."""
        return all(e <= self.tolerance for e in self.errors.values())

    def __str__(self) -> str:
        return "\n".join(
            f"{name:<32}{e:10.2e}  {'ok' if e <= self.tolerance else 'WRONG'} "
            f"(tolerance {self.tolerance:.0e})"
            for name, e in self.errors.items()
        )


def numerical_gradient(
    function: Callable[[], float], array: np.ndarray, step: float = 1e-5
) -> np.ndarray:
    """Return d function() / d array by central differences, (f(a + h) - f(a - h)) / 2h for every
    element; ``array`` is changed and restored.
    """
    grad = np.zeros_like(array)
    for i in np.ndindex(array.shape):
        old = array[i]
        array[i] = old + step
        up = function()
        array[i] = old - step
        grad[i] = (up - function()) / (2 * step)
        array[i] = old
    return grad


class _Watched:
    """The reference backend, which keeps nothing in workspaces, and a list of what other backends
    would do wrong: ``misplaced``, the ops that were given the workspace of an op with other
    weights. They would compute with the packed weights of that one.
    """

    def __init__(self) -> None:
        self.kernels = get_backend("reference")
        self.weights: dict[Workspace, np.ndarray] = {}
        self.watching = True
        self.misplaced: list[str] = []

    def __getattr__(self, name: str) -> Any:
        op = getattr(self.kernels, name)
        if not inspect.isfunction(op) or not self.watching:
            return op

        def watched(*arrays: Any, **options: Any) -> Any:
            given = inspect.signature(op).bind(*arrays, **options).arguments
            workspace, w = given.get("workspace"), given.get("w")
            if workspace is not None and w is not None:
                first = self.weights.setdefault(workspace, w.copy())
                if not np.array_equal(first, w):
                    self.misplaced.append(name)
            return op(*arrays, **options)

        return watched


class _Chain:
    """Layers one after the other on the reference backend, with parameters of their own."""

    def __init__(self, layers: list[Any], shapes: list[list[Shape]], rng: np.random.Generator):
        self.layers, self.contexts, self.names = layers, [], []
        self.kernels = _Watched()
        for i, (layer, inputs) in enumerate(zip(layers, shapes)):
            described = getattr(layer, "conv", layer)  # the layer of a FusedBlock with parameters
            params = {
                key: 0.5 * rng.standard_normal(p.shape)
                for key, p in described.parameters(*inputs).items()
            }
            state = {
                key: np.asarray(initializers.get(p.initializer)(rng, p.shape), np.float64)
                for key, p in described.state(*inputs).items()
            }
            grads = {key: rng.standard_normal(w.shape) for key, w in params.items()}
            self.contexts.append(Context(self.kernels, params, grads, state))
            self.names.append(layer.name or f"{described.prefix}_{i + 1}")

    def forward(self, xs: Sequence[np.ndarray], seed: int, training: bool) -> tuple[Any, list[Any]]:
        saved = []
        for layer, ctx in zip(self.layers, self.contexts):
            ctx.training, ctx.rng = training, np.random.default_rng(seed) if training else None
            before = {key: value.copy() for key, value in ctx.state.items()}
            y, kept = layer.forward(ctx, *xs)
            for key, value in before.items():
                ctx.state[key][...] = value  # so that every evaluation computes the same function
            xs = (y,)
            saved.append(kept)
        return xs[0], saved

    def backward(self, dy: np.ndarray, saved: list[Any]) -> tuple[np.ndarray, ...]:
        dxs: Any = (dy,)
        for layer, ctx, kept in zip(self.layers[::-1], self.contexts[::-1], saved[::-1]):
            dxs = layer.backward(ctx, dxs[0], kept)
            dxs = dxs if isinstance(dxs, tuple) else (dxs,)
        return dxs

    def gradients(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {
            f"{name}/{key}": (ctx.params[key], ctx.grads[key])
            for name, ctx in zip(self.names, self.contexts)
            for key in ctx.params
        }


def check_gradients(
    layers: Layer | Sequence[Layer],
    input_shape: Shape | Sequence[Shape],
    batch: int = 2,
    seed: int = 0,
    tolerance: float = 1e-7,
    **options: Any,
) -> Report:
    """Compare analytic and numeric gradients of a layer, or of a list of layers one after the
    other, for x (batch, *input_shape); returns the Report.

    input_shape: of several inputs a list of shapes. seed: of the random input, parameters and
    upstream gradient. tolerance: what the largest difference, relative to the largest numeric
    gradient, may be. options: fuse, smooth, training; TypeError for others. The input is drawn so
    that no two values are closer than the step of the differences, away from ties and kinks
    (``smooth=False`` takes plain normal noise). ``fuse=True`` runs the list as one FusedBlock.
    ``training=False`` checks the pass that evaluates. Dropout uses the same mask for every
    evaluation.
    """
    fuse, smooth = options.pop("fuse", False), options.pop("smooth", True)
    training = options.pop("training", True)
    if options:
        raise TypeError(f"check_gradients has no option {', '.join(options)}")
    chain: list[Any] = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    several = bool(input_shape) and not isinstance(input_shape[0], (int, np.integer))
    inputs: list[Shape] = [tuple(s) for s in input_shape] if several else [tuple(input_shape)]  # type: ignore[arg-type,union-attr,misc]
    rng = np.random.default_rng(seed)
    xs = [_input((batch, *shape), rng, smooth) for shape in inputs]
    shapes = [inputs]
    for layer in chain[:-1]:
        shapes.append([layer.output_shape(*shapes[-1])])
    if fuse:
        from ..engine.fused import FusedBlock

        stages: list[Any] = [FusedBlock(*chain)]  # type: ignore[arg-type]
        shapes = shapes[:1]
    else:
        stages = chain
    network = _Chain(stages, shapes, rng)
    start = {name: grad.copy() for name, (_, grad) in network.gradients().items()}

    y, saved = network.forward(xs, seed, training)
    upstream = rng.standard_normal(y.shape)
    dxs = network.backward(upstream, saved)
    network.kernels.watching = False
    names = ["x"] if len(xs) == 1 else [f"x{i}" for i in range(len(xs))]
    analytic: dict[str, tuple[np.ndarray, np.ndarray]] = dict(zip(names, zip(xs, dxs)))
    for name, (w, grad) in network.gradients().items():
        analytic[name] = (w, grad - start[name])

    def value() -> float:
        return float((network.forward(xs, seed, training)[0] * upstream).sum())

    errors = {f"{op} on another op's workspace": math.inf for op in network.kernels.misplaced}
    for name, (array, grad) in analytic.items():
        numeric = numerical_gradient(value, array)
        errors[name] = _difference(grad, numeric)
    errors |= _in_pieces(network, xs, upstream, (seed, training), analytic)
    if not fuse:
        errors |= _saved(network, chain, xs, (seed, training), y)
    return Report(errors, tolerance)


def _input(shape: Shape, rng: np.random.Generator, smooth: bool) -> np.ndarray:
    size = int(np.prod(shape))
    if smooth and size > 1:
        return rng.permutation(np.linspace(-2, 2, size)).reshape(shape) + 1e-3
    return rng.standard_normal(size).reshape(shape) + 1e-3


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(
        np.abs(found - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-12)
    )


def _in_pieces(
    network: _Chain,
    xs: list[np.ndarray],
    upstream: np.ndarray,
    how: tuple[int, bool],
    analytic: dict[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, float]:
    """Run event by event: gradients of parameters must add up to those of the batch. Not for a
    layer that says that it needs the whole batch, and not with masks drawn anew for every piece.
    """
    if any(
        getattr(layer, "needs_whole_batch", False) or isinstance(layer, Dropout)
        for layer in network.layers
    ):
        return {}
    seed, training = how
    for ctx in network.contexts:
        for grad in ctx.grads.values():
            grad[...] = 0
    for i in range(len(upstream)):
        _, saved = network.forward([x[i : i + 1] for x in xs], seed, training)
        network.backward(upstream[i : i + 1], saved)
    pieces = {name: grad for name, (_, grad) in network.gradients().items()}
    return {
        f"{name} in pieces": _difference(grad, analytic[name][1]) for name, grad in pieces.items()
    }


def _saved(
    network: _Chain, chain: list[Layer], xs: list[np.ndarray], how: tuple[int, bool], y: np.ndarray
) -> dict[str, float]:
    """Make the layers again from their configuration: the forward pass must not change."""
    originals = network.layers
    network.layers = [
        layer_from_config({"type": type(layer).__name__, **layer.config()}) for layer in chain
    ]
    again, _ = network.forward(xs, *how)
    network.layers = originals
    return {"y of the saved layer": _difference(again, y)}

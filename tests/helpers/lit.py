"""Random LitMaps, and a layer's rule beside the layer on the same maps as arrays."""

import numpy as np

import minicnn as mc
from minicnn.engine.lit import Grid, LitMap, rule_for
from minicnn.kernels import get_backend
from minicnn.nn.layers import Context


def random_map(kernels, rng, shape, events=2, lit=0.2, dtype=np.float64):
    """Return a LitMap of random classes, positions and values; ``lit``: the fraction of positions,
    or "border" for all of the border alone.
    """
    height, width, channels = shape
    classes = []
    for size in (height, width):
        _, of_class = np.unique(rng.integers(0, rng.integers(1, 4), size), return_inverse=True)
        classes.append(of_class.reshape(-1).astype(np.int32))
    grid = Grid(kernels, tuple(classes))
    mask = rng.random((events, height, width)) < (0 if lit == "border" else lit)
    if lit == "border":
        mask[:, [0, -1]] = mask[:, :, [0, -1]] = True
    if events > 1:
        mask[rng.integers(events)] = False  # an event without anything lit
    positions = np.argwhere(mask.reshape(events * height, width)).astype(np.int32)
    values = rng.standard_normal((len(positions), channels)).astype(dtype)
    rest = rng.standard_normal((*grid.pairs, channels)).astype(dtype)
    put = kernels.asarray
    return LitMap(grid, events, put(positions), put(values), put(rest))


def contexts(kernels, layer, shapes, rng, dtype, training):
    """Return two Contexts of a layer with equal weights and states, gradients of 0."""
    params = {k: rng.standard_normal(p.shape) for k, p in layer.parameters(*shapes).items()}
    states = {k: rng.uniform(0.5, 2, p.shape) for k, p in layer.state(*shapes).items()}
    found = []
    for _ in range(2):
        arrays = [
            {k: kernels.asarray(v.astype(dtype)) for k, v in d.items()} for d in (params, states)
        ]
        grads = {k: kernels.zeros(v.shape, dtype) for k, v in params.items()}
        found.append(Context(kernels, arrays[0], grads, arrays[1]))
        found[-1].training, found[-1].rng = training, np.random.default_rng(5)
    return found


def close(got, want, tolerance, what=""):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, (what, got.shape, want.shape)
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    worst = float(np.abs(got - want).max(initial=0))
    assert worst <= tolerance * scale, f"{what}: {worst:.2e} of {scale:.2e}"


def compare_rule(layer, maps, rng, tolerance, training=False):
    """Output, gradients of maps and parameters, and states of the layer's rule are those of the
    layer on arrays. Returns whether the rule took the maps.
    """
    kernels, dtype = maps[0].grid.kernels, maps[0].values.dtype
    shapes = [x.shape[1:] for x in maps]
    dense, sparse = contexts(kernels, layer, shapes, rng, dtype, training)
    rule = rule_for(layer, sparse)
    rule.always = True  # however much is lit
    result = rule.forward(*maps)
    if result is None:
        return False
    y, saved = result
    want, dense_saved = layer.forward(dense, *(x.dense() for x in maps))
    host = kernels.to_host
    lit = isinstance(y, LitMap)
    assert lit != rule.ends
    if lit:
        check_map(y)
    close(host(y.dense() if lit else y), host(want), tolerance, "output")
    dy = kernels.asarray(rng.standard_normal(want.shape).astype(dtype))
    dxs = rule.backward(y.gradient_of(dy) if lit else dy, saved)
    wants = layer.backward(dense, dy, dense_saved)
    wants = wants if isinstance(wants, tuple) else (wants,)
    for x, dx, gradient in zip(maps, dxs, wants, strict=True):
        expected = x.gradient_of(gradient)
        close(host(dx.values), host(expected.values), tolerance, "gradient at lit positions")
        close(host(dx.rest), host(expected.rest), tolerance, "gradient of rest")
        assert dx.values.dtype == dtype and dx.rest.dtype == np.float64
    for kind in ("grads", "state"):
        for name, array in getattr(dense, kind).items():
            close(host(getattr(sparse, kind)[name]), host(array), tolerance, f"{kind} {name}")
    return True


def check_map(x):
    """Positions are row-major, unique and inside, arrays of the shapes that LitMap says."""
    positions = x.grid.kernels.to_host(x.positions)
    assert positions.dtype == np.int32 and positions.shape == (len(x.values), 2)
    key = positions[:, 0].astype(int) * x.shape[2] + positions[:, 1]
    assert (np.diff(key) > 0).all()
    if len(positions):
        assert positions.min() >= 0 and positions[:, 0].max() < x.events * x.shape[1]
        assert positions[:, 1].max() < x.shape[2]
    assert x.rest.shape == (*x.grid.pairs, x.channels)


def reference():
    return get_backend("reference")


__all__ = ["check_map", "close", "compare_rule", "mc", "random_map", "reference"]

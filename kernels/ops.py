"""The table of ops: what there is, where, and how to try it. All that lists ops reads it: the names
that backends export, the parity and gradient tests (tests/kernels/test_ops.py), and with them
``make gpu-check``.

To add an op ``f``: write ``f`` and ``f_backward`` into kernels/reference/<room>.py, the same
signatures into kernels/cpu/<room>.py and (with the backend before the other arguments)
kernels/cuda/<room>.py, and a row here. The tests then compare all of them.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from .shapes import conv_output, effective_kernel, pool_output

SUM = 3e-6  # relative, in norm: float32 sums of up to some 1000 products, against float64
POINT = 3e-7  # elementwise, a few roundings
FUNCTION = 1e-6  # elementwise, ten roundings: exponentials and their relatives
EXACT = 0.0  # moves numbers, or finds them

#: What every backend has besides ops: arrays and threads.
ARRAYS = ("asarray", "empty", "set_threads", "synchronize", "to_host", "zeros")

Arguments = dict[str, Any]


class Op(NamedTuple):
    """One row.

    ``case(rng)`` draws arguments of the forward function by name: float32 arrays, and whatever
    else. Names that are not the forward function's are for the backward one. This one takes by name
    dy, arguments, outputs, and x_shape.
    """

    room: str  # the module that has it, in every backend
    case: Callable[[np.random.Generator], Arguments]
    outputs: tuple[str, ...] = ("y",)
    #: The arguments whose gradients the backward function returns, in that order.
    gradients: tuple[str, ...] = ()
    tolerance: float = SUM
    gradient_tolerance: float | None = None  # the same, if None
    #: The room of the backward function, if it has one of its own.
    backward_room: str | None = None
    #: There is a backward function that does not fit these rules, and has tests of its own.
    other_gradients: bool = False
    #: The backward function takes no dy: it is the gradient of the sum of the first output.
    of_sum: bool = False
    #: Recomputes arguments that follow from others, which change in a numerical derivative.
    derive: Callable[[Arguments], Arguments] | None = None
    #: Outputs that may differ between backends: the position of a maximum where two are close.
    loose: tuple[str, ...] = ()

    def backward(self, name: str) -> str | None:
        """Return the name of the backward function of the op ``name``, or None."""
        return f"{name}_backward" if self.gradients or self.other_gradients else None


def gather(package: str) -> dict[str, Callable]:
    """Return {name: function} of all ops and their backward functions in a backend's package."""
    found = {}
    for name, op in OPS.items():
        found[name] = getattr(import_module(f"{package}.{op.room}"), name)
        if backward := op.backward(name):
            room = import_module(f"{package}.{op.backward_room or op.room}")
            found[backward] = getattr(room, backward)
    return found


# -------------------------------------------------------------------------------- random arguments
def _floats(rng, *shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def _image(rng, smallest=1, largest=15, channels=9):
    n = rng.integers(1, 4)
    size = rng.integers(smallest, largest + 1, 2)
    return tuple(int(i) for i in (n, *size, rng.integers(1, channels + 1)))


def _pair(rng, most):
    """One or two numbers up to ``most``, as a caller may give them."""
    a, b = (int(i) for i in rng.integers(1, most + 1, 2))
    return a if rng.random() < 0.4 else (a, b)


def _two(value):
    return (value, value) if isinstance(value, int) else value


def _any_shape(rng):
    return tuple(int(i) for i in rng.integers(1, 9, rng.integers(1, 5)))


def _elementwise(rng, **more):
    return {"x": _floats(rng, *_any_shape(rng), scale=rng.choice([1.0, 30.0])), **more}


def _dropout(rng):
    x = _floats(rng, *_any_shape(rng))
    return {"x": x, "keep": (rng.random(x.shape) < 0.7).astype(np.float32), "rate": 0.3}


def _activation(rng):
    names = ("leaky_relu", "gelu", "silu", "sigmoid", "tanh", "softplus")
    x = _floats(rng, *_any_shape(rng), scale=rng.choice([1.0, 8.0]))
    return {"x": x, "function": names[rng.integers(len(names))], "alpha": 0.2}


def _geometry(rng, dilated=True):
    """Draw x's shape, kernel, stride, padding, dilation that fit together."""
    shape, kernel = _image(rng), tuple(int(k) for k in rng.integers(1, 6, 2))
    stride, dilation = _pair(rng, 3), _pair(rng, 3) if dilated and rng.random() < 0.5 else 1
    reach = [effective_kernel(k, d) for k, d in zip(kernel, _two(dilation))]
    fits = reach[0] <= shape[1] and reach[1] <= shape[2]
    padding = "valid" if fits and rng.random() < 0.5 else "same"
    return shape, kernel, stride, padding, dilation


def _conv2d(rng):
    shape, kernel, stride, padding, dilation = _geometry(rng)
    ci, co = shape[3], int(rng.choice([1, 2, 5, 8, 17, 33, 70]))
    if rng.random() < 0.3:
        ci = co = 16  # weights and turned weights of one size
    return {
        "x": _floats(rng, *shape[:3], ci),
        "w": _floats(rng, *kernel, ci, co, scale=(kernel[0] * kernel[1] * ci) ** -0.5),
        "b": _floats(rng, co),
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
    }


def _depthwise(rng):
    shape, kernel, stride, padding, dilation = _geometry(rng)
    each = int(rng.choice([1, 1, 2, 3]))
    return {
        "x": _floats(rng, *shape),
        "w": _floats(rng, *kernel, shape[3], each, scale=(kernel[0] * kernel[1]) ** -0.5),
        "b": _floats(rng, shape[3] * each),
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
    }


def _transpose(rng):
    shape, kernel, stride, _, _ = _geometry(rng, dilated=False)
    co = int(rng.choice([1, 2, 5, 17]))
    return {
        "x": _floats(rng, *shape),
        "w": _floats(rng, *kernel, co, shape[3], scale=shape[3] ** -0.5),
        "b": _floats(rng, co),
        "stride": stride,
        "padding": str(rng.choice(["same", "valid"])),
    }


def _pool(rng):
    shape = _image(rng, largest=20, channels=20)
    size = tuple(int(rng.integers(1, min(18, s) + 1)) for s in shape[1:3])
    stride = None if rng.random() < 0.5 else _pair(rng, 4)
    return {"x": _floats(rng, *shape), "size": size, "stride": stride}


def _image_case(rng):
    return {"x": _floats(rng, *_image(rng, largest=30, channels=20))}


def _many_positions(rng):
    """More of them than a task or a chunk has."""
    if rng.random() < 0.5:
        return _image_case(rng)
    return {"x": _floats(rng, 1, *(int(i) for i in rng.integers(60, 80, 2)), 3)}


def _upsample(rng):
    return {"x": _floats(rng, *_image(rng, channels=20)), "size": _pair(rng, 4)}


def _rows(rng, least=1, mean=0.0):
    axes = rng.integers(least, 5)
    shape = *rng.integers(1, 12, axes - 1), rng.integers(1, 40)
    return _floats(rng, *(int(i) for i in shape)) + np.float32(mean)


def _moments(a):
    flat = np.asarray(a["x"], np.float64).reshape(-1, a["x"].shape[-1])
    return {**a, "mean": flat.mean(0), "variance": flat.var(0)}


def _channel_moments(rng):
    return {"x": _rows(rng, least=2, mean=rng.choice([0.0, 1000.0]))}


def _normalize(rng):
    x = _rows(rng, least=2, mean=rng.choice([0.0, 10.0]))
    batch = bool(rng.random() < 0.6)
    a = {
        "x": x,
        "gamma": _floats(rng, x.shape[-1]),
        "beta": _floats(rng, x.shape[-1]),
        "epsilon": 1e-2,
        "batch_statistics": batch,
    }
    if batch:
        return _moments(a)
    c = x.shape[-1]
    return {**a, "mean": rng.standard_normal(c), "variance": rng.random(c) + 0.1}


def _layer_norm(rng):
    x = _rows(rng)
    c = x.shape[-1]
    return {"x": x, "gamma": _floats(rng, c), "beta": _floats(rng, c), "epsilon": 1e-2}


def _block(rng):
    shape, kernel, _, padding, _ = _geometry(rng, dilated=False)
    ci, co = shape[3], int(rng.choice([1, 3, 10, 33, 64]))
    size = conv_output(shape, (*kernel, ci, co), (1, 1), padding)[1:3]
    return {
        "x": _floats(rng, *shape),
        "w": _floats(rng, *kernel, ci, co, scale=(kernel[0] * kernel[1] * ci) ** -0.5),
        "b": _floats(rng, co),
        "pool": tuple(int(rng.integers(1, min(5, s) + 1)) for s in size),
        "alpha": float(rng.choice([1.0, 0.5, 0.0])),
        "padding": padding,
    }


def _dense(rng):
    n, inputs, outputs = (int(rng.integers(1, most)) for most in (5, 700, 40))
    return {
        "x": _floats(rng, n, inputs),
        "w": _floats(rng, inputs, outputs, scale=inputs**-0.5),
        "b": _floats(rng, outputs),
    }


def _cross_entropy(rng):
    n, classes = int(rng.integers(1, 40)), int(rng.integers(2, 9))
    return {
        "logits": _floats(rng, n, classes, scale=9),
        "labels": rng.integers(0, classes, n),
    }


def _sgd(rng):
    size = int(rng.integers(1, 20_000))
    return {
        **{name: _floats(rng, size) for name in ("w", "dw", "velocity")},
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": bool(rng.random() < 0.5),
        "weight_decay": float(rng.choice([0.0, 0.1])),
        "scale": 0.25,
    }


def _adam(rng):
    size = int(rng.integers(1, 20_000))
    return {
        **{name: _floats(rng, size) for name in ("w", "dw", "mean")},
        "square": _floats(rng, size) ** 2,
        "step": int(rng.choice([1, 2, 1000])),
        "learning_rate": 0.01,
        "epsilon": 1e-3,
        "weight_decay": 0.1,
        "scale": 0.25,
    }


def _finite(rng):
    a = _floats(rng, int(rng.integers(1, 30_000)))
    if rng.random() < 0.6:
        a[rng.integers(a.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return {"a": a}


def _lit(rng):
    """An image of one event: background but for some pixels."""
    shape = (1, *(int(i) for i in rng.integers(6, 40, 2)), int(rng.integers(1, 4)))
    lit = rng.random((*shape[:3], 1)) < rng.choice([0.0, 0.02, 0.3])
    return (_floats(rng, *shape) * lit).astype(np.float32)


def _positions(rng):
    x = _lit(rng)
    at = np.argwhere(rng.random(x.shape[1:3]) < 0.2).astype(np.int32)
    classes = tuple(rng.integers(0, many, size) for many, size in zip((3, 2), x.shape[1:3]))
    return {"x": x, "at": at, "values": _floats(rng, len(at), x.shape[3])}, classes


def _lit_pixels(rng):
    return {"x": _lit(rng)}


def _take_pixels(rng):
    a, _ = _positions(rng)
    return {"x": a["x"], "at": a["at"]}


def _put_pixels(rng):
    return _positions(rng)[0]


def _class_sums(rng):
    a, classes = _positions(rng)
    return {"values": a["values"], "at": a["at"], "classes": classes, "pairs": (3, 2)}


def _cells(rng):
    x = _lit(rng)
    kernel, pool = (tuple(int(i) for i in rng.integers(1, 5, 2)) for _ in range(2))
    shape = conv_output(x.shape, (*kernel, x.shape[3], 1), (1, 1), "same")
    grid = pool_output(shape, pool, pool)[1:3]
    cells = np.argwhere(rng.random(grid) < 0.3).astype(np.int32)
    return {"x": x, "cells": cells, "kernel": kernel, "pool": pool, "padding": "same"}


def _active_cells(rng):
    a = _cells(rng)
    at = np.argwhere((a["x"][0] != 0).any(-1)).astype(np.int32)
    return {"active": at, "x_shape": a["x"].shape, "kernel": a["kernel"], "pool": a["pool"]}


def _fill_windows(rng):
    a = _cells(rng)
    classes = tuple(rng.integers(0, many, size) for many, size in zip((3, 2), a["x"].shape[1:3]))
    return {**a, "values": _floats(rng, 3, 2, a["x"].shape[3]), "classes": classes}


def _block_cells(rng):
    a = _cells(rng)
    kernel, ci, co = a.pop("kernel"), a["x"].shape[3], int(rng.choice([3, 10, 33]))
    return {
        **a,
        "w": _floats(rng, *kernel, ci, co, scale=(kernel[0] * kernel[1] * ci) ** -0.5),
        "b": _floats(rng, co),
        "alpha": 0.5,
    }


XWB, SCALE = ("x", "w", "b"), ("x", "gamma", "beta")
MAXIMUM = ("y", "argmax")

OPS = {
    # convolution
    "conv2d": Op("conv2d", _conv2d, gradients=XWB),
    "depthwise_conv2d": Op("depthwise", _depthwise, gradients=XWB),
    "conv2d_transpose": Op("conv2d", _transpose, gradients=XWB),
    "dense": Op("dense", _dense, gradients=XWB),
    # pointwise
    "elu": Op(
        "activations",
        lambda rng: _elementwise(rng, alpha=float(rng.choice([1.0, 0.3, 0.0]))),
        gradients=("x",),
        tolerance=POINT,
    ),
    "relu": Op("activations", _elementwise, gradients=("x",), tolerance=POINT),
    "dropout": Op("activations", _dropout, tolerance=POINT),
    "activation": Op("activations", _activation, gradients=("x",), tolerance=FUNCTION),
    # pooling and its opposite
    "maxpool2d": Op("pool2d", _pool, MAXIMUM, gradients=("x",)),
    "avgpool2d": Op("pool2d", _pool, gradients=("x",)),
    "global_average_pool": Op("pool2d", _many_positions, gradients=("x",)),
    "global_max_pool": Op("pool2d", _many_positions, MAXIMUM, gradients=("x",)),
    "upsample2d": Op("upsample2d", _upsample, gradients=("x",)),
    # normalisation
    "channel_moments": Op("normalization", _channel_moments, ("mean", "variance"), tolerance=1e-10),
    "normalize": Op("normalization", _normalize, gradients=SCALE, derive=_moments),
    "layer_norm": Op(
        "normalization", _layer_norm, ("y", "mean", "inverse_deviation"), gradients=SCALE
    ),
    # classes and losses
    "softmax": Op("softmax", lambda rng: {"x": _rows(rng)}, gradients=("x",), tolerance=FUNCTION),
    "softmax_cross_entropy": Op(
        "loss", _cross_entropy, ("losses", "p"), gradients=("logits",), of_sum=True
    ),
    # all weights at once
    "sgd": Op("optimizer", _sgd, ("w", "velocity"), tolerance=POINT),
    "adam": Op("optimizer", _adam, ("w", "mean", "square"), tolerance=FUNCTION),
    "finite": Op("optimizer", _finite, ("flag",), tolerance=EXACT),
    # the fused block
    "conv2d_block": Op(
        "block", _block, MAXIMUM, gradients=XWB, backward_room="block_backward", loose=("argmax",)
    ),
    # zero suppression
    "lit_pixels": Op("cells", _lit_pixels, ("at",), tolerance=EXACT),
    "active_cells": Op("cells", _active_cells, ("cells",), tolerance=EXACT),
    "take_pixels": Op("cells", _take_pixels, tolerance=EXACT),
    "put_pixels": Op("cells", _put_pixels, tolerance=EXACT),
    "class_sums": Op("cells", _class_sums, ("sums",), tolerance=1e-10),
    "cell_windows": Op("cells", _cells, tolerance=EXACT),
    "fill_windows": Op("cells", _fill_windows, tolerance=EXACT),
    "conv2d_block_cells": Op(
        "cells", _block_cells, MAXIMUM, loose=("argmax",), other_gradients=True
    ),
}

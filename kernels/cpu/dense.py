"""Dense layers of a few events: every weight is used once per event, so they are bound by reading
the weights.
"""

import numpy as np
from numba import prange

from ..arguments import Wanted
from ..types import Array
from ..workspace import Workspace
from .checks import check_float32, check_shape, gradient_targets
from .jit import tasks, threaded

CHUNK = 256  # inputs summed in float32 before the sum goes to float64


@threaded
def _dense(x, w, sums):
    inputs, outputs = w.shape
    for task in prange(sums.shape[0]):
        for e in range(x.shape[0]):
            part = np.zeros(outputs, np.float32)
            for i in range(task * CHUNK, min(inputs, (task + 1) * CHUNK)):
                v = x[e, i]
                for o in range(outputs):
                    part[o] += v * w[i, o]
            for o in range(outputs):
                sums[task, e, o] = part[o]


@threaded
def _dense_backward(dy, x, w, dw, dx):
    inputs, outputs = w.shape
    for i in prange(inputs):
        for e in range(x.shape[0]):
            v = x[e, i]
            for o in range(outputs):
                dw[i, o] += v * dy[e, o]
            if dx.size:
                total = 0.0
                for o in range(outputs):
                    total += dy[e, o] * w[i, o]
                dx[e, i] = total


def _check(op, x, w):
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[0]:
        raise ValueError(
            f"{op} needs x (N, inputs) and w (inputs, outputs), got {x.shape} and {w.shape}"
        )


def dense(x: Array, w: Array, b: Array, workspace: Workspace | None = None) -> Array:
    """y = x @ w + b for x (N, inputs), w (inputs, outputs), b (outputs,), float32; sums of 256
    inputs are added in float64.
    """
    x, w, b = check_float32("dense", x=x, w=w, b=b)
    _check("dense", x, w)
    check_shape("dense", "b", b, w.shape[1:])
    sums = np.empty((-(-w.shape[0] // CHUNK), x.shape[0], w.shape[1]))
    _dense(tasks(len(x) * w.size), x, w, sums)
    return np.add.reduce(sums, 0).astype(np.float32) + b


def dense_backward(
    dy: Array,
    x: Array,
    w: Array,
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of dense: dx = dy @ w.T (or None), dw = x.T @ dy, db = sum of dy over the batch; dw
    and db are added to.
    """
    op = "dense_backward"
    dy, x, w = check_float32(op, dy=dy, x=x, w=w)
    _check(op, x, w)
    check_shape(op, "dy", dy, (x.shape[0], w.shape[1]))
    dw, db = gradient_targets(op, wanted, dw=w.shape, db=w.shape[1:])
    dx = np.empty(x.shape if wanted.dx else (0, 0), np.float32)
    _dense_backward(tasks(len(x) * w.size), dy, x, w, dw, dx)
    db += dy.sum(0, dtype=np.float64)
    return dx if wanted.dx else None, dw, db

"""Dense layers."""

import numpy as np

from ..types import Array
from ..workspace import Workspace


def dense(x: Array, w: Array, b: Array, work: Workspace | None = None) -> Array:
    """y = x @ w + b for x (N, inputs), w (inputs, outputs), b (outputs,)."""
    return x @ w + b


def dense_backward(
    dy: Array,
    x: Array,
    w: Array,
    need_dx: bool = True,
    dw: Array | None = None,
    db: Array | None = None,
    work: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of dense: dx = dy @ w.T (or None), dw = x.T @ dy, db = sum of dy over the batch."""
    dw = np.zeros_like(w) if dw is None else dw
    db = np.zeros(w.shape[1], w.dtype) if db is None else db
    dw += x.T @ dy
    db += dy.sum(0)
    return dy @ w.T if need_dx else None, dw, db

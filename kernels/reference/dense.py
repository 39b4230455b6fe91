"""Dense layers."""

from ..arguments import Wanted
from ..types import Array
from ..workspace import Workspace
from .arrays import gradient_targets


def dense(x: Array, w: Array, b: Array, workspace: Workspace | None = None) -> Array:
    """y = x @ w + b for x (N, inputs), w (inputs, outputs), b (outputs,)."""
    return x @ w + b


def dense_backward(
    dy: Array,
    x: Array,
    w: Array,
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of dense: dx = dy @ w.T (or None), dw = x.T @ dy, db = sum of dy over the batch."""
    dw, db = gradient_targets("dense_backward", wanted, w.dtype, w.shape, w.shape[1:])
    dw += x.T @ dy
    db += dy.sum(0)
    return dy @ w.T if wanted.dx else None, dw, db

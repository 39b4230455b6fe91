"""Dense layers: matrix products, by cuBLAS on a GPU."""

from ..arguments import Wanted
from ..types import Array, Kernels
from ..workspace import Workspace
from .checks import check_float32, check_shape, gradient_targets


def _check(op, x, w):
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[0]:
        raise ValueError(
            f"{op} needs x (N, inputs) and w (inputs, outputs), got {x.shape} and {w.shape}"
        )


def dense(
    kernels: Kernels, x: Array, w: Array, b: Array, workspace: Workspace | None = None
) -> Array:
    """y = x @ w + b for x (N, inputs), w (inputs, outputs), b (outputs,), float32."""
    x, w, b = check_float32(kernels, "dense", x=x, w=w, b=b)
    _check("dense", x, w)
    check_shape("dense", "b", b, w.shape[1:])
    return x @ w + b


def dense_backward(
    kernels: Kernels,
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
    dy, x, w = check_float32(kernels, op, dy=dy, x=x, w=w)
    _check(op, x, w)
    check_shape(op, "dy", dy, (x.shape[0], w.shape[1]))
    dw, db = gradient_targets(kernels, op, wanted, dw=w.shape, db=w.shape[1:])
    dw += x.T @ dy
    db += dy.sum(0)
    return dy @ w.T if wanted.dx else None, dw, db

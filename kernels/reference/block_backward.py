"""The gradients of the fused block."""

from ..shapes import conv_output
from ..types import Array, Pair
from ..workspace import Workspace
from .activations import elu_backward
from .conv2d import conv2d_backward
from .pool2d import maxpool2d_backward


def conv2d_block_backward(
    dy: Array,
    x: Array,
    w: Array,
    y: Array,
    argmax: Array,
    pool: Pair,
    alpha: float = 1.0,
    padding: str = "same",
    need_dx: bool = True,
    dw: Array | None = None,
    db: Array | None = None,
    need_dw: bool = True,
    work: Workspace | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of conv2d_block: (dx or None, dw, db). Only the window maxima carry a gradient: one
    output in PH * PW.

    With need_dw=False dw and db stay what they were given as.
    """
    z_shape = conv_output(x.shape, w.shape, (1, 1), padding)
    dz = maxpool2d_backward(elu_backward(dy, y, alpha), argmax, z_shape, pool)
    dx, *grads = conv2d_backward(
        dz, x, w, 1, padding, 1, need_dx, *((dw, db) if need_dw else (None, None))
    )
    return (dx, *(grads if need_dw else (dw, db)))

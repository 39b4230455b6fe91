"""The gradients of the fused block."""

from ..arguments import Pooled, Wanted
from ..shapes import Block
from ..types import Array
from ..workspace import Workspace
from .activations import elu_backward
from .conv2d import conv2d_backward
from .pool2d import maxpool2d_backward


def conv2d_block_backward(
    dy: Array,
    pooled: Pooled,
    w: Array,
    block: Block,
    wanted: Wanted = Wanted(),
    workspace: Workspace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of conv2d_block: (dx or None, dw, db). Only the window maxima carry a gradient: one
    output in PH * PW.
    """
    x, y, argmax = pooled
    z_shape = block.geometry.output(x.shape, w.shape)
    dz = maxpool2d_backward(elu_backward(dy, y, block.alpha), argmax, z_shape, block.pool)
    return conv2d_backward(dz, x, w, block.geometry, wanted)

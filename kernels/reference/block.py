"""The fused block: Conv2D, ELU, MaxPooling2D."""

from ..arguments import Pooled
from ..shapes import Block
from ..types import Array
from ..workspace import Workspace
from .activations import elu
from .conv2d import conv2d
from .pool2d import maxpool2d


def conv2d_block(
    x: Array, w: Array, b: Array, block: Block, workspace: Workspace | None = None
) -> Pooled:
    """Conv2D (stride 1) -> ELU -> MaxPooling2D (stride = pool) as one op; here literally the three.

    x (N, H, W, C_in) -> Pooled with y and argmax, both (N, OH // PH, OW // PW, C_out). Because ELU
    increases and b is constant in a window, maxpool(elu(z + b)) = elu(maxpool(z) + b): faster
    backends never store z. alpha 0 makes it a ReLU block.
    """
    return Pooled(x, *maxpool2d(elu(conv2d(x, w, b, block.geometry), block.alpha), block.pool))

"""Conv2D -> ELU or ReLU -> MaxPooling2D as one kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..kernels.shapes import Block
from ..kernels.types import Array
from ..nn.layers import ELU, Context, Conv2D, Layer, MaxPooling2D, ReLU


class FusedBlock:
    """Conv2D -> ELU or ReLU -> MaxPooling2D as one kernel; takes the place of the three layers.

    An increasing activation and a bias that is constant in a window commute with the maximum, so
    the convolution's output is never stored and one output in pool^2 carries a gradient.
    """

    def __init__(self, conv: Any, activation: Any, pool: Any, name: str | None = None) -> None:
        self.layers = (conv, activation, pool)
        self.conv, self.block = conv, Block(pool.pool_size, activation.alpha, conv.padding)
        self.pool, self.alpha, _ = self.block
        self.name = name or conv.name or conv.prefix

    @staticmethod
    def matches(layers: Sequence[Layer]) -> tuple[bool, str]:
        """Tell whether the first three layers can run as one block; returns (bool, reason if they
        are the pattern but cannot).
        """
        kinds = tuple(map(type, layers[:3]))
        pattern = len(kinds) == 3 and kinds[0] is Conv2D and kinds[2] is MaxPooling2D
        if not pattern or kinds[1] not in (ELU, ReLU):
            return False, ""
        conv, activation, pool = layers[:3]
        assert isinstance(conv, Conv2D) and isinstance(pool, MaxPooling2D)
        assert isinstance(activation, (ELU, ReLU))
        if conv.strides != (1, 1):
            return False, f"stride {conv.strides}"
        if conv.dilation != (1, 1):
            return False, f"dilation {conv.dilation}"
        if pool.strides != pool.pool_size:
            return False, "pool stride is not the pool size"
        if math.prod(pool.pool_size) > 256:
            return False, "more than 256 positions in a pool window"
        if activation.alpha < 0:
            return False, "alpha < 0: the activation does not increase"
        return True, ""

    def forward(self, ctx: Context, x: Array) -> tuple[Array, Any]:
        w, b = ctx.params["w"], ctx.params["b"]
        pooled = ctx.kernels.conv2d_block(x, w, b, self.block, ctx.workspace)
        return pooled.y, pooled

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        wanted = ctx.wanted("w", "b")
        return ctx.kernels.conv2d_block_backward(
            dy, saved, ctx.params["w"], self.block, wanted, ctx.workspace
        )[0]

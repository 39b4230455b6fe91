"""The steps of a plan: each computes one node of the graph from others.

What a model asks of a stage in one step of training:

    begin()                           once
    forward(*xs) -> (y, saved)        for every piece of the batch
    backward(dy, saved) -> dxs        for every piece, last stage first
    finish(done)                      once, behind the last piece
    weights_changed()                 after every update
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..kernels.types import Array
from ..nn.layers import ELU, Context, Conv2D, Layer, MaxPooling2D, ReLU


class Stage:
    """One step of a plan. contexts: of its layers. sources, output: numbers of the graph's
    nodes.
    """

    #: Whether forward takes the events of a model's input themselves, instead of a device array.
    takes_events = False

    def __init__(self, name: str, contexts: Sequence[Context]) -> None:
        self.name, self.contexts = name, list(contexts)
        self.sources: list[int] = []
        self.output = 0
        #: Nodes whose value nobody needs behind this stage.
        self.last_use_of: list[int] = []

    def begin(self) -> None:
        """Start a step: forget what is left of one that an error cut short."""

    def forward(self, *xs: Any) -> tuple[Array, Any]:
        """Return (y, saved); y may be a buffer, valid until the next call."""
        raise NotImplementedError

    def backward(self, dy: Array, saved: Any) -> tuple[Array | None, ...]:
        """Return a gradient for each input and add those of the parameters."""
        raise NotImplementedError

    def finish(self, done: Callable[[int], None] | None = None) -> None:
        """Add gradients that were kept as sums; ``done(i)`` tells that those of block i are
        there.
        """

    def weights_changed(self) -> None:
        """Forget what was derived from the weights."""
        for context in self.contexts:
            context.workspace.expire()


class LayerStage(Stage):
    """A layer, or a FusedBlock, by itself."""

    def __init__(self, name: str, layer: Layer | FusedBlock, context: Context) -> None:
        super().__init__(name, [context])
        self.layer, self.context = layer, context

    def forward(self, *xs: Any) -> tuple[Array, Any]:
        return self.layer.forward(self.context, *xs)

    def backward(self, dy: Array, saved: Any) -> tuple[Array | None, ...]:
        dx = self.layer.backward(self.context, dy, saved)
        return dx if isinstance(dx, tuple) else (dx,)


class FusedBlock:
    """Conv2D -> ELU or ReLU -> MaxPooling2D as one kernel; takes the place of the three layers.

    An increasing activation and a bias that is constant in a window commute with the maximum, so
    the convolution's output is never stored and one output in pool^2 carries a gradient.
    """

    def __init__(self, conv: Any, activation: Any, pool: Any, name: str | None = None) -> None:
        self.layers = (conv, activation, pool)
        self.conv, self.alpha, self.pool = conv, activation.alpha, pool.pool_size
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
        y, argmax = ctx.kernels.conv2d_block(
            x,
            ctx.params["w"],
            ctx.params["b"],
            self.pool,
            self.alpha,
            self.conv.padding,
            work=ctx.workspace,
        )
        return y, (x, y, argmax)

    def backward(self, ctx: Context, dy: Array, saved: Any) -> Any:
        x, y, argmax = saved
        return ctx.kernels.conv2d_block_backward(
            dy,
            x,
            ctx.params["w"],
            y,
            argmax,
            self.pool,
            self.alpha,
            self.conv.padding,
            ctx.need_input_gradient,
            ctx.grads["w"],
            ctx.grads["b"],
            work=ctx.workspace,
        )[0]

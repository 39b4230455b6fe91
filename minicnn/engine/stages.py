"""The steps of a plan: each computes one node of the graph from others.

What a model asks of a stage in one step of training:

    forward(*xs) -> (y, saved)        for every piece of the batch
    backward(dy, saved) -> dxs        for every piece, last stage first
    weights_changed()                 after every update
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..kernels.types import Array
from ..nn.layers import Context, Layer
from .fused import FusedBlock
from .lit import LitMap, Rule


@dataclass
class _OnMaps:
    """What a rule left for its backward pass."""

    saved: Any


@dataclass
class _MadeDense:
    """What a layer left that got arrays in the place of the LitMaps among ``inputs``."""

    saved: Any
    inputs: tuple[Any, ...]


class Stage:
    """A layer, or a FusedBlock, in one place of a model. On LitMaps its ``rule`` computes; without
    one, or where the rule finds that too much is lit, the maps become arrays here.

    sources, output: numbers of the graph's nodes.
    """

    def __init__(
        self, name: str, layer: Layer | FusedBlock, context: Context, rule: Rule | None = None
    ) -> None:
        self.name, self.layer, self.context, self.rule = name, layer, context, rule
        self.sources: list[int] = []
        self.output = 0
        #: Nodes whose value nobody needs behind this stage.
        self.last_use_of: list[int] = []
        #: How many events came as LitMaps so far, how many of them the rule left to the layer, and
        #: the lit fractions of what it gave for the others, summed up.
        self.events, self.dense_events, self.lit_sum = 0, 0, 0.0

    def forward(self, *xs: Any) -> tuple[Any, Any]:
        """Return (y, saved) for arrays or LitMaps; y may be a buffer, valid until the next call."""
        lit = [isinstance(x, LitMap) for x in xs]
        if not any(lit):
            return self.layer.forward(self.context, *xs)
        if self.rule and all(lit):
            result = self.rule.forward(*xs)
            self._count(len(xs[0]), result[0] if result else None)
            if result is not None:
                return result[0], _OnMaps(result[1])
        arrays = [x.dense() if is_lit else x for x, is_lit in zip(xs, lit)]
        y, saved = self.layer.forward(self.context, *arrays)
        return y, _MadeDense(saved, xs)

    def _count(self, events: int, y: Any) -> None:
        self.events += events
        if y is None:
            self.dense_events += events
        elif isinstance(y, LitMap):
            self.lit_sum += events * y.lit_fraction

    def lit_so_far(self) -> str:
        """Return " 1.25%", the mean fraction of lit positions of what the rule gave so far, and how
        many events it did not take; "" where there is nothing to say.
        """
        on_maps = self.events - self.dense_events
        text = f" {self.lit_sum / on_maps:.2%}" if self.lit_sum else ""
        if self.dense_events:
            text += f", dense for {self.dense_events / self.events:.0%} of the events"
        return text

    def backward(self, dy: Any, saved: Any) -> tuple[Any, ...]:
        """Return a gradient for each input and add those of the parameters."""
        if isinstance(saved, _OnMaps):
            assert self.rule is not None
            return self.rule.backward(dy, saved.saved)
        if not isinstance(saved, _MadeDense):
            return self._layer_backward(dy, saved)
        dxs = self._layer_backward(dy, saved.saved)
        return tuple(
            x.gradient_of(dx) if dx is not None and isinstance(x, LitMap) else dx
            for x, dx in zip(saved.inputs, dxs)
        )

    def _layer_backward(self, dy: Array, saved: Any) -> tuple[Array | None, ...]:
        dx = self.layer.backward(self.context, dy, saved)
        return dx if isinstance(dx, tuple) else (dx,)

    def weights_changed(self) -> None:
        """Forget what was derived from the weights."""
        self.context.workspace.expire()

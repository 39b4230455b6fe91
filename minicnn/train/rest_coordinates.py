"""Coordinates of the weights in which an empty image stays where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..kernels.types import Array
from ..nn import layers
from ..nn.graph import InputLayer, Node
from ..nn.layers.activation import ACTIVATIONS
from ..nn.layers.base import Context, Layer

if TYPE_CHECKING:
    from ..engine.engine import Engine

#: Layers that give the same constant for an image that is constant.
_KEEP_CONSTANTS = (
    layers.AveragePooling2D,
    layers.Dropout,
    layers.Flatten,
    layers.MaxPooling2D,
    layers.SpatialDropout2D,
)
#: Stands for the inputs of a model, all of which rest at 0.
_IMAGES = InputLayer((1, 1, 1))
_POINTWISE = tuple(kind for name, kind in ACTIVATIONS.items() if name != "softmax")


@dataclass
class _Place:
    """A layer with weights w (repeats, inputs, outputs), bias b, and their gradients; its input is
    the output of ``before`` behind the activations ``between``.
    """

    w: Array
    b: Array
    dw: Array
    db: Array
    before: _Place | None
    between: tuple[Layer, ...]


class RestCoordinates:
    """Moves weights w and biases b of a model as (w, c), with c = b + r' (sum of w over the kernel,
    or over positions), where r is what the layer's input is far from every lit pixel: at rest.

        y = w * x + b = w * (x - r) + c          r = activation(c of the layer before)

    The networks are the same, and so are their outputs; c is the layer's own output at rest. But a
    step along the gradient leads to another network. In (w, b) every change of an early bias, and
    of weights whose input does not rest at 0, moves the outputs of all positions at rest, in the
    talk's network 25 x 256 inputs of its first Dense layer, and all in one direction: the loss is
    so steep there that Adam at a rate of 0.001 falls back to chance. In (w, c) no change of a
    weight moves any output at rest, and that of a c only those of its own layer. (Centred at the
    mean instead: Montavon, Mueller 2012.) With G for gradients of (w, b), and v, d for the next
    layer's w, b, the chain rule says

        dL/dw = G_w - r G_b'         dL/dc = G_b - activation'(c) (sum over the kernel of v) G_d

    Conv2D and Dense layers that follow each other from the images on, with poolings, dropout and
    activations between them, are moved like this, also as a trunk that planes share; what lies
    behind any other layer, a frozen one, or one that is used in unlike places, as (w, b). Positions
    at the border, which see zeros outside of the image, rest at other values: the coordinates are
    as exact there, but do not keep that rest.
    """

    def __init__(self, model: Engine) -> None:
        self.kernels = model.kernels
        self.places = list(_places(model))

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Within this the model's biases are c, and its gradients those of (w, c)."""
        for place in self.places:
            if place.before:
                rest, slope = self._activated(place.before.b, place.between)
                total = place.w.sum(0)
                place.b += rest @ total
                place.dw -= rest[:, None] * place.db  # db is G_b still: the next layer's turn later
                place.before.db -= slope * (total @ place.db)
        try:
            yield
        finally:  # also where a step fails: biases that are c would be another network
            for place in reversed(self.places):  # a c is needed by the layers behind it
                if place.before:
                    rest, _ = self._activated(place.before.b, place.between)
                    place.b -= rest @ place.w.sum(0)

    def _activated(self, c: Array, between: tuple[Layer, ...]) -> tuple[Array, Array]:
        """Return (activations of c one behind the other, their derivative at c)."""
        ctx, y, passed = Context(self.kernels), c.reshape(1, 1, 1, -1), []
        for layer in between:
            y, saved = layer.forward(ctx, y)
            passed.append((layer, saved))
        slope = self.kernels.zeros(y.shape, y.dtype) + 1
        for layer, saved in reversed(passed):
            slope = layer.backward(ctx, slope, saved)
        return y.reshape(-1), slope.reshape(-1)


def _places(model: Engine) -> Iterator[_Place]:
    """Yield the layers that can be moved as (w, c), each behind those before it."""
    found: dict[Layer, _Place] = {}
    uses: dict[Layer, list[Node]] = {}
    for node in model.graph.nodes:
        uses.setdefault(node.layer, []).append(node)
    for layer, nodes in uses.items():
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            sources = {_source(node.inputs[0]) for node in nodes}
            source, between, channels = sources.pop()
            known = source in found or isinstance(source, InputLayer)
            if known and not sources and layer.trainable and layer.learning_rate_factor:
                found[layer] = _place(model, layer, channels, found.get(source), between)
                yield found[layer]


def _source(node: Node) -> tuple[Layer, tuple[Layer, ...], int]:
    """Return (the layer that ``node`` is made from by activations and layers that keep constants,
    these activations in order, the channels of that layer). All images count as one input.
    """
    if isinstance(node.layer, layers.Concatenate):
        sources = {_source(each) for each in node.inputs}
        if len(sources) == 1:  # planes behind one trunk: its channels, over and over
            return sources.pop()
    if isinstance(node.layer, _KEEP_CONSTANTS):
        return _source(node.inputs[0])
    if isinstance(node.layer, _POINTWISE):
        source, between, channels = _source(node.inputs[0])
        return source, (*between, node.layer), channels
    return _IMAGES if isinstance(node.layer, InputLayer) else node.layer, (), node.shape[-1]


def _place(
    model: Engine, layer: Layer, channels: int, before: _Place | None, between: tuple[Layer, ...]
) -> _Place:
    params, grads, _ = model.buffers.of(model.layer_name(layer))
    shape = (-1, channels, params["b"].size)
    w, dw = (arrays["w"].reshape(shape) for arrays in (params, grads))
    return _Place(w, params["b"], dw, grads["b"], before, between)


__all__: list[Any] = ["RestCoordinates"]

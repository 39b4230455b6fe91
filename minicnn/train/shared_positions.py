"""A constraint on one layer: equal weights at all positions of the image, for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..kernels.types import Array
from ..nn.layers import Dense, Flatten

if TYPE_CHECKING:
    from ..engine.engine import Engine


class SharedPositions:
    """Keeps the weights of the Dense layer of this name equal at all positions of the image, for
    the first ``updates``.

    A Dense layer behind Flatten has weights of its own for every position, and would have to learn
    at each of them what a particle looks like. Here they begin as those of the first position, and
    their gradient is its mean over positions: what is learned at one place is known at all, and
    earlier layers receive the same gradient from every position. As long as this lasts the network
    computes a sum over positions followed by Dense (global pooling: Lin, Chen, Yan 2014); then
    every position goes on by itself.
    """

    def __init__(self, layer: str, updates: int) -> None:
        self.layer, self.updates = layer, int(updates)

    def prepare(self, model: Engine, steps: int) -> None:
        """Before update number ``steps`` of ``model``: at the very first one make the weights
        equal.
        """
        weights = at_positions(model, self.layer, model.parameters)
        if steps == 0 < self.updates:
            weights[...] = weights[:1]
            model.weights_changed()

    def project(self, model: Engine, steps: int) -> None:
        """Before update number ``steps`` of ``model``: replace the gradient by its mean over
        positions.
        """
        if steps < self.updates:
            gradients = at_positions(model, self.layer, model.gradients)
            gradients[...] = gradients.mean(0)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"layer": self.layer, "updates": self.updates}


def at_positions(model: Engine, layer: str, flat: Array) -> Array:
    """Return the weights of a Dense layer behind Flatten as (positions, channels, units), a view of
    ``flat`` (like model.parameters). Raises ValueError if the model has no such layer.
    """
    graph = model.graph
    for node in graph.nodes:
        if graph.names[node.layer] == layer and isinstance(node.layer, Dense):
            before = node.inputs[0]
            if isinstance(before.layer, Flatten):
                h, w, c = before.inputs[0].shape
                start = model.layer_slices[layer].start
                size = h * w * c * node.layer.units
                return flat[start : start + size].reshape(h * w, c, node.layer.units)
    raise ValueError(
        f"{layer!r} is not a Dense layer behind Flatten; the layers are "
        f"{', '.join(graph.names[each] for each in graph.layers)}"
    )

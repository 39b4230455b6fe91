"""The flat buffers of a model: one of parameters, one of gradients, one of state.

    parameters   | layer 1: w, b | layer 2: w, b | ...
    gradients    | the same                      | events | loss | ... | not_finite     the tail
    state        | layer 3: mean, variance | ...

One Allreduce of ``gradients`` sums the gradients of all ranks, and with them the number of events,
the summed loss and the figures of the loss, which makes averages exact for unequal batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.types import Array, Shape
from ..nn import initializers
from ..nn.graph import Graph
from ..nn.layers import Layer, Parameter


@dataclass(frozen=True)
class Entry:
    """A parameter in the flat buffer: from ``offset`` on, ``size`` numbers."""

    layer: Layer
    key: str
    offset: int
    size: int
    parameter: Parameter


@dataclass(frozen=True)
class Group:
    """A piece of the parameters that learns alike: at ``factor`` times the rate, with or without
    weight decay.
    """

    piece: slice
    factor: float
    decay: bool


class Buffers:
    """Parameters, gradients (with ``tail`` slots behind them) and state of a graph's layers."""

    def __init__(
        self, graph: Graph, kernels: Any, dtype: np.dtype, seed: int, tail: Sequence[str]
    ) -> None:
        self.tail = tuple(tail)
        self.entries: list[Entry] = []
        self.layer_slices: dict[str, slice] = {}
        places: dict[str, tuple[int, Shape]] = {}
        state_places: dict[str, tuple[int, Shape]] = {}
        values: list[np.ndarray] = []
        states: list[np.ndarray] = []
        offset = state_offset = 0
        for index, layer in enumerate(graph.layers):
            name, shapes = graph.names[layer], graph.input_shapes[layer]
            rng, first = np.random.default_rng([seed, index]), offset
            for key, parameter in layer.parameters(*shapes).items():
                start = initializers.get(parameter.initializer)(rng, parameter.shape)
                values.append(np.asarray(start, dtype).ravel())
                size = math.prod(parameter.shape)
                if values[-1].size != size:
                    raise ValueError(
                        f"{name}/{key} begins with {values[-1].size} numbers instead of {size}"
                    )
                self.entries.append(Entry(layer, key, offset, size, parameter))
                places[f"{name}/{key}"] = (offset, parameter.shape)
                offset += size
            for key, parameter in layer.state(*shapes).items():
                start = initializers.get(parameter.initializer)(rng, parameter.shape)
                states.append(np.asarray(start, dtype).ravel())
                state_places[f"{name}/{key}"] = (state_offset, parameter.shape)
                state_offset += math.prod(parameter.shape)
            self.layer_slices[name] = slice(first, offset)
        self.parameters = kernels.asarray(_joined(values, dtype))
        self.gradients = kernels.zeros((offset + len(self.tail),), dtype)
        self.state = kernels.asarray(_joined(states, dtype))
        self.weights = _views(self.parameters, places)
        self.weight_gradients = _views(self.gradients, places)
        self.states = _views(self.state, state_places)

    def of(self, name: str) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        """Return ({key: parameter}, {key: gradient}, {key: state}) of the layer of this name."""
        everything = (self.weights, self.weight_gradients, self.states)
        start = name + "/"
        params, grads, state = (
            {key[len(start) :]: array for key, array in arrays.items() if key.startswith(start)}
            for arrays in everything
        )
        return params, grads, state

    def groups(self) -> list[Group]:
        """Return the pieces of the parameters that learn, as few as possible, in order."""
        groups: list[Group] = []
        for entry in self.entries:
            factor = entry.layer.learning_rate_factor
            if not (entry.layer.trainable and entry.parameter.trainable) or factor == 0:
                continue
            piece = slice(entry.offset, entry.offset + entry.size)
            group = Group(piece, factor, entry.parameter.decay)
            last = groups[-1] if groups else None
            if (
                last
                and last.piece.stop == piece.start
                and (last.factor, last.decay) == (group.factor, group.decay)
            ):
                groups[-1] = Group(slice(last.piece.start, piece.stop), factor, group.decay)
            else:
                groups.append(group)
        return groups


def _joined(arrays: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)


def _views(flat: Array, places: dict[str, tuple[int, Shape]]) -> dict[str, Array]:
    return {
        name: flat[offset : offset + math.prod(shape)].reshape(shape)
        for name, (offset, shape) in places.items()
    }
